"""Snapshots of the volume: which there are, what they hold, and how one is made.

A snapshot is a copy of the replicated rows of one moment, in a database of its own; contents are not copied. What its
packs lie in is held: a held message is neither swept nor compacted. The order that keeps a crash from doing harm:

    begin    a row, MAKING; from now on nothing is swept that was live at this moment
    (copy)   the rows, in a worker thread, by SQLite itself
    hold     its messages, in steps; then the row is WHOLE, and sweep goes on
    (ship)   the copy goes to Discord; then the row is SENT
    delete   the row is DELETING; Discord's copy goes, then the holds, the file, the row

So whatever copy of a snapshot there is in Discord, what it refers to is held. A crash leaves a row by whose state the
next mount goes on.
"""

from __future__ import annotations

import enum
import errno
import os
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from disfs.errors import FilesystemError, UserError
from disfs.metadata.connections import Access, connected
from disfs.metadata.migrations import check_version, create_tables, upgrade
from disfs.metadata.opening import connect
from disfs.metadata.schema import SCHEMA_VERSION
from disfs.metadata.sqlite_errors import translated
from disfs.values import MessageId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from disfs.metadata.counters import Counter
    from disfs.metadata.database import Database
    from disfs.metadata.views import Views

DIRECTORY = "snapshots"
_STEP_ROWS = 256
_NOT_BOUNDED = 1 << 62
_OF_ITS_INODES = "inode IN (SELECT inode FROM copy.inodes)"
_COPIED = {
    "inodes": "nlink > 0",
    "dentries": "true",
    "xattrs": _OF_ITS_INODES,
    "extents": _OF_ITS_INODES,
    "packs": "pack IN (SELECT pack FROM copy.extents)",
    "messages": "message IN (SELECT message FROM copy.packs)",
    "dirty": _OF_ITS_INODES,
    "counters": "true",
}
"""Which rows of which tables, in order."""


class SnapshotState(enum.IntEnum):
    """Of a row. Numbers of a stored format: never renumbered."""

    MAKING = 0
    WHOLE = 1
    """It can be read here, and is still to be shipped."""
    SENT = 2
    DELETING = 3


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """What is known of a snapshot."""

    snapshot: int
    name: bytes
    created_ns: int
    state: SnapshotState
    sent_after: MessageId


class Snapshots:
    """The snapshots of a volume, each in a file below the directory of its metadata."""

    def __init__(self, database: Database, numbers: Counter, revisions: Counter, views: Views, path: Path) -> None:
        self._database = database
        self._numbers = numbers
        self._revisions = revisions
        self._views = views
        self._main = path
        self._protected: dict[int, int] = {}
        """Snapshots that are being made, and the revision from which on what dies may be in them."""

    @property
    def protected_revision(self) -> int:
        """What came to be garbage at a lower revision than this is in no snapshot that is being made."""
        return min(self._protected.values(), default=_NOT_BOUNDED)

    def all(self) -> Sequence[SnapshotRecord]:
        """Every one, those that are being made or deleted included, in the order in which they were made."""
        rows = self._database.rows(
            "SELECT snapshot, name, created_ns, state, sent_after FROM snapshots ORDER BY snapshot"
        )
        return [SnapshotRecord(row[0], row[1], row[2], SnapshotState(row[3]), MessageId(row[4])) for row in rows]

    def named(self, name: bytes) -> SnapshotRecord | None:
        """The one of that name."""
        return next((record for record in self.all() if record.name == name), None)

    def file(self, snapshot: int) -> Path:
        """Where its rows are."""
        return self._main.parent / DIRECTORY / f"{snapshot}.db"

    def show(self) -> None:
        """Show those that are whole. One whose file cannot be read is not shown: FilesystemError, after all others."""
        failure: FilesystemError | None = None
        for record in self.all():
            if record.state in (SnapshotState.WHOLE, SnapshotState.SENT):
                try:
                    _bring_up_to_date(self.file(record.snapshot))
                    self._views.open(record.snapshot, record.name, record.created_ns, self.file(record.snapshot))
                except FilesystemError as error:
                    failure = error
        if failure is not None:
            raise failure

    async def make(self, name: bytes, now_ns: int, sent_after: MessageId) -> SnapshotRecord:
        """Make one of this very moment, and show it. EEXIST. What breaks off is removed by `remove`."""
        with self._database.growing:
            if self.named(name) is not None:
                raise FilesystemError(errno.EEXIST)
            number = self._numbers.take()
            self._database.write(
                "INSERT INTO snapshots (snapshot, name, created_ns, state, sent_after) VALUES (?, ?, ?, ?, ?)",
                (number, name, now_ns, SnapshotState.MAKING, sent_after),
            )
        path = self.file(number)
        connection = await trio.to_thread.run_sync(_prepare, self._main, path)
        try:
            self._database.commit()
            # Same step: what dies from here on may be in it.
            self._protected[number] = self._revisions.next
            with_errors(connection, "BEGIN")
            with_errors(connection, "SELECT count(*) FROM main.counters")  # now the state is fixed
            messages = await trio.to_thread.run_sync(_copy, connection, path)
            await self._hold(number, messages)
            self._set_state(number, SnapshotState.WHOLE)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(connection.close)
        self._protected.pop(number, None)
        self._views.open(number, name, now_ns, path)
        return SnapshotRecord(number, name, now_ns, SnapshotState.WHOLE, sent_after)

    def unsent(self, snapshot: int) -> tuple[int, Sequence[str]]:
        """How many files it shows with older contents than they had, or in part; some of them by path."""
        inodes = self._views.unsent_inodes(snapshot)
        return len(inodes), [
            b" = ".join(self._views.paths(inode)).decode(errors="backslashreplace") for inode in inodes[:20]
        ]

    def set_sent(self, snapshot: int) -> None:
        """Discord has it too."""
        self._set_state(snapshot, SnapshotState.SENT)

    def begin_removal(self, snapshot: int) -> None:
        """It is shown no more, and will be gone."""
        self._views.hide(snapshot)
        self._set_state(snapshot, SnapshotState.DELETING)

    async def remove(self, snapshot: int) -> None:
        """Let its messages go, and forget it. Not before Discord's copy is deleted. What breaks off is repeated."""
        self._views.hide(snapshot)
        while rows := self._database.rows(
            "SELECT message FROM holds WHERE snapshot = ? LIMIT ?", (snapshot, _STEP_ROWS)
        ):
            with self._database.changing:
                self._database.write_all("UPDATE messages SET held = held - 1 WHERE message = ?", rows)
                self._database.write_all(
                    "DELETE FROM holds WHERE snapshot = ? AND message = ?", [(snapshot, row[0]) for row in rows]
                )
            await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(_remove_files, self.file(snapshot))
        with self._database.changing:
            self._database.write("DELETE FROM snapshots WHERE snapshot = ?", (snapshot,))
        self._protected.pop(snapshot, None)

    async def _hold(self, snapshot: int, messages: Sequence[int]) -> None:
        for position in range(0, len(messages), _STEP_ROWS):
            step = messages[position : position + _STEP_ROWS]
            with self._database.growing:
                self._database.write_all(
                    "INSERT INTO holds (snapshot, message) VALUES (?, ?)", [(snapshot, message) for message in step]
                )
                self._database.write_all(
                    "UPDATE messages SET held = held + 1 WHERE message = ?", [(message,) for message in step]
                )
            await trio.lowlevel.checkpoint()

    def _set_state(self, snapshot: int, state: SnapshotState) -> None:
        with self._database.changing:
            self._database.write("UPDATE snapshots SET state = ? WHERE snapshot = ?", (state, snapshot))


def with_errors(connection: sqlite3.Connection, sql: str) -> list[tuple[int, ...]]:
    """All rows of a statement. FilesystemError."""
    try:
        return connection.execute(sql).fetchall()
    except sqlite3.Error as error:
        raise translated(error) from error


def _prepare(main: Path, path: Path) -> sqlite3.Connection:
    """A new database at `path`, attached as `copy` to a connection that reads the volume's. For a worker."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _remove_files(path)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        made = connected(path, Access.WRITE)
        try:
            made.execute("BEGIN")
            create_tables(made)
            made.execute("COMMIT")
        finally:
            made.close()
        connection = connect(main, for_worker=True)
        connection.execute("ATTACH ? AS copy", (str(path),))
        connection.execute("PRAGMA copy.journal_mode = OFF")  # whatever breaks off here is removed
        connection.execute("PRAGMA copy.synchronous = OFF")
    except sqlite3.Error as error:
        raise translated(error) from error
    except OSError as error:
        raise FilesystemError(error.errno or errno.EIO, f"cannot make {path}: {error.strerror}") from error
    return connection


def _copy(connection: sqlite3.Connection, path: Path) -> list[int]:
    """Copy the rows, and make the file durable; returns the messages that they refer to. For a worker.

    By SQLite alone: rows that pass through Python would hold up the main thread.
    """
    for table, rows in _COPIED.items():
        # By name: a table that was altered once has its columns in another order than one that was made so.
        names = ", ".join(str(row[1]) for row in with_errors(connection, f"PRAGMA copy.table_info({table})"))
        sql = f"INSERT INTO copy.{table} ({names}) SELECT {names} FROM main.{table} WHERE {rows}"  # noqa: S608 - constants of ours
        with_errors(connection, sql)
    messages = [row[0] for row in with_errors(connection, "SELECT message FROM copy.messages ORDER BY message")]
    with_errors(connection, "COMMIT")
    with_errors(connection, "DETACH copy")
    for each, flags in ((path, os.O_RDWR), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        descriptor = os.open(each, flags | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return messages


def _bring_up_to_date(path: Path) -> None:
    """Give a snapshot of an older disfs the schema of this one. FilesystemError when it cannot be read."""
    try:
        connection = connected(path, Access.WRITE)
        try:
            if check_version(connection) < SCHEMA_VERSION:
                upgrade(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise translated(error) from error
    except (ValueError, UserError) as error:
        raise FilesystemError(errno.EIO, f"the snapshot at {path} cannot be used: {error}") from error


def _remove_files(path: Path) -> None:
    for end in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
