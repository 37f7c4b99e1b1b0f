"""Where chunks lie: runs of one inode's chunks in consecutive slots of a pack, never overlapping."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from disfs.metadata.batches import rows_of
from disfs.metadata.replicated import END_OF_CHUNKS
from disfs.values import ChunkIndex, ChunkKey, Extent, InodeNumber, LiveChunk, PackId

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from disfs.metadata.database import Database
    from disfs.metadata.outbox import Outbox
    from disfs.metadata.packs import Packs

_CUT_RUNS = 128
"""Runs that are cut at once when a file goes in steps."""
# The run that begins at or before the first chunk is the only earlier one that can reach it.
TOUCHING = (
    " WHERE extents.inode = ?1 AND extents.first_chunk < ?3 AND extents.first_chunk >= coalesce("
    "(SELECT max(first_chunk) FROM extents WHERE inode = ?1 AND first_chunk <= ?2), ?2)"
    " AND extents.first_chunk + extents.count > ?2"
)
"""Narrows a query to the runs of inode ?1 that hold any of the chunks from ?2 up to ?3, ?3 excluded."""
_FIND = (
    "SELECT extents.first_chunk, extents.count, packs.pack_id, extents.first_slot"  # noqa: S608 - constants of this module
    f" FROM extents JOIN packs ON packs.pack = extents.pack{TOUCHING} ORDER BY extents.first_chunk"
)
_FIND_NUMBERED = (
    "SELECT first_chunk, count, pack, first_slot, stored_bytes"  # noqa: S608 - constants of this module
    f" FROM extents{TOUCHING} ORDER BY first_chunk"
)
_FIND_EACH = (
    "WITH wanted (inode, first_chunk, end_chunk) AS (VALUES {values})"
    " SELECT wanted.first_chunk, wanted.end_chunk, found.*"
    " FROM wanted CROSS JOIN extents AS found ON found.inode = wanted.inode"
    " AND found.first_chunk < wanted.end_chunk AND found.first_chunk >= coalesce((SELECT max(before.first_chunk)"
    " FROM extents AS before WHERE before.inode = wanted.inode AND before.first_chunk <= wanted.first_chunk),"
    " wanted.first_chunk) AND found.first_chunk + found.count > wanted.first_chunk"
)
"""TOUCHING for many ranges at once."""
_INSERT = "INSERT INTO extents (inode, first_chunk, count, pack, first_slot, stored_bytes) VALUES (?, ?, ?, ?, ?, ?)"
# No run of a pack is longer than the pack, and runs never share a slot: the last one that begins at or before the
# first slot is the only earlier one that can reach it.
_OF_SLOTS = (
    "SELECT extents.inode, extents.first_chunk, extents.count, packs.pack_id, extents.first_slot"
    " FROM packs CROSS JOIN extents ON extents.pack = packs.pack WHERE packs.pack_id = ?1"
    " AND extents.first_slot < ?3 AND extents.first_slot >= coalesce((SELECT max(first_slot) FROM extents"
    " WHERE extents.pack = packs.pack AND first_slot <= ?2), ?2) AND extents.first_slot + extents.count > ?2"
    " ORDER BY extents.first_slot"
)

_COUNT_ALL = (
    "SELECT (SELECT coalesce(sum(count), 0) FROM extents WHERE inode = ?1) + (SELECT count(*) FROM dirty WHERE"
    " dirty.inode = ?1 AND NOT EXISTS (SELECT 1 FROM extents WHERE inode = ?1 AND first_chunk + count > chunk AND"
    " first_chunk = (SELECT max(first_chunk) FROM extents WHERE inode = ?1 AND first_chunk <= chunk)))"
)
_BARE = 65_536
"""Inodes that are known to have no extent, at most."""


class Placement(NamedTuple):
    """Chunks `first` up to `end` of an inode lie in the slots of a pack from `first_slot` on."""

    inode: InodeNumber
    first: int
    end: int
    pack: int
    first_slot: int


class _Old(NamedTuple):
    """A row that placements lie over, wholly or in part."""

    inode: InodeNumber
    first: int
    chunk_count: int
    pack: int
    first_slot: int
    stored_bytes: int


class Extents:
    """The extents of all inodes. Every change of them moves the live bytes of the packs they name."""

    def __init__(self, database: Database, outbox: Outbox, packs: Packs, chunk_bytes: int) -> None:
        self.chunk_bytes = chunk_bytes
        self._database = database
        self._outbox = outbox
        self._packs = packs
        self._bare: set[InodeNumber] = set()
        """Inodes without an extent, some of those that never had one."""

    def note_bare(self, inode: InodeNumber) -> None:
        """The caller knows that the inode has no extent."""
        if len(self._bare) >= _BARE:
            self._bare.clear()
        self._bare.add(inode)

    def discard(self, inode: InodeNumber) -> None:
        """`cut` of all, of an inode that goes for good. In a change."""
        if inode in self._bare:
            self._bare.remove(inode)
        else:
            self.cut(inode, ChunkIndex(0))

    def has_any(self, inode: InodeNumber) -> bool:
        """Whether any chunk of the inode lies in a pack."""
        if inode in self._bare:
            return False
        return self._database.row("SELECT 1 FROM extents WHERE inode = ? LIMIT 1", (inode,)) is not None

    def move(self, inode: InodeNumber, other: InodeNumber) -> bool:
        """What lies in packs of an inode is another one's; False when there was nothing. In a change."""
        moved = self._database.write("UPDATE extents SET inode = ? WHERE inode = ?", (other, inode))
        if moved:
            for each in (inode, other):
                self._outbox.note_extents_from(each, 0, END_OF_CHUNKS)
        return moved > 0

    def chunk_total(self, inode: InodeNumber) -> int:
        """How many chunks of an inode are dirty, or lie in a pack, or both."""
        row = self._database.row(_COUNT_ALL, (inode,))
        assert row is not None
        total: int = row[0]
        return total

    def find(self, inode: InodeNumber, first: ChunkIndex, last: ChunkIndex) -> Sequence[Extent]:
        """See ChunkLedger.extents."""
        rows = self._database.rows(_FIND, (inode, first, last + 1))
        found = []
        for run_first, count, pack, slot in rows:
            begin, end = max(run_first, first), min(run_first + count, last + 1)
            found.append(Extent(inode, ChunkIndex(begin), end - begin, PackId(pack), slot + begin - run_first))
        return found

    def among(self, inode: InodeNumber, first: int, end: int) -> Iterator[int]:
        """Those of chunks `first` to `end`, end excluded, that lie in a pack."""
        for run_first, count, *_ in self._database.rows(_FIND_NUMBERED, (inode, first, end)):
            yield from range(max(run_first, first), min(run_first + count, end))

    def has_among(self, inode: InodeNumber, first: int, end: int) -> bool:
        """Whether any of chunks `first` to `end`, end excluded, lies in a pack."""
        return inode not in self._bare and next(self.among(inode, first, end), None) is not None

    def places(self, keys: Sequence[ChunkKey]) -> dict[tuple[int, int], tuple[int, int]]:
        """Pack (its number) and slot of those of `keys` that lie in a pack, by (inode, chunk)."""
        wanted = [(inode, chunk, chunk + 1) for inode, chunk in keys]
        return {
            (inode, chunk): (pack, first_slot + chunk - first)
            for chunk, _, inode, first, _, pack, first_slot, _ in rows_of(self._database, _FIND_EACH, wanted, width=3)
        }

    def of_slots(self, pack: PackId, first_slot: int, count: int) -> list[LiveChunk]:
        """See ChunkLedger.chunks_of_pack."""
        end = first_slot + count
        return [
            LiveChunk(ChunkKey(InodeNumber(inode), ChunkIndex(first + wanted - slot)), pack, wanted)
            for inode, first, run_count, _, slot in self._database.rows(_OF_SLOTS, (pack, first_slot, end))
            for wanted in range(max(slot, first_slot), min(slot + run_count, end))
        ]

    def place(self, placements: Sequence[Placement]) -> None:
        """Chunks, each named once, now lie there; where they lay before is garbage. In a change that settles `packs`.

        By few statements: a message of small files moves thousands of rows.
        """
        covered: dict[_Old, list[tuple[int, int]]] = {}
        ranges = [(new.inode, new.first, new.end) for new in placements]
        for first, end, *row in rows_of(self._database, _FIND_EACH, ranges, width=3):
            covered.setdefault(_Old(*row), []).append((first, end))
        rows = [self._row(*new) for new in placements]
        self._bare.difference_update([new.inode for new in placements])
        for old, over in covered.items():
            self._packs.add_live(old.pack, -old.stored_bytes)
            rows += [self._row(*rest) for rest in _uncovered(old, sorted(over))]
        self._outbox.note_extents((old.inode, old.first) for old in covered)
        self._outbox.note_extents((inode, first) for inode, first, *_ in rows)
        self._database.write_all(
            "DELETE FROM extents WHERE inode = ? AND first_chunk = ?", [(old.inode, old.first) for old in covered]
        )
        self._database.write_all(_INSERT, rows)

    def cut_point(self, inode: InodeNumber, count: int) -> ChunkIndex:
        """Where the last few runs begin that have at least `count` chunks together; 0 when all have fewer."""
        rows = self._database.rows(
            "SELECT first_chunk, count FROM extents WHERE inode = ? ORDER BY first_chunk DESC LIMIT ?",
            (inode, _CUT_RUNS),
        )
        point = 0
        for first, run_count in rows:
            point, count = first, count - run_count
            if count <= 0:
                return ChunkIndex(point)
        return ChunkIndex(point if len(rows) == _CUT_RUNS else 0)

    def cut(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """Forget the runs of an inode from `first` on. In a change.

        By set, not by row: an inode may have millions of chunks.
        """
        last = self._last_run(inode, END_OF_CHUNKS)
        if last is None or last.first + last.chunk_count <= first:
            return
        self._outbox.note_extents_from(inode, first, END_OF_CHUNKS)
        self._shorten(inode, first)
        self._packs.settle()
        self._packs.release_from(inode, first)
        self._database.write("DELETE FROM extents WHERE inode = ? AND first_chunk >= ?", (inode, first))

    def _shorten(self, inode: InodeNumber, end: int) -> None:
        """The run that reaches across `end`, if there is one, becomes two."""
        run = self._last_run(inode, end)
        if run is not None and run.first + run.chunk_count > end:
            kept = Placement(inode, run.first, end, run.pack, run.first_slot)
            self._packs.add_live(run.pack, -run.stored_bytes)
            self._outbox.note_extents([(inode, run.first)])
            self._database.write("DELETE FROM extents WHERE inode = ? AND first_chunk = ?", (inode, run.first))
            self._database.write(_INSERT, self._row(*kept))

    def _last_run(self, inode: InodeNumber, before: int) -> _Old | None:
        """The last run of an inode that begins before a chunk."""
        row = self._database.row(
            "SELECT inode, first_chunk, count, pack, first_slot, stored_bytes FROM extents"
            " WHERE inode = ?1 AND first_chunk < ?2 ORDER BY first_chunk DESC LIMIT 1",
            (inode, before),
        )
        return None if row is None else _Old(*row)

    def _row(self, inode: InodeNumber, first: int, end: int, pack: int, first_slot: int) -> tuple[int, ...]:
        """The row of a run, whose bytes are live from now on."""
        count = end - first
        slots = self._packs.slots(pack)
        assert 0 <= first < end <= END_OF_CHUNKS
        assert first_slot + count <= len(slots), "a run lies inside its pack"
        stored_bytes = slots.offset(first_slot + count) - slots.offset(first_slot)
        self._packs.add_live(pack, stored_bytes)
        return inode, first, count, pack, first_slot, stored_bytes


def _uncovered(old: _Old, over: Sequence[tuple[int, int]]) -> Iterator[Placement]:
    """What is left of a run beside the ranges, in order, that others now hold."""
    begin = old.first
    for first, end in over:
        if begin < first:
            yield Placement(old.inode, begin, first, old.pack, old.first_slot + begin - old.first)
        begin = max(begin, end)
    if begin < old.first + old.chunk_count:
        yield Placement(old.inode, begin, old.first + old.chunk_count, old.pack, old.first_slot + begin - old.first)
