"""Cached contents that are too small for a cache file of their own: rows, in the transaction of their dirty marks.

SQLite's file does not shrink, so whoever puts rows in bounds them. Facts of this machine alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.metadata.database import Database


class SmallContents:
    """The small contents; `Recording` puts those that are dirty."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, inode: InodeNumber, content: bytes) -> None:
        """Keep it instead of what was kept before. Inside a change that grows."""
        assert content
        self._database.write(
            "INSERT INTO small_contents (inode, content) VALUES (?, ?)"
            " ON CONFLICT (inode) DO UPDATE SET content = excluded.content",
            (inode, content),
        )

    def keep(self, inode: InodeNumber, content: bytes) -> None:
        """See ChunkLedger.keep_small."""
        with self._database.growing:
            self.put(inode, content)

    def remove(self, inode: InodeNumber) -> None:
        """See ChunkLedger.remove_small. Works on a full disk."""
        with self._database.changing:
            self._database.write("DELETE FROM small_contents WHERE inode = ?", (inode,))

    def content(self, inode: InodeNumber) -> bytes:
        """See ChunkLedger.small_content."""
        row = self._database.row("SELECT content FROM small_contents WHERE inode = ?", (inode,))
        return b"" if row is None else row[0]

    def lengths(self) -> Sequence[tuple[InodeNumber, int]]:
        """See ChunkLedger.small_lengths. SQLite knows a length without reading the content."""
        rows = self._database.rows("SELECT inode, length(content) FROM small_contents ORDER BY inode")
        return [(InodeNumber(inode), length) for inode, length in rows]
