"""Failures that were found in the chunk store, each with the real metadata store on top of it."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.chunk_worlds import CHUNK
from support.real_stores import real_stores

from disfs.chunkstore import outgoing
from disfs.chunkstore.transport.faults import Fault
from disfs.errors import FilesystemError, PermissionMissingError
from disfs.values import ROOT_INODE, AttributeChanges

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


def pattern(length: int, seed: int = 1) -> bytes:
    """Bytes in which every position differs from its neighbours."""
    return bytes((i * 7 + i // 251 + seed) % 255 + 1 for i in range(length))


@pytest.mark.parametrize("sent", ["not sent", "cached", "evicted"])
async def test_regression_truncate_on_a_full_state_disk(tmp_path: Path, autojump_clock: MockClock, sent: str) -> None:
    """A truncate that is refused because the disk of the metadata is nearly full has changed nothing."""
    data = pattern(3 * CHUNK)
    async with real_stores(tmp_path) as (world, _):
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, data)
        if sent != "not sent":
            await world.chunks.drain()
        if sent == "evicted":
            world.chunks.evict_all()
        await world.metadata.make_durable()
        world.free_bytes = 1000
        with pytest.raises(FilesystemError, match="ENOSPC"):
            await world.truncate(inode, CHUNK + 5)
        assert data == await world.filesystem.files.read(handle, 0, 3 * CHUNK)
        world.free_bytes = 1 << 40
        await world.filesystem.files.write(handle, 3 * CHUNK, b"more")
        assert data + b"more" == await world.filesystem.files.read(handle, 0, 4 * CHUNK)
        await world.truncate(inode, CHUNK + 5)
        await world.truncate(inode, 2 * CHUNK)
        assert data[: CHUNK + 5].ljust(2 * CHUNK, b"\0") == await world.filesystem.files.read(handle, 0, 4 * CHUNK)


async def test_regression_truncate_with_a_full_cache_disk(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A truncate whose remote boundary chunk cannot be written to the cache has cut nothing off."""
    data = pattern(3 * CHUNK)
    async with real_stores(tmp_path) as (world, _):
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, data)
        await world.chunks.drain()
        world.chunks.evict_all()

        def full(*_: Any, **__: Any) -> None:
            raise FilesystemError(errno.ENOSPC, "full")

        with monkeypatch.context() as patch:
            patch.setattr(world.chunks._files, "write", full)
            with pytest.raises(FilesystemError, match="ENOSPC"):
                await world.truncate(inode, CHUNK + 5)
        assert data == await world.filesystem.files.read(handle, 0, 3 * CHUNK)


async def test_regression_sweep_on_a_full_state_disk(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Garbage that cannot be swept because the metadata cannot be committed does not end the daemon; it goes later."""
    async with real_stores(tmp_path) as (world, _):
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, pattern(CHUNK))
        await world.chunks.drain()
        await world.truncate(inode, 0)
        await world.metadata.make_durable()
        await world.filesystem.change_attributes(inode, AttributeChanges(mode=0o600))
        world.free_bytes = 0
        await trio.sleep(100)
        assert 1 == len(world.memory.messages(world.channels[0]))
        world.free_bytes = 1 << 40
        await trio.sleep(100)
        assert [] == world.memory.messages(world.channels[0])


@pytest.mark.parametrize("bad", [0, 1])
async def test_regression_sweep_goes_on_to_the_next_channel(
    tmp_path: Path, autojump_clock: MockClock, bad: int
) -> None:
    """A channel in which nothing may be deleted does not keep garbage in the other channels."""
    refused = PermissionMissingError("403", "View Channel")
    async with real_stores(tmp_path, channels=2, message_bytes=2 * CHUNK, attachment_bytes=2 * CHUNK) as (world, _):
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, random.Random(1).randbytes(8 * CHUNK))
        await world.chunks.drain()
        assert all(world.memory.messages(channel) for channel in world.channels)
        first = world.transport._inner

        class Refusing:
            def __getattr__(self, name: str) -> Any:
                return getattr(first, name)

            async def delete(self, channel: Any, messages: Any, *, urgency: Any = None) -> None:
                await trio.lowlevel.checkpoint()
                if channel == world.channels[bad]:
                    raise refused
                await first.delete(channel, messages)

        world.transport._inner = Refusing()
        for _ in range(2):
            await world.truncate(inode, 0)
            await trio.sleep(200)
            assert [] == world.memory.messages(world.channels[1 - bad])
            assert "403" in str(world.chunks.statistics().sweep.failure)


async def test_regression_a_ledger_that_stopped_is_not_sent_for_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """What was sent and cannot be recorded is not sent once more each time: nobody would ever delete those messages."""
    async with real_stores(tmp_path) as (world, nursery):
        handle, _ = await world.create(b"file")
        hold = trio.Event()
        fault = world.transport.plan("send", 1, Fault(hold_after=hold))
        await world.filesystem.files.write(handle, 0, pattern(CHUNK))
        await world.filesystem.files.fsync(handle)
        await fault.reached.wait()
        world.metadata._database.fail("a test")
        hold.set()
        await trio.sleep(1000)
        assert 1 == len(world.memory.messages(world.channels[0]))
        assert world.chunks.statistics().writeback.failures
        await world.crash(nursery)
        await world.chunks.drain()
        world.chunks.evict_all()
        (inode,) = {row.attributes.inode for row in await world.metadata.list_directory(ROOT_INODE, 0, 10)}
        assert pattern(CHUNK) == await world.chunks.read(inode, 0, CHUNK)


async def test_regression_a_bad_cache_disk_while_reading(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing can be evicted for what a reader fetched, the reader has it all the same and the daemon lives."""
    data = pattern(40 * CHUNK)
    async with real_stores(tmp_path, cache_bytes=16 * CHUNK) as (world, _):
        handle, _ = await world.create(b"file")
        for index in range(40):
            await world.filesystem.files.write(handle, index * CHUNK, data[index * CHUNK : (index + 1) * CHUNK])
        await world.chunks.drain()

        def bad(*_: Any) -> None:
            raise FilesystemError(errno.EIO, "evicting from the cache: bad disk")

        monkeypatch.setattr(world.chunks._files, "punch", bad)
        assert data == await world.filesystem.files.read(handle, 0, 40 * CHUNK)


async def test_regression_one_bad_cache_file_does_not_stop_the_others(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A cache file that somebody deleted neither keeps other files from being written when the cache is full, nor
    cuts from becoming final."""
    async with real_stores(tmp_path, cache_bytes=16 * CHUNK, open_files=1) as (world, _):
        victim, _ = await world.create(b"victim")
        cut, cut_inode = await world.create(b"cut")
        await world.filesystem.files.write(victim, 0, pattern(4 * CHUNK))
        await world.chunks.drain()
        await world.filesystem.files.write(cut, 0, pattern(4 * CHUNK))
        other, _ = await world.create(b"other")
        await world.filesystem.files.write(other, 0, b"x")  # the only descriptor is another file's now
        for path in (tmp_path / "cache" / "files").rglob("*"):
            if path.is_file() and path.stat().st_size == 4 * CHUNK:
                path.unlink()
        await world.truncate(cut_inode, 5)
        for index in range(40):
            await world.filesystem.files.write(other, index * CHUNK, pattern(CHUNK, index))
        with trio.fail_after(1000):
            with pytest.raises(FilesystemError, match="EIO"):
                await world.filesystem.files.write(cut, CHUNK, b"over what cannot be destroyed")
            await world.chunks.drain()
        assert pattern(CHUNK, 39) == await world.filesystem.files.read(other, 39 * CHUNK, CHUNK)


async def test_regression_no_descriptor_left_is_not_a_loss(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsent data that cannot be read for a passing reason stays dirty and is sent later."""
    async with real_stores(tmp_path) as (world, _):
        handle, _ = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, pattern(CHUNK))

        def none_left(*_: Any) -> bytes:
            raise FilesystemError(errno.EMFILE, "reading the cache: too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(world.chunks._files, "read", none_left)
            await trio.sleep(100)
        assert 0 == world.chunks.statistics().lost_chunks
        await world.chunks.drain()
        world.chunks.evict_all()
        assert pattern(CHUNK) == await world.filesystem.files.read(handle, 0, CHUNK)


class BadDisk:
    """Stands for os.fdatasync: fails for chosen cache files, once each, as the kernel reports an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing: set[int] = set()
        self.synced: set[int] = set()
        monkeypatch.setattr(os, "fdatasync", self._fdatasync)

    def _fdatasync(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if found.st_ino in self.failing:
            self.failing.discard(found.st_ino)
            raise OSError(errno.EIO, "bad disk")
        self.synced.add(found.st_ino)


def cache_file(directory: Path, inode: int) -> int:
    """The number that the local disk gives to the cache file of an inode."""
    return (directory / "cache" / "files" / f"{inode & 0xFF:02x}" / f"{inode:x}").stat().st_ino


async def test_regression_an_error_of_the_cache_disk_is_not_forgotten(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a sync that failed, fsync fails until Discord has the data, though the kernel reports the error only once;
    other files are synced."""
    disk = BadDisk(monkeypatch)
    async with real_stores(tmp_path, small_content_bytes=0) as (world, _):
        bad, bad_inode = await world.create(b"bad")
        good, good_inode = await world.create(b"good")
        for handle in (bad, good):
            await world.filesystem.files.write(handle, 0, pattern(CHUNK))
        disk.failing.add(cache_file(tmp_path, bad_inode))
        with pytest.raises(FilesystemError, match="EIO"):
            await world.filesystem.files.sync_everything()
        assert cache_file(tmp_path, good_inode) in disk.synced
        assert not world.metadata._database.has_open_transaction
        with pytest.raises(FilesystemError, match="EIO"):
            await world.filesystem.files.fsync(bad)
        await world.filesystem.files.fsync(good)
        await world.chunks.drain()
        await world.filesystem.files.fsync(bad)


@pytest.mark.parametrize("evicted", [True, False])
@pytest.mark.parametrize("how", ["fsync", "fsyncdir", "settle", "checkpoint"])
async def test_regression_no_dirty_mark_without_its_bytes(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, evicted: bool, how: str
) -> None:
    """What makes a dirty mark durable for somebody else's sake makes the bytes durable first that lie over a content
    which Discord has: a power cut would take that content too."""
    disk = BadDisk(monkeypatch)
    async with real_stores(tmp_path, small_content_bytes=0) as (world, _):
        old, old_inode = await world.create(b"old")
        await world.filesystem.files.write(old, 0, pattern(CHUNK))
        await world.filesystem.files.fsync(old)
        await world.chunks.drain()
        if evicted:
            world.chunks.evict_all()
        other, other_inode = await world.create(b"other")
        await world.filesystem.files.write(other, 0, pattern(3 * CHUNK))
        await world.filesystem.files.write(old, 10, b"new")
        disk.synced.clear()
        if how == "fsync":
            await world.filesystem.files.fsync(other)
        elif how == "fsyncdir":
            await world.filesystem.sync_names()
        elif how == "checkpoint":
            await world.metadata.commit()
            await world.metadata._checkpointer.checkpoint()
        else:
            await world.truncate(other_inode, 0)
            await trio.sleep(2)
        assert cache_file(tmp_path, old_inode) in disk.synced


async def test_regression_a_drain_hurries_a_chunk_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A chunk that is written again and again is not sent without pause for ever after somebody drained once."""
    async with real_stores(tmp_path) as (world, nursery):
        handle, _ = await world.create(b"log")
        await world.filesystem.files.write(handle, 0, b"begin")
        hold = trio.Event()
        fault = world.transport.plan("send", 1, Fault(hold=hold))
        nursery.start_soon(world.chunks.drain)
        await fault.reached.wait()
        for _ in range(10):
            await world.filesystem.files.write(handle, 0, b"again")
            again = trio.Event()
            next_fault = world.transport.plan("send", 1, Fault(hold=again))
            hold.set()
            with trio.move_on_after(1):
                await next_fault.reached.wait()
            hold = again
        hold.set()
        assert world.transport.calls["send"] <= 2


@pytest.mark.parametrize("state", ["sending", "recorded", "clean"])
async def test_regression_a_write_that_fails_halfway_over_a_copied_chunk(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """What a failing write left in the cache is what Discord gets: cache and Discord never differ on a clean chunk."""
    async with real_stores(tmp_path, settle_seconds=1000.0, small_content_bytes=0) as (world, _):
        handle, _ = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, pattern(CHUNK))
        hold = trio.Event()
        fault = world.transport.plan("send", 1, Fault(hold=hold))
        if state != "sending":
            hold.set()
        await fault.reached.wait()
        await trio.sleep(1)
        if state == "clean":
            await world.chunks.drain()
        write = world.chunks._files.write

        def half(inode: Any, offset: int, data: bytes, *, create: bool) -> None:
            write(inode, offset, data[: len(data) // 2], create=create)
            raise FilesystemError(errno.ENOSPC, "full")

        with monkeypatch.context() as patch:
            patch.setattr(world.chunks._files, "write", half)
            with pytest.raises(FilesystemError, match="ENOSPC"):
                await world.filesystem.files.write(handle, 0, bytes(CHUNK))
        hold.set()
        await world.chunks.drain()
        warm = await world.filesystem.files.read(handle, 0, CHUNK)
        world.chunks.evict_all()
        assert warm == await world.filesystem.files.read(handle, 0, CHUNK)


async def test_regression_a_file_emptied_and_written_anew_while_it_is_packed(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that is cut and written anew while its message is packed does not get into that message twice."""
    async with real_stores(tmp_path, dirty_limit_bytes=32 * CHUNK) as (world, _):
        small, inode = await world.create(b"small")
        large, _ = await world.create(b"large")
        await world.filesystem.files.write(small, 0, b"old")
        await trio.sleep(0.5)
        run_sync = trio.to_thread.run_sync
        sealed: list[Any] = []

        async def seal(call: Any, *args: Any, **named: Any) -> Any:
            result = await run_sync(call, *args, **named)
            if call is outgoing._seal and not sealed:
                sealed.append(args)
                await world.truncate(inode, 0)
                await world.filesystem.files.write(small, 0, b"new")
            return result

        monkeypatch.setattr(trio.to_thread, "run_sync", seal)
        # Above the high mark whatever is dirty goes along, quiet or not.
        await world.filesystem.files.write(large, 0, pattern(17 * CHUNK))
        await world.chunks.drain()
        assert sealed
        world.chunks.evict_all()
        assert await world.filesystem.files.read(small, 0, CHUNK) == b"new"


async def test_fsync_syncs_contents_before_what_names_them(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log that says what a file holds is synced after the cache file that holds it, never before."""
    order: list[str] = []
    async with real_stores(tmp_path, small_content_bytes=0) as (world, _):
        handle, _ = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, b"content")
        monkeypatch.setattr(os, "fdatasync", lambda _: order.append("contents"))
        monkeypatch.setattr(world.metadata._sync, "_sync", lambda: order.append("log"))
        await world.filesystem.files.fsync(handle)
        assert ["contents", "contents", "log"] == order  # the cache file and its folder
