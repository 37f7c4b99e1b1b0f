"""How long an inode lives: lookup counts, handles, orphans."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from disfs.errors import FilesystemError
from disfs.values import ROOT_INODE, InodeNumber, NewInode

if TYPE_CHECKING:
    from support.filesystem_world import World

DIRECTORY = NewInode(mode=0o40755, uid=1, gid=2)
FILE = NewInode(mode=0o100644, uid=1, gid=2)


async def exists(world: World, inode: InodeNumber) -> bool:
    try:
        await world.metadata.attributes(inode)
    except FilesystemError as error:
        if error.errno != errno.ESTALE:
            raise
        return False
    return True


async def test_unlinked_file_goes_with_the_later_of_release_and_forget(world: World) -> None:
    """Handle and lookup count each keep an orphan, whichever goes last."""
    for release_first in (True, False):
        fh, inode = await world.create()
        await world.filesystem.files.write(fh, 0, b"data")
        await world.filesystem.unlink(ROOT_INODE, b"file")
        steps = [lambda fh=fh: world.filesystem.release(fh), lambda i=inode: world.filesystem.forget([(i, 1)])]
        first, last = steps if release_first else reversed(steps)
        await first()
        assert await exists(world, inode)
        assert world.chunks.has_data(inode)
        await last()
        assert not await exists(world, inode)
        assert not world.chunks.has_data(inode)


async def test_unheld_file_goes_with_its_last_name(world: World) -> None:
    """A file that the kernel does not know goes at once, but only with the last of its names."""
    fh, inode = await world.create()
    await world.filesystem.link(inode, ROOT_INODE, b"second")
    await world.filesystem.release(fh)
    await world.filesystem.forget([(inode, 2)])
    await world.filesystem.unlink(ROOT_INODE, b"file")
    assert await exists(world, inode)
    await world.filesystem.unlink(ROOT_INODE, b"second")
    assert not await exists(world, inode)
    assert [inode] == world.chunks.discarded


async def test_replaced_file_goes_like_an_unlinked_one(world: World) -> None:
    """A rename over a file makes it an orphan."""
    old_fh, old = await world.create(b"old")
    await world.create(b"new")
    await world.filesystem.rename(ROOT_INODE, b"new", ROOT_INODE, b"old", 0)
    assert await exists(world, old)
    await world.filesystem.release(old_fh)
    await world.filesystem.forget([(old, 1)])
    assert not await exists(world, old)


async def test_removed_directory_lives_while_the_kernel_knows_it(world: World) -> None:
    """The lookup count of an open directory keeps it, and its listing is empty but for the dots."""
    made = await world.filesystem.make_inode(ROOT_INODE, b"dir", DIRECTORY)
    await world.filesystem.rmdir(ROOT_INODE, b"dir")
    assert [b".", b".."] == [name for name, _ in await world.listing(made.inode)]
    await world.filesystem.forget([(made.inode, 1)])
    assert not await exists(world, made.inode)


async def test_every_way_to_an_inode_counts(world: World) -> None:
    """create, link, lookup and `.` count one lookup each; only as many forgets let an orphan go."""
    fh, inode = await world.create()
    await world.filesystem.link(inode, ROOT_INODE, b"second")
    await world.filesystem.lookup(ROOT_INODE, b"file")
    await world.filesystem.lookup(inode, b".")
    await world.filesystem.unlink(ROOT_INODE, b"file")
    await world.filesystem.unlink(ROOT_INODE, b"second")
    await world.filesystem.release(fh)
    await world.filesystem.forget([(inode, 3)])
    assert await exists(world, inode)
    await world.filesystem.forget([(inode, 1)])
    assert not await exists(world, inode)


async def test_forgets_come_in_batches(world: World) -> None:
    """One forget may name many inodes, also some that are not known; counts go to zero and no further."""
    inodes = []
    for number in range(5):
        fh, inode = await world.create(b"%d" % number)
        await world.filesystem.release(fh)
        await world.filesystem.unlink(ROOT_INODE, b"%d" % number)
        inodes.append(inode)
    assert 5 == world.filesystem.statistics().known_inodes
    await world.filesystem.forget([(inode, 1) for inode in inodes] + [(InodeNumber(999), 7), (ROOT_INODE, 1)])
    assert 0 == world.filesystem.statistics().known_inodes
    assert not any([await exists(world, inode) for inode in inodes])


async def test_failed_calls_count_nothing(world: World) -> None:
    """A name that is not there, or is there already, leaves no lookup behind."""
    fh, inode = await world.create()
    assert await world.filesystem.lookup(ROOT_INODE, b"absent") is None
    for failing in (
        lambda: world.filesystem.lookup(inode, b"below"),
        lambda: world.filesystem.make_inode(ROOT_INODE, b"file", FILE),
        lambda: world.filesystem.create(ROOT_INODE, b"file", FILE, 0),
        lambda: world.filesystem.link(inode, ROOT_INODE, b"file"),
    ):
        with pytest.raises(FilesystemError):
            await failing()
    assert (1, 1) == (world.filesystem.statistics().known_inodes, world.filesystem.statistics().open_handles)
    await world.filesystem.release(fh)


async def test_orphans_of_a_crash_go_at_the_start(world: World) -> None:
    """An orphan that nobody holds any more is removed with its contents, a named file is not."""
    _, orphan = await world.create(b"orphan")
    _, named = await world.create(b"named")
    await world.metadata.unlink(ROOT_INODE, b"orphan", 1)
    await world.filesystem.remove_orphans()
    assert [False, True] == [await exists(world, orphan), await exists(world, named)]
    assert [orphan] == world.chunks.discarded


async def test_close_drops_what_was_held(world: World) -> None:
    """After the last request, orphans go although their handles were never released."""
    fh, inode = await world.create()
    await world.filesystem.files.write(fh, 0, b"x")
    assert b"x" == await world.filesystem.files.read(fh, 0, 1)
    await world.filesystem.unlink(ROOT_INODE, b"file")
    await world.filesystem.close()
    assert not await exists(world, inode)
    assert [True] == [readahead.is_closed for readahead in world.chunks.readaheads]
    with pytest.raises(FilesystemError, match="EBADF"):
        await world.filesystem.files.read(fh, 0, 1)


async def test_handle_numbers_are_never_used_twice(world: World) -> None:
    """A released handle is EBADF for ever."""
    fh, inode = await world.create()
    await world.filesystem.release(fh)
    again = await world.filesystem.files.open(inode, 0)
    assert again != fh
    files = world.filesystem.files
    for call in (
        lambda: files.read(fh, 0, 1),
        lambda: files.write(fh, 0, b"x"),
        lambda: files.fsync(fh),
        lambda: world.filesystem.release(fh),
    ):
        with pytest.raises(FilesystemError, match="EBADF"):
            await call()
