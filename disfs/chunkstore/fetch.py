"""Bring chunks from Discord: one Range request per run of neighbouring slots, shared by all who want a chunk.

A fetch lives in the chunk store's nursery, not in its reader: a reader that is cancelled takes nothing away
from the others, and a failure reaches all of them. What came is handed to the readers directly, and goes into
the cache only if there is room: reading never waits for room.

While a fetch runs, its chunks are FETCHING. A write, a cut or a deletion moves a chunk on, and what then arrives
for it is thrown away; its location cannot change otherwise, because only dirty chunks get new locations.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.codec import PackCipher
from disfs.chunkstore.states import ChunkEvent, ChunkState
from disfs.errors import CorruptDataError, FilesystemError, StorageError, TransientStorageError
from disfs.values import ChunkIndex, ChunkKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.chunkstore.transport.base import Transport
    from disfs.values import InodeNumber, PackId, PackRecord

log = logging.getLogger(__name__)

_KEEP_AT_ONCE = 8
"""Chunks put into the cache between two checkpoints: about a millisecond of the main thread."""


@dataclass(frozen=True, slots=True)
class Target:
    """A chunk that is in Discord, and where."""

    key: ChunkKey
    pack: PackId
    slot: int


@dataclass(frozen=True, slots=True)
class FetchStatistics:
    """For `disfs status`."""

    running: int
    fetched_chunks: int
    damaged_chunks: int
    """Chunks that could not be read because Discord's copy is gone or fails authentication."""
    failed_fetches: int
    """Fetches that gave up on the network."""


@dataclass(slots=True, eq=False)
class ChunkFetch:
    """One chunk on its way. When `done` is set, exactly one of `plain`, `error` is set, or it was thrown away."""

    target: Target
    done: trio.Event = field(default_factory=trio.Event)
    plain: bytes | None = None
    error: FilesystemError | None = None
    demanded: bool = False
    """Somebody waits for it; readahead alone does not demand."""
    run: _Run | None = None


@dataclass(slots=True, eq=False)
class _Run:
    record: PackRecord
    fetches: list[ChunkFetch]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


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
        self._table: dict[ChunkKey, ChunkFetch] = {}
        self._slots = trio.Semaphore(settings.fetches)
        self._ahead_slots = trio.Semaphore(max(1, settings.fetches // 2))
        self._limiter = trio.CapacityLimiter(2)
        self._nursery: trio.Nursery | None = None
        self._started = trio.Event()
        self._running = 0
        self._fetched_chunks = 0
        self._damaged_chunks = 0
        self._failed_fetches = 0

    def statistics(self) -> FetchStatistics:
        """Counters since the start."""
        return FetchStatistics(self._running, self._fetched_chunks, self._damaged_chunks, self._failed_fetches)

    async def run(self) -> None:
        """Hold the nursery in which fetches run, until cancelled."""
        assert self._nursery is None
        try:
            async with trio.open_nursery() as self._nursery:
                self._started.set()
                await trio.sleep_forever()
        finally:
            # Who asks from now on is told so, rather than left waiting for a nursery that may never open again.
            self._nursery = None

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

    async def fetch(self, targets: Iterable[Target]) -> dict[int, bytes]:
        """The contents of `targets` by chunk index. What changed meanwhile is missing: locate it again.

        FilesystemError(EIO) when a chunk cannot be had; the log names the file.
        """
        fetches = await self.begin(targets)
        for fetch in fetches:
            fetch.demanded = True
        for fetch in fetches:
            await fetch.done.wait()
        for fetch in fetches:
            if fetch.error is not None:
                raise FilesystemError(fetch.error.errno, str(fetch.error)) from fetch.error
        return {fetch.target.key.chunk: fetch.plain for fetch in fetches if fetch.plain is not None}

    async def begin(self, targets: Iterable[Target], *, ahead: bool = False) -> list[ChunkFetch]:
        """Start fetching what is not on its way yet; returns every target's fetch, joined or new."""
        if not self._started.is_set():
            await self._started.wait()
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
            fetches.append(fetch)
        await self._start(fresh, ahead=ahead)
        return fetches

    def _is_current(self, fetch: ChunkFetch) -> bool:
        key = fetch.target.key
        return self._table.get(key) is fetch and self._cache.map.state(key) is ChunkState.FETCHING

    async def _start(self, fresh: list[ChunkFetch], *, ahead: bool) -> None:
        try:
            records = {pack: await self._ledger.pack(pack) for pack in {fetch.target.pack for fetch in fresh}}
            nursery = self._open_nursery()
        except BaseException:
            self._finish(fresh)
            raise
        for run in _runs(fresh, records, self._settings.fetch_bytes):
            for fetch in run.fetches:
                fetch.run = run
            nursery.start_soon(self._fetch_run, run, ahead)

    def _open_nursery(self) -> trio.Nursery:
        if self._nursery is None:
            raise FilesystemError(errno.EIO, "the volume is being unmounted")
        return self._nursery

    def cancel(self, fetches: Iterable[ChunkFetch]) -> None:
        """Stop those of readahead's fetches that nobody else has come to wait for."""
        for fetch in fetches:
            if fetch.run is not None and not any(other.demanded for other in fetch.run.fetches):
                fetch.run.scope.cancel()

    async def _fetch_run(self, run: _Run, ahead: bool) -> None:
        self._running += 1
        try:
            with run.scope:
                # Readahead may fill half of the slots; the rest is for those who wait.
                async with self._ahead_slots if ahead else contextlib.nullcontext(), self._slots:
                    await self._bring(run)
        except FilesystemError as error:
            # The ledger does not answer: that is for those who wait to hear, and no reason to end everything.
            log.warning("a fetch came to nothing: %s", error)
            for fetch in run.fetches:
                fetch.error = fetch.error or (None if fetch.done.is_set() else error)
        finally:
            self._running -= 1
            self._finish(run.fetches)

    async def _bring(self, run: _Run) -> None:
        first, last = run.fetches[0].target.slot, run.fetches[-1].target.slot
        slots = run.record.slots
        start = slots.offset(first)
        try:
            raw = await self._transport.fetch(run.record.location, start, slots.offset(last + 1) - start)
        except StorageError as error:
            await self._fail(run.fetches, error)
            return
        opened = await trio.to_thread.run_sync(self._unseal, run, raw, limiter=self._limiter)
        for number, (fetch, plain) in enumerate(zip(run.fetches, opened, strict=True)):
            if isinstance(plain, CorruptDataError):
                await self._fail([fetch], plain)
            else:
                self._deliver(fetch, plain)
            if number % _KEEP_AT_ONCE == _KEEP_AT_ONCE - 1:
                await trio.lowlevel.checkpoint()

    def _unseal(self, run: _Run, raw: bytes) -> list[bytes | CorruptDataError]:
        """In a worker thread: nothing here is shared but values that do not change."""
        slots = run.record.slots
        cipher = PackCipher(self._key, run.record.pack)
        view = memoryview(raw)
        start = slots.offset(run.fetches[0].target.slot)
        opened: list[bytes | CorruptDataError] = []
        for slot in (fetch.target.slot for fetch in run.fetches):
            stored = view[slots.offset(slot) - start : slots.offset(slot + 1) - start]
            compressed = slots.is_compressed(slot)
            try:
                opened.append(cipher.unseal(slot, stored, compressed=compressed, max_bytes=self._settings.chunk_bytes))
            except CorruptDataError as error:
                opened.append(error)
        return opened

    def _deliver(self, fetch: ChunkFetch, plain: bytes) -> None:
        if self._is_current(fetch):
            fetch.plain = plain
            self._fetched_chunks += 1
            self._cache.fill(fetch.target.key, plain)
        self._finish([fetch])

    async def _fail(self, fetches: Sequence[ChunkFetch], error: StorageError) -> None:
        for fetch in fetches:
            key = fetch.target.key
            where = (await self._ledger.extents(key.inode, key.chunk, key.chunk)) if self._is_current(fetch) else ()
            moved = not any(e.pack == fetch.target.pack and e.slot_of(key.chunk) == fetch.target.slot for e in where)
            if not moved:
                await self._report(key, error)
                fetch.error = FilesystemError(errno.EIO, str(error))
        self._finish(fetches)

    async def _report(self, key: ChunkKey, error: StorageError) -> None:
        if isinstance(error, TransientStorageError):
            self._failed_fetches += 1
        else:
            self._damaged_chunks += 1
        paths = [path.decode(errors="backslashreplace") for path in await self._ledger.paths(key.inode)]
        name = " = ".join(paths) or f"inode {key.inode} (no name)"
        log.error("cannot read chunk %d of %s: %s", key.chunk, name, error)

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
            fetch.done.set()


def _runs(fetches: Iterable[ChunkFetch], records: Mapping[PackId, PackRecord], limit_bytes: int) -> Iterator[_Run]:
    """Group fetches into runs of consecutive slots of one pack, each of at most `limit_bytes` (or one slot)."""
    run: _Run | None = None
    run_bytes = 0
    for fetch in sorted(fetches, key=lambda f: (f.target.pack, f.target.slot)):
        record = records[fetch.target.pack]
        length = record.slots.stored_length(fetch.target.slot)
        if run is not None:
            previous = run.fetches[-1].target
            joined = previous.pack == fetch.target.pack and previous.slot + 1 == fetch.target.slot
            if joined and run_bytes + length <= limit_bytes:
                run.fetches.append(fetch)
                run_bytes += length
                continue
            yield run
        run, run_bytes = _Run(record, [fetch]), length
    if run is not None:
        yield run
