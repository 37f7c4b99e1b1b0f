"""Build a volume's database anew from the replicated rows.

Blocks are applied in the order in which they were shipped; then `finish` works out what did not travel, and looks
whether all fits together. What does not is mended where the mending is plain (a name without its inode goes, a chunk
whose pack is unknown is lost) and told. Until `finish` has returned the file is of no use to anybody.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from disfs.errors import CorruptDataError
from disfs.metadata.completing import LONGER_RUN_STAYS, NOTE_LOST_RUNS, complete
from disfs.metadata.connections import Access, connected
from disfs.metadata.migrations import create_tables
from disfs.metadata.replicated import LAYOUTS, Table
from disfs.metadata.sqlite_errors import translated
from disfs.values import ChannelId, MessageId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from disfs.metadata.completing import Origin, Rebuilt
    from disfs.metadata.replicated import Block

P = ParamSpec("P")
T = TypeVar("T")

_DELETE = {
    Table.GONE_INODES: (
        "DELETE FROM inodes WHERE inode = ?",
        "DELETE FROM xattrs WHERE inode = ?",
        "DELETE FROM unsent WHERE inode = ?",
        "DELETE FROM trash WHERE inode = ?",
    ),
    Table.GONE_NAMES: ("DELETE FROM dentries WHERE parent = ? AND name = ?",),
    Table.GONE_XATTRS: ("DELETE FROM xattrs WHERE inode = ? AND name = ?",),
    Table.GONE_PACKS: ("DELETE FROM packs WHERE pack = ?",),
    Table.CLEARED_EXTENTS: ("DELETE FROM extents WHERE inode = ? AND first_chunk >= ? AND first_chunk < ?",),
}
_INSERT = {
    Table.INODES: (
        (
            "INSERT OR REPLACE INTO inodes (inode, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns,"
            " ctime_ns, target) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, nullif(?, x''))"
        ),
    ),
    Table.NAMES: ("INSERT OR REPLACE INTO dentries (parent, inode, cookie, name) VALUES (?, ?, ?, ?)",),
    Table.TRASH: (
        (
            "INSERT OR REPLACE INTO trash (inode, trashed_ns, reason, mode, uid, gid, rdev, size_bytes, atime_ns,"
            " mtime_ns, path, target) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, nullif(?, x''))"
        ),
    ),
    Table.XATTRS: ("INSERT OR REPLACE INTO xattrs (inode, name, value) VALUES (?, ?, ?)",),
    Table.PACKS: (
        (
            "INSERT OR REPLACE INTO packs (pack, message, attachment, size_bytes, pack_id, slots, live_bytes, state)"
            " VALUES (?1, ?2, ?4, ?5, ?6, ?7, 0, 0)"
        ),
    ),
    Table.EXTENTS: (
        (
            "INSERT OR REPLACE INTO extents (inode, first_chunk, count, pack, first_slot, stored_bytes)"
            " VALUES (?, ?, ?, ?, ?, ?)"
        ),
    ),
    Table.DIRTY: ("INSERT OR REPLACE INTO unsent (inode, first_chunk, count) VALUES (?, ?, ?)",),
}
# An inode number is that of an inode, or of something in the trash; what is said of its dirty chunks comes anew.
_BEFORE = {
    Table.INODES: ("DELETE FROM unsent WHERE inode = ?", "DELETE FROM trash WHERE inode = ?"),
    Table.TRASH: ("DELETE FROM unsent WHERE inode = ?", "DELETE FROM inodes WHERE inode = ?"),
}
_INSERT_MESSAGE = "INSERT OR REPLACE INTO messages (message, channel, live_bytes) VALUES (?, ?, 0)"


def _translating(method: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(method)
    def translating(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return method(*arguments, **named)
        except sqlite3.Error as error:
            raise translated(error) from error

    return translating


class Restoration:
    """A database that is being built at a path where there is none. Close it whatever happens. Blocks: for a worker.

    Each method may raise FilesystemError: ENOSPC when the disk is full.
    """

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._path = path
        self._connection = connected(path, Access.WRITE, any_thread=True)
        self._connection.execute("PRAGMA journal_mode = OFF")  # whatever breaks off here is begun anew
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("PRAGMA cache_size = -65536")
        self._connection.execute("BEGIN")
        create_tables(self._connection)
        self._connection.execute(
            "CREATE TEMP TABLE unsent (inode INTEGER NOT NULL, first_chunk INTEGER NOT NULL, count INTEGER NOT NULL,"
            " PRIMARY KEY (inode, first_chunk)) WITHOUT ROWID"
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @_translating
    def clear(self) -> None:
        """Begin anew."""
        for table in ("inodes", "trash", "dentries", "xattrs", "packs", "messages", "extents", "unsent"):
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constants of this function

    @_translating
    def apply(self, block: Block) -> None:
        """Take in some rows. CorruptDataError for rows that cannot be."""
        rows = block.rows()
        assert all(len(row) == len(LAYOUTS[block.table].columns) for row in rows[:1])
        try:
            for statement in _BEFORE.get(block.table, ()):
                self._connection.executemany(statement, [row[:1] for row in rows])
            if block.table is Table.PACKS:
                self._connection.executemany(_INSERT_MESSAGE, [row[1:3] for row in rows])
            for statement in _DELETE.get(block.table) or _INSERT[block.table]:
                self._connection.executemany(statement, rows)
        except sqlite3.IntegrityError as error:
            raise CorruptDataError(f"rows of {block.table.name} contradict each other: {error}") from error

    @_translating
    def keep(self) -> None:
        """Let others read the rows as they were applied, for a comparison. Nothing may follow but `close`."""
        self._connection.execute("COMMIT")

    @_translating
    def messages(self) -> dict[ChannelId, list[MessageId]]:
        """Which messages the rows that were applied refer to."""
        found: dict[ChannelId, list[MessageId]] = {}
        for channel, message in self._connection.execute(
            "SELECT channel, message FROM messages WHERE message IN"
            " (SELECT message FROM packs WHERE pack IN (SELECT pack FROM extents))"
        ):
            found.setdefault(ChannelId(channel), []).append(MessageId(message))
        return found

    @_translating
    def lose(self, messages: Sequence[MessageId]) -> int:
        """These are not in Discord any more: what chunks they had is lost. Returns how many files are concerned.

        Their packs are forgotten, so that nothing of this state will ever delete them, should they be there after all.
        """
        execute = self._connection.execute
        execute("CREATE TEMP TABLE absent (pack INTEGER NOT NULL PRIMARY KEY)")
        for message in messages:
            execute("INSERT INTO absent (pack) SELECT pack FROM packs WHERE message = ?", (message,))
        (files,) = execute(
            "SELECT count(DISTINCT inode) FROM extents WHERE pack IN (SELECT pack FROM absent)"
        ).fetchone()
        execute(f"{NOTE_LOST_RUNS} WHERE pack IN (SELECT pack FROM absent) {LONGER_RUN_STAYS}")  # noqa: S608 - constants of this module
        execute("DELETE FROM extents WHERE pack IN (SELECT pack FROM absent)")
        execute("DELETE FROM packs WHERE pack IN (SELECT pack FROM absent)")
        execute("DROP TABLE absent")
        return int(files)

    @_translating
    def finish(self, origin: Origin, *, keeps_unsent: bool = False) -> Rebuilt:
        """Work out the rest and make the file durable. CorruptDataError when it has no root directory.

        `keeps_unsent`: all that is dirty stays so, whether there is an older content of it or not.
        """
        rebuilt = complete(self._connection, origin, keeps_unsent=keeps_unsent)
        self._connection.execute("COMMIT")
        (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        assert found == "ok", "SQLite has just written it"
        self._sync()
        return rebuilt

    def _sync(self) -> None:
        self.close()
        for path, flags in ((self._path, os.O_RDWR), (self._path.parent, os.O_RDONLY | os.O_DIRECTORY)):
            with contextlib.ExitStack() as stack:
                descriptor = os.open(path, flags | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                os.fsync(descriptor)
