"""The replicated rows as they were at one commit, read beside the writer in a worker thread.

A read transaction on a connection of its own: SQLite's log keeps what it sees, whatever is written meanwhile. It begins
on the main thread, in the very step after a commit; everything else may be done in any thread, one at a time. Plain
sqlite3 and not aiosqlite: what reads here also compresses and seals, row blocks of it, and belongs into one worker
anyway; a queue between two threads for each block would be all that aiosqlite adds.

Rows come in blocks of bounded size. What was noted is sorted out by SQLite, in temporary tables that stay in memory:
keys alone, and the outbox is bounded.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from disfs.errors import MetadataDamagedError
from disfs.metadata.outbox import Noted
from disfs.metadata.replicated import LAYOUTS, Block, Table
from disfs.metadata.sqlite_errors import translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK_ROWS = 256
"""A block's rows are fetched in less than a millisecond."""
YIELD_SECONDS = 0.0005
"""How long the reader sleeps after each fetch. SQLite lets go of Python's lock at each row and takes it again before
another thread that waits for it has woken up, so a reader that goes on and on would starve the main thread."""
BLOCK_BYTES = 256 * 1024
"""About how much a block of rows with long strings takes."""

_TEMPORARY = (
    "CREATE TEMP TABLE noted_inodes (inode INTEGER NOT NULL PRIMARY KEY)",
    (
        "CREATE TEMP TABLE noted_names (parent INTEGER NOT NULL, name BLOB NOT NULL, PRIMARY KEY (parent, name))"
        " WITHOUT ROWID"
    ),
    (
        "CREATE TEMP TABLE noted_xattrs (inode INTEGER NOT NULL, name BLOB NOT NULL, PRIMARY KEY (inode, name))"
        " WITHOUT ROWID"
    ),
    "CREATE TEMP TABLE noted_packs (pack INTEGER NOT NULL PRIMARY KEY)",
    (
        'CREATE TEMP TABLE noted_extents (inode INTEGER NOT NULL, first INTEGER NOT NULL, "end" INTEGER NOT NULL,'
        ' PRIMARY KEY (inode, first, "end")) WITHOUT ROWID'
    ),
)
_NOTED_TABLES = ("noted_inodes", "noted_names", "noted_xattrs", "noted_packs", "noted_extents")

_ATTRIBUTES = "mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, ctime_ns, coalesce(target, x'')"
_SELECT_INODES = f"SELECT inode, {_ATTRIBUTES} FROM inodes"  # noqa: S608 - constants of this module
_SELECT_TRASH = (
    "SELECT inode, trashed_ns, reason, mode, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, path,"
    " coalesce(target, x'') FROM trash"
)
_SELECT_NAMES = "SELECT parent, inode, cookie, name FROM dentries"
_SELECT_XATTRS = "SELECT inode, name, value FROM xattrs"
_SELECT_PACKS = (
    "SELECT pack, packs.message, channel, attachment, size_bytes, pack_id, slots"
    " FROM packs CROSS JOIN messages ON messages.message = packs.message"
)
_SELECT_EXTENTS = "SELECT extents.inode, first_chunk, count, pack, first_slot, stored_bytes FROM extents"

_EVERYTHING: tuple[tuple[Table, str], ...] = (
    (Table.INODES, f"{_SELECT_INODES} ORDER BY inode"),
    (Table.TRASH, f"{_SELECT_TRASH} ORDER BY path"),
    (Table.NAMES, f"{_SELECT_NAMES} ORDER BY parent, name"),
    (Table.XATTRS, _SELECT_XATTRS),
    (Table.PACKS, f"{_SELECT_PACKS} ORDER BY pack"),
    (Table.EXTENTS, f"{_SELECT_EXTENTS} ORDER BY inode, first_chunk"),
)
_CHANGES: tuple[tuple[Table, str], ...] = (
    (
        Table.GONE_INODES,
        (
            "SELECT inode FROM noted_inodes WHERE inode NOT IN (SELECT inode FROM inodes)"
            " AND inode NOT IN (SELECT inode FROM trash)"
        ),
    ),
    (
        Table.GONE_NAMES,
        (
            "SELECT parent, name FROM noted_names AS noted WHERE NOT EXISTS"
            " (SELECT 1 FROM dentries WHERE dentries.parent = noted.parent AND dentries.name = noted.name)"
        ),
    ),
    (
        Table.GONE_XATTRS,
        (
            "SELECT inode, name FROM noted_xattrs AS noted WHERE NOT EXISTS"
            " (SELECT 1 FROM xattrs WHERE xattrs.inode = noted.inode AND xattrs.name = noted.name)"
        ),
    ),
    (Table.GONE_PACKS, "SELECT pack FROM noted_packs WHERE pack NOT IN (SELECT pack FROM packs)"),
    (Table.CLEARED_EXTENTS, 'SELECT inode, first, "end" FROM noted_extents'),
    (Table.INODES, f"{_SELECT_INODES} WHERE inode IN (SELECT inode FROM noted_inodes) ORDER BY inode"),  # noqa: S608 - constants of this module
    (Table.TRASH, f"{_SELECT_TRASH} WHERE inode IN (SELECT inode FROM noted_inodes) ORDER BY path"),  # noqa: S608 - constants of this module
    (
        Table.NAMES,
        (
            "SELECT parent, inode, cookie, name FROM noted_names CROSS JOIN dentries USING (parent, name)"
            " ORDER BY parent, name"
        ),
    ),
    (Table.XATTRS, "SELECT inode, name, value FROM noted_xattrs CROSS JOIN xattrs USING (inode, name)"),
    (Table.PACKS, f"{_SELECT_PACKS} WHERE pack IN (SELECT pack FROM noted_packs) ORDER BY pack"),  # noqa: S608 - constants of this module
    (
        Table.EXTENTS,
        (
            "SELECT DISTINCT extents.inode, first_chunk, count, pack, first_slot, stored_bytes"
            " FROM noted_extents AS noted CROSS JOIN extents ON extents.inode = noted.inode"
            ' AND extents.first_chunk >= noted.first AND extents.first_chunk < noted."end"'
        ),
    ),
)
_ALL_DIRTY = "SELECT inode, chunk FROM dirty ORDER BY inode, chunk"
_CHANGED_DIRTY = (
    "SELECT inode, chunk FROM noted_inodes CROSS JOIN dirty USING (inode)"
    " WHERE inode IN (SELECT inode FROM inodes) OR inode IN (SELECT inode FROM trash)"
    " ORDER BY inode, chunk"
)
_LONG_ROWS = frozenset({Table.TRASH, Table.XATTRS, Table.PACKS})


class Snapshot:
    """Reads one state at a time: `begin`, then `changes` or `everything` or both, then `end`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        for statement in _TEMPORARY:
            connection.execute(statement)

    def begin(self) -> None:
        """See what is committed at this moment until `end`. In the step after the commit, on the main thread."""
        with _explained():
            self._connection.execute("BEGIN")
            try:
                self._connection.execute("SELECT count(*) FROM counters").fetchone()  # now the state is fixed
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    def end(self) -> None:
        """Let the log go on without what was seen. Harmless when nothing was begun."""
        with _explained():
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def changes(self, last: int) -> Iterator[Block]:
        """The state of all rows that rows of the outbox up to number `last` note, in the order of `ORDER`.

        MetadataDamagedError when it cannot be made out which they are; `everything` may still be read.
        """
        with _explained():
            self.sort_out(last)
            for table, sql in _CHANGES:
                yield from self._blocks(table, sql)
            yield from self._dirty_blocks(_CHANGED_DIRTY)

    def everything(self) -> Iterator[Block]:
        """All replicated rows, in the order of `ORDER`."""
        with _explained():
            for table, sql in _EVERYTHING:
                yield from self._blocks(table, sql)
            yield from self._dirty_blocks(_ALL_DIRTY)

    def sort_out(self, last: int) -> None:
        """Fill the temporary tables with what rows of the outbox up to number `last` note. Errors as of `changes`."""
        for table in _NOTED_TABLES:
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constants of this module
        for (keys,) in _unhurried(self._connection.execute("SELECT keys FROM outbox WHERE number <= ?", (last,)), 1):
            try:
                noted = Noted.from_bytes(keys)
            except ValueError as error:
                raise MetadataDamagedError(f"what has changed is not known any more: {error}") from error
            self._sort_in(noted)
        # What is said of dirty chunks goes with the inode: also of one whose chunks have become clean.
        self._connection.execute("INSERT OR IGNORE INTO noted_inodes SELECT DISTINCT inode FROM noted_extents")

    def _sort_in(self, noted: Noted) -> None:
        def insert(table: str, places: str, keys: Iterable[tuple[Any, ...]]) -> None:
            self._connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", keys)  # noqa: S608 - constants of this module

        insert("noted_inodes", "?", [(inode,) for inode in noted.inodes])
        insert("noted_names", "?, ?", noted.names)
        insert("noted_xattrs", "?, ?", noted.xattrs)
        insert("noted_packs", "?", [(pack,) for pack in noted.packs])
        insert("noted_extents", "?, ?, ?", noted.extents)

    def _blocks(self, table: Table, sql: str) -> Iterator[Block]:
        cursor = self._connection.execute(sql)
        if table in _LONG_ROWS:
            yield from _short_blocks(table, _unhurried(cursor, 16))
            return
        while rows := cursor.fetchmany(BLOCK_ROWS):
            time.sleep(YIELD_SECONDS)
            yield Block.of_rows(table, rows)

    def _dirty_blocks(self, sql: str) -> Iterator[Block]:
        runs: list[tuple[int, int, int]] = []
        for inode, chunk in _unhurried(self._connection.execute(sql), BLOCK_ROWS):
            if runs and runs[-1][0] == inode and runs[-1][1] + runs[-1][2] == chunk:
                runs[-1] = (inode, runs[-1][1], runs[-1][2] + 1)
                continue
            if len(runs) == BLOCK_ROWS:
                yield Block.of_rows(Table.DIRTY, runs)
                runs = []
            runs.append((inode, chunk, 1))
        if runs:
            yield Block.of_rows(Table.DIRTY, runs)


def _unhurried(cursor: sqlite3.Cursor, rows_at_once: int) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, with a pause after every few."""
    while rows := cursor.fetchmany(rows_at_once):
        time.sleep(YIELD_SECONDS)
        yield from rows


def _short_blocks(table: Table, rows: Iterable[tuple[Any, ...]]) -> Iterator[Block]:
    """Blocks of about BLOCK_BYTES: a row may have a long string."""
    strings = len(LAYOUTS[table].strings)
    taken: list[tuple[Any, ...]] = []
    size_bytes = 0
    for row in rows:
        taken.append(row)
        size_bytes += sum(map(len, row[-strings:]))
        if size_bytes >= BLOCK_BYTES or len(taken) == BLOCK_ROWS:
            yield Block.of_rows(table, taken)
            taken, size_bytes = [], 0
    if taken:
        yield Block.of_rows(table, taken)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error) from error
