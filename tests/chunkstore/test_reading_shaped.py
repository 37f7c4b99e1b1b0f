"""How fast reading is on a line with a latency and a bandwidth, beside the limit computed from them.

Everything is scaled down: a chunk is 4 KiB, the line carries 400 chunks a second with a latency of 80 ms, as 400
Mbit/s would carry chunks of 128 KiB.
"""

from __future__ import annotations

import random
import statistics
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from support.chunk_worlds import CHUNK, FILE, chunk_world
from support.shaped_transport import ShapedTransport

from disfs.chunkstore.transport.base import Urgency
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.chunk_worlds import ChunkWorld
    from trio.testing import MockClock

LATENCY = 0.08
RATE = 400 * CHUNK
SEALED = CHUNK + 16


def noise(chunks: int, seed: int = 1) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(chunks * CHUNK)


class Line:
    """A world whose files are cold, and the line to it."""

    def __init__(self, world: ChunkWorld, shaped: ShapedTransport) -> None:
        self.world = world
        self.shaped = shaped

    async def read_through(self, inode: InodeNumber, expected: bytes) -> float:
        """Read a file from beginning to end as the kernel does; how long that took."""
        began = trio.current_time()
        readahead = self.world.store.new_readahead()
        for offset in range(0, len(expected), CHUNK):
            assert expected[offset : offset + CHUNK] == await self.world.store.read(inode, offset, CHUNK, readahead)
        readahead.close()
        return trio.current_time() - began


@asynccontextmanager
async def cold(directory: Path, files: dict[InodeNumber, bytes], **changes: object) -> AsyncIterator[Line]:
    """A world with these files, none of it cached."""
    scaled: dict[str, object] = {
        "cache_bytes": 4096 * CHUNK,
        "attachment_bytes": 80 * CHUNK,
        "message_bytes": 192 * CHUNK,
        "fetch_bytes": 16 * CHUNK,
        "fetch_memory_bytes": 256 * CHUNK,
        "readahead_bytes": 256 * CHUNK,
        "settle_seconds": 1000.0,
    }
    async with chunk_world(directory, channels=1, **(scaled | changes)) as (world, nursery):
        for inode, data in files.items():
            for offset in range(0, len(data), 64 * CHUNK):
                await world.write(inode, offset, data[offset : offset + 64 * CHUNK])
        await world.store.drain()
        await world.stop()
        shaped = ShapedTransport(world.transport, latency_seconds=LATENCY, bytes_per_second=RATE)
        world.store = world.new_store(shaped)
        await world.start(nursery)
        world.store.evict_all()
        yield Line(world, shaped)


async def test_sequential_read_fills_the_line(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A cold file is read at 85 % of the bandwidth at least."""
    data = noise(2048)
    async with cold(tmp_path, {FILE: data}) as line:
        taken = await line.read_through(FILE, data)
        assert taken <= len(data) / RATE / 0.85


async def test_random_read_is_one_request_of_one_chunk(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A cold random read asks for its chunk and nothing else, and takes what that takes."""
    data = noise(1024)
    async with cold(tmp_path, {FILE: data}) as line:
        readahead = line.world.store.new_readahead()
        chosen = random.Random(2).sample(range(1024), 50)
        for index in chosen:
            began = trio.current_time()
            offset = index * CHUNK + 100
            assert data[offset : offset + 10] == await line.world.store.read(FILE, offset, 10, readahead)
            assert trio.current_time() - began <= 1.05 * line.shaped.seconds(SEALED)
        assert [SEALED] * 50 == [fetched.length for fetched in line.shaped.fetched]
        assert {Urgency.READER} == {fetched.urgency for fetched in line.shaped.fetched}


async def test_seek_waits_for_nothing_but_its_chunk(tmp_path: Path, autojump_clock: MockClock) -> None:
    """While readahead fills the line for somebody else, the first byte after a seek is there within two latencies."""
    data = noise(2048)
    other = InodeNumber(9)
    async with cold(tmp_path, {FILE: data, other: noise(1024, 2)}, cache_bytes=8192 * CHUNK) as line:
        firsts = []
        readahead = line.world.store.new_readahead()
        for place in random.Random(3).sample(range(2040), 20):
            for index in range(place, place + 8):
                began = trio.current_time()
                await line.world.store.read(FILE, index * CHUNK, CHUNK, readahead)
                if index == place:
                    firsts.append(trio.current_time() - began)
        assert statistics.median(firsts) <= 2 * LATENCY


async def test_seek_takes_back_what_was_begun(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A seek out of a large window ends its requests at once; the line is free for what is wanted now."""
    data = noise(2048)
    async with cold(tmp_path, {FILE: data}) as line:
        store = line.world.store
        readahead = store.new_readahead()
        for index in range(600):
            await store.read(FILE, index * CHUNK, CHUNK, readahead)
        assert line.shaped.running_bytes > 50 * CHUNK
        began = trio.current_time()
        await store.read(FILE, 1800 * CHUNK, 10, readahead)
        assert trio.current_time() - began <= 2 * LATENCY
        assert store.statistics().fetch.queued == 0
        assert line.shaped.running_bytes == 0


@pytest.mark.parametrize(("cache_chunks", "share"), [(8192, 0.85), (1024, 0.85), (512, 0.5)])
async def test_sixteen_readers_share_the_line(
    tmp_path: Path, autojump_clock: MockClock, cache_chunks: int, share: float
) -> None:
    """Sixteen files read at once come at the speed of one, nobody far behind; not much slower with little cache."""
    files = {InodeNumber(100 + number): noise(128, number) for number in range(16)}
    async with cold(tmp_path, files, cache_bytes=cache_chunks * CHUNK) as line:
        taken: dict[InodeNumber, float] = {}

        async def read(inode: InodeNumber) -> None:
            taken[inode] = await line.read_through(inode, files[inode])

        async with trio.open_nursery() as nursery:
            for inode in files:
                nursery.start_soon(read, inode)
        assert max(taken.values()) <= 16 * 128 * CHUNK / RATE / share
        assert max(taken.values()) <= 2 * statistics.median(taken.values())
        assert sum(fetched.length for fetched in line.shaped.fetched) <= 1.05 * 16 * 128 * SEALED


async def test_bytes_on_their_way_are_bounded(tmp_path: Path, autojump_clock: MockClock) -> None:
    """However many handles read ahead, no more is on its way than the settings allow."""
    files = {InodeNumber(100 + number): noise(64, number) for number in range(40)}
    async with cold(tmp_path, files, fetch_memory_bytes=64 * CHUNK, fetches=8) as line:
        async with trio.open_nursery() as nursery:
            for inode, data in files.items():
                nursery.start_soon(line.read_through, inode, data)
        assert line.shaped.most_running_bytes <= 64 * CHUNK + 8 * SEALED
        assert line.shaped.most_running <= 8


async def test_demand_overtakes_readahead(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A chunk that somebody comes to wait for while it is queued for another reader's future goes first."""
    data = noise(1024)
    async with cold(tmp_path, {FILE: data}, fetches=4, fetch_memory_bytes=32 * CHUNK) as line:
        store = line.world.store
        readahead = store.new_readahead()
        for index in range(300):
            await store.read(FILE, index * CHUNK, CHUNK, readahead)
        assert store.statistics().fetch.queued > 100
        began = trio.current_time()
        await store.read(FILE, 500 * CHUNK, 10)
        assert trio.current_time() - began <= 2.5 * LATENCY
        last = line.shaped.fetched[-1]
        assert SEALED == min(fetched.length for fetched in line.shaped.fetched if fetched.began_at >= began)
        assert last.began_at >= began


async def test_slow_line_gets_small_requests(tmp_path: Path, autojump_clock: MockClock) -> None:
    """On a line of 100 KB/s no reader waits long for many large requests to share it, once that is known."""
    data = noise(1024)
    async with cold(tmp_path, {FILE: data}) as line:
        line.shaped.bytes_per_second = 100_000
        longest = 0.0
        readahead = line.world.store.new_readahead()
        for index in range(1024):
            began = trio.current_time()
            await line.world.store.read(FILE, index * CHUNK, CHUNK, readahead)
            if index > 400:
                longest = max(longest, trio.current_time() - began)
        assert longest < 2.5


async def test_a_played_film_keeps_a_small_window(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A reader that is slower than the line soon waits no more, and what is fetched ahead of it stays little."""
    data = noise(600)
    async with cold(tmp_path, {FILE: data}) as line:
        readahead = line.world.store.new_readahead()
        waits = 0
        for index in range(400):
            began = trio.current_time()
            await line.world.store.read(FILE, index * CHUNK, CHUNK, readahead)
            waits += trio.current_time() > began
            await trio.sleep(0.05)
        assert waits <= 6
        brought = sum(fetched.length for fetched in line.shaped.fetched)
        assert brought <= 420 * SEALED


async def test_cached_data_hide_nothing_that_is_cold_behind_them(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A sequential reader of cached data has what follows fetched before it comes there."""
    data = noise(1024)
    async with cold(tmp_path, {FILE: data}) as line:
        store = line.world.store
        for index in range(200):
            await store.read(FILE, index * CHUNK, CHUNK)
        line.shaped.fetched.clear()
        readahead = store.new_readahead()
        for index in range(200):
            await store.read(FILE, index * CHUNK, CHUNK, readahead)
        await trio.sleep(2 * LATENCY)
        began = trio.current_time()
        await store.read(FILE, 200 * CHUNK, CHUNK, readahead)
        assert trio.current_time() == began
        assert Urgency.READER not in {fetched.urgency for fetched in line.shaped.fetched}


async def test_cached_data_far_away_end_no_readahead(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Whoever has read cached data and then reads cold ones, before them, has these fetched ahead as anybody."""
    data = noise(1024)
    async with cold(tmp_path, {FILE: data}) as line:
        store = line.world.store
        for index in range(800, 1000):
            await store.read(FILE, index * CHUNK, CHUNK)
        readahead = store.new_readahead()
        for index in range(800, 900):
            await store.read(FILE, index * CHUNK, CHUNK, readahead)
        waits = 0
        for index in range(700):
            began = trio.current_time()
            await store.read(FILE, index * CHUNK, CHUNK, readahead)
            waits += trio.current_time() > began
            await trio.sleep(1.5 * SEALED / RATE)
        assert waits <= 12


async def test_two_places_read_in_turn(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A program that reads two places of one file in turn gets both ahead of time: far fewer waits than reads."""
    data = noise(1024)
    async with cold(tmp_path, {FILE: data}) as line:
        readahead = line.world.store.new_readahead()
        waits = 0
        for step in range(100):
            for index in (step, 600 + step):
                began = trio.current_time()
                await line.world.store.read(FILE, index * CHUNK, CHUNK, readahead)
                waits += trio.current_time() > began
        assert waits <= 40
        # What is read, and as much again ahead; how far the last windows reach depends on which answer came first.
        assert sum(fetched.length for fetched in line.shaped.fetched) <= 420 * SEALED


@pytest.mark.parametrize("order", ["as sent", "by twos"])
async def test_copying_many_small_files(tmp_path: Path, autojump_clock: MockClock, order: str) -> None:
    """Small files that were sent together and are read one after another need far fewer requests than files."""
    files = {InodeNumber(1000 + number): random.Random(number).randbytes(200) for number in range(1000)}
    async with cold(tmp_path, files, cache_bytes=8192 * CHUNK) as line:
        wanted = list(files)
        if order == "by twos":  # two copies at once, in turn
            wanted = [inode for pair in zip(wanted[:500], wanted[500:], strict=True) for inode in pair]
        for inode in wanted:
            assert files[inode] == await line.world.store.read(inode, 0, 200, line.world.store.new_readahead())
        assert len(line.shaped.fetched) <= 40


async def test_small_files_read_at_random(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Small files read in no order bring each its own slot and little else."""
    files = {InodeNumber(1000 + number): random.Random(number).randbytes(200) for number in range(1000)}
    async with cold(tmp_path, files, cache_bytes=8192 * CHUNK) as line:
        chosen = random.Random(5).sample(list(files), 50)
        for inode in chosen:
            assert files[inode] == await line.world.store.read(inode, 0, 200)
        assert 50 == len(line.shaped.fetched)
        assert {216} == {fetched.length for fetched in line.shaped.fetched}
