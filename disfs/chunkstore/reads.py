"""Reading a file's contents, whatever of them is cached, in Discord, on its way, or a hole.

It decides in one step and looks again at what it relied on after each await.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from disfs.chunkstore.states import ChunkState
from disfs.errors import DirtyDataLostError, FilesystemError
from disfs.spans import chunk_range, spans
from disfs.values import ChunkIndex, ChunkKey

if TYPE_CHECKING:
    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.fetch import Fetcher
    from disfs.chunkstore.presence import ChunkMap
    from disfs.chunkstore.readahead import Readahead
    from disfs.spans import Span
    from disfs.values import InodeNumber


class Reads:
    """The reading half of the chunk store."""

    def __init__(self, cache: Cache, fetcher: Fetcher, chunk_bytes: int) -> None:
        self._cache = cache
        self._map = cache.map
        self._fetcher = fetcher
        self._chunk_bytes = chunk_bytes

    async def read(self, inode: InodeNumber, offset: int, length: int, readahead: Readahead | None = None) -> bytes:
        """Exactly `length` bytes; holes are zeros, and so is what lies past the end: the caller clips.

        No checkpoint if all of it is cached. FilesystemError(EIO) if any of it cannot be had; the log names the file.
        """
        if readahead is not None and (ahead := readahead.on_read(offset, length)) is not None:
            await self._fetch_ahead(inode, *ahead, readahead)
        if self._cache.has_all(inode, chunk_range(offset, length, self._chunk_bytes)):
            return self._cache.read(inode, offset, length)
        data = bytearray(length)
        missing = list(spans(offset, length, self._chunk_bytes))
        while missing:
            missing = await self._read_some(inode, offset, data, missing)
        return bytes(data)

    async def _read_some(self, inode: InodeNumber, offset: int, data: bytearray, missing: list[Span]) -> list[Span]:
        """Copy what is at hand, fetch what is in Discord; returns the spans that have to be looked at again."""
        targets = await self._fetcher.locate(inode, [span.index for span in missing])
        away: list[Span] = []
        for span in missing:
            position = span.index * self._chunk_bytes + span.start
            state = usable_state(self._map, inode, span.index)
            if state not in {ChunkState.ABSENT, ChunkState.FETCHING}:
                _copy(self._cache.read(inode, position, span.length), data, position - offset)
            elif span.index in targets:
                away.append(span)
        # What is neither cached nor in Discord is a hole, and `data` began as zeros.
        plains = await self._fetcher.fetch(targets[span.index] for span in away) if away else {}
        for span in away:
            if span.index in plains:
                plain = memoryview(plains[span.index])[span.start : span.end]
                _copy(plain, data, span.index * self._chunk_bytes + span.start - offset)
        return [span for span in away if span.index not in plains]

    async def _fetch_ahead(self, inode: InodeNumber, start: int, end: int, readahead: Readahead) -> None:
        chunks = chunk_range(start, end - start, self._chunk_bytes)
        absent = [index for index in chunks if self._map.state(ChunkKey(inode, ChunkIndex(index))) is ChunkState.ABSENT]
        targets = await self._fetcher.locate(inode, absent)
        if targets:
            readahead.began(await self._fetcher.begin(targets.values(), ahead=True))


def usable_state(chunks: ChunkMap, inode: InodeNumber, index: int) -> ChunkState:
    """The state of a chunk that somebody wants to use; FilesystemError(EIO) if it is lost."""
    state = chunks.state(ChunkKey(inode, ChunkIndex(index)))
    if state is ChunkState.LOST:
        lost = DirtyDataLostError(f"chunk {index} of inode {inode} was not sent before the cache was deleted")
        raise FilesystemError(errno.EIO, str(lost)) from lost
    return state


def _copy(source: bytes | memoryview, target: bytearray, position: int) -> None:
    target[position : position + len(source)] = source
