"""Attributes, times, sizes: the contract of every metadata store."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

import pytest
from support.new_inodes import a_directory, a_file, a_symlink, fails

from disfs.metadata.base import VolumeUsage
from disfs.values import ROOT_INODE, AttributeChanges, InodeNumber, NewInode

if TYPE_CHECKING:
    from disfs.metadata.base import MetadataStore

UNKNOWN = InodeNumber(4711)
DAY_NS = 24 * 3600 * 10**9


async def test_root_of_a_new_volume(store: MetadataStore) -> None:
    """The root is inode 1, a directory with nlink 2."""
    root = await store.attributes(ROOT_INODE)
    assert (1, 0o40755, 2) == (root.inode, root.mode, root.nlink)


async def test_unknown_inode_is_stale(store: MetadataStore) -> None:
    """Whatever is asked of an inode that does not exist raises ESTALE."""
    with fails(errno.ESTALE):
        await store.attributes(UNKNOWN)
    with fails(errno.ESTALE):
        await store.change_attributes(UNKNOWN, AttributeChanges(), 1)
    with fails(errno.ESTALE):
        await store.note_write(UNKNOWN, 1, 1)
    with fails(errno.ESTALE):
        await store.note_read(UNKNOWN, 1)
    with fails(errno.ESTALE):
        await store.symlink_target(UNKNOWN)
    with fails(errno.ESTALE):
        await store.list_directory(UNKNOWN, 0, 10)


async def test_change_keeps_the_type(store: MetadataStore) -> None:
    """A change of mode moves permission bits and ctime, nothing else."""
    made = await store.make_inode(ROOT_INODE, b"f", a_file(), 5)
    changed = await store.change_attributes(made.inode, AttributeChanges(mode=0o4600), 9)
    assert made._replace(mode=stat.S_IFREG | 0o4600, ctime_ns=9) == changed
    assert changed == await store.attributes(made.inode)


async def test_change_of_everything(store: MetadataStore) -> None:
    """All that is given is applied, ctime too."""
    made = await store.make_inode(ROOT_INODE, b"f", a_file(), 5)
    changes = AttributeChanges(mode=0o600, uid=1, gid=2, size_bytes=3, atime_ns=4, mtime_ns=-6, ctime_ns=7)
    changed = await store.change_attributes(made.inode, changes, 9)
    assert (made.inode, stat.S_IFREG | 0o600, 1, 1, 2, 0, 3, 4, -6, 7, 0) == changed


@pytest.mark.parametrize("size_bytes", [0, 1, 2**40, 2**50, 2**63 - 1])
async def test_change_of_size_moves_mtime(store: MetadataStore, size_bytes: int) -> None:
    """Giving the size, changed or not, moves mtime and ctime; sizes reach 2**63-1."""
    made = await store.make_inode(ROOT_INODE, b"f", a_file(), 5)
    changed = await store.change_attributes(made.inode, AttributeChanges(size_bytes=size_bytes), 9)
    assert (size_bytes, 5, 9, 9) == (changed.size_bytes, changed.atime_ns, changed.mtime_ns, changed.ctime_ns)


async def test_size_of_what_is_not_a_file(store: MetadataStore) -> None:
    """A directory has no size to change (EISDIR), a FIFO neither (EINVAL)."""
    fifo = await store.make_inode(ROOT_INODE, b"p", NewInode(stat.S_IFIFO | 0o600, 0, 0), 1)
    with fails(errno.EISDIR):
        await store.change_attributes(ROOT_INODE, AttributeChanges(size_bytes=0), 1)
    with fails(errno.EINVAL):
        await store.change_attributes(fifo.inode, AttributeChanges(size_bytes=0), 1)


async def test_note_write_grows(store: MetadataStore) -> None:
    """A write past the end makes the file longer, one inside leaves its size; both move mtime and ctime."""
    inode = (await store.make_inode(ROOT_INODE, b"f", a_file(), 1)).inode
    await store.note_write(inode, 100, 2)
    assert 100 == (await store.attributes(inode)).size_bytes
    await store.note_write(inode, 50, 3)
    attributes = await store.attributes(inode)
    assert (100, 1, 3, 3) == (attributes.size_bytes, attributes.atime_ns, attributes.mtime_ns, attributes.ctime_ns)


async def test_note_read_follows_relatime(store: MetadataStore) -> None:
    """atime moves when it is not newer than mtime and ctime, or is a day old; nothing else moves."""
    made = await store.make_inode(ROOT_INODE, b"f", a_file(), 10)
    await store.note_read(made.inode, 20)
    assert made._replace(atime_ns=20) == await store.attributes(made.inode)
    await store.note_read(made.inode, 30)
    assert 20 == (await store.attributes(made.inode)).atime_ns
    await store.note_read(made.inode, 20 + DAY_NS)
    assert 20 + DAY_NS == (await store.attributes(made.inode)).atime_ns
    await store.change_attributes(made.inode, AttributeChanges(mode=0o600), 20 + DAY_NS)
    await store.note_read(made.inode, 21 + DAY_NS)
    assert 21 + DAY_NS == (await store.attributes(made.inode)).atime_ns


async def test_symlink_target(store: MetadataStore) -> None:
    """A symbolic link keeps its target as bytes, and its size is the target's length."""
    made = await store.make_inode(ROOT_INODE, b"l", a_symlink(b"\xff/x"), 1)
    assert (b"\xff/x", 3) == (await store.symlink_target(made.inode), made.size_bytes)
    with fails(errno.EINVAL):
        await store.symlink_target(ROOT_INODE)


async def test_usage_counts_inodes_and_file_sizes(store: MetadataStore) -> None:
    """Totals follow creation, growth, truncation and removal; directories and links have no size in them."""
    inode = (await store.make_inode(ROOT_INODE, b"f", a_file(), 1)).inode
    await store.make_inode(ROOT_INODE, b"d", a_directory(), 1)
    await store.make_inode(ROOT_INODE, b"l", a_symlink(b"target"), 1)
    await store.note_write(inode, 1000, 1)
    assert VolumeUsage(4, 1000, 0) == await store.usage()
    await store.change_attributes(inode, AttributeChanges(size_bytes=10), 1)
    await store.unlink(ROOT_INODE, b"f", 1)
    assert VolumeUsage(4, 10, 0) == await store.usage()
    await store.remove_orphan(inode)
    assert VolumeUsage(3, 0, 0) == await store.usage()


async def test_usage_passes_what_a_column_holds(store: MetadataStore) -> None:
    """Sparse files may together be larger than 2**63 bytes."""
    for name in (b"a", b"b", b"c"):
        inode = (await store.make_inode(ROOT_INODE, name, a_file(), 1)).inode
        await store.change_attributes(inode, AttributeChanges(size_bytes=2**63 - 1), 1)
    await store.commit()
    assert 3 * (2**63 - 1) == (await store.usage()).logical_bytes


async def test_device_keeps_its_number(store: MetadataStore) -> None:
    """rdev of a device file is kept."""
    made = await store.make_inode(ROOT_INODE, b"tty", NewInode(stat.S_IFCHR | 0o600, 0, 5, rdev=0x0403), 1)
    assert made == await store.lookup(ROOT_INODE, b"tty")
    assert (0x0403, 5) == (made.rdev, made.gid)
