"""Pins over the real stores: what inherits them, what keeps them, and what evictions leave."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from support.real_stores import real_stores
from trio.testing import wait_all_tasks_blocked

from disfs.errors import FilesystemError
from disfs.values import ROOT_INODE, NewInode
from disfs.warmups import CacheRoom, WarmupDesk

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from support.real_stores import RealStores
    from trio.testing import MockClock

    from disfs.values import InodeNumber

DIRECTORY = NewInode(mode=stat.S_IFDIR | 0o755, uid=0, gid=0)
FILE = NewInode(mode=stat.S_IFREG | 0o644, uid=0, gid=0)


def desk_of(world: RealStores) -> WarmupDesk:
    return WarmupDesk(
        world.metadata,
        world.metadata,
        world.chunks,
        chunk_bytes=world.metadata.chunk_bytes,
        room=lambda: CacheRoom(1 << 40, 1 << 40, 0, 0),
    )


async def written(world: RealStores, parent: InodeNumber, name: bytes, content: bytes) -> InodeNumber:
    handle, made = await world.filesystem.create(parent, name, FILE, os.O_RDWR)
    await world.filesystem.files.write(handle, 0, content)
    await world.filesystem.release(handle)
    return made.inode


async def test_what_is_made_in_a_pinned_directory_is_pinned(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file or directory that is made in a pinned directory is pinned too; one that is made elsewhere is not."""
    async with real_stores(tmp_path) as (world, _nursery):
        top = (await world.filesystem.make_inode(ROOT_INODE, b"top", DIRECTORY)).inode
        await desk_of(world).order([top], pin=True).run()
        inner = (await world.filesystem.make_inode(top, b"inner", DIRECTORY)).inode
        file = await written(world, inner, b"file", b"x")
        await written(world, ROOT_INODE, b"other", b"x")
        assert {top, inner, file} == world.chunks.pinned


async def test_pinned_contents_outlive_others_in_a_full_cache(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is pinned and warmed is read without Discord after everything else was evicted."""
    async with real_stores(tmp_path) as (world, _nursery):
        kept = await written(world, ROOT_INODE, b"kept", b"k" * 9000)
        lost = await written(world, ROOT_INODE, b"lost", b"l" * 9000)
        await world.chunks.drain()
        world.chunks.evict_all()
        result = await desk_of(world).order([kept, lost], pin=False).run()
        assert (2, 2, 0) == (result["done_files"], result["total_files"], result["unreadable_files"])
        await desk_of(world).order([kept], pin=True).run()
        world.chunks.evict_all()
        before = world.transport.statistics().fetches
        assert b"k" * 9000 == await world.chunks.read(kept, 0, 9000)
        assert before == world.transport.statistics().fetches
        assert b"l" * 9000 == await world.chunks.read(lost, 0, 9000)
        assert before < world.transport.statistics().fetches


async def test_pins_survive_a_restart_and_a_crash(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Marks are in the metadata: a stop in order keeps marks and contents, a crash the marks that were committed."""
    async with real_stores(tmp_path) as (world, nursery):
        file = await written(world, ROOT_INODE, b"file", b"x" * 5000)
        await desk_of(world).order([file], pin=True).run()
        await world.chunks.drain()
        await world.restart(nursery)
        assert {file} == world.chunks.pinned == world.metadata.pinned_inodes()
        assert 0 < world.chunks.statistics().pinned_bytes
        await world.crash(nursery)
        assert {file} == world.chunks.pinned
        await world.filesystem.unlink(ROOT_INODE, b"file")
        assert frozenset() == world.chunks.pinned == world.metadata.pinned_inodes()


async def test_file_is_made_although_its_pin_is_refused(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pin that cannot be written down does not make a create fail that has happened."""
    async with real_stores(tmp_path) as (world, _nursery):
        top = (await world.filesystem.make_inode(ROOT_INODE, b"top", DIRECTORY)).inode
        world.chunks.set_pinned([top], True)

        def refuse(_inodes: object, _pinned: bool) -> None:
            raise FilesystemError(errno.ENOSPC, "low space")

        monkeypatch.setattr(world.metadata, "set_pinned", refuse)
        file = await written(world, top, b"file", b"x")
        assert {top} == world.chunks.pinned
        assert file == (await world.metadata.lookup(top, b"file")).inode


async def test_regression_background_warmup_without_metadata(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warm-up in the background that meets metadata that cannot be read says so, and does not end the daemon."""
    async with real_stores(tmp_path) as (world, nursery):
        file = await written(world, ROOT_INODE, b"file", b"x")
        desk = desk_of(world)

        async def unreadable(_inode: object) -> None:
            raise FilesystemError(errno.EIO, "the metadata store has stopped")

        nursery.start_soon(desk.run, [])
        await wait_all_tasks_blocked()
        begun = desk.order([file], pin=False)
        monkeypatch.setattr(world.metadata, "attributes", unreadable)
        desk.go_on(begun)
        await wait_all_tasks_blocked()
        assert desk.problem == "EIO: the metadata store has stopped"
        nursery.start_soon(desk_of(world).run, [file])
        await wait_all_tasks_blocked()
