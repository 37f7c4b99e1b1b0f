"""Reading a file's contents, whatever of them is cached, in Discord, on its way, or a hole.

It decides in one step and looks again at what it relied on after each await.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.chunkstore.states import ChunkState
from disfs.errors import DirtyDataLostError, FilesystemError, MetadataDamagedError
from disfs.spans import chunk_range, spans
from disfs.values import ChunkIndex, ChunkKey

if TYPE_CHECKING:
    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.fetch import Fetcher
    from disfs.chunkstore.neighbours import Neighbours
    from disfs.chunkstore.presence import ChunkMap
    from disfs.chunkstore.readahead import Readahead
    from disfs.spans import Span
    from disfs.values import InodeNumber

log = logging.getLogger(__name__)

AWAY = frozenset({ChunkState.ABSENT, ChunkState.FETCHING})
"""States of a chunk that the cache does not have: Discord may."""
_FURTHER_CHUNKS = 32
"""How far a sequential reader of cached data looks ahead at once, for what it would look at read by read."""


@dataclass(frozen=True, slots=True)
class ReadStatistics:
    """For `disfs status`: chunks, counted for each read that touched them, since the start."""

    cached_chunks: int
    """Read from the cache."""
    missed_chunks: int
    """In Discord alone, or still on their way, when somebody wanted them."""
    ahead_used_chunks: int
    """Fetched ahead of a reader, and then read."""
    ahead_wasted_chunks: int
    """Fetched ahead of a reader, and gone from the cache before anybody read them."""


class Reads:
    """The reading half of the chunk store."""

    def __init__(self, cache: Cache, fetcher: Fetcher, neighbours: Neighbours, chunk_bytes: int) -> None:
        self._cache = cache
        self._map = cache.map
        self._fetcher = fetcher
        self._neighbours = neighbours
        self._chunk_bytes = chunk_bytes
        self._cached_chunks = 0
        self._missed_chunks = 0

    def statistics(self) -> ReadStatistics:
        """Counters since the start."""
        recency = self._map.recency
        return ReadStatistics(
            self._cached_chunks, self._missed_chunks, recency.ahead_used_count, recency.ahead_wasted_count
        )

    async def read(self, inode: InodeNumber, offset: int, length: int, readahead: Readahead | None = None) -> bytes:
        """Exactly `length` bytes; holes are zeros, and so is what lies past the end: the caller clips.

        No checkpoint if all of it is cached. FilesystemError(EIO) if any of it cannot be had; the log names the file.
        """
        chunks = chunk_range(offset, length, self._chunk_bytes)
        record = self._map.inodes.get(inode)
        hit = record is not None and record.has_all(chunks)
        if hit:
            self._cached_chunks += len(chunks)
            try:
                found = self._cache.read(inode, offset, length, chunks)
            except MetadataDamagedError:
                if not self._cache.drop_damaged(inode):
                    raise
                hit = False
        if hit and (readahead is None or readahead.follows(offset, length)):
            return found
        if readahead is not None and (absent := self._wanted_ahead(inode, offset, length, readahead, hit=hit)):
            await self._fetch_ahead(inode, absent, readahead)
        if hit:
            return found
        data = bytearray(length)
        missing = list(spans(offset, length, self._chunk_bytes))
        while missing:
            missing = await self._read_some(inode, offset, data, missing, readahead)
        return bytes(data)

    async def _read_some(
        self, inode: InodeNumber, offset: int, data: bytearray, missing: list[Span], readahead: Readahead | None
    ) -> list[Span]:
        """Copy what is at hand, fetch what is in Discord; returns the spans that have to be looked at again."""
        targets = await self._fetcher.locate(inode, [span.index for span in missing])
        away: list[Span] = []
        for span in missing:
            position = span.index * self._chunk_bytes + span.start
            if usable_state(self._map, inode, span.index) not in AWAY:
                self._cached_chunks += 1
                _copy(self._cache.read(inode, position, span.length), data, position - offset)
            elif span.index in targets:
                away.append(span)
        # What is neither cached nor in Discord is a hole, and `data` began as zeros.
        if not away:
            return []
        self._missed_chunks += len(away)
        last = targets[away[-1].index]
        stream = None if readahead is None else readahead.stream
        if self._map.state(last.key) is ChunkState.ABSENT:
            stream = await self._neighbours.queue_behind(last) or stream
        plains = await self._fetcher.fetch((targets[span.index] for span in away), stream)
        for span in away:
            if span.index in plains:
                plain = memoryview(plains[span.index])[span.start : span.end]
                _copy(plain, data, span.index * self._chunk_bytes + span.start - offset)
        return [span for span in away if span.index not in plains]

    def _wanted_ahead(
        self, inode: InodeNumber, offset: int, length: int, readahead: Readahead, *, hit: bool
    ) -> list[ChunkIndex]:
        """What the handle's readahead advises to fetch now and is not here yet: nothing, for most reads."""
        advice = readahead.on_read(offset, length, hit=hit)
        if advice.passed is not None:
            start, end = advice.passed
            self._map.recency.passed(inode, range(start // self._chunk_bytes, end // self._chunk_bytes))
        if advice.ahead is None:
            return []
        start, end = advice.ahead
        chunks = chunk_range(start, end - start, self._chunk_bytes)
        if self._cache.has_all(inode, chunks):
            further = range(chunks.start, chunks.start + _FURTHER_CHUNKS)
            if hit and self._cache.has_all(inode, further):
                readahead.found_present(further.stop * self._chunk_bytes)
            return []
        indices = map(ChunkIndex, chunks)
        return [index for index in indices if self._map.state(ChunkKey(inode, index)) is ChunkState.ABSENT]

    async def _fetch_ahead(self, inode: InodeNumber, absent: list[ChunkIndex], readahead: Readahead) -> None:
        """Begin it. The queue of fetches puts a reader that waits before it."""
        try:
            targets = await self._fetcher.locate(inode, absent)
            if targets and not readahead.closed:
                await self._fetcher.begin(targets.values(), readahead.stream)
        except FilesystemError as error:
            # Nobody waits for it yet; who will, meets the error himself.
            log.debug("nothing was fetched ahead: %s", error)
        if readahead.closed:
            self._fetcher.cancel(readahead.stream)


def usable_state(chunks: ChunkMap, inode: InodeNumber, index: int) -> ChunkState:
    """The state of a chunk that somebody wants to use; FilesystemError(EIO) if it is lost."""
    state = chunks.state(ChunkKey(inode, ChunkIndex(index)))
    if state is ChunkState.LOST:
        lost = DirtyDataLostError(
            f"chunk {index} of inode {inode} was lost before it was sent: overwrite the file, or delete it"
        )
        raise FilesystemError(errno.EIO, str(lost)) from lost
    return state


def _copy(source: bytes | memoryview, target: bytearray, position: int) -> None:
    target[position : position + len(source)] = source
