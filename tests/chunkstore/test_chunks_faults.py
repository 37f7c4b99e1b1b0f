"""Discord fails, loses, holds and damages; nothing dirty is lost, and nothing wrong is read."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import pytest
import trio
from support.chunk_worlds import CHUNK, FILE, OTHER, chunk_world
from trio.testing import wait_all_tasks_blocked

from disfs.chunkstore.states import UNSENT
from disfs.chunkstore.transport.faults import Fault
from disfs.errors import FilesystemError, PermissionMissingError, TransientStorageError

if TYPE_CHECKING:
    from pathlib import Path

    from support.chunk_worlds import ChunkWorld
    from trio.testing import MockClock

TRANSIENT = TransientStorageError("the network is down", maybe_done=True)
REFUSED = PermissionMissingError("403", "Attach Files")


def pattern(length: int, seed: int = 1) -> bytes:
    """Bytes in which every position differs from its neighbours."""
    return bytes((i * 7 + i // 251 + seed) % 256 for i in range(length))


async def until(event: trio.Event) -> None:
    """Wait for it, and for what follows from it."""
    await event.wait()
    await wait_all_tasks_blocked()


def agree(world: ChunkWorld) -> bool:
    """Whether ledger and cache call the same chunks dirty."""
    return {row.key for row in world.ledger.dirty_chunks()} == set(world.store._map.all_keys(UNSENT))


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("fault", [Fault(before=TRANSIENT), Fault(after=TRANSIENT), Fault(before=REFUSED)])
async def test_nth_send_fails(tmp_path: Path, autojump_clock: MockClock, number: int, fault: Fault) -> None:
    """Whichever send fails, before or after its effect, all of the data arrives."""
    data = pattern(40 * CHUNK)
    async with chunk_world(tmp_path, cache_bytes=128 * CHUNK) as (world, _):
        world.transport.plan("send", number, fault)
        await world.write(FILE, 0, data)
        await world.store.drain()
        world.store.evict_all()
        assert data == await world.contents(FILE)
        assert agree(world)


@pytest.mark.parametrize("before", [True, False])
async def test_kill_during_a_send(tmp_path: Path, autojump_clock: MockClock, before: bool) -> None:
    """A process that dies in the middle of a send, before or after its effect, has the data after the restart."""
    data = pattern(5 * CHUNK)
    async with chunk_world(tmp_path) as (world, nursery):
        hold = trio.Event()
        fault = world.transport.plan("send", 1, Fault(hold=hold) if before else Fault(hold_after=hold))
        await world.write(FILE, 0, data)
        world.ledger.commit()
        await until(fault.reached)
        await world.crash(nursery)
        assert data == await world.contents(FILE)
        await world.store.drain()
        world.store.evict_all()
        assert data == await world.contents(FILE)


async def test_write_while_sending(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A chunk that is written while its copy is on its way stays dirty, and its newest content arrives in the end."""
    async with chunk_world(tmp_path) as (world, _):
        hold = trio.Event()
        fault = world.transport.plan("send", 1, Fault(hold=hold))
        await world.write(FILE, 0, b"old content")
        await until(fault.reached)
        await world.write(FILE, 0, b"new")
        assert b"new content" == await world.contents(FILE)
        hold.set()
        await wait_all_tasks_blocked()
        assert 1 == world.store.statistics().dirty_chunks
        await world.store.drain()
        world.store.evict_all()
        assert b"new content" == await world.contents(FILE)


async def test_older_life_of_a_chunk_arrives_late(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A copy from before a truncate that is acknowledged late disturbs neither the new chunk nor its own send."""
    async with chunk_world(tmp_path) as (world, nursery):
        first, second = trio.Event(), trio.Event()
        old = world.transport.plan("send", 1, Fault(hold=first))
        new = world.transport.plan("send", 2, Fault(hold=second))
        await world.write(FILE, 0, pattern(CHUNK))
        await until(old.reached)
        await world.cut(FILE, 0)
        await world.write(FILE, 0, pattern(CHUNK, 2))
        nursery.start_soon(world.store.drain)
        await until(new.reached)
        first.set()
        await wait_all_tasks_blocked()
        assert agree(world)
        assert 1 == world.store.statistics().dirty_chunks
        second.set()
        await wait_all_tasks_blocked()
        assert 0 == world.store.statistics().dirty_chunks
        world.store.evict_all()
        assert pattern(CHUNK, 2) == await world.contents(FILE)


async def test_crash_between_record_and_commit(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A chunk is not evicted on the strength of a record that a crash can still undo."""
    async with chunk_world(tmp_path, settle_seconds=1000.0) as (world, nursery):
        await world.write(FILE, 0, pattern(CHUNK))
        world.ledger.commit()
        await trio.sleep(10)
        assert 0 == world.store.statistics().dirty_chunks
        world.store.evict_all()
        await world.crash(nursery)
        assert pattern(CHUNK) == await world.contents(FILE)


@pytest.mark.parametrize("size", [0, 5, CHUNK + 5])
async def test_crash_after_a_cut(tmp_path: Path, autojump_clock: MockClock, size: int) -> None:
    """Unsent data that was cut is whole again after a crash that undid the cut, and gone after one that did not."""
    async with chunk_world(tmp_path) as (world, nursery):
        await world.write(FILE, 0, pattern(3 * CHUNK))
        world.ledger.commit()
        await world.cut(FILE, size)
        await world.crash(nursery)
        assert pattern(3 * CHUNK) == await world.contents(FILE)
        await world.cut(FILE, size)
        world.ledger.commit()
        await world.crash(nursery)
        await world.cut(FILE, 3 * CHUNK)
        assert pattern(3 * CHUNK)[:size].ljust(3 * CHUNK, b"\0") == await world.contents(FILE)


async def test_all_channels_refuse(tmp_path: Path, autojump_clock: MockClock) -> None:
    """When no channel takes data for good, writers above the limit get ENOSPC; what is dirty is kept."""
    async with chunk_world(tmp_path, dirty_limit_bytes=4 * CHUNK) as (world, _):
        for number in range(1, 9):
            world.transport.plan("send", number, Fault(before=REFUSED))
        for index in range(4):
            await world.write(FILE, index * CHUNK, pattern(CHUNK, index))
        with pytest.raises(FilesystemError, match="ENOSPC"):
            await world.write(FILE, 4 * CHUNK, b"x")
        assert world.store.statistics().writeback.stopped
        assert world.store.statistics().writeback.failures
        size = world.ledger.state.sizes[FILE]
        await world.store.drain()
        assert not world.store.statistics().writeback.stopped
        world.store.evict_all()
        assert b"".join(pattern(CHUNK, i) for i in range(size // CHUNK)) == await world.contents(FILE)


async def test_one_channel_is_gone(tmp_path: Path, autojump_clock: MockClock) -> None:
    """When a channel is deleted the others take over."""
    async with chunk_world(tmp_path) as (world, _):
        world.memory.remove_channel(world.channels[0])
        await world.write(FILE, 0, pattern(20 * CHUNK))
        await world.store.drain()
        world.store.evict_all()
        assert pattern(20 * CHUNK) == await world.contents(FILE)


async def test_attachment_limit_falls(tmp_path: Path, autojump_clock: MockClock) -> None:
    """When Discord takes less than before, packs get smaller until it takes them."""
    async with chunk_world(tmp_path, channels=1) as (world, _):
        world.memory.attachment_limit_bytes = 2 * CHUNK
        await world.write(FILE, 0, bytes(memoryview(pattern(20 * CHUNK))))
        await world.store.drain()
        assert world.store.statistics().writeback.attachment_limit_bytes <= 2 * CHUNK
        world.store.evict_all()
        assert pattern(20 * CHUNK) == await world.contents(FILE)


async def test_readers_share_a_fetch(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Readers of one absent chunk share a request; a reader that is cancelled takes nothing from the others."""
    async with chunk_world(tmp_path) as (world, nursery):
        await world.write(FILE, 0, pattern(CHUNK))
        await world.store.drain()
        world.store.evict_all()
        hold = trio.Event()
        world.transport.plan("fetch", 1, Fault(hold=hold))
        found: list[bytes] = []

        async def read(scope: trio.CancelScope) -> None:
            with scope:
                found.append(await world.contents(FILE))

        scopes = [trio.CancelScope() for _ in range(3)]
        for scope in scopes:
            nursery.start_soon(read, scope)
        await wait_all_tasks_blocked()
        scopes[0].cancel()
        hold.set()
        await trio.sleep(1)
        assert [pattern(CHUNK)] * 2 == found
        assert 1 == world.transport.calls["fetch"]


async def test_fetch_failure_reaches_all(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A fetch that fails gives each of its readers EIO, names the file once, and the next read tries again."""
    async with chunk_world(tmp_path) as (world, _):
        world.ledger.names[FILE] = b"a/b.txt"
        await world.write(FILE, 0, pattern(CHUNK))
        await world.store.drain()
        world.store.evict_all()
        world.transport.plan("fetch", 1, Fault(before=TRANSIENT))
        refused = 0

        async def read() -> None:
            nonlocal refused
            try:
                await world.contents(FILE)
            except FilesystemError:
                refused += 1

        async with trio.open_nursery() as readers:
            readers.start_soon(read)
            readers.start_soon(read)
        assert 2 == refused
        assert 1 == caplog.text.count("a/b.txt")
        assert pattern(CHUNK) == await world.contents(FILE)


async def test_write_and_delete_while_fetching(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What arrives for a chunk that was written meanwhile is thrown away, and so for a deleted file."""
    async with chunk_world(tmp_path) as (world, nursery):
        for inode in (FILE, OTHER):
            await world.write(inode, 0, pattern(CHUNK))
        await world.store.drain()
        world.store.evict_all()
        hold = trio.Event()
        for number in (1, 2):
            world.transport.plan("fetch", number, Fault(hold_after=hold))
        for inode in (FILE, OTHER):
            nursery.start_soon(world.contents, inode)
        await wait_all_tasks_blocked()
        await world.write(FILE, 0, pattern(CHUNK, 5))
        world.discard(OTHER)
        hold.set()
        await trio.sleep(1)
        assert pattern(CHUNK, 5) == await world.contents(FILE)
        assert b"\0" * 9 == await world.store.read(OTHER, 0, 9)


async def test_damage_is_for_one_file_alone(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A changed byte gives EIO and a log line for the file that it belongs to; the others of the pack are read."""
    caplog.set_level(logging.ERROR)
    async with chunk_world(tmp_path, channels=1) as (world, _):
        world.ledger.names = {FILE: b"bad.txt", OTHER: b"good.txt"}
        await world.write(FILE, 0, pattern(CHUNK))
        await world.write(OTHER, 0, pattern(CHUNK, 2))
        await world.store.drain()
        world.store.evict_all()
        (message,) = world.memory.messages(world.channels[0])
        attachment = message.attachments[0].attachment
        raw = bytearray(world.memory.stored_bytes(attachment))
        raw[100] ^= 1
        world.memory.damage(attachment, bytes(raw))
        with pytest.raises(FilesystemError, match="EIO"):
            await world.contents(FILE)
        assert pattern(CHUNK, 2) == await world.contents(OTHER)
        assert "bad.txt" in caplog.text
        assert "good.txt" not in caplog.text
        assert 1 == world.store.statistics().fetch.damaged_chunks


async def test_message_is_gone(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A message that somebody deleted is EIO; the file can be written anew."""
    async with chunk_world(tmp_path, channels=1) as (world, _):
        await world.write(FILE, 0, pattern(CHUNK))
        await world.store.drain()
        world.store.evict_all()
        (message,) = world.memory.messages(world.channels[0])
        await world.memory.delete(world.channels[0], [message.message])
        with pytest.raises(FilesystemError, match="EIO"):
            await world.contents(FILE)
        await world.write(FILE, 0, pattern(CHUNK, 3))
        assert pattern(CHUNK, 3) == await world.contents(FILE)


async def test_sweep_deletes_what_is_dead(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The message of a deleted file is deleted after the grace time, not before, and a failing delete is repeated."""
    async with chunk_world(tmp_path, channels=1) as (world, _):
        await world.write(FILE, 0, pattern(CHUNK))
        await world.store.drain()
        world.discard(FILE)
        world.transport.plan("delete", 1, Fault(after=TRANSIENT))
        await trio.sleep(50)
        assert 1 == len(world.memory.messages(world.channels[0]))
        await trio.sleep(100)
        assert [] == world.memory.messages(world.channels[0])
        assert {} == world.ledger.state.packs
        assert 1 == world.store.statistics().sweep.swept_messages


async def test_readahead_runs_ahead(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A sequential reader needs far fewer requests than chunks."""
    async with chunk_world(tmp_path, readahead_bytes=16 * CHUNK, cache_bytes=128 * CHUNK) as (world, _):
        await world.write(FILE, 0, pattern(60 * CHUNK))
        await world.store.drain()
        world.store.evict_all()
        readahead = world.store.new_readahead()
        for index in range(60):
            expected = pattern(60 * CHUNK)[index * CHUNK : (index + 1) * CHUNK]
            assert expected == await world.store.read(FILE, index * CHUNK, CHUNK, readahead)
        readahead.close()
        assert world.transport.calls["fetch"] <= 30


async def test_seek_cancels_readahead(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Closing a handle cancels what was begun for it alone."""
    async with chunk_world(tmp_path, readahead_bytes=16 * CHUNK) as (world, _):
        await world.write(FILE, 0, random.Random(1).randbytes(4 * CHUNK))
        await world.store.drain()
        world.store.evict_all()
        held = world.transport.plan("fetch", 1, Fault(hold=trio.Event()))
        world.transport.plan("fetch", 2, Fault(hold=trio.Event()))
        readahead = world.store.new_readahead()
        with trio.move_on_after(1):
            await world.store.read(FILE, 0, CHUNK, readahead)
        assert held.reached.is_set()
        assert 2 == world.store.statistics().fetch.running
        readahead.close()
        await wait_all_tasks_blocked()
        assert 1 == world.store.statistics().fetch.running
