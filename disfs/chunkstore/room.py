"""The budget of the cache: what takes how much of it, and what is evicted to make room.

The rules that are named by number stand in `cache`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.free_space import FreeSpace
from disfs.chunkstore.states import ChunkEvent, ChunkState
from disfs.errors import FilesystemError
from disfs.values import ChunkKey

if TYPE_CHECKING:
    from disfs.chunkstore.files import CacheFiles
    from disfs.chunkstore.inode_chunks import InodeChunks
    from disfs.chunkstore.presence import ChunkMap
    from disfs.chunkstore.small import SmallContents
    from disfs.values import ChunkIndex, InodeNumber

log = logging.getLogger(__name__)

_EVICT_AT_ONCE = 8
"""Chunks that an eviction takes at least: a system call for each single chunk would cost more than it saves."""


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """What the cache may take."""

    total_bytes: int
    min_free_bytes: int
    """Of the disk, left to others."""
    pinned_bytes: int
    """What pinned inodes keep together, see rule 5."""


class Room:
    """What of a volume is cached, where, and what room there is; `Cache` is this with contents.

    The two are one object: a write asks for room several times, and each further call would show.
    `changed` is unparked when waiting for room can have become pointless.
    """

    def __init__(self, files: CacheFiles, small: SmallContents, chunks: ChunkMap, limits: CacheLimits) -> None:
        self.files = files
        self.small = small
        self.map = chunks
        self.changed = trio.lowlevel.ParkingLot()
        self.bulk_step = trio.Lock()
        """Held for one short step by whoever brings many chunks in or out. It is handed over from one round of the
        scheduler to the next, so at most one such step keeps the kernel's requests waiting."""
        self.unsynced: set[InodeNumber] = set()
        self.overlaid: set[InodeNumber] = set()
        """Those of them with new content in chunks whose older content is elsewhere: in Discord, or in a row until they
        spilled. That they are dirty must not become durable before their bytes: after a power cut the older
        content, fsynced long ago, would be gone too. And those that were cut on the disk: where they grow, what was cut
        must not come back."""
        self.vanished: set[InodeNumber] = set()
        """Those of them that have lost their file to a cut: the folder must be synced, or the file comes back."""
        self.evicted_count = 0
        self._limit_bytes = limits.total_bytes
        self._free_space = FreeSpace(files, limits.min_free_bytes)
        self.pinned_limit_bytes = limits.pinned_bytes

    def resize(self, limits: CacheLimits) -> None:
        """Keep to other limits from now on; what is too much is evicted by whoever asks for room next."""
        self._limit_bytes = limits.total_bytes
        self.pinned_limit_bytes = limits.pinned_bytes
        self.changed.unpark_all()

    def growth(self, inode: InodeNumber, chunks: range, end: int) -> int:
        """How many bytes the cache would grow by if `chunks` became present and the content reached `end`."""
        chunk_bytes = self.map.chunk_bytes
        record = self.map.inodes.get(inode)
        if record is None:
            last_bytes = end - (chunks.stop - 1) * chunk_bytes
            return (len(chunks) - 1) * chunk_bytes + min(chunk_bytes, -(-last_bytes // 4096) * 4096)
        end = max(end, record.end)
        more = sum(not record.has(index) for index in chunks)
        in_chunks = (end - 1) // chunk_bytes in chunks
        return record.weight_of(chunk_bytes, more=more, end=end, last_present=in_chunks) - record.weight

    def reserve(self, inode: InodeNumber, chunks: range, end: int) -> bool:
        """Evict until that growth fits into the budget and on the disk; False when it cannot be made to.

        The eviction may take chunks of the same inode, so look at presence after it, not before.
        """
        while (shortage := self._shortage(self.growth(inode, chunks, end))) > 0:
            if not self.evict(shortage):
                return False
        return True

    def has_room(self, inode: InodeNumber, chunks: range, end: int) -> bool:
        """Whether that growth fits as things are, without evicting."""
        return self._shortage(self.growth(inode, chunks, end)) <= 0

    def has_room_for_new(self, length: int) -> bool:
        """Whether a content of that length, of an inode that is not cached, may be a row as things are."""
        return self.small.takes_new(length) and self._shortage(-(-length // 4096) * 4096) <= 0

    def _shortage(self, growth: int) -> int:
        if growth <= 0:
            return 0
        over_budget = self.map.weight + growth - self._limit_bytes
        return over_budget if over_budget > 0 else self._free_space.shortage(growth)

    def evict(self, shortage: int) -> bool:
        """Evict of the longest unused group as much as helps, and a little more; False if nothing may be evicted."""
        found = self.map.evictable()
        if found is None and self.map.pinned_weight > self.pinned_limit_bytes:
            found = self.map.evictable(pinned=True)
        if found is None:
            return False
        inode, clean = found
        chunk_bytes = self.map.chunk_bytes
        try:
            for index in clean[: max(_EVICT_AT_ONCE, -(-shortage // chunk_bytes))]:
                self._drop(inode, index, ChunkEvent.EVICT)
                self.evicted_count += 1
        except FilesystemError as error:
            # One file that the disk does not let us touch must not stop everybody who needs room.
            log.warning("the cache file of inode %d keeps its place: %s", inode, error)
            self.map.pass_over(inode, clean[0])
        self._remove_if_empty(self.map.inodes[inode])
        return True

    def evict_all(self) -> None:
        """Evict whatever may be evicted."""
        while self.evict(1 << 62):
            pass

    def _drop(self, inode: InodeNumber, index: ChunkIndex, event: ChunkEvent) -> None:
        chunk_bytes = self.map.chunk_bytes
        record = self.map.inodes[inode]
        if record.is_small:
            self.small.remove(record)
            self.map.move(ChunkKey(inode, index), event)
            return
        # The hole first: a chunk must not be called absent while its bytes are still there (rule 1).
        self.files.punch(inode, index * chunk_bytes, chunk_bytes)
        self.map.move(ChunkKey(inode, index), event)

    def _remove_if_empty(self, record: InodeChunks) -> None:
        # What the disk could not read once, it may read after a restart.
        if record.count or record.doomed or any(e.state is ChunkState.LOST for e in record.entries.values()):
            return
        if record.disk_end:
            try:
                self.files.remove(record.inode)
            except FilesystemError as error:
                log.warning("the empty cache file of inode %d stays: %s", record.inode, error)
                return
            record.end = record.disk_end = 0
            self.map.reweigh(record)
        self._needs_no_sync(record.inode)
        self.map.forget_if_empty(record.inode)

    def _needs_no_sync(self, inode: InodeNumber) -> None:
        if inode in self.vanished:
            return
        self.unsynced.discard(inode)
        self.overlaid.discard(inode)
