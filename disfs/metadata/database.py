"""One writing connection and its open transaction, which every change joins until the next group commit.

Rules:
- Everything that changes rows runs inside `changing` or `growing`. Components check first and write
  afterwards, so that a refusal leaves no trace; what breaks off between its first and its last write
  is undone here, together with the transaction that it was part of.
- Undoing takes along what else is in the open transaction. If that was answered to somebody already, the
  database and the world disagree: the store then stops, logs CRITICAL, and raises EIO from then on.
  What was committed is intact; the next mount goes on from there. (Savepoints would keep the
  rest, but cost as much as the writes themselves, and SQLite drops the whole transaction on
  most such errors anyway: sqlite.org/lang_transaction.html, section 3.)
- SQLite also drops the transaction when COMMIT meets a full disk. So the room is looked at before: without
  it the commit is put off, and changes that need space are refused with ENOSPC until there is some.
- The cache never spills, so nothing reaches the disk before COMMIT.
- Rows of inodes and names are held back: a change alters them in memory (`alter`, `erase`), and they are written by
  set before COMMIT, or before a query that has to see them (`flush`). Most rows of a group commit are changed several
  times, and writing a row by set costs a third; the parents of new files, above all, are written once and not
  with every name. What is altered in memory is undone with the change as its rows are. A component that
  caches rows answers from memory alone, so it forgets them when the store stops (`after_failure`).
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from disfs.errors import FilesystemError
from disfs.metadata.sqlite_errors import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

log = logging.getLogger(__name__)

Row = tuple[Any, ...]
K = TypeVar("K")
V = TypeVar("V")

_PAGES_PER_CHANGE = 4
"""A changed row touches its table and up to three indexes."""
_HELD_BACK = 256
"""Entries that are altered in memory before they are written in any case: about a millisecond of writing."""
_ABSENT: Any = object()


class _Change:
    """What `with database.changing` enters: one operation of a caller, whole or not at all."""

    __slots__ = ("_database", "_grows")

    def __init__(self, database: Database, *, grows: bool) -> None:
        self._database = database
        self._grows = grows

    def __enter__(self) -> None:
        self._database.begin_change(self._grows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.end_change(error)


class Database:
    """The connection, the open transaction, and what happens when either breaks.

    `free_bytes` says how much room the disk of the database has; while it is below `reserve_bytes`,
    `growing` raises ENOSPC and `changing` (for what frees space, or changes rows in place) goes on.
    """

    def __init__(self, connection: sqlite3.Connection, free_bytes: Callable[[], int], reserve_bytes: int) -> None:
        self.changing = _Change(self, grows=False)
        self.growing = _Change(self, grows=True)
        self.opened = trio.Event()
        """Set while a transaction is open; a new Event after each commit."""
        self.before_commit: list[Callable[[], None]] = []
        """Called before each COMMIT; may write."""
        self.after_rollback: list[Callable[[], None]] = []
        """Called after the transaction was undone; must forget what it took from it."""
        self.after_refusal: list[Callable[[], None]] = []
        """Called after a change broke off before its first write; must forget what that change was about to write."""
        self.after_failure: list[Callable[[], None]] = []
        """Called when the store stops; must forget whatever would answer without a query."""
        self.held_back: list[Callable[[], None]] = []
        """Called by `flush`, in order; each writes the rows that its component has altered in memory."""
        self._altered: list[tuple[dict[Any, Any], Any, Any]] = []  # by the change under way: where, key, old value
        self._held_back_count = 0
        self.commit_count = 0
        self.committed_changes = 0
        """Changed rows in all commits so far: how far the write-ahead log may have grown."""
        self._connection = connection
        self._free_bytes = free_bytes
        self._reserve_bytes = reserve_bytes
        (self._page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        self._open = False
        self._answered = False  # whether the open transaction holds something that a caller was told
        self._low_space = False
        self._failure: str | None = None
        self._changes_at_begin = connection.total_changes
        self._changes_before = connection.total_changes

    @property
    def has_open_transaction(self) -> bool:
        """Whether there is anything that the next commit would write."""
        return self._open

    @property
    def low_space(self) -> bool:
        """Whether the disk of the database was below its reserve when last looked at."""
        return self._low_space

    @property
    def failure(self) -> str | None:
        """Why the store has stopped; None while it works."""
        return self._failure

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row of a query."""
        if self._failure is not None:
            self._refuse()
        try:
            row: Row | None = self._connection.execute(sql, parameters).fetchone()
        except sqlite3.Error as error:
            raise translated(error) from error
        return row

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query."""
        if self._failure is not None:
            self._refuse()
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise translated(error) from error

    def write(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement that changes rows, inside `changing` or `growing`; returns how many rows it changed."""
        try:
            return self._connection.execute(sql, parameters).rowcount
        except sqlite3.Error as error:
            raise translated(error) from error

    def write_all(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each of `parameters`: a third of the time of as many `write`."""
        try:
            self._connection.executemany(sql, parameters)
        except sqlite3.Error as error:
            raise translated(error) from error

    def alter(self, entries: dict[K, V], key: K, value: V) -> None:
        """Give a key of `entries` a value, inside `changing` or `growing`; undone if the change breaks off."""
        self._altered.append((entries, key, entries.get(key, _ABSENT)))
        entries[key] = value

    def erase(self, entries: dict[K, V], key: K) -> None:
        """As `alter`: the key is there no more, if it was."""
        self._altered.append((entries, key, entries.pop(key, _ABSENT)))

    def flush(self) -> None:
        """Write the rows that are held back, so that queries see them. Not between the alterations of a change."""
        if not self._held_back_count:
            return
        assert not self._altered, "a change that has begun would be written by halves"
        has_written = self._connection.total_changes != self._changes_before
        try:
            for write in self.held_back:
                write()
        except BaseException as error:
            self.fail(f"rows that were answered cannot be written: {error!r}")
            raise
        self._held_back_count = 0
        if not has_written:
            # If the change under way is refused after this, it has written nothing of its own.
            self._changes_before = self._connection.total_changes

    def begin_change(self, grows: bool) -> None:
        """Enter one operation; ENOSPC when it needs space and there is too little, EIO when the store has stopped."""
        if self._failure is not None:
            self._refuse()
        if not self._open:
            self._open_transaction()
        elif self._low_space:
            self.measure_space()
        if grows and self._low_space:
            raise FilesystemError(errno.ENOSPC, "the disk that holds the volume's metadata is nearly full")
        self._changes_before = self._connection.total_changes

    def end_change(self, error: BaseException | None) -> None:
        """Leave an operation: it joins the open transaction, or leaves no trace."""
        if error is None:
            self._answered = True
            if self._altered:
                self._held_back_count += len(self._altered)
                self._altered.clear()
                if self._held_back_count >= _HELD_BACK:
                    self.flush()
            return
        while self._altered:
            entries, key, old = self._altered.pop()
            if old is _ABSENT:
                entries.pop(key, None)
            else:
                entries[key] = old
        connection = self._connection
        if connection.in_transaction and connection.total_changes == self._changes_before:
            for forget in self.after_refusal:
                forget()
            return
        if self._answered:
            self.fail(f"a change broke off halfway: {error!r}")
        else:
            self._roll_back()

    def commit(self, *, last_chance: bool = False) -> None:
        """End the open transaction. What was in it survives kill -9 from then on.

        ENOSPC when the disk has no room for it: the transaction stays open and can be committed later. With
        `last_chance` there is no later, and SQLite tries whatever the room.
        """
        if self._failure is not None:
            self._refuse()
        if not self._open:
            return
        connection = self._connection
        self.flush()
        try:
            for prepare in self.before_commit:
                prepare()
            if not last_chance:
                self._check_room()
            self._execute("COMMIT")
        except FilesystemError as error:
            if not connection.in_transaction:
                self.fail(f"SQLite gave up a transaction: {error}")
            raise
        self._closed()
        self.commit_count += 1
        self.committed_changes += connection.total_changes - self._changes_at_begin

    def measure_space(self) -> None:
        """Look at the disk's free space; a change of its state is logged."""
        low = self._free_bytes() < self._reserve_bytes
        if low and not self._low_space:
            log.warning(
                "The disk that holds the volume's metadata has less than %d bytes free: nothing new is accepted",
                self._reserve_bytes,
            )
        elif self._low_space and not low:
            log.info("The disk that holds the volume's metadata has room again")
        self._low_space = low

    def fail(self, reason: str) -> None:
        """Stop for good: from now on everything raises EIO. For when database and callers' knowledge differ."""
        if self._failure is not None:
            return
        self._failure = reason
        log.critical("The metadata store has stopped; changes of the last moments may be lost: %s", reason)
        self._undo()
        self._held_back_count = 0
        for forget in self.after_failure:
            forget()

    def close(self) -> None:
        """Close the connection. Whatever is not committed is gone."""
        self._connection.close()

    def _refuse(self) -> None:
        raise FilesystemError(errno.EIO, f"the metadata store has stopped: {self._failure}")

    def _execute(self, sql: str) -> None:
        try:
            self._connection.execute(sql)
        except sqlite3.Error as error:
            raise translated(error) from error

    def _open_transaction(self) -> None:
        self.measure_space()
        self._execute("BEGIN IMMEDIATE")
        self._open = True
        self._answered = False
        self._changes_at_begin = self._connection.total_changes
        self.opened.set()

    def _check_room(self) -> None:
        """Raise ENOSPC when the write-ahead log may not have room for the open transaction."""
        free = self._free_bytes()
        needed = (self._connection.total_changes - self._changes_at_begin) * _PAGES_PER_CHANGE * self._page_bytes
        if needed <= free:
            return
        # A transaction never writes more than every page once.
        (page_count,) = self._connection.execute("PRAGMA page_count").fetchone()
        if page_count * (self._page_bytes + 24) > free:
            self.measure_space()
            raise FilesystemError(errno.ENOSPC, "no room to commit the volume's metadata; it is kept in memory")

    def _roll_back(self) -> None:
        self._undo()
        if self._failure is None:
            for forget in self.after_rollback:
                forget()

    def _undo(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                log.critical("Cannot undo a broken transaction: %s", error)
                self._failure = self._failure or "cannot undo a broken transaction"
        self._closed()

    def _closed(self) -> None:
        self._open = False
        self._answered = False
        self.opened = trio.Event()
