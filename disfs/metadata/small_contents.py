"""Cached contents that are too small for a cache file of their own: rows, in the transaction of their dirty marks.

SQLite's file does not shrink, so whoever puts rows in bounds them. Facts of this machine alone. Rows are held back:
what is written several times, or deleted again, within one group commit costs one row or none.

SQLite has no checksums: a row on a damaged page may read as other bytes. So each has one of its own, and what does not
agree with it is an error, never data.
"""

from __future__ import annotations

import logging
import zlib
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError, MetadataDamagedError
from disfs.metadata.batches import insert_rows
from disfs.metadata.held_back import HeldBack
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from disfs.metadata.database import Database

log = logging.getLogger(__name__)

_PUT = (
    "INSERT INTO small_contents (inode, content, checksum) VALUES {values}"
    " ON CONFLICT (inode) DO UPDATE SET content = excluded.content, checksum = excluded.checksum"
)


class SmallContents:
    """The small contents; `Recording` puts those that are dirty."""

    def __init__(self, database: Database, paths: Callable[[InodeNumber], Sequence[bytes]]) -> None:
        self._database = database
        self._paths = paths
        self._told: set[InodeNumber] = set()
        self._held_back = HeldBack[InodeNumber, bytes](database)
        database.held_back.append(self._write_rows)

    def put(self, inode: InodeNumber, content: bytes, *, is_new: bool = False) -> None:
        """Keep it instead of what was kept before; `is_new`: nothing was. Inside a change that grows."""
        assert content
        self._held_back.put(inode, content, is_new=is_new)

    def keep(self, inode: InodeNumber, content: bytes) -> None:
        """See ChunkLedger.keep_small."""
        with self._database.growing:
            self.put(inode, content)

    def remove(self, inode: InodeNumber) -> None:
        """See ChunkLedger.remove_small. Works on a full disk."""
        with self._database.changing:
            self.discard(inode)

    def discard(self, inode: InodeNumber) -> None:
        """`remove`, inside a change."""
        self._held_back.remove(inode)

    def content(self, inode: InodeNumber) -> bytes:
        """See ChunkLedger.small_content."""
        if inode in self._held_back:
            return self._held_back.get(inode) or b""
        try:
            row = self._database.row("SELECT content, checksum FROM small_contents WHERE inode = ?", (inode,))
        except MetadataDamagedError:
            self._tell(inode)
            raise
        if row is None:
            return b""
        content: bytes = row[0]
        if zlib.crc32(content) != row[1]:
            self._database.note_damage(f"the small content of inode {inode} is not what was written")
            self._tell(inode)
            raise MetadataDamagedError(f"the small content of inode {inode} is damaged")
        return content

    def _tell(self, inode: InodeNumber) -> None:
        """Name the file in the log, once."""
        if inode in self._told:
            return
        self._told.add(inode)
        try:
            names = [path.decode(errors="backslashreplace") for path in self._paths(inode)]
        except FilesystemError:
            names = []  # its name is damaged too; what needs that says so
        log.error(
            "the content of %s that is kept with the metadata is damaged: what is not in Discord of it is lost; "
            "overwrite the file or delete it",
            " = ".join(names) or f"inode {inode} (no name)",
        )

    def lengths(self) -> Sequence[tuple[InodeNumber, int]]:
        """See ChunkLedger.small_lengths. SQLite knows a length without reading the content."""
        self._database.flush()
        rows = self._database.rows("SELECT inode, length(content) FROM small_contents ORDER BY inode")
        return [(InodeNumber(inode), length) for inode, length in rows]

    def _write_rows(self) -> None:
        gone, rows = self._held_back.take()
        if gone:
            self._database.write_all("DELETE FROM small_contents WHERE inode = ?", [(inode,) for inode in gone])
        if rows:
            insert_rows(
                self._database, _PUT, [(inode, content, zlib.crc32(content)) for inode, content in rows], width=3
            )
