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
- A damaged page makes the operations fail that need it, and no others. SQLite commits no transaction in which a
  statement has met one (SQLITE_CorruptRdOnly of its source; savepoints do not help), and drops it whole on a bad
  sector. So the statements of the open transaction are kept: it is rolled back and written anew
  (`_renew`), without those of the change that met the damage.
- Once damage is known, and after a crash until it was looked for (`guards_changes`), nothing is held back (see below):
  a change hears at once that it cannot be written.
- A flush of held-back rows that is the first to meet damage stops the store. Rejected: keeping the rows that can be
  written. They are those of several answered changes, so what is kept would be no state that ever was: of a
  rename the old name may go while the new one cannot come, and contents whose dirty mark was dropped would read
  as a hole. Stopping takes what kill -9 takes, the last group commit; the next mount follows a crash, and is guarded.
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

from disfs.errors import FilesystemError, MetadataDamagedError
from disfs.metadata.changes import Change
from disfs.metadata.sqlite_errors import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from disfs.metadata.disk_room import DiskRoom

log = logging.getLogger(__name__)

Row = tuple[Any, ...]
K = TypeVar("K")
V = TypeVar("V")

_PAGES_PER_CHANGE = 4
"""A changed row touches its table and up to three indexes."""
_HELD_BACK = 1024
"""Entries that are altered in memory before they are written in any case: about a millisecond of writing."""
_ABSENT: Any = object()


class Database:
    """The connection, the open transaction, and what happens when either breaks.

    While `room` is low `growing` raises ENOSPC; `changing` (for what frees space, or changes rows in place) goes on.
    """

    def __init__(self, connection: sqlite3.Connection, room: DiskRoom) -> None:
        self.room = room
        self.changing = Change(self, grows=False)
        self.growing = Change(self, grows=True)
        self.opened = trio.Event()
        """Set while a transaction is open; a new Event after each commit."""
        self.guards_changes = False
        """Whether each change is written before it ends, for fear of damage. That takes more writes."""
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
        self._page_bytes: int = connection.execute("PRAGMA page_size").fetchone()[0]
        self._open = False
        self._answered = False  # whether the open transaction holds something that a caller was told
        self._failure: str | None = None
        self._damage: str | None = None
        self._guarded = False  # the change under way
        self._is_changing = False
        self._is_lost = False  # the open transaction: see `_renew`
        self._statements: list[tuple[str, Sequence[Sequence[Any]]]] = []
        """What the open transaction has written."""
        self._own_statements: int | None = None
        """From which of them on they are those of the change under way; None where others came between."""
        self._changes_at_begin = connection.total_changes
        self._changes_before = connection.total_changes

    @property
    def has_open_transaction(self) -> bool:
        """Whether there is anything that the next commit would write."""
        return self._open

    @property
    def failure(self) -> str | None:
        """Why the store has stopped; None while it works."""
        return self._failure

    @property
    def damage(self) -> str | None:
        """What of the database could not be made out; None while nothing was found."""
        return self._damage

    def note_damage(self, reason: str) -> None:
        """Something of the database cannot be made out; what needs it raises EIO, all else goes on."""
        self.guards_changes = True
        if self._damage is None:
            self._damage = reason
            log.error("The volume's metadata are damaged, and what needs the damaged part fails: %s", reason)

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row of a query."""
        if self._failure is not None:
            self._refuse()
        try:
            row: Row | None = self._connection.execute(sql, parameters).fetchone()
        except sqlite3.Error as error:
            raise self._unread(error) from error
        return row

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query."""
        if self._failure is not None:
            self._refuse()
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._unread(error) from error

    def write(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement that changes rows, inside `changing` or `growing`; returns how many rows it changed."""
        try:
            count = self._connection.execute(sql, parameters).rowcount
        except sqlite3.Error as error:
            raise self._translated(error) from error
        self._statements.append((sql, (parameters,)))
        return count

    def write_all(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each of `parameters`: a third of the time of as many `write`."""
        rows = parameters if isinstance(parameters, list) else list(parameters)
        try:
            self._connection.executemany(sql, rows)
        except sqlite3.Error as error:
            raise self._translated(error) from error
        self._statements.append((sql, rows))

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
            self._write_held_back()
        except BaseException as error:
            self.fail(f"rows that were answered cannot be written: {error!r}")
            raise
        if has_written:
            self._own_statements = None
        else:
            # If the change under way is refused after this, it has written nothing of its own.
            self._changes_before = self._connection.total_changes
            self._own_statements = len(self._statements)

    def _write_held_back(self) -> None:
        for write in self.held_back:
            write()
        self._held_back_count = 0

    def begin_change(self, grows: bool) -> None:
        """Enter one operation; ENOSPC when it needs space and there is too little, EIO when the store has stopped."""
        if self._failure is not None:
            self._refuse()
        if not self._open:
            self._open_transaction()
        elif self.room.is_low:
            self.room.measure()
        if grows and self.room.is_low:
            raise FilesystemError(errno.ENOSPC, "the disk that holds the volume's metadata is nearly full")
        self._guarded = self.guards_changes
        if self._guarded:
            self.flush()
        self._changes_before = self._connection.total_changes
        self._own_statements = len(self._statements)
        self._is_changing = True

    def end_change(self, error: BaseException | None) -> None:
        """Leave an operation: it joins the open transaction, or leaves no trace."""
        self._is_changing = False
        trouble = error
        if error is None and self._guarded:
            trouble = self._write_at_once()
        if trouble is None:
            self._answered = True
            if self._is_lost:
                self._renew()
                if self._failure is not None:
                    self._refuse()
            if self._altered:
                self._held_back_count += len(self._altered)
                self._altered.clear()
                if self._held_back_count >= _HELD_BACK:
                    self.flush()
            return
        self._take_back()
        connection = self._connection
        if self._is_lost:
            self._undo_alone(trouble)
        elif connection.in_transaction and connection.total_changes == self._changes_before:
            for forget in self.after_refusal:
                forget()
        elif self._guarded:
            self._undo_alone(trouble)
        elif self._answered:
            self.fail(f"a change broke off halfway: {error!r}")
        else:
            self._roll_back()
        if error is None:
            raise trouble

    def _take_back(self) -> None:
        """Undo what the change under way has altered in memory."""
        while self._altered:
            entries, key, old = self._altered.pop()
            if old is _ABSENT:
                entries.pop(key, None)
            else:
                entries[key] = old

    def _write_at_once(self) -> FilesystemError | None:
        """What keeps a guarded change from being written: now its caller can still be told."""
        try:
            self._write_held_back()
        except FilesystemError as error:
            return error
        self._altered.clear()
        return None

    def _undo_alone(self, error: BaseException) -> None:
        """Undo the change that ends, and nothing else of the open transaction."""
        if self._own_statements is None:
            self.fail(f"a change broke off halfway: {error!r}")
            return
        del self._statements[self._own_statements :]
        self._renew()
        if self._failure is None:
            for forget in self.after_rollback:
                forget()

    def _renew(self) -> None:
        """Make the open transaction anew: SQLite would not commit it any more, or has dropped it."""
        connection = self._connection
        self._is_lost = False
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            self._changes_at_begin = connection.total_changes
            for sql, rows in self._statements:
                connection.executemany(sql, rows)
        except sqlite3.Error as error:
            self.fail(f"a transaction that met damage cannot be made anew: {error}")

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
                self.room.check(self._likely_bytes(), self._most_bytes)
            self._execute("COMMIT")
        except FilesystemError as error:
            if self._is_lost or not connection.in_transaction:
                self.fail(f"SQLite gave up a transaction: {error}")
            raise
        self._closed()
        self.commit_count += 1
        self.committed_changes += connection.total_changes - self._changes_at_begin

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

    def _translated(self, error: sqlite3.Error) -> FilesystemError:
        known = translated(error)
        if isinstance(known, MetadataDamagedError):
            self.note_damage(str(error))
            self._is_lost = self._open
        return known

    def _unread(self, error: sqlite3.Error) -> FilesystemError:
        """What a query raises; what was changed before it stays."""
        known = self._translated(error)
        if self._open and not self._connection.in_transaction:
            self._is_lost = True
        if self._is_lost and not self._is_changing:
            self._renew()
        return known

    def _refuse(self) -> None:
        raise FilesystemError(errno.EIO, f"the metadata store has stopped: {self._failure}")

    def _execute(self, sql: str) -> None:
        try:
            self._connection.execute(sql)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _open_transaction(self) -> None:
        self.room.measure()
        self._execute("BEGIN IMMEDIATE")
        self._open = True
        self._answered = False
        self._changes_at_begin = self._connection.total_changes
        self.opened.set()

    def _likely_bytes(self) -> int:
        """What the open transaction adds to the write-ahead log."""
        changes: int = self._connection.total_changes - self._changes_at_begin
        return changes * _PAGES_PER_CHANGE * self._page_bytes

    def _most_bytes(self) -> int:
        """A transaction never writes more than every page once."""
        page_count: int = self._connection.execute("PRAGMA page_count").fetchone()[0]
        return page_count * (self._page_bytes + 24)

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
        self._is_lost = False
        self._statements.clear()
        self.opened = trio.Event()
