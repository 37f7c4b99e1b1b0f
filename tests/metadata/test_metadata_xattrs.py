"""Extended attributes: the contract of every metadata store."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from support.new_inodes import a_file, fails

from disfs.metadata.base import XattrMode
from disfs.values import ROOT_INODE, InodeNumber

if TYPE_CHECKING:
    from disfs.metadata.base import MetadataStore

UNKNOWN = InodeNumber(4711)


async def test_xattrs_are_kept_by_name(store: MetadataStore) -> None:
    """Values are bytes of any content, empty ones included; names are listed in order; ctime moves."""
    await store.set_xattr(ROOT_INODE, b"user.b", b"\0\xff", XattrMode.EITHER, 5)
    await store.set_xattr(ROOT_INODE, b"user.a", b"", XattrMode.EITHER, 6)
    assert [b"user.a", b"user.b"] == list(await store.list_xattrs(ROOT_INODE))
    assert (b"", b"\0\xff") == (
        await store.get_xattr(ROOT_INODE, b"user.a"),
        await store.get_xattr(ROOT_INODE, b"user.b"),
    )
    root = await store.attributes(ROOT_INODE)
    assert (0, 6) == (root.mtime_ns, root.ctime_ns)


async def test_xattr_modes(store: MetadataStore) -> None:
    """CREATE refuses what exists, REPLACE what does not."""
    with fails(errno.ENODATA):
        await store.set_xattr(ROOT_INODE, b"user.a", b"1", XattrMode.REPLACE, 1)
    await store.set_xattr(ROOT_INODE, b"user.a", b"1", XattrMode.CREATE, 1)
    with fails(errno.EEXIST):
        await store.set_xattr(ROOT_INODE, b"user.a", b"2", XattrMode.CREATE, 1)
    await store.set_xattr(ROOT_INODE, b"user.a", b"3", XattrMode.REPLACE, 1)
    assert b"3" == await store.get_xattr(ROOT_INODE, b"user.a")


async def test_xattr_removed(store: MetadataStore) -> None:
    """A removed attribute is gone, which moves ctime; removing it again raises ENODATA."""
    await store.set_xattr(ROOT_INODE, b"user.a", b"1", XattrMode.EITHER, 1)
    await store.remove_xattr(ROOT_INODE, b"user.a", 8)
    assert 8 == (await store.attributes(ROOT_INODE)).ctime_ns
    assert [] == list(await store.list_xattrs(ROOT_INODE))
    with fails(errno.ENODATA):
        await store.get_xattr(ROOT_INODE, b"user.a")
    with fails(errno.ENODATA):
        await store.remove_xattr(ROOT_INODE, b"user.a", 9)


@pytest.mark.parametrize(("length", "number"), [(0, errno.ERANGE), (256, errno.ERANGE)])
async def test_xattr_name_lengths(store: MetadataStore, length: int, number: int) -> None:
    """A name has 1 to 255 bytes."""
    with fails(number):
        await store.set_xattr(ROOT_INODE, b"x" * length, b"", XattrMode.EITHER, 1)


async def test_xattr_value_lengths(store: MetadataStore) -> None:
    """A value has up to 64 KiB."""
    await store.set_xattr(ROOT_INODE, b"user.a", b"v" * 65536, XattrMode.EITHER, 1)
    with fails(errno.E2BIG):
        await store.set_xattr(ROOT_INODE, b"user.a", b"v" * 65537, XattrMode.EITHER, 1)
    assert 65536 == len(await store.get_xattr(ROOT_INODE, b"user.a"))


async def test_xattrs_of_an_unknown_inode(store: MetadataStore) -> None:
    """ESTALE, for every operation."""
    with fails(errno.ESTALE):
        await store.get_xattr(UNKNOWN, b"user.a")
    with fails(errno.ESTALE):
        await store.set_xattr(UNKNOWN, b"user.a", b"", XattrMode.EITHER, 1)
    with fails(errno.ESTALE):
        await store.list_xattrs(UNKNOWN)
    with fails(errno.ESTALE):
        await store.remove_xattr(UNKNOWN, b"user.a", 1)


async def test_xattrs_go_with_their_inode(store: MetadataStore) -> None:
    """An orphan's attributes are there until it is removed."""
    inode = (await store.make_inode(ROOT_INODE, b"f", a_file(), 1)).inode
    await store.set_xattr(inode, b"user.a", b"1", XattrMode.EITHER, 1)
    await store.unlink(ROOT_INODE, b"f", 1)
    assert b"1" == await store.get_xattr(inode, b"user.a")
    await store.remove_orphan(inode)
    with fails(errno.ESTALE):
        await store.get_xattr(inode, b"user.a")
