"""Which files are on their way to Discord, and how far they are."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio
from support.chunk_worlds import CHUNK, FILE, OTHER, chunk_world

from disfs.chunkstore.transfers import MAX_FILES, TransferTable
from disfs.chunkstore.transport.faults import Fault
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from pathlib import Path

    from support.chunk_worlds import ChunkWorld
    from trio.testing import MockClock

    from disfs.chunkstore.transfers import Transfers


def look(world: ChunkWorld) -> Transfers:
    return world.store.transfers.look(trio.current_time())


def noise(count: int) -> bytes:
    """What does not get shorter when it is compressed."""
    return random.Random(count).randbytes(count)


async def test_nothing_is_told_of_while_all_is_in_discord(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Before the first write and after a drain there is no file, no message and no oldest change."""
    async with chunk_world(tmp_path) as (world, _):
        for _ in range(2):
            found = look(world)
            assert (0, None, (), ()) == (
                found.unsent_files,
                found.oldest_unsent_seconds,
                found.messages,
                found.files,
            )
            await world.write(FILE, 0, b"x" * CHUNK)
            await world.store.drain()


async def test_waiting_files_are_told_of_with_their_sizes(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What waits counts in whole, the largest file first, and the oldest change has its age."""
    async with chunk_world(tmp_path) as (world, _):
        world.store.pause()
        await world.write(FILE, 0, b"x" * 100)
        await trio.sleep(7)
        await world.write(OTHER, 0, b"x" * (CHUNK + 1))
        found = look(world)
        assert (2, 7.0) == (found.unsent_files, found.oldest_unsent_seconds)
        assert [(OTHER, 0, CHUNK + 1, False, None), (FILE, 0, 100, False, None)] == [
            (file.inode, file.sent_bytes, file.total_bytes, file.sending, file.bytes_per_second) for file in found.files
        ]


async def test_file_counts_what_has_arrived_and_its_share_of_the_message(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A file of three messages counts what is recorded, and of the one on its way what the network has taken."""
    size = 40 * CHUNK
    async with chunk_world(tmp_path, channels=1, sends_per_channel=1, dirty_limit_bytes=64 * CHUNK) as (world, _):
        held = world.transport.plan("send", 2, Fault(hold=(go_on := trio.Event())))
        await world.write(FILE, 0, noise(size))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.store.drain)
            await held.reached.wait()
            await trio.sleep(4)
            (before,) = look(world).files
            assert 0 < before.sent_bytes < size
            assert before.sending
            assert size == before.total_bytes
            table = TransferTable(world.store._map, world.store._writeback.messages, lambda nonce: 10_000)
            found = table.look(trio.current_time())
            (file,), message = found.files, found.messages[0]
            assert 10_000 == message.sent_bytes
            assert message.bytes_per_second == pytest.approx(10_000 / message.seconds)
            share = int(world.store._writeback.messages[0].plain_bytes * 10_000 / message.size_bytes)
            assert before.sent_bytes + share == file.sent_bytes
            assert file.bytes_per_second == pytest.approx(share / message.seconds, rel=0.001)
            assert size == file.total_bytes
            go_on.set()
        assert () == look(world).files


async def test_file_that_is_written_anew_begins_anew(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What was sent for an earlier change does not count for the next one."""
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, noise(5 * CHUNK))
        await world.store.drain()
        world.store.pause()
        await world.write(FILE, CHUNK, b"y")
        (file,) = look(world).files
        assert (0, CHUNK) == (file.sent_bytes, file.total_bytes)


async def test_cut_and_deleted_files_are_not_told_of(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file whose unsent part was cut away, and one that was deleted, have nothing to send."""
    async with chunk_world(tmp_path) as (world, _):
        world.store.pause()
        await world.write(FILE, 0, noise(3 * CHUNK))
        await world.write(OTHER, 0, noise(3 * CHUNK))
        await world.cut(FILE, CHUNK + 5)
        (first, second) = look(world).files
        assert {3 * CHUNK, CHUNK + 5} == {first.total_bytes, second.total_bytes}
        await world.cut(FILE, 0)
        world.discard(OTHER)
        assert (0, ()) == (look(world).unsent_files, look(world).files)


async def test_number_of_files_told_of_is_bounded(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Of many files all are counted and a few are told of, each once, those on their way first."""
    async with chunk_world(tmp_path, message_bytes=4 * CHUNK, cache_bytes=1024 * CHUNK) as (world, _):
        held = world.transport.plan("send", 1, Fault(hold=trio.Event()))
        for number in range(200):
            await world.write(InodeNumber(1000 + number), 0, noise(100))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.store.drain)
            await held.reached.wait()
            found = look(world)
            assert 200 == found.unsent_files
            assert MAX_FILES == len({file.inode for file in found.files}) == len(found.files)
            assert found.messages
            sending = [file.sending for file in found.files]
            assert sending == sorted(sending, reverse=True)
            assert any(sending)
            nursery.cancel_scope.cancel()


async def test_whoever_listens_hears_of_files_that_are_in_discord(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file is named once all of it has arrived, with how much was sent; one that was deleted before is not."""
    async with chunk_world(tmp_path) as (world, _):
        heard: list[tuple[InodeNumber, int]] = []
        world.store.listen_sent(lambda inode, size: heard.append((inode, size)))
        await world.write(FILE, 0, noise(20 * CHUNK))
        await world.write(OTHER, 0, noise(100))
        world.discard(OTHER)
        assert [] == heard
        await world.store.drain()
        assert [(FILE, 20 * CHUNK)] == heard
