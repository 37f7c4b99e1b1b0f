"""Bring a whole file into the cache, behind everybody who waits.

It goes through the file in steps, a few of them under way at once, and looks after each whether all of it is there:
meanwhile chunks are written, cut and evicted. What cannot stay is refused before it is fetched.
"""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.fetch_queue import FetchStream
from disfs.chunkstore.states import ChunkState
from disfs.errors import FilesystemError
from disfs.spans import chunk_count
from disfs.values import ChunkIndex, ChunkKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.fetch import Fetcher
    from disfs.chunkstore.fetch_queue import ChunkFetch, Target
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.neighbours import Neighbours
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.values import InodeNumber

_STEP_CHUNKS = 32
_STEPS_AT_ONCE = 6
"""At 128 KiB a chunk 24 MiB: more than the queue lets a background stream have on its way."""
_TRIES = 3
"""How often a step is begun whose chunks come and do not stay."""
_SCAN_CHUNKS = 8192
"""How many chunks are looked up between two checkpoints."""


@dataclass(slots=True)
class _Step:
    chunks: range
    fetches: Sequence[ChunkFetch]


class Warmer:
    """Brings files into the cache because somebody asked for it."""

    def __init__(
        self,
        ledger: ChunkLedger,
        cache: Cache,
        fetcher: Fetcher,
        neighbours: Neighbours,
        settings: ChunkStoreSettings,
    ) -> None:
        self._ledger = ledger
        self._cache = cache
        self._fetcher = fetcher
        self._neighbours = neighbours
        self._chunk_bytes = settings.chunk_bytes
        self._run_bytes = settings.fetch_bytes

    async def warm(self, inode: InodeNumber, size_bytes: int, on_bytes: Callable[[int], None]) -> None:
        """Bring what is absent of the first `size_bytes` of a file; `on_bytes` hears how much more is there now.

        What was cached, and holes, count at once. FilesystemError: ENOSPC when it cannot stay beside pinned and dirty
        data and some room for work, known before anything is fetched unless others take the room meanwhile; EIO when a
        chunk cannot be had, or the cache's disk fails. A cancel or an error leaves in the cache what has come.
        """
        await self._check_room(inode, size_bytes)
        while self._cache.needs_preparing(inode, size_bytes):
            await self._cache.prepare(inode)  # else what comes is not kept beside what is there
        stream = FetchStream(background=True, run_bytes=self._run_bytes)
        steps: deque[_Step] = deque()
        count = chunk_count(size_bytes, self._chunk_bytes)
        try:
            for first in range(0, count, _STEP_CHUNKS):
                chunks = range(first, min(count, first + _STEP_CHUNKS))
                steps.append(_Step(chunks, await self._begin(inode, await self._absent(inode, chunks), stream)))
                await trio.lowlevel.checkpoint()
                if len(steps) == _STEPS_AT_ONCE:
                    on_bytes(await self._end(inode, size_bytes, steps.popleft(), stream))
            while steps:
                on_bytes(await self._end(inode, size_bytes, steps.popleft(), stream))
        finally:
            self._fetcher.cancel(stream)

    async def _check_room(self, inode: InodeNumber, size_bytes: int) -> None:
        count = chunk_count(size_bytes, self._chunk_bytes)
        stored_chunks = 0
        for first in range(0, count, _SCAN_CHUNKS):
            last = ChunkIndex(min(count, first + _SCAN_CHUNKS) - 1)
            stored_chunks += sum(extent.count for extent in await self._ledger.extents(inode, ChunkIndex(first), last))
            await trio.lowlevel.checkpoint()
        record = self._cache.map.inodes.get(inode)
        absent_chunks = stored_chunks - (0 if record is None else record.count)
        growth = min(size_bytes, absent_chunks * self._chunk_bytes)
        if growth > 0 and not self._could_hold(inode, growth):
            raise FilesystemError(errno.ENOSPC, f"{growth} bytes more do not fit beside what is pinned or not sent yet")

    def _could_hold(self, inode: InodeNumber, growth: int) -> bool:
        """Whether so much more of an inode could stay beside what is pinned or dirty, and room for work."""
        chunks = self._cache.map
        record = chunks.inodes.get(inode)
        own = 0 if record is None or inode in chunks.recency.pinned else record.weight
        # Dirty chunks of pinned inodes count twice: a little room is given away, and no scan is needed.
        return chunks.pinned_weight + chunks.dirty_bytes + own + growth <= self._cache.pinned_limit_bytes

    async def _absent(self, inode: InodeNumber, chunks: range) -> list[Target]:
        """Where those of `chunks` lie that Discord has and the cache does not."""
        away = {ChunkState.ABSENT, ChunkState.FETCHING}
        absent = [index for index in chunks if self._cache.map.state(ChunkKey(inode, ChunkIndex(index))) in away]
        return list((await self._fetcher.locate(inode, absent)).values())

    async def _begin(self, inode: InodeNumber, targets: Sequence[Target], stream: FetchStream) -> list[ChunkFetch]:
        if not targets:
            return []
        if not self._could_hold(inode, len(targets) * self._chunk_bytes):
            raise FilesystemError(errno.ENOSPC, "others have taken the room that the file needs in the cache")
        if len(targets) == 1 and self._cache.map.state(targets[0].key) is ChunkState.ABSENT:
            stream = await self._neighbours.queue_behind(targets[0]) or stream
        return await self._fetcher.begin(targets, stream)

    async def _end(self, inode: InodeNumber, size_bytes: int, step: _Step, stream: FetchStream) -> int:
        """Wait for a step until all of it is here; how many bytes of the file that is."""
        fetches = step.fetches
        for _ in range(_TRIES):
            for fetch in fetches:
                await fetch.done.wait()
            targets = await self._absent(inode, step.chunks)
            if not targets:
                start = step.chunks.start * self._chunk_bytes
                return min(size_bytes, step.chunks.stop * self._chunk_bytes) - start
            for fetch in fetches:
                if fetch.error is not None:
                    raise FilesystemError(fetch.error.errno, str(fetch.error)) from fetch.error
            fetches = await self._begin(inode, targets, stream)
        raise FilesystemError(
            errno.ENOSPC, "the file does not stay in the cache: the disk under it is full, or others need it"
        )
