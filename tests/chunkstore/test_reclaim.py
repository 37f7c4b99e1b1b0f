"""What had arrived in Discord before a crash and was not written down is recorded at the start, and not sent again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
from support.chunk_worlds import CHUNK, FILE, OTHER, chunk_world
from support.power_cuts import Disk
from support.real_stores import real_stores

from disfs.chunkstore.packer import PackBuilder
from disfs.chunkstore.reclaim import Reclaimed
from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.faults import Fault
from disfs.errors import TransientStorageError
from disfs.values import ChunkIndex, ChunkKey, Revision

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from support.chunk_worlds import ChunkWorld
    from support.real_stores import RealStores


SETTINGS: dict[str, Any] = {"sweep_interval_seconds": 1e9, "compaction_share": 0.0, "stray_seconds": 600.0}
NOTHING = Reclaimed()


def stored(world: ChunkWorld) -> list[int]:
    """Every message of the data channels."""
    return [message.message for channel in world.channels for message in world.memory.messages(channel)]


async def killed_before_the_answer(world: ChunkWorld, nursery: trio.Nursery, *, meanwhile: bytes = b"") -> None:
    """kill -9 when a message is in Discord and its answer is not here; `meanwhile` is written and not committed."""
    fault = world.transport.plan("send", 1, Fault(hold_after=trio.Event()))
    world.ledger.commit()
    await fault.reached.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert 1 == len(stored(world))
    if meanwhile:
        await world.write(FILE, 0, meanwhile)
    world.reclaims = True
    await world.crash(nursery)


async def test_what_had_arrived_is_not_sent_again(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """One message before and after; the contents are whole, and nothing is dirty."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        await world.write(FILE, 0, b"a" * 3 * CHUNK)
        await world.write(OTHER, 0, b"b" * 100)
        await killed_before_the_answer(world, nursery)
        assert Reclaimed(messages=1, chunks=4) == world.reclaimed
        assert 0 == world.store.statistics().dirty_chunks
        await world.store.drain()
        assert 1 == len(stored(world))
        assert (b"a" * 3 * CHUNK, b"b" * 100) == (await world.contents(FILE), await world.contents(OTHER))


async def test_record_that_a_kill_undid_is_made_again(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """The same when it had been recorded and was not committed."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        await world.write(FILE, 0, b"data")
        world.ledger.commit()
        durable = world.ledger.make_durable

        async def never() -> None:
            await trio.sleep_forever()

        world.ledger.make_durable = never  # type: ignore[method-assign] # the disk is too slow
        with trio.move_on_after(100):
            await world.store.drain()
        assert 1 == len(world.ledger.state.packs)
        world.ledger.make_durable = durable  # type: ignore[method-assign] # as it was before
        world.reclaims = True
        await world.crash(nursery)
        assert Reclaimed(1, 1) == world.reclaimed
        await world.store.drain()
        assert 1 == len(stored(world))


async def test_clean_stop_in_the_middle_of_a_send(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A send that an unmount cancelled is found too, and what is cached of it stays."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        fault = world.transport.plan("send", 1, Fault(hold_after=trio.Event()))
        await world.write(FILE, 0, b"a" * CHUNK)
        await fault.reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        world.reclaims = True
        await world.restart(nursery)
        assert Reclaimed(1, 1) == world.reclaimed
        fetches = world.memory.statistics().fetches
        assert b"a" * CHUNK == await world.contents(FILE)
        assert fetches == world.memory.statistics().fetches


async def test_bytes_of_an_uncommitted_write_do_not_change_later(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """The cache has newer bytes than the record after a kill: what is read is what was sent, evicted or not."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        await world.write(FILE, 0, b"a" * CHUNK)
        await killed_before_the_answer(world, nursery, meanwhile=b"b" * CHUNK)
        assert Reclaimed(1, 1) == world.reclaimed
        before = await world.contents(FILE)
        world.store.evict_all()
        assert before == await world.contents(FILE) == b"a" * CHUNK


async def test_content_that_was_written_again_stays_dirty(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Written, sent, written again and committed: the newer content is there, and is sent."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        await world.write(FILE, 0, b"a" * 2 * CHUNK)
        fault = world.transport.plan("send", 1, Fault(hold_after=trio.Event()))
        await fault.reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        await world.write(FILE, 0, b"b" * CHUNK)
        world.ledger.commit()
        world.reclaims = True
        await world.crash(nursery)
        assert Reclaimed(1, 1) == world.reclaimed
        assert 1 == world.store.statistics().dirty_chunks
        assert b"b" * CHUNK + b"a" * CHUNK == await world.contents(FILE)
        await world.store.drain()
        world.store.evict_all()
        assert b"b" * CHUNK + b"a" * CHUNK == await world.contents(FILE)


async def test_no_request_when_nothing_can_be_missing(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """After a kill without a send under way, and after a stop in order, Discord is not asked."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        world.reclaims = True
        await world.write(FILE, 0, b"a")
        await world.store.drain()
        await world.write(FILE, 0, b"b")
        world.ledger.commit()
        lists = world.memory.statistics().lists
        await world.crash(nursery)
        await world.restart(nursery)
        assert (NOTHING, lists) == (world.reclaimed, world.memory.statistics().lists)


async def test_discord_that_does_not_answer_delays_nothing_for_long(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """An error, or no answer at all: the mount goes on, and what had arrived is sent again and swept."""
    for fault in (Fault(before=TransientStorageError("no network")), Fault(hold=trio.Event())):
        async with chunk_world(tmp_path / str(fault.before), **SETTINGS) as (world, nursery):
            await world.write(FILE, 0, b"data")
            for number in (1, 2):
                world.transport.plan("list_messages", number, fault)
            began = trio.current_time()
            await killed_before_the_answer(world, nursery)
            assert NOTHING == world.reclaimed
            assert trio.current_time() - began < 20
            await world.store.drain()
            assert 2 == len(stored(world))


def a_pack(world: ChunkWorld, revision: int) -> Upload:
    """A pack of the first chunk of FILE, as this volume would send it."""
    builder = PackBuilder(world.key, limit_bytes=1 << 20, chunk_bytes=CHUNK)
    builder.add(ChunkKey(FILE, ChunkIndex(0)), Revision(revision), b"foreign")
    finished = builder.finish()
    world.ledger.note_sending([finished.pack])
    return finished.upload


async def test_what_is_newer_than_this_state_is_left_alone(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A revision that this state has not given out yet is another life's: recorded it would hide what comes."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        world.store.pause()
        await world.write(FILE, 0, b"mine")
        await world.memory.send(world.channels[0], [a_pack(world, 1000)], nonce="n")
        world.ledger.commit()
        world.reclaims = True
        await world.crash(nursery)
        assert NOTHING == world.reclaimed
        await world.store.drain()
        world.store.evict_all()
        assert b"mine" == await world.contents(FILE)


async def test_message_that_was_stored_twice_is_recorded_once(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """The other one is a stray, and goes as strays do."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        await world.write(FILE, 0, b"mine")
        fault = world.transport.plan("send", 1, Fault(hold_after=trio.Event()))
        world.ledger.commit()
        await fault.reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        (message,) = [each for channel in world.channels for each in world.memory.messages(channel)]
        raw = world.memory.stored_bytes(message.attachments[0].attachment)
        await world.memory.send(message.channel, [Upload("again.bin", (raw,))], nonce="again")
        world.reclaims = True
        await world.crash(nursery)
        assert Reclaimed(1, 1) == world.reclaimed
        await world.store.sweep()
        await trio.sleep(600)
        await world.store.sweep()
        assert 1 == len(stored(world))
        world.store.evict_all()
        assert b"mine" == await world.contents(FILE)


async def test_another_kill_while_it_reclaims(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Before the record is committed: the next start does it all again. After: there is nothing left to do."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        await world.write(FILE, 0, b"a" * 3 * CHUNK)
        fault = world.transport.plan("send", 1, Fault(hold_after=trio.Event()))
        world.ledger.commit()
        await fault.reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        await world.halt()
        found = []
        for step in ("recorded", "durable", "taken over"):
            world.store.close()
            world.ledger.crash()
            world.store = world.new_store()
            found.append(await (world.store._reclaimer if step == "recorded" else world.store).reclaim(10))
        await world.start(nursery)
        await world.store.drain()
        assert [Reclaimed(1, 3), Reclaimed(1, 3), NOTHING] == found
        assert 1 == len(stored(world))
        assert b"a" * 3 * CHUNK == await world.contents(FILE)


async def test_real_metadata_record_what_had_arrived(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Small and large contents, names and all, on the real stores."""
    async with real_stores(tmp_path) as (world, nursery):
        await filled(world)
        fault = world.transport.plan("send", 1, Fault(hold_after=trio.Event()))
        await fault.reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        await world.metadata.commit()
        await world.crash(nursery)
        assert (1, 6) == (world.reclaimed.messages, world.reclaimed.chunks)
        await world.chunks.drain()
        assert 1 == sum(len(world.memory.messages(channel)) for channel in world.channels)


async def filled(world: RealStores) -> None:
    """One file of five chunks, and a small one."""
    for name, content in ((b"large", b"a" * 5 * CHUNK), (b"small", b"b" * 10)):
        handle, _ = await world.create(name)
        await world.filesystem.files.write(handle, 0, content)
        await world.filesystem.release(handle)


async def test_regression_power_cut_after_a_kill_keeps_what_lay_beneath(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount after kill -9 made marks durable whose bytes were not: a power cut then took what had been fsynced."""
    disk = Disk(tmp_path, monkeypatch, eager_log=False)
    async with real_stores(tmp_path, small_content_bytes=0) as (world, nursery):
        disk.watch(world, monkeypatch)
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, b"a" * CHUNK)
        await world.filesystem.files.fsync(handle)
        await world.filesystem.files.sync_everything()
        await world.chunks.drain()
        await world.crash(nursery)  # what is clean is dropped, and its cache file goes
        world.chunks.pause()
        handle = await world.filesystem.files.open(inode, os.O_RDWR)
        await world.filesystem.files.write(handle, 0, b"b" * 100)
        await world.metadata.commit()
        await world.cut_power(nursery, lambda: None, paused=True)
        disk.watch(world, monkeypatch)
        disk._keep_log()  # as the start did, before anybody watched
        await world.cut_power(nursery, disk.cut, paused=True)
        handle = await world.filesystem.files.open(inode, os.O_RDONLY)
        found = await world.filesystem.files.read(handle, 0, CHUNK)
        assert found in (b"a" * CHUNK, b"b" * 100 + b"a" * (CHUNK - 100))
