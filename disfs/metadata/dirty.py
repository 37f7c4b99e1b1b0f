"""Which chunks are dirty: one row each, changed by every write."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from disfs.metadata.batches import insert_rows, rows_of
from disfs.metadata.held_back import HeldBack
from disfs.values import ChunkIndex, ChunkKey, DirtyChunk, InodeNumber, Revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from disfs.metadata.counters import Counter
    from disfs.metadata.database import Database

_CHUNKS_PER_STATEMENT = 16
_FIND_EACH = (
    "WITH wanted (inode, chunk) AS (VALUES {values}) SELECT dirty.inode, dirty.chunk, revision, born"
    " FROM wanted CROSS JOIN dirty ON dirty.inode = wanted.inode AND dirty.chunk = wanted.chunk"
)
_INSERT = "INSERT INTO dirty (inode, chunk, revision, born) VALUES {values}"
_INSERT_FIRST = "INSERT INTO dirty (inode, chunk, revision, born) VALUES (?, 0, ?, ?)"
_RENEW = "UPDATE dirty SET revision = max(revision, ?) WHERE inode = ? AND chunk >= ? AND chunk < ?"
"""What is held back may be older than a row by now: a revision only rises."""


class Dirty:
    """The dirty chunks. A chunk that is dirty already keeps its `born`.

    The row of chunk 0 of a file that was empty is held back: most files have no other chunk, and many are gone soon.
    """

    def __init__(self, database: Database, revisions: Counter) -> None:
        self._database = database
        self._revisions = revisions
        self._first = HeldBack[InodeNumber, tuple[int, int]](database)
        """Inode -> (revision, born) of chunk 0."""
        self._renewed: dict[tuple[InodeNumber, int, int], Revision] = {}
        """(inode, first, end) of chunks that have rows, or are in `_first`, with the revision that these lack."""
        self._discarded: dict[InodeNumber, None] = {}
        """Inodes that are gone, and may have rows; nobody asks for these any more."""
        database.held_back.append(self._write_rows)

    def new_revision(self) -> Revision:
        """For a write: higher than any before. Inside a change."""
        return Revision(self._revisions.take())

    def renew(self, inode: InodeNumber, first: int, end: int, revision: Revision) -> int:
        """Chunks `first` to `end`, end excluded, have a new revision if they are dirty already; returns how many are.

        Inside a change.
        """
        if (held := self._first.get(inode)) is not None:
            if end == 1:
                self._first.put(inode, (revision, held[1]))
                return 1
            self._write_first_row(inode)
        return self._database.write(
            "UPDATE dirty SET revision = ? WHERE inode = ? AND chunk >= ? AND chunk < ?", (revision, inode, first, end)
        )

    def renew_all(self, inode: InodeNumber, first: int, end: int, revision: Revision) -> None:
        """As `renew`, where all of them are known to be dirty already: held back. Inside a change."""
        held = self._first.get(inode)
        if held is not None and end == 1:
            self._first.put(inode, (revision, held[1]))
        else:
            self._database.alter(self._renewed, (inode, first, end), revision)

    def mark_first(self, inode: InodeNumber, revision: Revision) -> None:
        """Chunk 0 of a file without a chunk is dirty with that revision. Inside a change."""
        self._first.put(inode, (revision, revision), is_new=True)

    def forget_first(self, inode: InodeNumber) -> bool:
        """The chunk that `mark_first` made dirty is no more; False when it has a row by now. Inside a change."""
        if inode not in self._first:
            return False
        self._first.remove(inode)
        return True

    def discard(self, inode: InodeNumber) -> None:
        """An inode goes for good. Held back. Inside a change."""
        # Where the row of chunk 0 is held back there is no other: `renew` writes it before.
        if not self.forget_first(inode):
            self._database.alter(self._discarded, inode, None)

    def mark(self, inode: InodeNumber, first: int, end: int, revision: Revision) -> None:
        """Chunks `first` to `end`, end excluded, are dirty with that revision. Inside a change."""
        for start in range(first, end, _CHUNKS_PER_STATEMENT):
            statement = _mark_statement(min(_CHUNKS_PER_STATEMENT, end - start))
            self._database.write(statement, (inode, start, revision))

    def all(self) -> Sequence[DirtyChunk]:
        """See ChunkLedger.dirty_chunks."""
        self._database.flush()
        rows = self._database.rows("SELECT inode, chunk, revision, born FROM dirty ORDER BY inode, chunk")
        return [
            DirtyChunk(ChunkKey(InodeNumber(inode), ChunkIndex(chunk)), Revision(revision), Revision(born))
            for inode, chunk, revision, born in rows
        ]

    def among(self, inode: InodeNumber, first: int, end: int) -> dict[int, tuple[int, int]]:
        """(revision, born) of the dirty ones of chunks `first` to `end`, end excluded, by index."""
        if first == 0 and (held := self._first.get(inode)) is not None:
            return {0: held} | self.among(inode, 1, end)
        rows = self._database.rows(
            "SELECT chunk, revision, born FROM dirty WHERE inode = ? AND chunk >= ? AND chunk < ?", (inode, first, end)
        )
        return {chunk: (revision, born) for chunk, revision, born in rows}

    def of(self, keys: Sequence[ChunkKey]) -> dict[tuple[int, int], tuple[int, int]]:
        """(revision, born) of those of `keys` that are dirty, by (inode, chunk)."""
        self._database.flush()
        return {
            (inode, chunk): (revision, born)
            for inode, chunk, revision, born in rows_of(self._database, _FIND_EACH, keys, width=2)
        }

    def clean(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """The chunks of each (inode, first, end), end excluded, are no longer dirty. Inside a change."""
        self._database.write_all("DELETE FROM dirty WHERE inode = ? AND chunk >= ? AND chunk < ?", ranges)

    def raise_born(self, births: Iterable[tuple[int, int, int]]) -> None:
        """For each (born, inode, chunk): packs sealed from a lower revision come too late from now on. In a change."""
        self._database.write_all("UPDATE dirty SET born = ? WHERE inode = ? AND chunk = ?", births)

    def first(self, inode: InodeNumber) -> int | None:
        """The first chunk of an inode that is dirty; None when none is."""
        self._database.flush()
        row = self._database.row("SELECT min(chunk) FROM dirty WHERE inode = ?", (inode,))
        return None if row is None else row[0]

    def has_more(self, inode: InodeNumber, count: int) -> bool:
        """Whether more than `count` chunks of an inode are dirty, that has a recorded one too."""
        # Only of a file without a recorded chunk may a row be held back: see `mark_first`.
        row = self._database.row("SELECT 1 FROM dirty WHERE inode = ? LIMIT 1 OFFSET ?", (inode, count))
        return row is not None

    def cut_point(self, inode: InodeNumber, count: int) -> ChunkIndex:
        """Past the dirty chunk below which others lie, with `count` dirty ones from there on; 0 for fewer of them."""
        self._database.flush()
        row = self._database.row(
            "SELECT chunk FROM dirty WHERE inode = ? ORDER BY chunk DESC LIMIT 1 OFFSET ?", (inode, count)
        )
        return ChunkIndex(0 if row is None else row[0] + 1)

    def cut(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """Forget the dirty chunks of an inode from `first` on. Inside a change."""
        self._write_first_row(inode)
        self._database.write("DELETE FROM dirty WHERE inode = ? AND chunk >= ?", (inode, first))

    def _write_first_row(self, inode: InodeNumber) -> None:
        """What follows is about more than chunk 0. Inside a change."""
        if inode in self._first and (held := self._first.withdraw(inode)) is not None:
            self._database.write(_INSERT_FIRST, (inode, *held))

    def _write_rows(self) -> None:
        if self._discarded:
            self._database.write_all("DELETE FROM dirty WHERE inode = ?", [(inode,) for inode in self._discarded])
            self._discarded.clear()
        if self._first:
            _, rows = self._first.take()
            insert_rows(self._database, _INSERT, [(inode, 0, *held) for inode, held in rows], width=4)
        if self._renewed:
            self._database.write_all(_RENEW, [(revision, *chunks) for chunks, revision in self._renewed.items()])
            self._renewed.clear()


@functools.cache
def _mark_statement(count: int) -> str:
    """Mark `count` consecutive chunks by one statement: parameters are the inode, the first chunk, the revision."""
    rows = ", ".join(f"(?1, ?2 + {step}, ?3, ?3)" for step in range(count))
    return (
        f"INSERT INTO dirty (inode, chunk, revision, born) VALUES {rows}"  # noqa: S608 - numbers of our own
        " ON CONFLICT (inode, chunk) DO UPDATE SET revision = excluded.revision"
    )
