"""A full volume: whom a write waits for, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from support.filesystem_world import World
from support.memory_metadata import MemoryMetadataStore

from disfs.errors import FilesystemError
from disfs.file_io import ROOM_SECONDS
from disfs.values import ROOT_INODE, AttributeChanges

if TYPE_CHECKING:
    from trio.testing import MockClock

CAPACITY = 8192


@pytest.fixture
def full() -> World:
    """A volume that may hold two blocks."""
    return World(MemoryMetadataStore(capacity_bytes=CAPACITY))


async def test_write_waits_for_the_end_of_a_deleted_file(full: World, autojump_clock: MockClock) -> None:
    """Room that rm has given back counts, although the kernel tells of the file's end only after rm has returned."""
    gone, _ = await full.create(b"gone")
    await full.filesystem.files.write(gone, 0, bytes(CAPACITY))
    fh, _ = await full.create(b"new")
    await full.filesystem.unlink(ROOT_INODE, b"gone")
    inode = full.filesystem._handles.file(gone).opened.inode
    async with trio.open_nursery() as nursery:
        nursery.start_soon(full.filesystem.files.write, fh, 0, bytes(CAPACITY))
        await trio.sleep(ROOM_SECONDS / 3)
        await full.filesystem.release(gone)
        await trio.sleep(ROOM_SECONDS / 3)
        await full.filesystem.forget([(inode, 1)])
    assert CAPACITY == (await full.metadata.usage()).allocated_bytes


async def test_longer_truncate_waits_for_the_end_of_a_deleted_file(full: World, autojump_clock: MockClock) -> None:
    """As a write does: the room that rm has given back is there a moment later."""
    gone, deleted = await full.create(b"gone")
    await full.filesystem.files.write(gone, 0, b"x")
    fh, inode = await full.create(b"new")
    await full.filesystem.files.write(fh, 0, b"x")
    await full.filesystem.unlink(ROOT_INODE, b"gone")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(full.filesystem.files.truncate, inode, AttributeChanges(size_bytes=CAPACITY))
        await trio.sleep(ROOM_SECONDS / 3)
        assert 1 == await full.size(inode)
        await full.filesystem.release(gone)
        await full.filesystem.forget([(deleted, 1)])
    assert CAPACITY == await full.size(inode)


async def test_write_does_not_wait_long_for_a_deleted_file_that_is_open(full: World, autojump_clock: MockClock) -> None:
    """A deleted file that somebody keeps open keeps its room: ENOSPC, after a moment."""
    gone, _ = await full.create(b"gone")
    await full.filesystem.files.write(gone, 0, bytes(CAPACITY))
    fh, _ = await full.create(b"new")
    await full.filesystem.unlink(ROOT_INODE, b"gone")
    begun = trio.current_time()
    with pytest.raises(FilesystemError, match="ENOSPC"):
        await full.filesystem.files.write(fh, 0, b"x")
    assert ROOM_SECONDS == pytest.approx(trio.current_time() - begun)


async def test_full_volume_without_deleted_files_refuses_at_once(full: World, autojump_clock: MockClock) -> None:
    """Nothing is waited for when nothing can come."""
    fh, inode = await full.create(b"file")
    await full.filesystem.files.write(fh, 0, bytes(CAPACITY))
    begun = trio.current_time()
    with pytest.raises(FilesystemError, match="ENOSPC"):
        await full.filesystem.files.write(fh, CAPACITY, b"x")
    assert (begun, CAPACITY) == (trio.current_time(), await full.size(inode))
