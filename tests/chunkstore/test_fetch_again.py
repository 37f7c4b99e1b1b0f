"""Answers that are damaged on the way, late failures, and chunks that move while they are fetched."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.chunk_worlds import CHUNK, FILE, chunk_world
from trio.testing import wait_all_tasks_blocked

from disfs.chunkstore.transport.base import Urgency
from disfs.chunkstore.transport.faults import Fault
from disfs.errors import CorruptDataError, FilesystemError, TransientStorageError

if TYPE_CHECKING:
    from pathlib import Path

    from support.chunk_worlds import ChunkWorld
    from trio.testing import MockClock

    from disfs.values import Location

TRANSIENT = TransientStorageError("the network is down", maybe_done=True)


def noise(chunks: int, seed: int = 1) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(chunks * CHUNK)


class Damaging:
    """Passes everything on, and flips a bit of one slot in the first so many answers that hold it."""

    def __init__(self, inner: Any, position: int, times: int) -> None:
        self._inner = inner
        self._position = position
        self._times = times
        self.asked: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
        raw = bytearray(await self._inner.fetch(location, start, length, urgency=urgency))
        self.asked.append((start, length))
        if self._times and start <= self._position < start + length:
            self._times -= 1
            raw[self._position - start] ^= 1
        return bytes(raw)


class FailingAhead:
    """Passes everything on, but fails the first request that no reader waits for."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
        if urgency is not Urgency.READER and not self.failed:
            self.failed = True
            raise TRANSIENT
        found: bytes = await self._inner.fetch(location, start, length, urgency=urgency)
        return found


async def cold_with(world: ChunkWorld, nursery: trio.Nursery, chunks: int, transport: Any) -> bytes:
    """A cold file of so many chunks, read through `transport` from now on."""
    data = noise(chunks)
    await world.write(FILE, 0, data)
    await world.store.drain()
    await world.stop()
    world.store = world.new_store(transport)
    await world.start(nursery)
    world.store.evict_all()
    return data


async def test_bit_that_fell_over_on_the_way(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A slot that comes damaged is asked for again, alone; the reader gets what is right and hears of nothing."""
    async with chunk_world(tmp_path, channels=1) as (world, nursery):
        damaging = Damaging(world.transport, 2 * (CHUNK + 16) + 5, 2)
        data = await cold_with(world, nursery, 4, damaging)
        assert data == await world.contents(FILE)
        sealed = CHUNK + 16
        assert [(0, 4 * sealed), (2 * sealed, sealed), (2 * sealed, sealed)] == damaging.asked
        fetch = world.store.statistics().fetch
        assert (2, 0) == (fetch.refetched_chunks, fetch.damaged_chunks)


async def test_damage_that_lasts(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A slot that comes damaged every time is an error in the end, and after a bounded time."""
    async with chunk_world(tmp_path, channels=1) as (world, nursery):
        damaging = Damaging(world.transport, 5, 1000)
        data = await cold_with(world, nursery, 4, damaging)
        with trio.fail_after(5), pytest.raises(FilesystemError, match="EIO"):
            await world.store.read(FILE, 0, CHUNK)
        assert 3 == len(damaging.asked)
        assert data[CHUNK:] == await world.store.read(FILE, CHUNK, 3 * CHUNK)
        assert 1 == world.store.statistics().fetch.damaged_chunks


async def test_answer_that_the_transport_calls_damaged(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An answer that already the transport finds wrong is asked for again too."""
    async with chunk_world(tmp_path, channels=1) as (world, nursery):
        data = await cold_with(world, nursery, 3, world.transport)
        world.transport.plan("fetch", 1, Fault(before=CorruptDataError("an error page")))
        assert data == await world.contents(FILE)


async def test_late_reader_gets_a_try_of_his_own(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Who joins a request that then fails is not told of it: it is asked again on his behalf."""
    async with chunk_world(tmp_path, channels=1) as (world, nursery):
        data = await cold_with(world, nursery, 1, world.transport)
        hold = trio.Event()
        world.transport.plan("fetch", 1, Fault(hold=hold, before=TRANSIENT))
        refused: list[bool] = []

        async def early() -> None:
            with pytest.raises(FilesystemError, match="EIO"):
                await world.contents(FILE)
            refused.append(True)

        found: list[bytes] = []

        async def late() -> None:
            found.append(await world.contents(FILE))

        nursery.start_soon(early)
        await trio.sleep(29)
        nursery.start_soon(late)
        await wait_all_tasks_blocked()
        hold.set()
        await trio.sleep(1)
        assert ([True], [data]) == (refused, found)


async def test_readahead_that_fails_is_nobodys_error(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that only readahead wanted fails without an error in the log; the reader asks again."""
    async with chunk_world(tmp_path, channels=1, readahead_bytes=16 * CHUNK) as (world, nursery):
        failing = FailingAhead(world.transport)
        data = await cold_with(world, nursery, 8, failing)
        readahead = world.store.new_readahead()
        assert data[:CHUNK] == await world.store.read(FILE, 0, CHUNK, readahead)
        await trio.sleep(1)
        for index in range(1, 8):
            assert data[index * CHUNK :][:CHUNK] == await world.store.read(FILE, index * CHUNK, CHUNK, readahead)
        readahead.close()
        assert failing.failed
        assert "cannot read" not in caplog.text


async def test_unmount_wakes_who_waits(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Readers of queued chunks are told when the store stops, rather than left waiting."""
    async with chunk_world(tmp_path, channels=1, fetches=1) as (world, nursery):
        await cold_with(world, nursery, 8, world.transport)
        world.transport.plan("fetch", 1, Fault(hold=trio.Event()))
        told: list[int] = []

        async def read(index: int) -> None:
            with pytest.raises(FilesystemError, match="EIO"):
                await world.store.read(FILE, index * CHUNK, 10)
            told.append(index)

        for index in (0, 3, 5):
            nursery.start_soon(read, index)
        await wait_all_tasks_blocked()
        await world.halt()
        assert [0, 3, 5] == sorted(told)


async def test_reader_that_leaves_the_queue(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A reader that is cancelled while his chunk is queued leaves no request behind; the chunk can be read later."""
    async with chunk_world(tmp_path, channels=1, fetches=1) as (world, nursery):
        data = await cold_with(world, nursery, 8, world.transport)
        hold = trio.Event()
        world.transport.plan("fetch", 1, Fault(hold=hold))
        nursery.start_soon(world.store.read, FILE, 0, 10)
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await world.store.read(FILE, 4 * CHUNK, 10)
        assert 0 == world.store.statistics().fetch.queued
        hold.set()
        assert data == await world.contents(FILE)
