"""Listings: pages, cookies, dots, counts."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

import pytest

from disfs.errors import FilesystemError
from disfs.values import ROOT_INODE, NewInode

if TYPE_CHECKING:
    from support.filesystem_world import World

    from disfs.values import Attributes

DIRECTORY = NewInode(mode=0o40755, uid=1, gid=2)


def note(found: list[tuple[bytes, int]], name: bytes, attributes: Attributes, cookie: int) -> bool:
    """Take any number of entries as (name, inode)."""
    found.append((name, attributes.inode))
    return True


async def fill(world: World, count: int) -> list[bytes]:
    names = [b"%04d" % number for number in range(count)]
    for name in names:
        fh, inode = await world.create(name)
        await world.filesystem.release(fh)
        await world.filesystem.forget([(inode, 1)])
    return names


@pytest.mark.parametrize("room", [1, 2, 3, 7, 24, 100])
async def test_pages_hold_every_name_once(world: World, room: int) -> None:
    """However small the replies are, together they list the dots and each name exactly once."""
    names = await fill(world, 90)
    found: list[bytes] = []
    after = 0
    while page := await world.listing(ROOT_INODE, room, after):
        assert len(page) <= room
        found += [name for name, _ in page]
        after = page[-1][1]
    assert [b".", b"..", *names] == found


async def test_listing_survives_changes_between_pages(world: World) -> None:
    """Names that stay are listed once although others come and go, the last listed one included."""
    names = await fill(world, 60)
    found: list[bytes] = []
    after = 0
    while page := await world.listing(ROOT_INODE, 5, after):
        found += [name for name, _ in page]
        after = page[-1][1]
        if page[-1][0] in names:
            await world.filesystem.unlink(ROOT_INODE, page[-1][0])
        if len(found) < 100:
            await world.create(b"new-%d" % len(found))
    assert len(found) == len(set(found))
    assert set(names) <= set(found)


async def test_listed_names_count_as_looked_up_but_for_the_dots(world: World) -> None:
    """As the kernel counts them: each entry that a reply had room for, never `.` and `..`."""
    await fill(world, 10)
    assert 6 == len(await world.listing(ROOT_INODE, 6))
    assert 4 == world.filesystem.statistics().known_inodes
    await world.listing(ROOT_INODE, 100)
    assert 10 == world.filesystem.statistics().known_inodes


async def test_dots_lead_to_directory_and_parent(world: World) -> None:
    """`.` is the directory itself, `..` its parent; the root is its own."""
    made = await world.filesystem.make_inode(ROOT_INODE, b"dir", DIRECTORY)
    for inode, parent in ((made.inode, ROOT_INODE), (ROOT_INODE, ROOT_INODE)):
        found: list[tuple[bytes, int]] = []
        add = partial(note, found)
        await world.filesystem.read_directory(inode, 0, add)
        assert [(b".", inode), (b"..", parent)] == found[:2]


async def test_only_directories_are_listed(world: World) -> None:
    """A file is ENOTDIR."""
    _, inode = await world.create()
    with pytest.raises(FilesystemError) as caught:
        await world.listing(inode, after=2)
    assert errno.ENOTDIR == caught.value.errno


async def test_fsyncdir_makes_names_durable(world: World) -> None:
    """It touches no contents."""
    await world.filesystem.sync_names()
    assert [] == world.chunks.synced
