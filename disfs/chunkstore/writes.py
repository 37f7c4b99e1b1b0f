"""Taking new contents and cuts into the cache, with what Discord has of the chunks at their edges.

Every method that waits is a loop "what is missing? fetch it, look again", ending in a step in which nothing is
missing any more.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.reads import AWAY, usable_state
from disfs.chunkstore.states import UNSENT, ChunkState
from disfs.errors import FilesystemError, MetadataDamagedError
from disfs.spans import chunk_range
from disfs.values import ChunkIndex, ChunkKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.fetch import Fetcher
    from disfs.chunkstore.fetch_queue import Target
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.chunkstore.transport.base import Buffer
    from disfs.chunkstore.writeback import Writeback
    from disfs.values import InodeNumber


class Writes:
    """The writing half of the chunk store."""

    def __init__(
        self,
        ledger: ChunkLedger,
        cache: Cache,
        fetcher: Fetcher,
        writeback: Writeback,
        settings: ChunkStoreSettings,
    ) -> None:
        self._ledger = ledger
        self._cache = cache
        self._map = cache.map
        self._fetcher = fetcher
        self._writeback = writeback
        self._settings = settings
        self._chunk_bytes = settings.chunk_bytes

    def adjust(self, settings: ChunkStoreSettings) -> None:
        """Keep to another dirty limit from now on."""
        self._settings = settings

    async def write(self, inode: InodeNumber, offset: int, data: Buffer) -> None:
        """Take `data` into the cache as dirty content: durable after `sync`, in Discord after writeback.

        Is slowed while much is dirty and waits while too much is, also while uploads are paused: a resume helps then.
        FilesystemError(ENOSPC), with nothing written, when waiting is pointless. No checkpoint follows its last
        change, so what the caller does next belongs to the same step.
        """
        length = memoryview(data).nbytes
        if not length or self._write_new(inode, offset, data, length):
            return
        end = offset + length
        chunks = chunk_range(offset, length, self._chunk_bytes)
        if self._rewrite(inode, offset, data, chunks, end):
            return
        edges = [] if self._is_covered(inode, offset, end) else self._edges(chunks, offset, end)
        held: dict[Target, bytes] = {}
        if self._map.dirty_bytes > self._settings.soft_mark_bytes:
            await self._slow_down(inode, chunks, end)
        while True:
            for target, plain in held.items():
                end = max(end, target.key.chunk * self._chunk_bytes + len(plain))
            if self._cache.needs_preparing(inode, end) or not self._has_room(inode, chunks, end):
                await self._wait_for_room(inode, chunks, end)
            targets = await self._remote(inode, edges) if edges else []
            absent = [target for target in targets if target not in held]
            if not absent and self._cache.has_room(inode, chunks, end) and not self._cache.needs_preparing(inode, end):
                break
            await self._hold(absent, held)
        # Only here: while this write waited, others may have taken the room, or have cut what it lies over.
        self._ledger.check_room(inode, offset, length)
        try:
            self._cache.write(inode, offset, data, {t.key.chunk: held[t] for t in targets})
        except MetadataDamagedError:
            if not self._cache.drop_damaged(inode):
                raise
            await self.write(inode, offset, data)
        self._writeback.poke()

    def _is_covered(self, inode: InodeNumber, start: int, end: int) -> bool:
        """Whether nothing stays of a small content, which then may even be lost."""
        record = self._map.inodes.get(inode)
        return record is not None and end <= self._chunk_bytes and self._cache.small.is_covered(record, start, end)

    def _write_new(self, inode: InodeNumber, offset: int, data: Buffer, length: int) -> bool:
        """A first, small content of an empty file, where nothing has to be waited for; False for every other write.

        Nearly all files begin, and most end, with it: the long way would ask a dozen questions that have one answer.
        """
        if offset or inode in self._map.inodes or self._map.dirty_bytes + length > self._settings.soft_mark_bytes:
            return False
        if not self._cache.has_room_for_new(length) or not self._ledger.is_empty(inode):
            return False
        self._ledger.check_room(inode, offset, length)
        self._cache.write_new(inode, bytes(data))
        self._writeback.poke()
        return True

    def _rewrite(self, inode: InodeNumber, offset: int, data: Buffer, chunks: range, end: int) -> bool:
        """Write over what was not sent yet, as databases do all the time; False for every other write."""
        if self._map.dirty_bytes > self._settings.soft_mark_bytes:
            return False
        record = self._cache.dirty_record(inode, chunks, end)
        if record is None:
            return False
        self._cache.rewrite(record, offset, data, chunks)
        self._writeback.poke()
        return True

    def _edges(self, chunks: range, start: int, end: int) -> list[int]:
        """Those of `chunks` that the bytes from `start` to `end` cover in part."""
        first, last = chunks.start, chunks.stop - 1
        edges = [first] if start > first * self._chunk_bytes else []
        if end < chunks.stop * self._chunk_bytes and last not in edges:
            edges.append(last)
        return edges

    async def _remote(self, inode: InodeNumber, indices: Iterable[int]) -> list[Target]:
        """Where those of the chunks lie that only Discord has; EIO for a lost one."""
        absent = [index for index in indices if usable_state(self._map, inode, index) in AWAY]
        return list((await self._fetcher.locate(inode, absent)).values()) if absent else []

    async def _hold(self, targets: Sequence[Target], held: dict[Target, bytes]) -> None:
        """Fetch for a partial write or a cut: the contents are kept at hand, whether or not the cache has room."""
        if targets:
            plains = await self._fetcher.fetch(targets)
            held.update({target: plains[target.key.chunk] for target in targets if target.key.chunk in plains})

    async def _wait_for_room(self, inode: InodeNumber, chunks: range, end: int) -> None:
        while True:
            if self._cache.needs_preparing(inode, end):
                await self._cache.prepare(inode)
            elif self._has_room(inode, chunks, end):
                return
            else:
                await self._wait_for_writeback()

    def _has_room(self, inode: InodeNumber, chunks: range, end: int) -> bool:
        return self._dirty_fits(inode, chunks, end) and self._cache.reserve(inode, chunks, end)

    async def _slow_down(self, inode: InodeNumber, chunks: range, end: int) -> None:
        delay = self._writeback.write_delay_seconds(self._dirty_growth(inode, chunks, end))
        if delay > 0:
            await trio.sleep(delay)

    def _dirty_fits(self, inode: InodeNumber, chunks: range, end: int) -> bool:
        growth = self._dirty_growth(inode, chunks, end)
        # A single write above the limit is let through rather than never.
        fits = self._map.dirty_bytes + growth <= self._settings.dirty_bytes or not self._map.dirty_count
        return fits or growth <= 0

    def _dirty_growth(self, inode: InodeNumber, chunks: range, end: int) -> int:
        growth = 0
        for index in map(ChunkIndex, chunks):
            entry = self._map.entry(ChunkKey(inode, index))
            known = entry.length if entry is not None and entry.state in UNSENT else 0
            growth += min(self._chunk_bytes, end - index * self._chunk_bytes) - known
        return growth

    async def _wait_for_writeback(self) -> None:
        """Wait until something may have changed; ENOSPC if nothing can."""
        if self._cache.settle_count:
            await self._cache.settle()
            return
        if self._writeback.stopped:
            raise FilesystemError(errno.ENOSPC, "the cache is full of data that Discord does not take")
        if not self._map.dirty_count:
            raise FilesystemError(errno.ENOSPC, "the cache, or the disk under it, has no room")
        self._writeback.waiting_writers += 1
        try:
            self._writeback.poke()
            await self._cache.changed.park()
        finally:
            self._writeback.waiting_writers -= 1

    async def cut(self, inode: InodeNumber, size_bytes: int) -> None:
        """The file is now `size_bytes` long, shorter or longer: nothing past that offset ever comes back.

        Call it for every change of size that is not a write. No checkpoint follows its last change.
        """
        boundary, tail = divmod(size_bytes, self._chunk_bytes)
        start = size_bytes - tail
        held: dict[Target, bytes] = {}
        while True:
            if self._cache.needs_settling(inode, size_bytes):
                await self._cache.settle_cut(inode)
                continue
            targets = await self._remote_boundary(inode, boundary) if tail else []
            await self._hold([target for target in targets if target not in held], held)
            longer = [target for target in targets if len(held.get(target, b"")) > tail]
            if all(target in held for target in targets):
                if not longer:
                    break
                await self._wait_for_room(inode, range(boundary, boundary + 1), size_bytes)
                if await self._remote_boundary(inode, boundary) == targets and self._fits(inode, boundary, size_bytes):
                    break
        # What may be refused comes first: a file that keeps its size must keep its tail.
        for target in longer:
            self._cache.write(inode, start, held[target][:tail], {})
        self._cache.cut(inode, size_bytes)
        self._writeback.poke()

    async def _remote_boundary(self, inode: InodeNumber, boundary: int) -> list[Target]:
        if self._map.state(ChunkKey(inode, ChunkIndex(boundary))) is ChunkState.LOST:
            return []  # shortened or not, it cannot be read; that must not keep anybody from cutting the rest
        return await self._remote(inode, [boundary])

    def _fits(self, inode: InodeNumber, boundary: int, end: int) -> bool:
        if self._cache.needs_preparing(inode, end):
            return False
        return self._cache.has_room(inode, range(boundary, boundary + 1), end)

    def discard(self, inode: InodeNumber) -> None:
        """The inode is gone for good: so are its contents, sent or not."""
        self._cache.discard(inode)
