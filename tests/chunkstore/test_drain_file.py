"""Waiting until one file is in Discord."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
import trio
from support.chunk_worlds import CHUNK, FILE, OTHER, chunk_world
from trio.testing import wait_all_tasks_blocked

from disfs.chunkstore.transport.faults import Fault
from disfs.errors import FilesystemError, PermissionMissingError, TransientStorageError

if TYPE_CHECKING:
    from pathlib import Path

    from support.chunk_worlds import ChunkWorld
    from trio.testing import MockClock

    from disfs.values import InodeNumber

REFUSED = PermissionMissingError("403", "Attach Files")


def dirty_inodes(world: ChunkWorld) -> set[InodeNumber]:
    """Whose chunks are not in Discord."""
    return {row.key.inode for row in world.ledger.dirty_chunks()}


async def test_a_file_is_in_discord_when_its_drain_returns(tmp_path: Path, autojump_clock: MockClock) -> None:
    """At once, and not at the delay; the record is durable."""
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, b"x" * 5 * CHUNK)
        before = trio.current_time()
        await world.store.drain_file(FILE)
        assert trio.current_time() - before < 1
        assert set() == dirty_inodes(world)
        assert 0 == world.store.statistics().unsettled


async def test_a_file_does_not_wait_for_what_others_write(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What another file has that was written just now stays behind, and so does what the file itself gets later."""
    async with chunk_world(tmp_path) as (world, nursery):
        await world.write(FILE, 0, b"x" * CHUNK)
        await world.write(OTHER, 0, b"y" * CHUNK)
        hold = trio.Event()
        send = world.transport.plan("send", 1, Fault(hold=hold))
        drained = trio.Event()

        async def drain() -> None:
            await world.store.drain_file(FILE)
            drained.set()

        nursery.start_soon(drain)
        await send.reached.wait()
        await world.write(FILE, 0, b"z")
        hold.set()
        await wait_all_tasks_blocked()
        assert drained.is_set()
        assert {FILE, OTHER} == dirty_inodes(world)


async def test_a_file_without_unsent_chunks_is_drained_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nothing is sent for it, whatever others have."""
    async with chunk_world(tmp_path) as (world, _):
        await world.write(OTHER, 0, b"y" * CHUNK)
        await world.store.drain_file(FILE)
        assert {OTHER} == dirty_inodes(world)


async def test_a_send_that_fails_in_passing_is_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The network comes back: the file arrives, and nobody hears of it."""
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, b"x" * CHUNK)
        for number in (1, 2, 3):
            world.transport.plan("send", number, Fault(before=TransientStorageError("the network")))
        await world.store.drain_file(FILE)
        assert set() == dirty_inodes(world)


async def test_a_refusal_for_good_is_an_error_until_it_is_put_right(tmp_path: Path, autojump_clock: MockClock) -> None:
    """EIO when every channel refuses; what is unsent stays, and the next attempt asks Discord again."""
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, b"x" * CHUNK)
        for number in (1, 2, 3):
            world.transport.plan("send", number, Fault(before=REFUSED))
        for _ in range(2):
            with pytest.raises(FilesystemError) as caught:
                await world.store.drain_file(FILE)
            assert errno.EIO == caught.value.errno
            assert "403" in str(caught.value)
            assert {FILE} == dirty_inodes(world)
        await world.store.drain_file(FILE)
        assert set() == dirty_inodes(world)


async def test_giving_up_the_wait_loses_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A cancelled drain leaves the file to be sent as ever."""
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, b"x" * CHUNK)
        hold = trio.Event()
        world.transport.plan("send", 1, Fault(hold=hold))
        with trio.move_on_after(1) as scope:
            await world.store.drain_file(FILE)
        assert scope.cancelled_caught
        assert [] == world.store._map._drains
        hold.set()
        await world.store.drain()
        assert set() == dirty_inodes(world)


async def test_what_others_have_sent_does_not_count(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A chunk of another file that arrives is none of this file's."""
    async with chunk_world(tmp_path) as (world, nursery):
        first, second, drained = trio.Event(), trio.Event(), trio.Event()
        others = world.transport.plan("send", 1, Fault(hold=first))
        own = world.transport.plan("send", 2, Fault(hold=second))
        await world.write(OTHER, 0, b"y" * CHUNK)
        nursery.start_soon(world.store.drain)
        await others.reached.wait()
        await world.write(FILE, 0, b"x" * CHUNK)

        async def drain() -> None:
            await world.store.drain_file(FILE)
            drained.set()

        nursery.start_soon(drain)
        await own.reached.wait()
        first.set()
        await wait_all_tasks_blocked()
        assert {FILE} == dirty_inodes(world)
        assert not drained.is_set()
        second.set()
        await drained.wait()
        assert set() == dirty_inodes(world)


async def test_a_file_that_is_deleted_is_waited_for_no_longer(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is gone need not be sent."""
    async with chunk_world(tmp_path, channels=1) as (world, nursery):
        world.store.pause()
        await world.write(FILE, 0, b"x")
        drained = trio.Event()

        async def drain() -> None:
            await world.store.drain_file(FILE)
            drained.set()

        nursery.start_soon(drain)
        await wait_all_tasks_blocked()
        world.discard(FILE)
        world.store.resume()
        await world.write(OTHER, 0, b"y")
        await world.store.drain()
        await wait_all_tasks_blocked()
        assert drained.is_set()
