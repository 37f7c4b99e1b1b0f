"""What the cache holds of one inode, chunk by chunk, in memory: presence, state, and what it weighs. No I/O.

Presence is one bit per chunk, in groups of 64, so a file of terabytes costs nothing where it is sparse.
A chunk that is merely present or absent has no further record; every other state has an `Entry`.

Two lengths are kept. `end` is where the cached content ends: nothing beyond is ever shown. `disk_end` is
where the cache file ends, 0 where there is none: the content is a small one then (see `small`). Else they differ only
while bytes that were cut wait for the cut to become durable (see `cache`): those bytes still weigh, and must go before
the file grows over them.

An inode weighs its present chunks, the last one only up to `end`, in blocks of the disk: no less than its file takes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from disfs.chunkstore.recency import GROUP_CHUNKS
from disfs.values import ChunkIndex, Revision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disfs.chunkstore.states import ChunkState
    from disfs.values import InodeNumber

BLOCK_BYTES = 4096
NO_REVISION = Revision(0)


@dataclass(slots=True)
class Entry:
    """A chunk in a state that one bit cannot tell."""

    state: ChunkState
    length: int = 0
    """What it weighs among the dirty bytes."""
    revision: Revision = NO_REVISION
    written_at: float = 0.0
    dirty_since: float = 0.0
    born: Revision = NO_REVISION
    """The revision of the first write that is not in Discord and recorded."""
    sent_revision: Revision = NO_REVISION
    """The revision of the copy that is being sent."""
    rewritten: Revision = NO_REVISION
    """The revision of the first write after that copy was taken; of REWRITTEN chunks alone."""
    asked: bool = False
    """Somebody waits until what was unsent of it at some moment is in Discord."""


@dataclass(slots=True)
class InodeChunks:
    """The cached chunks of one inode."""

    inode: InodeNumber
    end: int = 0
    disk_end: int = 0
    present: dict[int, int] = field(default_factory=dict)
    """Group number -> 64 bits, one for each present chunk."""
    count: int = 0
    """How many bits are set."""
    entries: dict[ChunkIndex, Entry] = field(default_factory=dict)
    weight: int = 0
    unsent_count: int = 0
    """How many of its chunks Discord does not have as they are."""
    unsent_bytes: int = 0
    """How long these are together."""
    sending_count: int = 0
    """Of how many of them a copy is on its way."""
    sent_bytes: int = 0
    """How much of it has arrived in Discord since it was last there as a whole; 0 while it is."""
    doomed_bytes: int = 0
    """What of the weight is due to bytes that were cut and are still in the cache file."""

    @property
    def is_small(self) -> bool:
        """Whether the cached content is a row of the ledger: there is some, and no cache file."""
        return self.end > self.disk_end

    @property
    def doomed(self) -> bool:
        """Whether bytes that were cut are still in the cache file."""
        return self.disk_end > self.end

    def has(self, index: int) -> bool:
        """Whether chunk `index` is present."""
        return bool(self.present.get(index // GROUP_CHUNKS, 0) >> index % GROUP_CHUNKS & 1)

    def has_all(self, chunks: range) -> bool:
        """Whether all of `chunks` are present."""
        group, bit = divmod(chunks.start, GROUP_CHUNKS)
        if chunks.stop - chunks.start + bit > GROUP_CHUNKS:
            return all(map(self.has, chunks))
        bits = ((1 << chunks.stop - chunks.start) - 1) << bit
        return self.present.get(group, 0) & bits == bits

    def indices(self, first: int = 0) -> Iterator[ChunkIndex]:
        """The present chunks from `first` on (and a few before it), in order."""
        for group in sorted(group for group in self.present if group >= first // GROUP_CHUNKS):
            bits = self.present[group]
            while bits:
                lowest = bits & -bits
                yield ChunkIndex(group * GROUP_CHUNKS + lowest.bit_length() - 1)
                bits ^= lowest

    def runs(self) -> Iterator[range]:
        """The same as runs without a gap."""
        run: range | None = None
        for index in self.indices():
            if run is not None and run.stop == index:
                run = range(run.start, index + 1)
                continue
            if run is not None:
                yield run
            run = range(index, index + 1)
        if run is not None:
            yield run

    def set(self, index: int, value: bool) -> None:
        """Set or clear one bit."""
        group, bit = divmod(index, GROUP_CHUNKS)
        bits = self.present.get(group, 0)
        if bool(bits >> bit & 1) == value:
            return
        self.count += 1 if value else -1
        bits ^= 1 << bit
        if bits:
            self.present[group] = bits
        else:
            del self.present[group]

    def weight_of(self, chunk_bytes: int, *, more: int = 0, end: int | None = None, last_present: bool = False) -> int:
        """What the inode weighs, or would weigh with `more` chunks and another end."""
        end = self.end if end is None else end
        count = self.count + more
        if not count:
            return self.doomed_bytes
        last = (end - 1) // chunk_bytes
        if not (last_present or self.has(last)):
            return count * chunk_bytes + self.doomed_bytes
        used = -(-(end - last * chunk_bytes) // BLOCK_BYTES) * BLOCK_BYTES
        return (count - 1) * chunk_bytes + min(chunk_bytes, used) + self.doomed_bytes
