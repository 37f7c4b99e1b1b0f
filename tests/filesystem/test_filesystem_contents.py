"""Reads, writes and truncates, above all while others are under way in the same file."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.memory_chunks import MemoryChunks
from support.memory_metadata import MemoryMetadataStore
from trio.testing import wait_all_tasks_blocked

from disfs.errors import FilesystemError
from disfs.file_io import MAX_FILE_BYTES
from disfs.filesystem import Filesystem
from disfs.values import ROOT_INODE, AttributeChanges, InodeNumber, NewInode

if TYPE_CHECKING:
    from support.filesystem_world import World

FILE = NewInode(mode=0o100644, uid=1, gid=2)


async def test_read_ends_at_the_size(world: World) -> None:
    """A read returns what there is: all, the rest, or nothing past the end."""
    fh, _ = await world.create()
    files = world.filesystem.files
    assert 10 == await files.write(fh, 5, b"0123456789")
    assert bytes(5) + b"0123456789" == await files.read(fh, 0, 100)
    assert b"89" == await files.read(fh, 13, 100)
    assert b"" == await files.read(fh, 15, 100)
    assert b"" == await files.read(fh, 1 << 50, 100)


async def test_truncates_shorten_and_lengthen(world: World) -> None:
    """The size follows; what was cut is zeros when the file grows again; equal size moves the times all the same."""
    fh, inode = await world.create()
    files = world.filesystem.files
    await files.write(fh, 0, b"x" * 100)
    for size, contents in ((50, b"x" * 50), (80, b"x" * 50 + bytes(30)), (80, b"x" * 50 + bytes(30))):
        before = await world.metadata.attributes(inode)
        after = await world.filesystem.change_attributes(inode, AttributeChanges(size_bytes=size))
        assert size == after.size_bytes
        assert after.mtime_ns > before.mtime_ns
        assert contents == await files.read(fh, 0, 1000)


async def test_truncate_with_other_changes_is_one_change(world: World) -> None:
    """Size, mode and times that come together are set together."""
    _, inode = await world.create()
    changes = AttributeChanges(size_bytes=7, mode=0o600, mtime_ns=5)
    found = await world.filesystem.change_attributes(inode, changes)
    assert (7, 0o100600, 5) == (found.size_bytes, found.mode, found.mtime_ns)


async def test_open_refuses_what_is_no_file(world: World) -> None:
    """Directories are EISDIR, links EINVAL, what is gone ESTALE; no handle is left behind."""
    link = await world.filesystem.symlink(ROOT_INODE, b"link", b"target", 1, 2)
    for inode, name in ((ROOT_INODE, "EISDIR"), (link.inode, "EINVAL"), (InodeNumber(12345), "ESTALE")):
        for flags in (0, os.O_TRUNC):
            with pytest.raises(FilesystemError, match=name):
                await world.filesystem.files.open(inode, flags)
    assert 0 == world.filesystem.statistics().open_handles


async def test_too_large_changes_nothing(world: World) -> None:
    """Past the largest size a write and a truncate are EFBIG; up to it they work."""
    fh, inode = await world.create()
    files = world.filesystem.files
    await files.write(fh, MAX_FILE_BYTES - 1, b"x")
    with pytest.raises(FilesystemError, match="EFBIG"):
        await files.write(fh, MAX_FILE_BYTES, b"x")
    with pytest.raises(FilesystemError, match="EFBIG"):
        await world.filesystem.change_attributes(inode, AttributeChanges(size_bytes=MAX_FILE_BYTES + 1))
    assert MAX_FILE_BYTES == await world.size(inode)
    await world.filesystem.change_attributes(inode, AttributeChanges(size_bytes=0))


async def test_fsync_syncs_contents_then_metadata(world: World) -> None:
    """fsync, and each write of an O_DSYNC handle, sync the inode's contents; plain writes sync nothing."""
    fh, inode = await world.create()
    files = world.filesystem.files
    await files.write(fh, 0, b"x")
    assert [] == world.chunks.synced
    await files.fsync(fh)
    assert [inode] == world.chunks.synced
    synchronous = await files.open(inode, os.O_DSYNC)
    await files.write(synchronous, 0, b"y")
    assert [inode, inode] == world.chunks.synced
    await files.sync_everything()
    assert [inode, inode, None] == world.chunks.synced


async def test_failed_write_changes_nothing_and_drops_the_page_cache(world: World) -> None:
    """When the chunk store refuses, size and times stay, and the next open tells the kernel to forget its pages."""
    fh, inode = await world.create()
    files = world.filesystem.files
    assert files.keeps_page_cache(fh)
    before = await world.metadata.attributes(inode)
    world.chunks.fails_with = FilesystemError(errno.ENOSPC)
    with pytest.raises(FilesystemError, match="ENOSPC"):
        await files.write(fh, 0, b"x")
    world.chunks.fails_with = None
    assert before == await world.metadata.attributes(inode)
    second, third = await files.open(inode, os.O_WRONLY), await files.open(inode, os.O_WRONLY)
    assert [False, True] == [files.keeps_page_cache(second), files.keeps_page_cache(third)]


async def test_read_moves_the_atime_once(world: World) -> None:
    """A read after a change moves the atime, further reads do not; O_NOATIME never does."""
    fh, inode = await world.create()
    files = world.filesystem.files
    await files.write(fh, 0, b"x")
    quiet = await files.open(inode, os.O_NOATIME)
    written = await world.metadata.attributes(inode)
    await files.read(quiet, 0, 1)
    assert written == await world.metadata.attributes(inode)
    await files.read(fh, 0, 1)
    once = await world.metadata.attributes(inode)
    assert once.atime_ns > written.mtime_ns
    await files.read(fh, 0, 1)
    assert once == await world.metadata.attributes(inode)
    await files.write(fh, 0, b"y")
    await files.read(fh, 0, 1)
    assert (await world.metadata.attributes(inode)).atime_ns > once.atime_ns


async def test_read_during_a_truncate_shows_nothing_past_the_new_end(world: World) -> None:
    """A read that waited while the file became shorter returns no more than is left."""
    fh, inode = await world.create()
    files = world.filesystem.files
    await files.write(fh, 0, b"x" * 100)
    held = world.chunks.hold()
    got: list[bytes] = []

    async def read() -> None:
        got.append(await files.read(fh, 0, 100))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        world.chunks.let_go()
        await world.filesystem.change_attributes(inode, AttributeChanges(size_bytes=10))
        held[0].set()
    assert [b"x" * 10] == got


async def test_write_that_waited_grows_the_file_that_it_finds(world: World) -> None:
    """A write that began before a truncate and ends after it counts as after it: zeros up to its data."""
    fh, inode = await world.create()
    files = world.filesystem.files
    await files.write(fh, 0, b"x" * 100)
    held = world.chunks.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.write, fh, 50, b"new")
        await wait_all_tasks_blocked()
        world.chunks.let_go()
        await world.filesystem.change_attributes(inode, AttributeChanges(size_bytes=10))
        held[0].set()
    assert b"x" * 10 + bytes(40) + b"new" == await files.read(fh, 0, 1000)


async def test_cancelled_write_leaves_size_and_contents_alone(world: World) -> None:
    """A write that is cancelled while it waits has not happened."""
    fh, inode = await world.create()
    files = world.filesystem.files
    world.chunks.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.write, fh, 50, b"new")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    world.chunks.let_go()
    assert 0 == await world.size(inode)
    assert b"" == await files.read(fh, 0, 10)


WRITES = st.tuples(st.just("write"), st.integers(0, 40), st.integers(1, 20))
TRUNCATES = st.tuples(st.just("truncate"), st.integers(0, 60), st.just(0))


@settings(max_examples=150, deadline=None)
@given(
    operations=st.lists(st.one_of(WRITES, TRUNCATES), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_concurrent_changes_take_effect_one_after_another(
    operations: list[tuple[str, int, int]], order: object
) -> None:
    """Whatever waits for whatever, size and contents are those of the changes in the order in which they ended."""
    trio.run(check_interleaving, operations, order)


async def check_interleaving(operations: list[tuple[str, int, int]], order: object) -> None:
    chunks = MemoryChunks()
    filesystem = Filesystem(MemoryMetadataStore(), chunks)
    fh, made = await filesystem.create(ROOT_INODE, b"file", FILE, 0)
    held = chunks.hold()
    model = bytearray()

    def write_model(offset: int, data: bytes) -> None:
        model.extend(bytes(max(0, offset + len(data) - len(model))))
        model[offset : offset + len(data)] = data

    async def run(number: int, kind: str, position: int, length: int) -> None:
        if kind == "write":
            data = bytes([number + 1]) * length
            await filesystem.files.write(fh, position, data)
            write_model(position, data)
        else:
            await filesystem.change_attributes(made.inode, AttributeChanges(size_bytes=position))
            model.extend(bytes(max(0, position - len(model))))
            del model[position:]

    async with trio.open_nursery() as nursery:
        for number, operation in enumerate(operations):
            nursery.start_soon(run, number, *operation)
            await wait_all_tasks_blocked()
        while waiting := [event for event in held if not event.is_set()]:
            order.choice(waiting).set()  # type: ignore[attr-defined] # hypothesis gives a random.Random
            await wait_all_tasks_blocked()
    chunks.let_go()
    assert len(model) == (await filesystem.attributes(made.inode)).size_bytes
    assert bytes(model) == await filesystem.files.read(fh, 0, 1000)
    await filesystem.change_attributes(made.inode, AttributeChanges(size_bytes=200))
    assert bytes(model) + bytes(200 - len(model)) == await filesystem.files.read(fh, 0, 1000)


async def test_regression_a_read_that_moves_the_atime_is_asked_for(world: World) -> None:
    """A file whose atime is due is opened without the kernel's pages of it, but not for writing or with O_NOATIME."""
    created, inode = await world.create()
    files = world.filesystem.files
    await files.write(created, 0, b"x" * 4096)
    for flags, keeps in ((os.O_RDONLY, False), (os.O_RDWR, False), (os.O_WRONLY, True), (os.O_NOATIME, True)):
        assert keeps == files.keeps_page_cache(await files.open(inode, flags))
    await files.read(created, 0, 1)
    assert files.keeps_page_cache(await files.open(inode, os.O_RDONLY))
