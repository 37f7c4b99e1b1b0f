"""The chunk store as its callers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from support.chunk_worlds import CHUNK, FILE, OTHER, chunk_world

from disfs.chunkstore.transport.faults import Fault
from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


def pattern(length: int, seed: int = 1) -> bytes:
    """Bytes in which every position differs from its neighbours."""
    return bytes((i * 7 + i // 251 + seed) % 256 for i in range(length))


async def test_write_then_read(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What was written is read, and what was not is zeros."""
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 10, b"hello")
        assert b"\0" * 10 + b"hello" + b"\0" * 5 == await world.store.read(FILE, 0, 20)


async def test_cold_read(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After drain and eviction the content comes back from Discord, byte by byte the same."""
    data = pattern(20 * CHUNK + 123)
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, data)
        await world.store.drain()
        world.store.evict_all()
        assert 0 == world.store.statistics().cache_bytes
        assert data == await world.contents(FILE)


async def test_drain_packs(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Many small files travel in few messages."""
    async with chunk_world(tmp_path) as (world, _):
        for number in range(30):
            await world.write(type(FILE)(100 + number), 0, pattern(50, number))
        await world.store.drain()
        assert 1 == world.transport.calls["send"]
        world.store.evict_all()
        for number in range(30):
            assert pattern(50, number) == await world.contents(type(FILE)(100 + number))


async def test_partial_write_of_a_remote_chunk(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A write inside a chunk that only Discord has leaves the rest of the chunk as it was."""
    data = pattern(3 * CHUNK)
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, data)
        await world.store.drain()
        world.store.evict_all()
        await world.write(FILE, CHUNK + 5, b"x" * CHUNK)
        expected = data[: CHUNK + 5] + b"x" * CHUNK + data[2 * CHUNK + 5 :]
        assert expected == await world.contents(FILE)
        await world.store.drain()
        world.store.evict_all()
        assert expected == await world.contents(FILE)


@pytest.mark.parametrize("cold", [False, True])
async def test_cut_and_grow(tmp_path: Path, autojump_clock: MockClock, cold: bool) -> None:
    """What was cut off never comes back when the file grows again, whether it was cached or only in Discord."""
    data = pattern(3 * CHUNK)
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, data)
        if cold:
            await world.store.drain()
            world.store.evict_all()
        await world.cut(FILE, CHUNK + 7)
        await world.cut(FILE, 3 * CHUNK)
        expected = data[: CHUNK + 7] + bytes(2 * CHUNK - 7)
        assert expected == await world.contents(FILE)
        await world.store.drain()
        world.store.evict_all()
        assert expected == await world.contents(FILE)


async def test_crash_after_replace(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file whose deletion was not committed is whole after a crash, though none of it was sent."""
    async with chunk_world(tmp_path) as (world, nursery):
        await world.write(FILE, 0, pattern(2 * CHUNK))
        await world.store.sync(FILE)
        world.ledger.commit()
        world.discard(FILE)
        await world.crash(nursery)
        assert pattern(2 * CHUNK) == await world.contents(FILE)


async def test_deleted_before_its_writeback(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file that is deleted before it was sent never leaves the machine."""
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, pattern(2 * CHUNK))
        world.discard(FILE)
        await world.store.drain()
        assert 0 == world.transport.calls["send"]
        assert 0 == world.store.statistics().dirty_bytes


async def test_clean_stop_keeps_the_cache(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After a clean stop what was cached is still cached; after a crash it is fetched again."""
    async with chunk_world(tmp_path) as (world, nursery):
        await world.write(FILE, 0, pattern(5 * CHUNK))
        await world.store.drain()
        await world.restart(nursery)
        assert pattern(5 * CHUNK) == await world.contents(FILE)
        assert 0 == world.transport.calls["fetch"]
        world.ledger.commit()
        await world.crash(nursery)
        assert pattern(5 * CHUNK) == await world.contents(FILE)
        assert 1 == world.transport.calls["fetch"]


async def test_budget_while_a_large_file_streams(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The cache never weighs more than its budget, neither writing nor reading a file of eight times its size."""
    async with chunk_world(tmp_path, cache_bytes=16 * CHUNK) as (world, _):
        for index in range(128):
            await world.write(FILE, index * CHUNK, pattern(CHUNK, index))
            assert world.store.statistics().cache_bytes <= 16 * CHUNK
        await world.store.drain()
        for index in range(128):
            assert pattern(CHUNK, index) == await world.store.read(FILE, index * CHUNK, CHUNK)
            assert world.store.statistics().cache_bytes <= 16 * CHUNK


async def test_lost_dirty_data(tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Unsent data whose cache was deleted is an error that names the file, also after another restart; never zeros."""
    async with chunk_world(tmp_path) as (world, nursery):
        world.ledger.names[FILE] = b"docs/a.txt"
        await world.write(FILE, 0, pattern(2 * CHUNK))
        await world.write(OTHER, 0, b"other")
        world.ledger.commit()
        (tmp_path / "files" / "07" / "7").unlink()
        for _ in range(2):
            caplog.clear()
            await world.crash(nursery)
            assert "docs/a.txt" in caplog.text
            assert 2 == world.store.statistics().lost_chunks
            with pytest.raises(FilesystemError, match="EIO"):
                await world.store.read(FILE, 0, 10)
            await world.write(FILE, 5 * CHUNK, b"new")
            world.ledger.commit()
        assert b"other" == await world.contents(OTHER)
        await world.write(FILE, 0, pattern(2 * CHUNK, 9))
        assert pattern(2 * CHUNK, 9) == await world.store.read(FILE, 0, 2 * CHUNK)


async def test_write_that_waited_is_refused_by_a_volume_that_became_full(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Whether there is room is asked when the write has waited for all it needs; refused, it leaves everything as it
    was, and the same write over what is there already passes."""
    data = pattern(2 * CHUNK)
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, data)
        await world.store.drain()
        world.store.evict_all()

        async def grow_into_a_hole() -> None:
            with pytest.raises(FilesystemError, match="ENOSPC"):
                await world.write(FILE, 2 * CHUNK - 5, b"grows into a hole")

        fault = world.transport.plan("fetch", 1, Fault(hold=trio.Event()))
        assert fault.hold is not None
        async with trio.open_nursery() as writer:
            writer.start_soon(grow_into_a_hole)
            await fault.reached.wait()
            world.ledger.is_full = True
            fault.hold.set()
        assert data == await world.contents(FILE)
        assert [] == list(world.ledger.dirty_chunks())
        await world.write(FILE, 2 * CHUNK - 5, b"grows")
        assert data[:-5] + b"grows" == await world.contents(FILE)
