"""Bring chunks from Discord: one Range request per run of neighbouring slots, shared by all who want a chunk.

A fetch lives in the chunk store's nursery, not in its reader: a reader that is cancelled takes nothing away
from the others, and a failure reaches all of them. What came is handed to the readers directly, and goes into
the cache only if there is room: reading never waits for room. `fetch_queue` decides who is next.

From when it is queued until it came a chunk is FETCHING. A write, a cut or a deletion moves a chunk on, and what then
arrives for it is thrown away. Compaction may move it to another pack meanwhile; what comes from the old place is the
same content, and if the old place is gone already, the reader looks up the new one.

A slot that fails authentication is fetched again before the chunk is called damaged: a bit that fell over on the
way and an error page of the CDN look the same as damage that lasts.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.codec import PackCipher
from disfs.chunkstore.fetch_queue import ChunkFetch, FetchLimits, FetchQueue, Target, consecutive
from disfs.chunkstore.naming import name_of
from disfs.chunkstore.states import ChunkEvent, ChunkState
from disfs.chunkstore.transport.base import Urgency
from disfs.errors import CorruptDataError, FilesystemError, StorageError, TransientStorageError
from disfs.values import ChunkIndex, ChunkKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.fetch_queue import FetchStream, Run
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.chunkstore.transport.base import Transport
    from disfs.values import InodeNumber, PackId, PackRecord

log = logging.getLogger(__name__)

_KEEP_SECONDS = 0.0002
"""How long chunks are put into the cache in one step of the main thread."""
_MOST_DAMAGED = 1000
"""Of how many files, and how many chunks of each, it is remembered that they are damaged."""
_ATTEMPTS = 3
"""How often a slot that fails authentication is fetched in all."""
_PAUSE_SECONDS = 1.0
"""Before the last of these attempts: a bad answer may be a cached one."""


@dataclass(frozen=True, slots=True)
class FetchStatistics:
    """For `disfs status`."""

    running: int
    """Requests."""
    queued: int
    """Chunks that wait for a request."""
    running_bytes: int
    fetched_chunks: int
    fetched_bytes: int
    """As stored in Discord."""
    damaged_chunks: int
    """Chunks that could not be read because Discord's copy is gone or fails authentication."""
    failed_fetches: int
    """Fetches that gave up on the network."""
    refetched_chunks: int
    """Chunks that came damaged and were asked for again."""


class Fetcher:
    """Locates, fetches and unseals chunks."""

    def __init__(
        self, ledger: ChunkLedger, transport: Transport, cache: Cache, key: VolumeKey, settings: ChunkStoreSettings
    ) -> None:
        self._ledger = ledger
        self._transport = transport
        self._cache = cache
        self._key = key
        self._settings = settings
        self.damaged: dict[InodeNumber, dict[ChunkIndex, PackId]] = {}
        """Chunks that could not be had, and the packs that they were looked for in; some of them, if there are many."""
        self.on_damage: Callable[[InodeNumber], None] | None = None
        """Hears of the inode of each chunk that could not be had. Must not raise."""
        self._table: dict[ChunkKey, ChunkFetch] = {}
        self._queue = FetchQueue(FetchLimits(settings.fetches, settings.fetch_memory_bytes, settings.fetch_bytes))
        self._limiter = trio.CapacityLimiter(2)
        self._started = trio.Event()
        self._stopped = False
        self._changed = trio.Event()
        """Set when another request may be able to begin."""
        self._fetched_chunks = 0
        self._fetched_bytes = 0
        self._damaged_chunks = 0
        self._failed_fetches = 0
        self._refetched_chunks = 0

    def statistics(self) -> FetchStatistics:
        """Counters since the start, and what is under way."""
        return FetchStatistics(
            running=self._queue.running,
            queued=len(self._queue),
            running_bytes=self._queue.running_bytes,
            fetched_chunks=self._fetched_chunks,
            fetched_bytes=self._fetched_bytes,
            damaged_chunks=self._damaged_chunks,
            failed_fetches=self._failed_fetches,
            refetched_chunks=self._refetched_chunks,
        )

    async def run(self) -> None:
        """Begin requests as the queue says, and hold them, until cancelled."""
        assert not self._started.is_set()
        self._started.set()
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    self._changed = trio.Event()
                    while (run := self._queue.take()) is not None:
                        if any(map(self._is_current, run.fetches)):
                            nursery.start_soon(self._carry, run)
                        else:  # all of it was written or cut while it waited
                            self._queue.finished(run)
                            self._finish(run.fetches)
                    await self._changed.wait()
        finally:
            # Who waits or asks from now on is told so, rather than left waiting for what may never come.
            self._stopped = True
            for fetch in self._queue:
                self._queue.drop(fetch)
                self._finish([fetch])

    # -- asking -------------------------------------------------------------------------------------------------

    async def locate(self, inode: InodeNumber, chunks: Sequence[int]) -> dict[int, Target]:
        """Where those of `chunks` lie that are in Discord; the others are holes."""
        if not chunks:
            return {}
        wanted = frozenset(chunks)
        found: dict[int, Target] = {}
        for extent in await self._ledger.extents(inode, ChunkIndex(min(wanted)), ChunkIndex(max(wanted))):
            for offset in range(extent.count):
                index = ChunkIndex(extent.first_chunk + offset)
                if index in wanted:
                    found[index] = Target(ChunkKey(inode, index), extent.pack, extent.first_slot + offset)
        return found

    async def fetch(self, targets: Iterable[Target], stream: FetchStream | None = None) -> dict[int, bytes]:
        """The contents of `targets`, all of one inode, by chunk index. What changed meanwhile is missing: locate again.

        `stream` is that of the reader, if it has one. FilesystemError(EIO) when a chunk cannot be had; the log names
        the file.
        """
        came = trio.current_time()
        fetches = await self._begin(targets, stream, reader=True)
        try:
            for fetch in fetches:
                await fetch.done.wait()
        finally:
            for fetch in fetches:
                self._leave(fetch)
        for fetch in fetches:
            # A network that failed a request from before we came may still answer us.
            if fetch.error is not None and not (fetch.transient and fetch.begun_at < came):
                raise FilesystemError(fetch.error.errno, str(fetch.error)) from fetch.error
        return {fetch.target.key.chunk: fetch.plain for fetch in fetches if fetch.plain is not None}

    async def begin(self, targets: Iterable[Target], stream: FetchStream) -> list[ChunkFetch]:
        """Queue for `stream` what is not on its way yet; returns every target's fetch, joined or new."""
        return await self._begin(targets, stream, reader=False)

    def cancel(self, stream: FetchStream) -> None:
        """Take back everything of the stream that nobody else wants; requests under way for it end."""
        for fetch in self._queue.forget(stream):
            if fetch.run is None:
                self._finish([fetch])
            elif not any(other.wanted for other in fetch.run.fetches):
                fetch.run.scope.cancel()

    async def _begin(self, targets: Iterable[Target], stream: FetchStream | None, *, reader: bool) -> list[ChunkFetch]:
        if not self._started.is_set():
            await self._started.wait()
        if self._stopped:
            raise FilesystemError(errno.EIO, "the volume is being unmounted")
        fetches: list[ChunkFetch] = []
        fresh: list[ChunkFetch] = []
        for target in targets:
            fetch = self._table.get(target.key)
            if fetch is None or not self._is_current(fetch):
                if self._cache.map.state(target.key) is not ChunkState.ABSENT:
                    continue  # it came, or was written, while we looked up where it lies
                fetch = self._table[target.key] = ChunkFetch(target)
                self._cache.map.move(target.key, ChunkEvent.FETCH)
                fresh.append(fetch)
            if reader:
                fetch.near = stream
                fetch.readers += 1
                if fetch.readers == 1:
                    self._queue.move(fetch)
            elif stream is not None and stream not in fetch.streams:
                fetch.streams.append(stream)
                stream.fetches.add(fetch)
            fetches.append(fetch)
        if fresh:
            await self._enqueue(fresh)
        self._changed.set()
        return fetches

    async def _enqueue(self, fresh: Sequence[ChunkFetch]) -> None:
        try:
            records: dict[bytes, PackRecord] = {}
            for fetch in fresh:
                pack = fetch.target.pack
                fetch.record = records.get(pack) or records.setdefault(pack, await self._ledger.pack(pack))
        except BaseException:
            self._finish(fresh)
            raise
        for fetch in fresh:
            if self._stopped or not fetch.wanted:
                self._finish([fetch])
            elif not fetch.done.is_set():
                self._queue.add(fetch)

    def _leave(self, fetch: ChunkFetch) -> None:
        """A reader waits no longer. What is on its way comes all the same: most of the work is done."""
        fetch.readers -= 1
        if not fetch.done.is_set() and not fetch.readers and self._queue.move(fetch):
            self._finish([fetch])

    def _is_current(self, fetch: ChunkFetch) -> bool:
        key = fetch.target.key
        return self._table.get(key) is fetch and self._cache.map.state(key) is ChunkState.FETCHING

    # -- carrying -----------------------------------------------------------------------------------------------

    async def _carry(self, run: Run) -> None:
        began = trio.current_time()
        seconds: float | None = None
        try:
            with run.scope:
                await self._bring(run)
                if all(fetch.error is None for fetch in run.fetches):
                    seconds = trio.current_time() - began
        except FilesystemError as error:
            # The ledger does not answer: that is for those who wait to hear, and no reason to end everything.
            log.warning("a fetch came to nothing: %s", error)
            for fetch in run.fetches:
                fetch.error = fetch.error or (None if fetch.done.is_set() else error)
        finally:
            self._queue.finished(run, seconds)
            self._finish(run.fetches)
            self._changed.set()

    async def _bring(self, run: Run) -> None:
        """Fetch the run; what of it comes damaged once more, and again after a pause."""
        missing = [run.fetches]
        for attempt in range(1, _ATTEMPTS + 1):
            damaged: list[tuple[ChunkFetch, CorruptDataError]] = []
            for fetches in missing:
                damaged += await self._bring_some(run, fetches)
            if not damaged:
                return
            if attempt == _ATTEMPTS:
                break
            self._refetched_chunks += len(damaged)
            log.debug("%d slots of pack %s came damaged; asking again", len(damaged), run.record.pack.hex())
            missing = consecutive(fetch for fetch, _ in damaged)
            if attempt == _ATTEMPTS - 1:
                await trio.sleep(_PAUSE_SECONDS)
        for fetch, error in damaged:
            await self._fail([fetch], error)

    async def _bring_some(self, run: Run, fetches: list[ChunkFetch]) -> list[tuple[ChunkFetch, CorruptDataError]]:
        """One request; returns what came damaged."""
        slots = run.record.slots
        start, end = slots.offset(fetches[0].target.slot), slots.offset(fetches[-1].target.slot + 1)
        # Who reads ahead will wait soon: behind those who wait now, before what works in the background.
        urgency = Urgency.READER if any(fetch.readers for fetch in fetches) else Urgency.SYNC
        if run.stream is not None and run.stream.background and not run.demanded:
            urgency = Urgency.WRITEBACK
        try:
            raw = await self._transport.fetch(run.record.location, start, end - start, urgency=urgency)
        except CorruptDataError as error:
            return [(fetch, error) for fetch in fetches]
        except StorageError as error:
            await self._fail(fetches, error)
            return []
        self._fetched_bytes += len(raw)
        opened = await trio.to_thread.run_sync(self._unseal, run.record, fetches, raw, limiter=self._limiter)
        del raw  # while many requests wait for their turn to be kept, each holds its contents once
        return await self._deliver_all(fetches, opened)

    def _unseal(self, record: PackRecord, fetches: Sequence[ChunkFetch], raw: bytes) -> list[bytes | CorruptDataError]:
        """In a worker thread; nothing here is shared but values that do not change."""
        slots = record.slots
        cipher = PackCipher(self._key, record.pack)
        view = memoryview(raw)
        start = slots.offset(fetches[0].target.slot)
        opened: list[bytes | CorruptDataError] = []
        for slot in (fetch.target.slot for fetch in fetches):
            stored = view[slots.offset(slot) - start : slots.offset(slot + 1) - start]
            compressed = slots.is_compressed(slot)
            try:
                opened.append(cipher.unseal(slot, stored, compressed=compressed, max_bytes=self._settings.chunk_bytes))
            except CorruptDataError as error:
                opened.append(error)
        return opened

    async def _deliver_all(
        self, fetches: Sequence[ChunkFetch], opened: list[bytes | CorruptDataError]
    ) -> list[tuple[ChunkFetch, CorruptDataError]]:
        """Hand over and keep what came, in order, emptying `opened`; returns what came damaged."""
        damaged: list[tuple[ChunkFetch, CorruptDataError]] = []
        rest = deque(fetches)
        opened.reverse()
        while rest:
            # Whose reader waits does not wait for its turn.
            async with contextlib.nullcontext() if rest[0].readers else self._cache.bulk_step:
                began = time.perf_counter()
                while rest and time.perf_counter() - began < _KEEP_SECONDS:
                    fetch, plain = rest.popleft(), opened.pop()
                    if isinstance(plain, CorruptDataError):
                        damaged.append((fetch, plain))
                    else:
                        self._deliver(fetch, plain)
        return damaged

    def _deliver(self, fetch: ChunkFetch, plain: bytes) -> None:
        if self._is_current(fetch):
            if fetch.readers:
                fetch.plain = plain
            self._fetched_chunks += 1
            ahead = any(not stream.background for stream in fetch.streams)
            if self._cache.fill(fetch.target.key, plain) and (fetch.readers or ahead):
                self._cache.map.recency.came(*fetch.target.key, ahead=not fetch.readers)
        self._finish([fetch])

    async def _fail(self, fetches: Sequence[ChunkFetch], error: StorageError) -> None:
        for fetch in fetches:
            key = fetch.target.key
            where = (await self._ledger.extents(key.inode, key.chunk, key.chunk)) if self._is_current(fetch) else ()
            moved = not any(e.pack == fetch.target.pack and e.slot_of(key.chunk) == fetch.target.slot for e in where)
            if not moved:
                fetch.transient = isinstance(error, TransientStorageError)
                fetch.error = FilesystemError(errno.EIO, str(error))
                # What was only read ahead nobody misses yet; who does will ask again and hear of it then.
                if fetch.readers:
                    await self._report(key, error)
        self._finish(fetches)

    async def _report(self, key: ChunkKey, error: StorageError) -> None:
        if isinstance(error, TransientStorageError):
            self._failed_fetches += 1
        else:
            self._damaged_chunks += 1
            await self._note_damage(key)
        log.error("cannot read chunk %d of %s: %s", key.chunk, await name_of(self._ledger, key.inode), error)

    async def _note_damage(self, key: ChunkKey) -> None:
        if key.inode not in self.damaged and len(self.damaged) >= _MOST_DAMAGED:
            return
        with contextlib.suppress(FilesystemError):  # the metadata are damaged too: the log names the file all the same
            for extent in await self._ledger.extents(key.inode, key.chunk, key.chunk):
                known = self.damaged.setdefault(key.inode, {})
                if len(known) < _MOST_DAMAGED:
                    known[key.chunk] = extent.pack
        if self.on_damage is not None:
            self.on_damage(key.inode)

    def _finish(self, fetches: Iterable[ChunkFetch]) -> None:
        """Wake the readers. A chunk that did not get into the cache is absent again."""
        for fetch in fetches:
            if fetch.done.is_set():
                continue
            if self._is_current(fetch):
                self._cache.map.move(fetch.target.key, ChunkEvent.FAIL)
            if self._table.get(fetch.target.key) is fetch:
                del self._table[fetch.target.key]
            self._cache.map.forget_if_empty(fetch.target.key.inode)
            for stream in fetch.streams:
                stream.fetches.discard(fetch)
            fetch.done.set()
