"""What leaves the cache when room is needed: the order, and what stays."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio
from support.chunk_worlds import CHUNK, FILE, OTHER, chunk_world
from trio.testing import wait_all_tasks_blocked

from disfs.chunkstore.recency import Recency
from disfs.errors import FilesystemError
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from pathlib import Path

    from support.chunk_worlds import ChunkWorld
    from trio.testing import MockClock

STREAM = InodeNumber(0x2009)


def noise(chunks: int, seed: int = 1) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(chunks * CHUNK)


async def put(world: ChunkWorld, inode: InodeNumber, data: bytes) -> None:
    """A file that is in Discord and not in the cache."""
    for offset in range(0, len(data), 16 * CHUNK):
        await world.write(inode, offset, data[offset : offset + 16 * CHUNK])
    await world.store.drain()
    world.store.evict_all()


async def read_through(world: ChunkWorld, inode: InodeNumber, chunks: int) -> None:
    """Read a file from beginning to end on a handle of its own."""
    readahead = world.store.new_readahead()
    for index in range(chunks):
        await world.store.read(inode, index * CHUNK, CHUNK, readahead)
    readahead.close()


def cached(world: ChunkWorld, inode: InodeNumber) -> int:
    """How many chunks of an inode are in the cache."""
    record = world.store._map.inodes.get(inode)
    return 0 if record is None else record.count


async def test_stream_does_not_push_out_what_is_used(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file of many times the cache that is read once leaves alone what was read before and is not part of it."""
    async with chunk_world(tmp_path, cache_bytes=256 * CHUNK, readahead_bytes=16 * CHUNK) as (world, _):
        await put(world, STREAM, noise(1024))
        await put(world, FILE, noise(64, 2))
        for index in random.Random(1).sample(range(64), 64):
            await world.store.read(FILE, index * CHUNK, 10)
        assert 64 == cached(world, FILE)
        await read_through(world, STREAM, 1024)
        assert 64 == cached(world, FILE)
        assert world.store.statistics().cache_bytes <= 256 * CHUNK


async def test_small_cache_does_not_thrash(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file that streams through a cache of a few chunks is fetched once: room is made behind the reader."""
    async with chunk_world(tmp_path, cache_bytes=24 * CHUNK, readahead_bytes=64 * CHUNK) as (world, _):
        await put(world, STREAM, noise(300))
        await read_through(world, STREAM, 300)
        statistics = world.store.statistics()
        assert 300 == statistics.fetch.fetched_chunks
        assert 0 == statistics.reads.ahead_wasted_chunks
        assert statistics.reads.ahead_used_chunks > 100


async def test_free_space_of_the_disk_is_respected(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its budget, the cache leaves others the free space that was set; reading and writing go on."""
    disk_chunks, kept_chunks, size = 48, 16, 100
    async with chunk_world(tmp_path, cache_bytes=1000 * CHUNK, min_free_bytes=kept_chunks * CHUNK) as (world, _):

        def free_bytes() -> int:
            free_chunks = disk_chunks - world.store.statistics().cache_bytes // CHUNK
            assert free_chunks >= kept_chunks
            return free_chunks * CHUNK

        monkeypatch.setattr(world.store._files, "free_bytes", free_bytes)
        data = noise(size)
        await put(world, FILE, data)
        for index in range(size):
            assert data[index * CHUNK :][:CHUNK] == await world.store.read(FILE, index * CHUNK, CHUNK)
        assert disk_chunks - kept_chunks >= cached(world, FILE) > 0
        monkeypatch.setattr(world.store._files, "free_bytes", lambda: 0)
        assert data[:CHUNK] == await world.store.read(FILE, 0, CHUNK)


async def test_what_is_read_again_is_kept_like_anything_else(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What a reader has passed and somebody reads again afterwards does not go before what was used longer ago."""
    async with chunk_world(tmp_path, cache_bytes=256 * CHUNK, readahead_bytes=16 * CHUNK) as (world, _):
        await put(world, STREAM, noise(100))
        await put(world, FILE, noise(100, 2))
        await put(world, OTHER, noise(200, 3))
        for index in random.Random(1).sample(range(100), 100):
            await world.store.read(FILE, index * CHUNK, 10)
        for _ in range(2):
            await read_through(world, STREAM, 100)
        for index in random.Random(2).sample(range(200), 100):
            await world.store.read(OTHER, index * CHUNK, 10)
        assert 100 == cached(world, STREAM)
        assert cached(world, FILE) < 100


def test_passed_chunks_are_spent_once() -> None:
    """Spent are chunks that came and were passed; a read takes them out of it, an eviction forgets them."""
    recency = Recency()
    for index in range(4):
        recency.became_clean(FILE, index)
        recency.came(FILE, index, ahead=index > 1)
    recency.used(FILE, range(4))
    assert 2 == recency.ahead_used_count
    recency.passed(FILE, range(3))
    assert ((FILE, 0), 0b111) == recency.first_spent()
    recency.used(FILE, range(1))
    assert ((FILE, 0), 0b110) == recency.first_spent()
    recency.passed(FILE, range(3))
    assert ((FILE, 0), 0b110) == recency.first_spent()
    for index in range(4):
        recency.gone(FILE, index)
    assert recency.first_spent() is None
    assert 0 == recency.ahead_wasted_count


async def test_pinned_stays(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A pinned file stays whatever else is read and written; unpinned it may go; a restart remembers."""
    async with chunk_world(tmp_path, cache_bytes=128 * CHUNK, readahead_bytes=16 * CHUNK) as (world, nursery):
        await put(world, STREAM, noise(400))
        await put(world, FILE, noise(64, 2))
        world.store.set_pinned([FILE], True)
        heard: list[int] = []
        await world.store.warm(FILE, 64 * CHUNK - 100, heard.append)
        assert 64 * CHUNK - 100 == sum(heard)
        await world.restart(nursery)
        assert frozenset([FILE]) == world.store.pinned
        await read_through(world, STREAM, 400)
        world.store.evict_all()
        for index in range(200):
            await world.write(OTHER, index * CHUNK, noise(1, index))
        await world.store.drain()
        assert 64 == cached(world, FILE)
        assert 64 * CHUNK == world.store.statistics().pinned_bytes
        world.store.set_pinned([FILE], False)
        for index in random.Random(4).sample(range(400), 200):
            await world.store.read(STREAM, index * CHUNK, 10)
        assert 0 == cached(world, FILE)
        assert 0 == world.store.statistics().pinned_bytes


async def test_pin_goes_with_its_inode(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A pinned file that is deleted takes no pinned room any more."""
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, noise(4))
        world.store.set_pinned([FILE], True)
        assert 4 * CHUNK == world.store.statistics().pinned_bytes
        world.discard(FILE)
        assert (0, 0) == (world.store.statistics().pinned_bytes, world.store.statistics().pinned_inodes)


async def test_warm_refuses_what_cannot_stay(tmp_path: Path, autojump_clock: MockClock) -> None:
    """More than fits beside pinned data is ENOSPC before anything is fetched; writes go on beside any pins."""
    async with chunk_world(tmp_path, cache_bytes=128 * CHUNK) as (world, _):
        await put(world, FILE, noise(64, 1))
        await put(world, OTHER, noise(64, 2))
        world.store.set_pinned([FILE, OTHER], True)
        await world.store.warm(FILE, 64 * CHUNK, lambda _: None)
        fetched = world.store.statistics().fetch.fetched_chunks
        with pytest.raises(FilesystemError, match="ENOSPC"):
            await world.store.warm(OTHER, 64 * CHUNK, lambda _: None)
        assert fetched == world.store.statistics().fetch.fetched_chunks
        world.store.set_pinned([STREAM], True)
        for index in range(200):
            await world.write(STREAM, index * CHUNK, noise(1, index))
            assert world.store.statistics().cache_bytes <= 128 * CHUNK
        await world.store.drain()
        assert world.store.statistics().cache_bytes <= 128 * CHUNK


async def test_warm_in_a_sparse_and_partly_cached_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Warming fetches what is absent, by few requests, and counts holes and cached chunks as there."""
    async with chunk_world(tmp_path, cache_bytes=256 * CHUNK) as (world, _):
        await put(world, FILE, noise(40))
        await world.write(FILE, 80 * CHUNK, noise(20, 2))
        heard: list[int] = []
        await world.store.warm(FILE, 100 * CHUNK, heard.append)
        assert 100 * CHUNK == sum(heard)
        assert 40 == world.store.statistics().fetch.fetched_chunks
        assert world.transport.calls["fetch"] <= 12
        assert world.store._cache.has_all(FILE, range(40))


async def test_warm_is_cancelled(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Warming that is cancelled leaves nothing queued."""
    async with chunk_world(tmp_path, cache_bytes=256 * CHUNK) as (world, _):
        await put(world, FILE, noise(150))
        with trio.CancelScope() as scope:
            await world.store.warm(FILE, 150 * CHUNK, lambda _: scope.cancel())
        await wait_all_tasks_blocked()
        fetch = world.store.statistics().fetch
        assert (0, 0) == (fetch.running, fetch.queued)


async def test_small_files_are_warmed_together(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Warming a directory of small files costs far fewer requests than files."""
    async with chunk_world(tmp_path, cache_bytes=1024 * CHUNK, attachment_bytes=128 * CHUNK) as (world, _):
        inodes = [InodeNumber(1000 + number) for number in range(200)]
        for inode in inodes:
            await world.write(inode, 0, inode.to_bytes(8, "big") * 20)
        await world.store.drain()
        world.store.evict_all()
        for inode in inodes:
            await world.store.warm(inode, 160, lambda _: None)
        assert world.transport.calls["fetch"] <= 20
        assert all(world.store._cache.has_all(inode, range(1)) for inode in inodes)


async def test_clean_stop_keeps_what_is_scattered(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After a clean stop exactly what was cached is cached, dirty or clean, across groups and with gaps."""
    async with chunk_world(tmp_path, cache_bytes=1024 * CHUNK) as (world, nursery):
        await put(world, FILE, noise(300))
        for index in (0, 1, 5, 63, 64, 200, 299):
            await world.store.read(FILE, index * CHUNK, 10)
        await world.write(FILE, 65 * CHUNK, noise(1, 2))
        before = list(world.store._map.inodes[FILE].indices())
        assert [0, 1, 5, 63, 64, 65, 200, 299] == before
        await world.restart(nursery)
        record = world.store._map.inodes[FILE]
        assert before == list(record.indices())
        assert [range(2), range(5, 6), range(63, 66), range(200, 201), range(299, 300)] == list(record.runs())
        assert noise(1, 2) == await world.store.read(FILE, 65 * CHUNK, CHUNK)
        world.store.evict_all()
        assert 1 == cached(world, FILE)


@pytest.mark.parametrize("pinned", [False, True])
async def test_regression_deleted_files_are_not_remembered(
    tmp_path: Path, autojump_clock: MockClock, pinned: bool
) -> None:
    """Files that come and go while there is room leave nothing in the order of eviction: it would grow for ever."""
    async with chunk_world(tmp_path) as (world, _):
        for number in range(10):
            inode = InodeNumber(100 + number)
            world.ledger.state.sizes[inode] = 0
            world.store.set_pinned([inode], pinned)
            await world.write(inode, 0, noise(2))
            await world.store.drain()
            await world.store.read(inode, 0, CHUNK)
            world.discard(inode)
        recency = world.store._map.recency
        assert [None, None, None] == [recency.first(), recency.first(pinned=True), recency.first_spent()]
