"""Notice who reads small files one after another in the order in which they were sent: the policy, and its thin I/O.

A directory of small files lies in neighbouring slots of a few packs. Fetched one by one, each file costs a
whole latency; whoever copies the directory will want the neighbours too, and they cost next to nothing beside the first
one. So after a few misses near each other, for different files, each further miss brings a growing number of
the slots behind it. One file's own chunks are the business of `readahead`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.chunkstore.fetch_queue import FetchStream, Target

if TYPE_CHECKING:
    from disfs.chunkstore.fetch import Fetcher
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.values import InodeNumber, PackId, SlotTable

SLOT_LIMIT = 256
"""How many slots one miss brings at most: each chunk is a file of the cache, and work of the main thread."""
_FIRST_BYTES = 128 * 1024
_NEAR_SLOTS = 8
_SIGNS = 2
"""How many misses in a row must be near a way that somebody goes."""
_PACKS = 64
_TRAILS = 4


@dataclass(slots=True)
class _Trail:
    """Somebody's way through a pack."""

    inode: InodeNumber
    next_slot: int
    """The first one behind what was brought."""
    signs: int = 0
    window_bytes: int = 0


class NeighbourPolicy:
    """Decides, miss by miss, how many slots to bring beyond the one that is wanted."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._trails: OrderedDict[PackId, list[_Trail]] = OrderedDict()
        """A few of each pack, the one that was used last first: copies may run at the same time."""

    def on_miss(self, inode: InodeNumber, pack: PackId, slot: int, slots: SlotTable) -> int:
        """How many of the slots behind `slot` to bring along."""
        trail = self._find(pack, slot)
        if trail is None:
            self._begin(pack, _Trail(inode, slot + 1))
            return 0
        if inode != trail.inode:
            trail.inode = inode
            trail.signs += 1
            if trail.signs >= _SIGNS:
                trail.window_bytes = min(self._max_bytes, max(_FIRST_BYTES, 2 * trail.window_bytes))
        count = _slots_within(trail.window_bytes, slot, slots) if trail.signs >= _SIGNS else 0
        trail.next_slot = slot + 1 + count
        return count

    def _find(self, pack: PackId, slot: int) -> _Trail | None:
        trails = self._trails.get(pack, [])
        for number, trail in enumerate(trails):
            if abs(slot - trail.next_slot) <= _NEAR_SLOTS:
                trails.insert(0, trails.pop(number))
                self._trails.move_to_end(pack)
                return trail
        return None

    def _begin(self, pack: PackId, trail: _Trail) -> None:
        trails = self._trails.setdefault(pack, [])
        self._trails.move_to_end(pack)
        for other in trails:  # somebody jumps about: what looked like a way may have been chance
            other.signs = 0
            other.window_bytes //= 2
        trails.insert(0, trail)
        del trails[_TRAILS:]
        if len(self._trails) > _PACKS:
            self._trails.popitem(last=False)


def _slots_within(window_bytes: int, slot: int, slots: SlotTable) -> int:
    end = slots.offset(slot) + window_bytes
    count = 0
    while count < SLOT_LIMIT and slot + count + 1 < len(slots) and slots.offset(slot + count + 2) <= end:
        count += 1
    return count


class Neighbours:
    """Has the slots fetched that the policy asks for, as far as they hold what is live and absent."""

    def __init__(self, ledger: ChunkLedger, fetcher: Fetcher, settings: ChunkStoreSettings) -> None:
        self._ledger = ledger
        self._fetcher = fetcher
        self._policy = NeighbourPolicy(min(settings.fetch_bytes, settings.cache_bytes // 16))
        self._stream = FetchStream(run_bytes=settings.fetch_bytes)

    async def queue_behind(self, target: Target) -> FetchStream | None:
        """Somebody is about to fetch a chunk: queue what he will want next, and return the stream in which it waits.

        None when nothing is to be expected. Whoever fetches the chunk for that stream gets both by one request.
        """
        record = await self._ledger.pack(target.pack)
        count = self._policy.on_miss(target.key.inode, target.pack, target.slot, record.slots)
        if not count:
            return None
        found = await self._ledger.chunks_of_pack(target.pack, target.slot + 1, count)
        await self._fetcher.begin((Target(*chunk) for chunk in found), self._stream)
        return self._stream
