"""A look at the database of one snapshot: whether it can be used, and which of its files lie in given packs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from disfs.errors import MetadataDamagedError, UserError
from disfs.metadata.connections import Access, connected
from disfs.metadata.migrations import check_version
from disfs.metadata.names_above import path_of
from disfs.metadata.sqlite_errors import reading
from disfs.values import ROOT_INODE, ChannelId, MessageId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from disfs.values import PackId

_FILES = (
    "SELECT inode, sum(count) FROM temp.gone CROSS JOIN extents ON extents.pack = gone.pack"
    " GROUP BY inode ORDER BY inode"
)


class ConcernedFile(NamedTuple):
    """A file of a snapshot, and how many of its chunks lie in what was asked about."""

    path: bytes | None
    """From the snapshot's root; None when no name leads to it."""
    chunk_count: int


class SnapshotInspection:
    """A reading connection to the database of a snapshot. Close it."""

    def __init__(self, path: Path) -> None:
        """MetadataDamagedError for what cannot be used."""
        with reading():
            self._connection = connected(path, Access.UNCHANGING)
        try:
            with reading():
                self._check()
        except BaseException:
            self._connection.close()
            raise

    def _check(self) -> None:
        execute = self._connection.execute
        try:
            check_version(self._connection)
        except (ValueError, UserError) as error:
            raise MetadataDamagedError(str(error)) from error
        (found,) = execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise MetadataDamagedError(" ".join(str(found).split()))
        if execute("SELECT 1 FROM inodes WHERE inode = ?", (ROOT_INODE,)).fetchone() is None:
            raise MetadataDamagedError("it has no root directory")
        execute("CREATE TEMP TABLE gone (pack INTEGER NOT NULL PRIMARY KEY)")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def messages(self) -> dict[ChannelId, list[MessageId]]:
        """The messages that its contents lie in."""
        found: dict[ChannelId, list[MessageId]] = {}
        with reading():
            for channel, message in self._connection.execute("SELECT channel, message FROM messages ORDER BY message"):
                found.setdefault(ChannelId(channel), []).append(MessageId(message))
        return found

    def files_in(self, packs: Iterable[PackId], messages: Iterable[MessageId]) -> Iterator[ConcernedFile]:
        """The files that have chunks in these packs, or in any pack of these messages."""
        insert = "INSERT OR IGNORE INTO gone SELECT pack FROM packs WHERE"
        with reading():
            self._connection.execute("DELETE FROM gone")
            self._connection.executemany(f"{insert} pack_id = ?", [(pack,) for pack in packs])
            self._connection.executemany(f"{insert} message = ?", [(message,) for message in messages])
            for inode, count in self._connection.execute(_FILES).fetchall():
                yield ConcernedFile(path_of(self._connection, inode), count)


@contextlib.contextmanager
def snapshot_inspected(path: Path) -> Iterator[SnapshotInspection]:
    """`SnapshotInspection` for a block."""
    inspection = SnapshotInspection(path)
    try:
        yield inspection
    finally:
        inspection.close()
