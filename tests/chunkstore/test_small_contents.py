"""Contents that are rows of the ledger: when they are, when they become files, and what no crash may do to them."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from support.chunk_worlds import CHUNK, FILE, OTHER, chunk_world
from support.real_stores import real_stores

from disfs.chunkstore import spilling
from disfs.errors import FilesystemError, MetadataDamagedError
from disfs.values import ROOT_INODE, AttributeChanges, InodeNumber

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from support.chunk_worlds import ChunkWorld
    from support.real_stores import RealStores
    from trio.testing import MockClock

SMALL = 1000
"""The longest small content of these tests."""


def pattern(length: int, seed: int = 1) -> bytes:
    """Bytes in which every position differs from its neighbours."""
    return bytes((i * 7 + i // 251 + seed) % 255 + 1 for i in range(length))


def cache_files(directory: Path) -> list[str]:
    """The names of all cache files."""
    return sorted(path.name for path in directory.rglob("files/*/*"))


def rows(world: ChunkWorld) -> dict[int, int]:
    """The lengths of the small contents."""
    return dict(world.ledger.small_lengths())


async def test_a_small_file_has_no_cache_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What ends within the limit is a row: it weighs, is sent, evicted, fetched, and is a row again."""
    data = pattern(SMALL)
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, _):
        await world.write(FILE, 0, data)
        assert ([], {FILE: SMALL}) == (cache_files(tmp_path), rows(world))
        assert 4096 == world.store.statistics().cache_bytes
        assert data == await world.contents(FILE)
        await world.store.drain()
        world.store.evict_all()
        assert ({}, 0) == (rows(world), world.store.statistics().cache_bytes)
        assert data == await world.contents(FILE)
        assert ([], {FILE: SMALL}) == (cache_files(tmp_path), rows(world))
        world.discard(FILE)
        assert {} == rows(world)


async def test_a_content_that_grows_becomes_a_file_and_stays_one(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One byte more than the limit spills; shortened again it stays a file; written anew from nothing it is a row."""
    data = pattern(SMALL)
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, _):
        await world.write(FILE, 0, data)
        await world.write(FILE, SMALL, b"x")
        assert (["7"], {}) == (cache_files(tmp_path), rows(world))
        assert data + b"x" == await world.contents(FILE)
        await world.cut(FILE, 10)
        await world.write(FILE, 10, b"y")
        assert (["7"], {}) == (cache_files(tmp_path), rows(world))
        await world.cut(FILE, 0)
        await world.write(FILE, 0, b"z")
        assert ([], {FILE: 1}) == (cache_files(tmp_path), rows(world))
        assert b"z" == await world.contents(FILE)


async def test_an_unsent_small_file_that_is_removed_leaves_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """All counts are as before it was made, and a drain that waited for it has nothing left to wait for."""
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        world.store.pause()
        before = world.store.statistics()
        await world.write(FILE, 0, pattern(SMALL))
        world.store.set_pinned([FILE], True)
        with trio.fail_after(5):
            async with trio.open_nursery() as waiting:
                waiting.start_soon(world.store.drain)
                await trio.testing.wait_all_tasks_blocked()
                world.discard(FILE)
                # Whoever waits for it needs no upload any more.
        after = world.store.statistics()
        for name in ("cache_bytes", "dirty_bytes", "dirty_chunks", "pinned_bytes", "pinned_inodes"):
            assert getattr(before, name) == getattr(after, name), name
        assert {} == rows(world)
        assert 0 == world.store._small.total_bytes
        assert FILE not in world.store._cache.map.inodes
        world.store.resume()
        await world.store.drain()
        await world.restart(nursery)
        assert 0 == world.store.statistics().lost_chunks
        assert [] == list(world.ledger.dirty_chunks())


async def test_holes_and_overwrites_in_a_small_content(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What was never written reads as zeros, what was cut off never comes back, the rest is what was written last."""
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, _):
        await world.write(FILE, 10, b"abcdef")
        await world.write(FILE, 12, b"XY")
        await world.cut(FILE, 14)
        await world.cut(FILE, 20)
        await world.write(FILE, 22, b"end")
        assert b"\0" * 10 + b"abXY" + b"\0" * 8 + b"end" == await world.contents(FILE)
        await world.write(FILE, 2 * CHUNK, b"far")
        assert {} == rows(world)
        expected = (b"\0" * 10 + b"abXY" + b"\0" * 8 + b"end").ljust(2 * CHUNK, b"\0") + b"far"
        assert expected == await world.contents(FILE)


async def test_emptying_an_unsent_small_file_waits_for_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A small file that was not sent is emptied and written anew at once; a crash before the commit brings it back."""
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        await world.write(FILE, 0, pattern(SMALL))
        world.ledger.commit()
        durable = world.ledger.durable_count
        await world.cut(FILE, 0)
        await world.write(FILE, 0, b"new")
        assert (durable, 0) == (world.ledger.durable_count, world.store.statistics().unsettled)
        await world.crash(nursery)
        assert pattern(SMALL) == await world.contents(FILE)


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("committed", [False, True])
async def test_a_crash_after_a_spill(tmp_path: Path, autojump_clock: MockClock, sent: bool, committed: bool) -> None:
    """A crash finds the row, and no file, or the file, and no row: whichever the ledger committed."""
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        await world.write(FILE, 0, pattern(SMALL))
        if sent:
            await world.store.drain()
        world.ledger.commit()
        await world.write(FILE, SMALL, b"more")
        if committed:
            world.ledger.commit()
        await world.crash(nursery)
        assert pattern(SMALL) + (b"more" if committed else b"") == await world.contents(FILE)
        assert (["7"], {}) == (cache_files(tmp_path), rows(world)) if committed else ([], {FILE: SMALL})


async def test_a_row_counts_before_a_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A cache file that a power cut brought back beside a row is removed, and nothing of it is shown."""
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        await world.write(FILE, 0, b"row")
        world.ledger.commit()
        (tmp_path / "files" / "07" / "7").write_bytes(b"an older life of the file")
        await world.crash(nursery)
        assert [] == cache_files(tmp_path)
        assert b"row" == await world.contents(FILE)
        await world.write(FILE, 5, b"s")
        assert b"row\0\0s" == await world.contents(FILE)


async def test_small_contents_survive_a_crash_sent_or_not(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After a crash what was sent is still cached, and what was not is sent; there is nothing to sync of either."""
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        await world.write(FILE, 0, b"sent")
        await world.store.drain()
        await world.write(OTHER, 0, b"not sent")
        world.ledger.commit()
        await world.crash(nursery)
        await world.store.sync_all()
        assert [] == caplog.records
        assert (b"sent", b"not sent") == (await world.contents(FILE), await world.contents(OTHER))
        assert 0 == world.transport.calls["fetch"]
        await world.store.drain()
        world.store.evict_all()
        assert (b"sent", b"not sent") == (await world.contents(FILE), await world.contents(OTHER))


async def test_a_cache_directory_that_was_deleted_takes_no_small_content(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever deletes the cache between two mounts loses nothing that is small; unsent larger content is lost."""
    async with chunk_world(tmp_path / "cache", small_content_bytes=SMALL) as (world, nursery):
        await world.write(FILE, 0, b"small, not sent")
        await world.write(OTHER, 0, pattern(SMALL + 1))
        await world.stop()
        shutil.rmtree(tmp_path / "cache")
        world.store = world.new_store()
        await world.start(nursery)
        assert "1 chunks of inode 4104" in caplog.text
        assert b"small, not sent" == await world.contents(FILE)
        with pytest.raises(FilesystemError, match="EIO"):
            await world.contents(OTHER)
        caplog.clear()
        await world.restart(nursery)
        assert "inode 7" not in caplog.text
        assert b"small, not sent" == await world.contents(FILE)


async def test_a_clean_stop_keeps_both_kinds(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After a clean stop nothing is fetched, whether it was a row or a file."""
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        await world.write(FILE, 0, pattern(SMALL))
        await world.write(OTHER, 0, pattern(2 * CHUNK))
        await world.store.drain()
        await world.restart(nursery)
        assert (pattern(SMALL), pattern(2 * CHUNK)) == (await world.contents(FILE), await world.contents(OTHER))
        assert 0 == world.transport.calls["fetch"]
        assert (["1008"], {FILE: SMALL}) == (cache_files(tmp_path), rows(world))


async def test_all_small_contents_together_have_a_limit(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is more than an eighth of the cache becomes files, also what grows; room given back is used again."""
    async with chunk_world(tmp_path, cache_bytes=16 * CHUNK, small_content_bytes=SMALL) as (world, nursery):
        limit = 2 * CHUNK
        for number in range(10):
            await world.write(InodeNumber(0x100 + number), 0, pattern(SMALL, number))
            assert sum(rows(world).values()) <= limit
        assert (limit // SMALL, 10) == (len(rows(world)), len(rows(world)) + len(cache_files(tmp_path)))
        await world.write(FILE, 0, pattern(limit % SMALL))
        await world.write(FILE, limit % SMALL, b"x")
        assert "7" in cache_files(tmp_path)
        await world.crash(nursery)
        world.discard(InodeNumber(0x100))
        await world.write(OTHER, 0, pattern(SMALL))
        assert rows(world)[OTHER] == SMALL


async def test_a_chunk_beside_a_small_content_is_fetched(tmp_path: Path, autojump_clock: MockClock) -> None:
    """In a sparse file the short first chunk is a row until another chunk is cached; unsent, it stays whole."""
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        await world.write(FILE, 3 * CHUNK, pattern(CHUNK))
        await world.store.drain()
        world.store.evict_all()
        await world.write(FILE, 0, b"first")
        assert {FILE: 5} == rows(world)
        assert b"first".ljust(3 * CHUNK, b"\0") + pattern(CHUNK) == await world.contents(FILE)
        assert (["7"], {}) == (cache_files(tmp_path), rows(world))
        assert FILE in world.store._cache.overlaid
        world.ledger.commit()
        await world.crash(nursery)
        assert b"first".ljust(3 * CHUNK, b"\0") + pattern(CHUNK) == await world.contents(FILE)


async def test_a_chunk_beside_a_promised_small_content(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Beside an unsent content that was synced a reader's chunk is not kept, which would make it spill at once; a
    warm-up brings all of the file."""
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, _):
        await world.write(FILE, 3 * CHUNK, pattern(CHUNK))
        await world.store.drain()
        world.store.evict_all()
        await world.write(FILE, 0, b"first")
        await world.store.sync_all()
        assert b"first".ljust(3 * CHUNK, b"\0") + pattern(CHUNK) == await world.contents(FILE)
        assert {FILE: 5} == rows(world)
        heard: list[int] = []
        await world.store.warm(FILE, 4 * CHUNK, heard.append)
        assert (4 * CHUNK, {}) == (sum(heard), rows(world))
        fetched = world.transport.calls["fetch"]
        assert b"first".ljust(3 * CHUNK, b"\0") + pattern(CHUNK) == await world.contents(FILE)
        assert fetched == world.transport.calls["fetch"]


async def test_a_spill_that_fails_has_changed_nothing(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the cache's disk does not take the file, the row stays what it was."""
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        await world.write(FILE, 0, pattern(SMALL))
        write = world.store._files.write

        def half(inode: Any, offset: int, data: bytes, *, create: bool) -> None:
            write(inode, offset, data[: len(data) // 2], create=create)
            raise FilesystemError(errno.ENOSPC, "full")

        with monkeypatch.context() as patch:
            patch.setattr(world.store._files, "write", half)
            with pytest.raises(FilesystemError, match="ENOSPC"):
                await world.write(FILE, SMALL, b"more")
        assert ([], {FILE: SMALL}) == (cache_files(tmp_path), rows(world))
        assert pattern(SMALL) == await world.contents(FILE)
        await world.write(FILE, SMALL, b"more")
        world.ledger.commit()
        await world.crash(nursery)
        assert pattern(SMALL) + b"more" == await world.contents(FILE)


@pytest.mark.parametrize("offset", [0, SMALL])
async def test_a_full_state_disk_leaves_small_contents_as_they_were(
    tmp_path: Path, autojump_clock: MockClock, offset: int
) -> None:
    """Without room for the metadata a write is refused, whether it stays small or spills, and nothing has changed."""
    async with real_stores(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, pattern(SMALL))
        await world.chunks.drain()
        world.free_bytes = 1000
        with pytest.raises(FilesystemError, match="ENOSPC"):
            await world.filesystem.files.write(handle, offset, b"new")
        with pytest.raises(FilesystemError, match="ENOSPC"):
            await world.truncate(inode, 5)
        assert pattern(SMALL) == await world.filesystem.files.read(handle, 0, 2 * SMALL)
        assert [] == cache_files(tmp_path)
        world.free_bytes = 1 << 40
        await world.metadata.commit()
        await world.crash(nursery)
        assert pattern(SMALL) == await world.chunks.read(inode, 0, SMALL)


async def test_what_is_fetched_while_the_state_disk_is_full(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Without room for rows, small files that are read are cached as files, and nobody is warned of each."""
    async with real_stores(tmp_path, small_content_bytes=SMALL) as (world, _):
        handle, _ = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, pattern(SMALL))
        await world.chunks.drain()
        world.chunks.evict_all()
        await world.metadata.commit()
        world.free_bytes = 1000
        caplog.clear()
        for _ in range(2):
            assert pattern(SMALL) == await world.filesystem.files.read(handle, 0, SMALL)
        assert 1 == world.transport.calls["fetch"]
        assert 1 == len(cache_files(tmp_path))
        assert [] == [r for r in caplog.records if r.levelno >= logging.WARNING and "chunkstore" in r.name]


async def test_a_small_content_is_synced_with_the_log(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of a small file is the sync of the log, and no other."""
    order: list[str] = []
    async with real_stores(tmp_path, small_content_bytes=SMALL) as (world, _):
        handle, _ = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, b"content")
        monkeypatch.setattr(os, "fdatasync", lambda _: order.append("contents"))
        monkeypatch.setattr(world.metadata._sync, "_sync", lambda: order.append("log"))
        await world.filesystem.files.fsync(handle)
        assert ["log"] == order


@pytest.mark.parametrize("how", ["fsync", "fsyncdir", "settle"])
@pytest.mark.parametrize("sent", [False, True])
async def test_a_spilled_file_is_synced_before_its_row_is_gone(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, how: str, sent: bool
) -> None:
    """What makes the removal of a row durable, for whomever, makes the file durable first that replaces it: a power
    cut must not take what was fsynced as a small content."""
    async with real_stores(tmp_path, small_content_bytes=SMALL) as (world, _):
        other, other_inode = await world.create(b"other")
        await world.filesystem.files.write(other, 0, pattern(3 * CHUNK))
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, pattern(SMALL))
        await world.filesystem.files.fsync(handle)
        if sent:
            await world.chunks.drain()
            await world.filesystem.files.write(other, 0, b"unsent")
        await world.filesystem.files.write(handle, SMALL, b"spills")
        path = tmp_path / "cache" / "files" / f"{inode & 0xFF:02x}" / f"{inode:x}"
        wanted = {path.stat().st_ino, path.parent.stat().st_ino}
        synced: set[int] = set()
        at_the_log: list[bool] = []
        monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
        monkeypatch.setattr(world.metadata._sync, "_sync", lambda: at_the_log.append(wanted <= synced))
        if how == "fsync":
            await world.filesystem.files.fsync(other)
        elif how == "fsyncdir":
            await world.filesystem.sync_names()
        else:
            await world.truncate(other_inode, 0)
            await trio.sleep(2)
        assert at_the_log
        assert all(at_the_log)


async def test_a_ledger_that_stopped_is_no_loss(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Unsent small contents that the ledger does not give out are not called lost; the next mount sends them."""
    async with real_stores(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, b"content")
        await world.filesystem.files.fsync(handle)
        world.metadata._database.fail("a test")
        await trio.sleep(100)
        assert (0, 1) == (world.chunks.statistics().lost_chunks, world.chunks.statistics().dirty_chunks)
        assert 0 == world.transport.calls["send"]
        await world.crash(nursery)
        await world.chunks.drain()
        world.chunks.evict_all()
        assert b"content" == await world.chunks.read(inode, 0, 7)


async def test_a_file_that_could_not_be_synced_and_is_written_anew_as_a_row(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doubt about a cache file goes with the file: fsync of what is a small content now succeeds."""
    async with real_stores(tmp_path, small_content_bytes=SMALL) as (world, _):
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, pattern(2 * SMALL))

        def bad(_: int) -> None:
            raise OSError(errno.EIO, "bad disk")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", bad)
            with pytest.raises(FilesystemError, match="EIO"):
                await world.filesystem.files.fsync(handle)
        await world.truncate(inode, 0)
        await world.filesystem.files.write(handle, 0, b"small")
        await world.filesystem.files.fsync(handle)


async def test_what_was_promised_is_on_the_disk_before_its_row_goes(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small content that was fsynced is copied into a synced file before it spills, whoever syncs the log when; a new
    one spills without any sync, and so does one that Discord has."""
    rows_then: list[dict[int, int]] = []
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, _):
        monkeypatch.setattr(os, "fdatasync", lambda _: rows_then.append(rows(world)))
        await world.write(FILE, 0, pattern(SMALL))
        await world.write(FILE, SMALL, b"new")
        await world.write(OTHER, 0, pattern(SMALL, 2))
        await world.store.drain()
        rows_then.clear()
        await world.write(OTHER, SMALL, b"sent")
        assert [] == rows_then
        await world.cut(OTHER, 0)
        await world.write(OTHER, 0, pattern(SMALL))
        await world.store.sync_all()
        rows_then.clear()
        await world.cut(OTHER, 3 * SMALL)
        assert [] == rows_then
        await world.write(OTHER, SMALL, b"promised")
        assert [{OTHER: SMALL}] * 2 == rows_then  # the file and its folder
        assert {} == rows(world)
        assert pattern(SMALL) + b"promised" == await world.store.read(OTHER, 0, SMALL + 8)


@pytest.mark.parametrize("meanwhile", ["nothing", "written", "shortened", "emptied", "deleted", "spilled", "sent"])
async def test_what_changes_while_it_is_copied(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Whatever happens to a small content while its copy is being synced, the write that waits for it falls on what is
    there by then, warm, after a crash and cold."""
    begun, go_on = trio.Event(), trio.Event()

    async def slow(call: Any, *args: Any, limiter: Any = None) -> Any:
        if call is spilling._sync:
            begun.set()
            await go_on.wait()
        return call(*args)

    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        monkeypatch.setattr(trio.to_thread, "run_sync", slow)
        await world.write(FILE, 0, pattern(SMALL))
        await world.store.sync(FILE)
        nursery.start_soon(world.write, FILE, SMALL, b"spills")
        await begun.wait()
        expected = pattern(SMALL)
        if meanwhile == "written":
            await world.write(FILE, 5, b"X")
            expected = expected[:5] + b"X" + expected[6:]
        elif meanwhile == "shortened":
            await world.cut(FILE, 10)
            expected = expected[:10].ljust(SMALL, b"\0")
        elif meanwhile in {"emptied", "deleted"}:
            if meanwhile == "emptied":
                await world.cut(FILE, 0)
            else:
                world.discard(FILE)
            assert [] == cache_files(tmp_path)
            await world.write(FILE, 0, b"anew")
            expected = b"anew".ljust(SMALL, b"\0")
        elif meanwhile == "spilled":
            nursery.start_soon(world.write, FILE, SMALL + 6, b"too")
        elif meanwhile == "sent":
            await world.store.drain()
            world.store.evict_all()
            assert ([], {}) == (cache_files(tmp_path), rows(world))
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        await trio.sleep(1)
        expected += b"spills" + (b"too" if meanwhile == "spilled" else b"")
        assert (["7"], {}) == (cache_files(tmp_path), rows(world))
        assert expected == await world.contents(FILE)
        world.ledger.commit()
        await world.crash(nursery)
        assert expected == await world.contents(FILE)
        await world.store.drain()
        world.store.evict_all()
        assert expected == await world.contents(FILE)


async def test_a_copy_that_cannot_be_synced(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A promised content whose copy the disk does not take stays small: the write fails, and nothing has changed."""
    async with chunk_world(tmp_path, small_content_bytes=SMALL) as (world, _):
        await world.write(FILE, 0, pattern(SMALL))
        await world.store.sync(FILE)

        def bad(_: int) -> None:
            raise OSError(errno.EIO, "bad disk")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", bad)
            with pytest.raises(FilesystemError, match="EIO"):
                await world.write(FILE, SMALL, b"more")
        assert ([], {FILE: SMALL}) == (cache_files(tmp_path), rows(world))
        assert pattern(SMALL) == await world.contents(FILE)
        await world.write(FILE, SMALL, b"more")
        assert pattern(SMALL) + b"more" == await world.contents(FILE)


async def test_a_new_cache_file_begins_empty(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What an earlier life left under the name of a cache file is not content of the new one."""
    async with chunk_world(tmp_path, small_content_bytes=0) as (world, _):
        (tmp_path / "files" / "07" / "7").write_bytes(b"what should be gone" * 1000)
        await world.write(FILE, 5, b"new")
        await world.write(FILE, 2 * CHUNK, b"far")
        assert b"\0" * 5 + b"new" + bytes(2 * CHUNK - 8) + b"far" == await world.contents(FILE)


async def damage(world: RealStores, inode: InodeNumber) -> None:
    """The row of a small content reads as other bytes."""
    await world.metadata.commit()
    with world.metadata._database.changing:
        world.metadata._database.write(
            "UPDATE small_contents SET content = zeroblob(length(content)) WHERE inode = ?", (inode,)
        )


async def remove(world: RealStores, fh: int, inode: InodeNumber) -> None:
    """As rm does."""
    await world.filesystem.unlink(ROOT_INODE, b"some file")
    await world.filesystem.release(fh)
    await world.filesystem.forget([(inode, 1)])
    assert [] == list(await world.metadata.list_directory(ROOT_INODE, 0, 9))


async def empty_and_write(world: RealStores, fh: int, inode: InodeNumber) -> None:
    """As `cp` over it does."""
    await world.filesystem.files.truncate(inode, AttributeChanges(size_bytes=0))
    await world.filesystem.files.write(fh, 0, b"new")
    assert b"new" == await world.filesystem.files.read(fh, 0, SMALL)


async def write_over(world: RealStores, fh: int, inode: InodeNumber) -> None:
    """As `dd conv=notrunc` does with as much as there was."""
    await world.filesystem.files.write(fh, 0, pattern(SMALL, seed=3))
    assert pattern(SMALL, seed=3) == await world.filesystem.files.read(fh, 0, SMALL)


@pytest.mark.parametrize("found_by_writeback", [False, True])
@pytest.mark.parametrize("get_rid", [remove, empty_and_write, write_over])
async def test_a_damaged_small_content_can_be_got_rid_of(
    tmp_path: Path,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    get_rid: Callable[[RealStores, int, InodeNumber], Awaitable[None]],
    found_by_writeback: bool,
) -> None:
    """The log names the file; deleting it, emptying it and writing all of it anew are possible, and it is sent then."""
    async with real_stores(tmp_path, small_content_bytes=SMALL) as (world, _):
        world.chunks.pause()
        fh, inode = await world.create(b"some file")
        await world.filesystem.files.write(fh, 0, pattern(SMALL))
        await damage(world, inode)
        if found_by_writeback:
            world.chunks.resume()
            await world.chunks.drain()
            assert any("unsent data of chunk 0 of /some file is lost" in line for line in caplog.messages)
        for _ in range(2):
            with pytest.raises(FilesystemError, match="EIO"):
                await world.filesystem.files.write(fh, 1, b"a part of it")
        assert 1 == sum("the content of /some file that is kept" in line for line in caplog.messages)
        await get_rid(world, fh, inode)
        world.chunks.resume()
        await world.chunks.drain()
        assert (0, 0) == (world.chunks.statistics().lost_chunks, world.chunks.statistics().dirty_bytes)


@pytest.mark.parametrize("writes", [False, True])
async def test_a_damaged_small_content_that_was_sent_is_fetched_again(
    tmp_path: Path, autojump_clock: MockClock, writes: bool
) -> None:
    """What Discord has too is not lost: whoever reads it, or writes a part of it, gets it from there."""
    async with real_stores(tmp_path, small_content_bytes=SMALL) as (world, _):
        fh, inode = await world.create(b"some file")
        await world.filesystem.files.write(fh, 0, pattern(SMALL))
        await world.chunks.drain()
        await damage(world, inode)
        if writes:
            await world.filesystem.files.write(fh, 0, b"\0")
        assert (b"\0" if writes else pattern(SMALL)[:1]) + pattern(SMALL)[1:] == await world.filesystem.files.read(
            fh, 0, SMALL
        )


async def test_a_damaged_small_content_is_an_error_and_never_sent(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is not what was written is EIO, is noted as damage, and keeps nothing else from being sent."""
    async with real_stores(tmp_path, small_content_bytes=SMALL) as (world, _):
        world.chunks.pause()
        damaged, inode = await world.create(b"damaged")
        whole, _ = await world.create(b"whole")
        await world.filesystem.files.write(damaged, 0, pattern(SMALL))
        await world.filesystem.files.write(whole, 0, pattern(SMALL, seed=2))
        await damage(world, inode)
        with pytest.raises(MetadataDamagedError):
            await world.filesystem.files.read(damaged, 0, 10)
        world.chunks.resume()
        await world.chunks.drain()
        assert world.metadata.statistics().damage is not None
        assert (1, 0) == (world.chunks.statistics().lost_chunks, world.chunks.statistics().dirty_bytes)
        world.chunks.evict_all()
        assert pattern(SMALL, seed=2) == await world.filesystem.files.read(whole, 0, SMALL)
        with pytest.raises(FilesystemError, match="EIO"):
            await world.filesystem.files.read(damaged, 0, 10)
