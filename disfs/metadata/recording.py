"""Packs that Discord acknowledged become the places of their chunks, where those have not moved on."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import trio

from disfs.metadata.extents import TOUCHING, Placement
from disfs.metadata.replicated import END_OF_CHUNKS
from disfs.spans import BLOCK_BYTES, chunk_range
from disfs.values import ChunkIndex, Recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from disfs.metadata.database import Database
    from disfs.metadata.dirty import Dirty
    from disfs.metadata.extents import Extents
    from disfs.metadata.inodes import Inodes
    from disfs.metadata.outbox import Outbox
    from disfs.metadata.packs import Packs
    from disfs.metadata.small_contents import SmallContents
    from disfs.metadata.totals import Totals
    from disfs.metadata.trash import Trash
    from disfs.values import ChunkKey, InodeNumber, MessageId, PackId, Revision, SentChunk, SentPack

_CHUNKS_PER_STEP = 64
_COUNT_FROM = (
    "SELECT (SELECT coalesce(sum(first_chunk + count - max(first_chunk, ?2)), 0)"  # noqa: S608 - constants of our own
    f" FROM extents{TOUCHING})"
    " + (SELECT count(*) FROM dirty WHERE dirty.inode = ?1 AND chunk >= ?2 AND NOT EXISTS (SELECT 1 FROM extents"
    " WHERE inode = ?1 AND first_chunk + count > chunk AND first_chunk ="
    " (SELECT max(first_chunk) FROM extents WHERE inode = ?1 AND first_chunk <= chunk)))"
)
"""Chunks from ?2 up to ?3 of inode ?1 that lie in a pack, and those that are dirty without lying in one."""


_ANY_FROM = (
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM dirty WHERE inode = ?1 AND chunk >= ?2)"
    " OR (SELECT first_chunk + count FROM extents WHERE inode = ?1 ORDER BY first_chunk DESC LIMIT 1) > ?2"
)
"""Whether an inode has a chunk from ?2 on that is no hole: its last run reaches furthest."""


class _Verdict(enum.Enum):
    CLEAN = enum.auto()
    STILL_DIRTY = enum.auto()
    DROPPED = enum.auto()


class Recording:
    """The operations of the ledger that touch dirty chunks, extents and packs together."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        inodes: Inodes,
        dirty: Dirty,
        extents: Extents,
        packs: Packs,
        small: SmallContents,
        totals: Totals,
        trash: Trash,
        chunk_bytes: int,
    ) -> None:
        self._trash = trash
        self._database = database
        self._outbox = outbox
        self._small = small
        self._inodes = inodes
        self._dirty = dirty
        self._extents = extents
        self._packs = packs
        self._totals = totals
        self._chunk_bytes = chunk_bytes
        self._underway: set[MessageId] = set()
        """Messages of which a part is recorded: they may look dead, or sparse, that are not. Nobody must see that."""
        self._unfinished: dict[tuple[PackId, ...], tuple[list[int], int]] = {}
        """Packs whose recording in steps broke off: their numbers, and the step that comes next."""

    def check_room(self, inode: InodeNumber, offset: int, length: int) -> None:
        """See ChunkLedger. Far from the volume's size, as it nearly always is, nothing is asked of the database."""
        chunks = chunk_range(offset, length, self._chunk_bytes)
        # No write makes a file take more: its chunks, and what the last chunk before them had free.
        if self._totals.has_room((len(chunks) + 1) * self._chunk_bytes + BLOCK_BYTES):
            return
        size_bytes, chunk_count = self._inodes.extent(inode)
        known = {
            *self._dirty.among(inode, chunks.start, chunks.stop),
            *self._extents.among(inode, chunks.start, chunks.stop),
        }
        new_count = chunk_count + len(chunks) - len(known)
        self._totals.check_growth(size_bytes, chunk_count, max(size_bytes, offset + length), new_count)

    def mark_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> Revision:
        """See ChunkLedger."""
        assert count > 0
        with self._database.growing:
            return self._mark(inode, first, first + count, is_bare=self._inodes.chunk_count(inode) == 0)

    def renew_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> Revision:
        """See ChunkLedger."""
        with self._database.growing:
            revision = self._dirty.new_revision()
            self._dirty.renew_all(inode, first, first + count, revision)
        return revision

    def write_small(self, inode: InodeNumber, content: bytes) -> Revision:
        """See ChunkLedger."""
        with self._database.growing:
            is_bare = self._inodes.chunk_count(inode) == 0
            self._small.put(inode, content, is_new=is_bare)
            return self._mark(inode, 0, 1, is_bare=is_bare)

    def _mark(self, inode: InodeNumber, first: int, end: int, *, is_bare: bool) -> Revision:
        """Chunks `first` to `end`, end excluded, are dirty with the revision that is returned. Inside a change.

        `is_bare`: all chunks of the inode are holes.
        """
        revision = self._dirty.new_revision()
        if is_bare:
            # Nothing is dirty or recorded that would have to be looked for.
            self._extents.note_bare(inode)
            if end == 1:
                self._dirty.mark_first(inode, revision)
            else:
                self._dirty.mark(inode, first, end, revision)
            self._inodes.add_chunks(inode, end - first)
        elif self._dirty.renew(inode, first, end, revision) < end - first:
            self._outbox.note_inodes([inode])  # which of its chunks are dirty goes with its row
            present = {*self._dirty.among(inode, first, end), *self._extents.among(inode, first, end)}
            self._dirty.mark(inode, first, end, revision)
            self._inodes.add_chunks(inode, end - first - len(present))
        return revision

    def record_packs(self, packs: Sequence[SentPack]) -> Recorded:
        """See ChunkLedger. Works on a full disk: it is what lets the cache give space back."""
        self._check(packs)
        with self._database.changing:
            numbers = self._add(packs)
            steps = [self._record(numbers[pack], slot, chunks) for pack, slot, chunks in _steps(packs)]
            self._packs.settle()
        return _together(steps)

    async def record_in_steps(self, packs: Sequence[SentPack], on_step: Callable[[Recorded], None]) -> None:
        """See ChunkLedger."""
        ids = tuple(pack.record.pack for pack in packs)
        numbers, done = self._unfinished.get(ids, ([], 0))
        if not done:
            self._check(packs)
        self._underway.update(pack.record.location.message for pack in packs)
        for index, (pack, slot, chunks) in enumerate(_steps(packs)):
            if index < done:
                continue
            if index:
                # What breaks off here stays underway: a repeat records the rest, and sweep must not come before it.
                self._unfinished[ids] = numbers, index
                await trio.lowlevel.checkpoint()
            with self._database.changing:
                numbers = numbers or self._add(packs)
                recorded = self._record(numbers[pack], slot, chunks)
                self._packs.settle()
            on_step(recorded)
        self._finish(packs)

    def _finish(self, packs: Sequence[SentPack]) -> None:
        self._unfinished.pop(tuple(pack.record.pack for pack in packs), None)
        self._underway.difference_update(pack.record.location.message for pack in packs)

    async def record_moved(self, packs: Sequence[SentPack], origins: Mapping[ChunkKey, tuple[PackId, int]]) -> int:
        """See ChunkLedger."""
        self._check(packs)
        old_numbers = self._packs.numbers({pack for pack, _ in origins.values()})
        numbered = {key: (old_numbers.get(pack, -1), slot) for key, (pack, slot) in origins.items()}
        numbers: list[int] = []
        moved = 0
        self._underway.update(pack.record.location.message for pack in packs)
        try:
            for index, (pack, slot, chunks) in enumerate(_steps(packs)):
                if index:
                    await trio.lowlevel.checkpoint()
                with self._database.changing:
                    numbers = numbers or self._add(packs)
                    moved += self._move(numbers[pack], slot, chunks, numbered)
                    self._packs.settle()
        finally:
            self._finish(packs)
        return moved

    def is_underway(self, message: MessageId) -> bool:
        """Whether a message is being recorded: what it holds is not yet written down."""
        return message in self._underway

    def cut_chunks(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """See ChunkLedger."""
        last = None if first else self._trash.emptying(inode)
        gone = self._chunks_from(inode, first)
        # What is called cut must never come back, so this does not rely on the count of chunks.
        if not gone and self._database.row(_ANY_FROM, (inode, first)) is None:
            return
        with self._database.changing:
            if last is not None:
                self._trash.take_content(inode, last)
            self._inodes.add_chunks(inode, -gone)
            if first == 0 and gone == 1 and self._dirty.forget_first(inode):
                return  # it had no chunk before that one
            self._dirty.cut(inode, first)
            self._extents.cut(inode, first)

    def discard(self, inode: InodeNumber) -> None:
        """See ChunkLedger."""
        with self._database.changing:
            self._small.discard(inode)
            self._dirty.discard(inode)
            self._extents.discard(inode)

    def cut_point(self, inode: InodeNumber, count: int) -> ChunkIndex:
        """See ChunkLedger."""
        found = self._inodes.find(inode)
        if found is not None and found.chunk_count <= count:  # else it is in the trash
            return ChunkIndex(0)
        return max(self._dirty.cut_point(inode, count), self._extents.cut_point(inode, count))

    def _chunks_from(self, inode: InodeNumber, first: ChunkIndex) -> int:
        """How many chunks of an inode, from `first` on, are not holes."""
        if first == 0:
            return self._inodes.chunk_count(inode)
        row = self._database.row(_COUNT_FROM, (inode, first, END_OF_CHUNKS))
        assert row is not None
        count: int = row[0]
        return count

    def _check(self, packs: Sequence[SentPack]) -> None:
        ids = {pack.record.pack for pack in packs}
        assert all(pack.chunks for pack in packs)
        if len(ids) != len(packs) or any(self._packs.is_recorded(pack) for pack in ids):
            raise ValueError("a pack is recorded once")
        if any(len(pack.chunks) != len(pack.record.slots) for pack in packs):
            raise ValueError("a pack has one chunk in each slot")
        if any(len({sent.key for sent in pack.chunks}) != len(pack.chunks) for pack in packs):
            raise ValueError("a chunk has one slot in a pack")

    def _add(self, packs: Sequence[SentPack]) -> list[int]:
        return [self._packs.add(pack.record) for pack in packs]

    def _record(self, pack: int, slot: int, chunks: Sequence[SentChunk]) -> Recorded:
        dirty = self._dirty.of([sent.key for sent in chunks])
        verdicts = [_verdict(sent, dirty.get(sent.key)) for sent in chunks]
        sorted_out: dict[_Verdict, list[SentChunk]] = {verdict: [] for verdict in _Verdict}
        for sent, verdict in zip(chunks, verdicts, strict=True):
            sorted_out[verdict].append(sent)
        placed = [verdict is not _Verdict.DROPPED for verdict in verdicts]
        self._extents.place(_placements(pack, slot, chunks, placed))
        clean, still_dirty = sorted_out[_Verdict.CLEAN], sorted_out[_Verdict.STILL_DIRTY]
        self._dirty.clean((run[0].key.inode, run[0].key.chunk, run[-1].key.chunk + 1) for _, run in _runs(clean))
        if still_dirty:
            self._dirty.raise_born((sent.revision + 1, *sent.key) for sent in still_dirty)
        return Recorded(*(tuple(sent.key for sent in sorted_out[verdict]) for verdict in _Verdict))

    def _move(
        self, pack: int, slot: int, chunks: Sequence[SentChunk], origins: Mapping[ChunkKey, tuple[int, int]]
    ) -> int:
        places = self._extents.places([sent.key for sent in chunks])
        same = [places.get(sent.key) == origins[sent.key] for sent in chunks]
        self._extents.place(_placements(pack, slot, chunks, same))
        return sum(same)


def _steps(packs: Sequence[SentPack]) -> Iterator[tuple[int, int, Sequence[SentChunk]]]:
    """The packs in pieces that take the main thread about a millisecond: position of the pack, first slot, chunks."""
    for position, pack in enumerate(packs):
        for slot in range(0, len(pack.chunks), _CHUNKS_PER_STEP):
            yield position, slot, pack.chunks[slot : slot + _CHUNKS_PER_STEP]


def _together(steps: Sequence[Recorded]) -> Recorded:
    return Recorded(
        tuple(key for step in steps for key in step.clean),
        tuple(key for step in steps for key in step.still_dirty),
        tuple(key for step in steps for key in step.dropped),
    )


def _placements(pack: int, slot: int, chunks: Sequence[SentChunk], chosen: Sequence[bool]) -> list[Placement]:
    """The chosen ones of `chunks`, which lie in the slots from `slot` on, as runs."""
    found: list[Placement] = []
    for offset, run in _runs(chunks):
        inode, first = run[0].key
        begin = 0
        for position in range(len(run) + 1):
            if position == len(run) or not chosen[offset + position]:
                if begin < position:
                    found.append(Placement(inode, first + begin, first + position, pack, slot + offset + begin))
                begin = position + 1
    return found


def _verdict(sent: SentChunk, dirty: tuple[int, int] | None) -> _Verdict:
    if dirty is None:
        return _Verdict.DROPPED
    revision, born = dirty
    if sent.revision < born:
        return _Verdict.DROPPED
    return _Verdict.CLEAN if sent.revision == revision else _Verdict.STILL_DIRTY


def _runs(chunks: Sequence[SentChunk]) -> Iterator[tuple[int, Sequence[SentChunk]]]:
    """The maximal runs of consecutive chunks of one inode, each with the slot that it begins in."""
    begin = 0
    for slot in range(1, len(chunks) + 1):
        if slot < len(chunks):
            previous, key = chunks[slot - 1].key, chunks[slot].key
            if key.inode == previous.inode and key.chunk == previous.chunk + 1:
                continue
        yield begin, chunks[begin:slot]
        begin = slot
