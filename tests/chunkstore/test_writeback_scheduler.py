"""The write-back scheduler on a Discord in memory: how many messages it makes, of what size, when and where."""

from __future__ import annotations

import errno
import itertools
import random
from typing import TYPE_CHECKING

import pytest
import trio
from support.chunk_worlds import FILE
from support.writeback_worlds import CHUNK, MESSAGE, MIB, SCALE, Link, incompressible, writeback_world
from trio.testing import wait_all_tasks_blocked

from disfs.chunkstore.transport.faults import Fault
from disfs.chunkstore.writeback_values import Waiting
from disfs.errors import FilesystemError, PermissionMissingError, TransientStorageError
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from pathlib import Path

    from support.writeback_worlds import WritebackWorld
    from trio.testing import MockClock

UP_BYTES_PER_SECOND = 12.5e6 / SCALE
FULL = MESSAGE - 3 * CHUNK
"""A message with less than this could have taken more."""


async def write_chunks(world: WritebackWorld, count: int, *, first: int = 0) -> None:
    """A run of whole chunks, one write each."""
    for index in range(first, first + count):
        await world.write(FILE, index * CHUNK, incompressible(CHUNK, index))


async def cold_contents(world: WritebackWorld) -> bytes:
    """The file as Discord has it."""
    world.store.evict_all()
    return await world.contents(FILE)


def expected(count: int) -> bytes:
    """What `write_chunks` writes."""
    return b"".join(incompressible(CHUNK, index) for index in range(count))


async def test_many_small_files_need_few_messages(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Thousands of small files that are made over 15 seconds and then synced cost four messages. (A quarter of ten
    thousand files of 4 KiB, in messages of a quarter of the usual size.)"""
    async with writeback_world(
        tmp_path, chunk_bytes=128 << 10, message_bytes=6 << 20, attachment_bytes=10 << 20, cache_bytes=1 << 30
    ) as world:
        for number in range(2500):
            await world.write(InodeNumber(100 + number), 0, incompressible(4096, number))
            await trio.sleep(15 / 2500)
        await world.store.drain()
        assert len(world.linked.sent) <= 4
        assert 2500 == sum(message.chunk_count for message in world.linked.sent)


@pytest.mark.parametrize("seconds", [0.2, 3.0])
async def test_scattered_overwrites_need_few_messages(
    tmp_path: Path, autojump_clock: MockClock, seconds: float
) -> None:
    """A thousand chunks touched in random order and then synced cost six messages, each in the file's order."""
    async with writeback_world(tmp_path) as world:
        await write_chunks(world, 2000)
        await world.store.drain()
        sent, packs = len(world.linked.sent), len(world.packs())
        for index in random.Random(5).sample(range(2000), 1000):
            await world.write(FILE, index * CHUNK + 100, b"scattered")
            await trio.sleep(seconds / 1000)
        await world.store.drain()
        counts = [message.chunk_count for message in world.linked.sent[sent:]]
        assert (6, 1000) == (len(counts), sum(counts))
        assert sum(count >= 185 for count in counts) >= 4
        for pack in world.packs()[packs:]:
            indices = [entry.key.chunk for entry in pack]
            assert sum(later < earlier for earlier, later in itertools.pairwise(indices)) <= 1  # round the end, once


async def test_neighbours_written_at_random_lie_together(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file whose chunks became dirty in random order lies in Discord in one run per pack."""
    async with writeback_world(tmp_path) as world:
        order = list(range(600))
        random.Random(3).shuffle(order)
        for index in order:
            await write_chunks(world, 1, first=index)
        await world.store.drain()
        extents = await world.ledger.extents(FILE, 0, 1000)  # type: ignore[arg-type] # plain numbers
        assert len(world.packs()) == len(extents)
        assert expected(600) == await cold_contents(world)


async def test_trickle_makes_one_message_per_delay(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Somebody who writes a little all the time costs one message per writeback delay, not one per write."""
    async with writeback_world(tmp_path) as world:
        for index in range(300):
            await write_chunks(world, 1, first=index % 150)
            await trio.sleep(0.2)
        assert 9 <= len(world.linked.sent) <= 13


async def test_link_is_kept_busy(tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file that is written quickly keeps the link at work from a second after its first byte to the end."""

    async def hop(call: object, *arguments: object, limiter: object = None) -> object:
        await trio.sleep(0.014)  # sealing four MiB of the real sizes
        return call(*arguments)  # type: ignore[operator] # any function

    monkeypatch.setattr(trio.to_thread, "run_sync", hop)
    link = Link(UP_BYTES_PER_SECOND, 0.08)
    async with writeback_world(tmp_path, link=link) as world:
        began = trio.current_time()
        for start in range(0, 256, 8):
            await world.write(FILE, start * MIB, incompressible(8 * MIB, start))
            await trio.sleep(8 / 400)
        await world.store.drain()
        seconds = trio.current_time() - began
        first = world.linked.sent[0].began - began
        assert first <= 1.3
        assert link.busy_seconds >= 0.95 * (seconds - first)
        assert seconds <= 1.1 * link.busy_seconds
        assert len(world.linked.sent) <= 12
        assert world.linked.most_in_flight_bytes <= 48 * MIB
        rate = world.store.statistics().writeback.bytes_per_second
        assert rate == pytest.approx(UP_BYTES_PER_SECOND, rel=0.05)


async def test_small_cache_makes_no_small_messages(tmp_path: Path, autojump_clock: MockClock) -> None:
    """300 MiB through a cache of 64 MiB: messages of a quarter of the dirty limit, a busy link, no hanging writer."""
    link = Link(UP_BYTES_PER_SECOND, 0.08)
    async with writeback_world(tmp_path, link=link, cache_bytes=64 * MIB) as world:
        began = trio.current_time()
        waits: list[float] = []
        for index in range(300 * MIB // CHUNK):
            before = trio.current_time()
            await write_chunks(world, 1, first=index)
            waits.append(trio.current_time() - before)
        await world.store.drain()
        sizes = [message.size_bytes for message in world.linked.sent]
        assert len(sizes) <= 300 // 8 + 4
        assert sorted(sizes)[3] >= 7 * MIB
        assert link.busy_seconds >= 0.95 * (trio.current_time() - began - 0.3)
        assert max(waits) <= 1.0


async def test_pause_holds_new_messages_alone(tmp_path: Path, autojump_clock: MockClock) -> None:
    """While uploads are paused nothing new is sent, what is on its way arrives, and a drain waits for the resume."""
    async with writeback_world(tmp_path) as world, trio.open_nursery() as nursery:
        hold = trio.Event()
        fault = world.transport.plan("send", 1, Fault(hold=hold))
        await write_chunks(world, 1)
        nursery.start_soon(world.store.drain)
        await fault.reached.wait()
        world.store.pause()
        await write_chunks(world, 2, first=1)
        nursery.start_soon(world.store.drain)
        hold.set()
        await trio.sleep(100)
        statistics = world.store.statistics()
        assert (2, True, Waiting.PAUSED) == (
            statistics.dirty_chunks,
            statistics.writeback.paused,
            statistics.writeback.waiting_for,
        )
        assert 1 == len(world.linked.sent)
        assert world.store.paused
        world.store.resume()
        await wait_all_tasks_blocked()
        assert 0 == world.store.statistics().dirty_chunks


async def test_paused_writers_wait_at_the_limit(tmp_path: Path, autojump_clock: MockClock) -> None:
    """At the dirty limit of a paused volume writers wait, status says why, and a resume lets them go on."""
    async with writeback_world(tmp_path, dirty_limit_bytes=16 * CHUNK) as world, trio.open_nursery() as nursery:
        world.store.pause()
        nursery.start_soon(write_chunks, world, 40)
        await trio.sleep(1000)
        statistics = world.store.statistics()
        assert 16 * CHUNK == statistics.dirty_bytes
        assert (1, Waiting.PAUSED) == (statistics.writeback.waiting_writers, statistics.writeback.waiting_for)
        world.store.resume()
        with trio.fail_after(60):
            await world.store.drain()
        nursery.cancel_scope.deadline = trio.current_time() + 60
    assert not nursery.cancel_scope.cancelled_caught


async def test_channel_without_delay_is_chosen(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A message goes to the channel whose rate limit lets it through first; among equals, to each in turn."""
    async with writeback_world(tmp_path, channels=3) as world:
        world.linked.delays = {world.channels[0]: 1000.0, world.channels[2]: 1000.0}
        await write_chunks(world, 400)
        await world.store.drain()
        assert {world.channels[1]} == {message.channel for message in world.linked.sent}
        world.linked.delays.clear()
        await write_chunks(world, 4 * 189)
        await world.store.drain()
        assert set(world.channels) == {message.channel for message in world.linked.sent[3:]}


async def test_company_joins_while_a_rate_limit_is_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    """When every channel must wait, packing waits too: what comes meanwhile goes along in one message."""
    async with writeback_world(tmp_path) as world, trio.open_nursery() as nursery:
        world.linked.delays = dict.fromkeys(world.channels, trio.current_time() + 4.0)
        await write_chunks(world, 1)
        nursery.start_soon(world.store.drain)
        await trio.sleep(1)
        assert Waiting.RATE_LIMIT is world.store.statistics().writeback.waiting_for
        await write_chunks(world, 5, first=1)
        await trio.sleep(10)
        (message,) = world.linked.sent
        assert 6 == message.chunk_count
        assert 4.0 <= message.began <= 4.1


async def test_memory_in_flight_is_bounded(tmp_path: Path, autojump_clock: MockClock) -> None:
    """However many channels could take data, no more is packed than the bound allows; statistics show what flies."""
    hold = trio.Event()
    async with writeback_world(tmp_path) as world, trio.open_nursery() as nursery:
        for number in range(1, 6):
            world.transport.plan("send", number, Fault(hold=hold))
        await write_chunks(world, 900)
        nursery.start_soon(world.store.drain)
        await wait_all_tasks_blocked()
        await trio.sleep(3)
        writeback = world.store.statistics().writeback
        assert Waiting.ENOUGH_IN_FLIGHT is writeback.waiting_for
        assert [3.0, 3.0] == [message.seconds for message in writeback.in_flight]
        assert FULL <= max(message.size_bytes for message in writeback.in_flight) <= MESSAGE
        hold.set()
        await wait_all_tasks_blocked()
        assert expected(900) == await cold_contents(world)


async def test_limit_lowered_while_packs_are_in_flight(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Packs that became too large on their way are made anew, smaller; nothing is lost, no channel is blamed."""
    hold = trio.Event()
    async with writeback_world(tmp_path) as world, trio.open_nursery() as nursery:
        for number in (1, 2):
            world.transport.plan("send", number, Fault(hold=hold))
        await write_chunks(world, 600)
        nursery.start_soon(world.store.drain)
        await wait_all_tasks_blocked()
        world.memory.attachment_limit_bytes = 4 * MIB
        hold.set()
        await wait_all_tasks_blocked()
        assert () == world.store.statistics().writeback.failures
        assert world.store.statistics().writeback.attachment_limit_bytes <= 4 * MIB
        assert expected(600) == await cold_contents(world)


async def test_offered_limit_is_used(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A guild whose tier is learnt after the mount gets packs of the size that it allows."""
    async with writeback_world(tmp_path) as world:
        world.memory.attachment_limit_bytes = 50 * MIB
        world.store.offer_attachment_limit(50 * MIB)
        await write_chunks(world, 180)
        await world.store.drain()
        assert 1 == len(world.packs())


async def test_failing_messages_shrink(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What fails is sent again in smaller messages, and in the end all of it is there."""
    async with writeback_world(tmp_path) as world:
        for number in (1, 2, 3):
            world.transport.plan("send", number, Fault(before=TransientStorageError("reset", maybe_done=True)))
        await write_chunks(world, 600)
        await world.store.drain()
        first, *_ = world.linked.sent
        assert min(message.size_bytes for message in world.linked.sent[2:6]) <= first.size_bytes // 2
        assert expected(600) == await cold_contents(world)


async def test_who_waits_is_told_to_the_transport(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Messages that somebody waits for go before those of the background at Discord's limits."""
    async with writeback_world(tmp_path) as world:
        await write_chunks(world, 1)
        await trio.sleep(10)
        await write_chunks(world, 1)
        await world.store.drain()
        assert [False, True] == [message.urgent for message in world.linked.sent]


async def test_drain_waits_for_nothing_later(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A drain ends when what was dirty at its begin is in Discord, though more is written all the time."""
    async with writeback_world(tmp_path, link=Link(UP_BYTES_PER_SECOND, 0.08)) as world, trio.open_nursery() as nursery:
        await write_chunks(world, 100)

        async def write_on() -> None:
            for index in range(100, 10_000):
                await write_chunks(world, 1, first=index)
                await trio.sleep(0.02)

        nursery.start_soon(write_on)
        with trio.fail_after(5):
            await world.store.drain()
        assert world.store.statistics().dirty_chunks
        nursery.cancel_scope.cancel()


async def test_cancelled_drain_leaves_the_others(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Whoever stops waiting takes nothing from those who wait on."""
    hold = trio.Event()
    async with writeback_world(tmp_path) as world, trio.open_nursery() as nursery:
        world.transport.plan("send", 1, Fault(hold=hold))
        await write_chunks(world, 10)
        done = trio.Event()

        async def wait_on() -> None:
            await world.store.drain()
            done.set()

        nursery.start_soon(wait_on)
        with trio.move_on_after(1):
            await world.store.drain()
        assert not done.is_set()
        hold.set()
        await done.wait()
        assert 0 == world.store.statistics().dirty_chunks


async def test_busy_tells_compaction_to_wait(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Writeback is busy while something is due, on its way, or paused, and not while it only waits for its time."""
    hold = trio.Event()
    async with writeback_world(tmp_path) as world:

        def is_busy() -> bool:
            return world.store._writeback.busy

        world.transport.plan("send", 1, Fault(hold=hold))
        assert not is_busy()
        await write_chunks(world, 1)
        assert not is_busy()
        await trio.sleep(5.1)
        assert is_busy()
        hold.set()
        await wait_all_tasks_blocked()
        assert not is_busy()
        world.store.pause()
        assert is_busy()


async def test_unreadable_cache_blames_no_channel(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsent data that cannot be read for a passing reason is tried again ever less often; status says why."""

    def none_left(*_: object) -> bytes:
        raise FilesystemError(errno.EMFILE, "reading the cache: too many open files")

    async with writeback_world(tmp_path) as world:
        await write_chunks(world, 3)
        with monkeypatch.context() as patch:
            patch.setattr(world.store._files, "read", none_left)
            await trio.sleep(100)
            writeback = world.store.statistics().writeback
        assert Waiting.FAILURE is writeback.waiting_for
        assert "too many open files" in writeback.failures[0]
        assert not writeback.stopped
        await world.store.drain()
        assert () == world.store.statistics().writeback.failures
        assert expected(3) == await cold_contents(world)


async def test_readonly_channel_is_left_to_itself(tmp_path: Path, autojump_clock: MockClock) -> None:
    """When a channel refuses for good the others take its messages at once; it is tried again when it has rested."""
    async with writeback_world(tmp_path, channels=2) as world:
        world.transport.plan("send", 1, Fault(before=PermissionMissingError("403", "Attach Files")))
        await write_chunks(world, 150)
        with trio.fail_after(1):
            await world.store.drain()
        refusing, taking = (message.channel for message in world.linked.sent)
        assert refusing != taking
        assert f"channel {refusing}" in world.store.statistics().writeback.failures[0]
        await trio.sleep(60)
        await write_chunks(world, 150)
        await world.store.drain()
        await write_chunks(world, 150)
        await world.store.drain()
        assert refusing in {message.channel for message in world.linked.sent[2:]}
        assert () == world.store.statistics().writeback.failures
