"""What the cache holds of all inodes, in memory: their chunks, what is dirty, recency, and what it all weighs. No I/O.

What is known of one inode is `inode_chunks`; here all moves of chunks are made, through the table of `states`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.chunkstore.inode_chunks import BLOCK_BYTES, NO_REVISION, Entry, InodeChunks
from disfs.chunkstore.recency import GROUP_CHUNKS, Recency, group_bits
from disfs.chunkstore.states import IRREPLACEABLE, ON_THEIR_WAY, PRESENT, UNSENT, ChunkEvent, ChunkState, moved
from disfs.chunkstore.waiting import WaitingChunks
from disfs.values import ChunkIndex, ChunkKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from disfs.values import InodeNumber, Revision

_ASKED_EACH = 4096
"""Chunks that are made urgent one by one: about a millisecond."""
_FIRST = ChunkIndex(0)
_WITHOUT_ENTRY = frozenset({ChunkState.ABSENT, ChunkState.CLEAN})


@dataclass(slots=True, eq=False)
class Drain:
    """Counts what of the chunks that were dirty at one moment is not yet in Discord, at its revision of then."""

    until: Revision
    remaining: int
    inode: InodeNumber | None = None
    """Whose chunks; None: everybody's."""

    def concerns(self, inode: InodeNumber) -> bool:
        """Whether the chunks of an inode count."""
        return self.inode is None or self.inode == inode


class ChunkMap:
    """All inodes' chunks, the dirty ones among them, and the order in which clean ones are evicted."""

    def __init__(self, chunk_bytes: int) -> None:
        self.chunk_bytes = chunk_bytes
        self.inodes: dict[InodeNumber, InodeChunks] = {}
        self.weight = 0
        self.dirty_bytes = 0
        self.dirty_count = 0
        self.lost_count = 0
        self.waiting = WaitingChunks()
        """The chunks in state DIRTY: those that a send may take."""
        self.unsent: dict[InodeNumber, InodeChunks] = {}
        """The inodes with chunks that Discord does not have, the one that has had some for longest first."""
        self.on_sent: Callable[[InodeNumber, int], None] | None = None
        """Hears of each inode that has become wholly Discord's, and how many bytes were sent for that."""
        self._newest = NO_REVISION
        self._drains: list[Drain] = []
        self.recency = Recency()
        self.pinned_weight = 0
        """Of `weight`, what pinned inodes weigh."""

    def at(self, inode: InodeNumber) -> InodeChunks:
        """The record of an inode, made if there is none."""
        chunks = self.inodes.get(inode)
        if chunks is None:
            chunks = self.inodes[inode] = InodeChunks(inode)
        return chunks

    def state(self, key: ChunkKey) -> ChunkState:
        """The state of one chunk."""
        chunks = self.inodes.get(key.inode)
        if chunks is None:
            return ChunkState.ABSENT
        entry = chunks.entries.get(key.chunk)
        if entry is not None:
            return entry.state
        return ChunkState.CLEAN if chunks.has(key.chunk) else ChunkState.ABSENT

    def entry(self, key: ChunkKey) -> Entry | None:
        """The entry of a chunk that has one."""
        chunks = self.inodes.get(key.inode)
        return None if chunks is None else chunks.entries.get(key.chunk)

    def move(self, key: ChunkKey, event: ChunkEvent) -> ChunkState:
        """Let `event` happen to a chunk and return its new state; raises before anything changed if it cannot."""
        state = moved(before := self.state(key), event)
        chunks = self.at(key.inode)
        entry = chunks.entries.get(key.chunk)
        if before is ChunkState.DIRTY and state is not ChunkState.DIRTY:
            self.waiting.remove(key, chunks.entries[key.chunk])
        self._count(chunks, entry, before, state)
        if state in _WITHOUT_ENTRY:
            chunks.entries.pop(key.chunk, None)
        elif entry is None:
            entry = chunks.entries[key.chunk] = Entry(state)
        else:
            entry.state = state
        if state is ChunkState.DIRTY and before is not ChunkState.DIRTY:
            assert entry is not None
            self.waiting.add(key, entry, again=event is ChunkEvent.FAIL)
        chunks.set(key.chunk, state in PRESENT)
        if state is ChunkState.CLEAN:
            self.recency.became_clean(key.inode, key.chunk)
        elif before is ChunkState.CLEAN:
            self.recency.gone(key.inode, key.chunk)
        if state not in PRESENT and key.chunk // GROUP_CHUNKS not in chunks.present:
            self.recency.pass_over((key.inode, key.chunk // GROUP_CHUNKS))  # else it stayed there until room is short
        self.reweigh(chunks)
        return state

    def _count(self, chunks: InodeChunks, entry: Entry | None, before: ChunkState, state: ChunkState) -> None:
        self.lost_count += (state is ChunkState.LOST) - (before is ChunkState.LOST)
        chunks.sending_count += (state in ON_THEIR_WAY) - (before in ON_THEIR_WAY)
        if before in UNSENT and state not in UNSENT:
            assert entry is not None
            self._no_longer_unsent(chunks, entry, arrived=state is ChunkState.RECORDED)
        elif state in UNSENT and before not in UNSENT:
            self.dirty_count += 1
            if not chunks.unsent_count:
                self.unsent[chunks.inode] = chunks
            chunks.unsent_count += 1

    def _no_longer_unsent(self, chunks: InodeChunks, entry: Entry, *, arrived: bool) -> None:
        """One chunk of it has arrived, or was cut."""
        length = entry.length
        self.dirty_count -= 1
        self.dirty_bytes -= length
        chunks.unsent_count -= 1
        chunks.unsent_bytes -= length
        if arrived:
            chunks.sent_bytes += length
        if not chunks.unsent_count:
            del self.unsent[chunks.inode]
            if arrived and self.on_sent is not None:
                self.on_sent(chunks.inode, chunks.sent_bytes)
            chunks.sent_bytes = 0
        entry.length = 0
        entry.asked = False
        for drain in self._drains:
            drain.remaining -= entry.born <= drain.until and drain.concerns(chunks.inode)

    def recorded_older(self, key: ChunkKey) -> None:
        """A rewritten chunk's copy was recorded: what is dirty of it from now on was written after that copy."""
        entry = self.inodes[key.inode].entries[key.chunk]
        for drain in self._drains:
            drain.remaining -= entry.born <= drain.until < entry.rewritten and drain.concerns(key.inode)
        entry.asked = any(drain.concerns(key.inode) and entry.rewritten <= drain.until for drain in self._drains)
        entry.born = entry.rewritten
        entry.dirty_since = entry.written_at
        self.move(key, ChunkEvent.RECORD)

    def begin_drain(self) -> Drain:
        """Somebody waits until every chunk that is dirty now is in Discord; O(1). Pair it with `end_drain`."""
        drain = Drain(self._newest, self.dirty_count)
        self._drains.append(drain)
        self.waiting.ask(self._newest)
        return drain

    def begin_drain_of(self, inode: InodeNumber) -> Drain:
        """The same for the chunks of one inode. With a great many all that is dirty becomes urgent: that is O(1)."""
        chunks = self.inodes.get(inode)
        drain = Drain(self._newest, 0 if chunks is None else chunks.unsent_count, inode)
        self._drains.append(drain)
        if chunks is None:
            return drain
        if len(chunks.entries) > _ASKED_EACH:
            self.waiting.ask(self._newest)
            return drain
        for entry in chunks.entries.values():
            if entry.state is ChunkState.DIRTY:
                self.waiting.ask_for(entry)
            elif entry.state in UNSENT:
                entry.asked = True
        return drain

    def end_drain(self, drain: Drain) -> None:
        """Nobody waits for it any more. What was urgent on its account stays so."""
        self._drains.remove(drain)

    def restore(self, chunks: InodeChunks, run: range) -> None:
        """Those of the run that have no state yet are clean: what was cached when the last process stopped in order.

        The same as FETCHED for each of them, for a million at once.
        """
        for (inode, group), bits in group_bits(chunks.inode, run):
            present = chunks.present.get(group, 0)
            if bits & ~present:
                chunks.present[group] = present | bits
                chunks.count += (bits & ~present).bit_count()
                self.recency.became_clean(inode, group * GROUP_CHUNKS)
        self.reweigh(chunks)

    def wrote(self, key: ChunkKey, revision: Revision, now: float) -> None:
        """A chunk has new content of `revision`; the inode's `end` is already the new one."""
        chunks = self.inodes[key.inode]
        before = self.state(key)
        entry = chunks.entries.get(key.chunk)
        if entry is None:
            entry = chunks.entries[key.chunk] = Entry(before)
        self._newest = max(self._newest, revision)
        entry.written_at = now
        if before is ChunkState.DIRTY:
            self.reweigh(chunks)  # DIRTY stays DIRTY: the short way of almost every small write
        else:
            if before not in UNSENT:
                entry.born, entry.dirty_since = revision, now
            elif before is ChunkState.SENDING:
                entry.rewritten = revision
            self.move(key, ChunkEvent.WRITE)
        length = min(self.chunk_bytes, chunks.end - key.chunk * self.chunk_bytes)
        growth, entry.length, entry.revision = length - entry.length, length, revision
        self.dirty_bytes += growth
        chunks.unsent_bytes += growth
        if entry.state is ChunkState.DIRTY:
            self.waiting.wrote(key, growth)

    def rewrote(self, chunks: InodeChunks, indices: range, revision: Revision, now: float) -> None:
        """`wrote` for DIRTY chunks that are as long as before."""
        self._newest = max(self._newest, revision)
        for index in map(ChunkIndex, indices):
            entry = chunks.entries[index]
            entry.written_at, entry.revision = now, revision
            self.waiting.wrote(ChunkKey(chunks.inode, index), 0)

    def wrote_new(self, chunks: InodeChunks, revision: Revision, now: float) -> None:
        """`wrote` for chunk 0 of an inode that is not known yet; all that there is of it ends with that chunk."""
        inode, length = chunks.inode, chunks.end
        assert inode not in self.inodes
        entry = Entry(ChunkState.DIRTY, length, revision, now, now, revision)
        chunks.entries[_FIRST] = entry
        chunks.present[0] = chunks.count = 1
        self.inodes[inode] = chunks
        self._newest = max(self._newest, revision)
        self.dirty_count += 1
        self.unsent[inode] = chunks
        chunks.unsent_count = 1
        chunks.unsent_bytes = length
        self.dirty_bytes += length
        self.waiting.add(ChunkKey(inode, _FIRST), entry)
        chunks.weight = min(self.chunk_bytes, -(-length // BLOCK_BYTES) * BLOCK_BYTES)
        self.weight += chunks.weight
        if inode in self.recency.pinned:
            self.pinned_weight += chunks.weight

    def discard_unsent(self, chunks: InodeChunks) -> bool:
        """CUT of all, where all is one chunk that waits to be sent; False, and nothing done, where it is more."""
        entry = chunks.entries.get(_FIRST)
        if entry is None or entry.state is not ChunkState.DIRTY or chunks.count != 1 or len(chunks.entries) != 1:
            return False
        self.waiting.remove(ChunkKey(chunks.inode, _FIRST), entry)
        self._no_longer_unsent(chunks, entry, arrived=False)
        self.recency.pass_over((chunks.inode, 0))
        self.weight -= chunks.weight
        if chunks.inode in self.recency.pinned:
            self.pinned_weight -= chunks.weight
        del self.inodes[chunks.inode]
        return True

    def reweigh(self, chunks: InodeChunks) -> None:
        """Work out anew what an inode weighs, after its bits or its ends have changed."""
        weight = chunks.weight_of(self.chunk_bytes)
        self.weight += weight - chunks.weight
        if chunks.inode in self.recency.pinned:
            self.pinned_weight += weight - chunks.weight
        chunks.weight = weight

    def forget_if_empty(self, inode: InodeNumber) -> bool:
        """Drop an inode's record if nothing of it is cached or under way; True if it was dropped."""
        chunks = self.inodes.get(inode)
        if chunks is None or chunks.count or chunks.entries or chunks.doomed:
            return False
        assert not chunks.weight
        del self.inodes[inode]
        return True

    def set_pinned(self, inode: InodeNumber, pinned: bool) -> None:
        """Whether the inode's chunks are to stay; for an inode that is not cached too."""
        if (inode in self.recency.pinned) == pinned:
            return
        chunks = self.inodes.get(inode)
        groups = () if chunks is None else tuple(chunks.present)
        weight = 0 if chunks is None else chunks.weight
        if pinned:
            self.recency.pin(inode, groups)
            self.pinned_weight += weight
        else:
            self.recency.unpin(inode, groups)
            self.pinned_weight -= weight

    def evictable(self, *, pinned: bool = False) -> tuple[InodeNumber, list[ChunkIndex]] | None:
        """The clean chunks to be evicted next, spent ones before others; None when no chunk may go.

        With `pinned` those of pinned inodes, and no others.
        """
        while not pinned and (spent := self.recency.first_spent()) is not None:
            (inode, group), bits = spent
            clean = [index for index in self._clean_in(inode, group) if bits >> index % GROUP_CHUNKS & 1]
            if clean:
                return inode, clean
            self.recency.pass_over_spent((inode, group))
        while (first := self.recency.first(pinned=pinned)) is not None:
            clean = self._clean_in(*first)
            if clean:
                return first[0], clean
            # Dirty again, or gone. It comes back to the queue when one of its chunks becomes clean.
            self.recency.pass_over(first)
        return None

    def pass_over(self, inode: InodeNumber, index: ChunkIndex) -> None:
        """The group of that chunk cannot be evicted now; it comes back when one of its chunks becomes clean."""
        self.recency.pass_over((inode, index // GROUP_CHUNKS))

    def _clean_in(self, inode: InodeNumber, group: int) -> list[ChunkIndex]:
        chunks = self.inodes.get(inode)
        bits = 0 if chunks is None else chunks.present.get(group, 0)
        if chunks is None or not bits:
            return []
        first = group * GROUP_CHUNKS
        indices = (ChunkIndex(first + bit) for bit in range(GROUP_CHUNKS) if bits >> bit & 1)
        return [index for index in indices if index not in chunks.entries]

    def irreplaceable(self, inode: InodeNumber, first: int) -> bool:
        """Whether a chunk from `first` on is the only durable copy that this machine knows of."""
        chunks = self.inodes.get(inode)
        if chunks is None:
            return False
        return any(e.state in IRREPLACEABLE for index, e in chunks.entries.items() if index >= first)

    def all_keys(self, states: Iterable[ChunkState]) -> list[ChunkKey]:
        """Every chunk whose entry is in one of `states`; a scan, for rare use."""
        wanted = frozenset(states)
        return [
            ChunkKey(chunks.inode, index)
            for chunks in self.inodes.values()
            for index, entry in chunks.entries.items()
            if entry.state in wanted
        ]
