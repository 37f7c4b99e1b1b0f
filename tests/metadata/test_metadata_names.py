"""Making, linking and removing names, and listing directories: the contract of every metadata store."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

import pytest
from support.new_inodes import a_directory, a_file, a_symlink, fails

from disfs.metadata.base import Unlinked
from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    from disfs.metadata.base import MetadataStore
    from disfs.values import InodeNumber


async def make(store: MetadataStore, name: bytes, parent: InodeNumber = ROOT_INODE) -> InodeNumber:
    """A new file; its number."""
    return (await store.make_inode(parent, name, a_file(), 1)).inode


async def make_directory(store: MetadataStore, name: bytes, parent: InodeNumber = ROOT_INODE) -> InodeNumber:
    """A new directory; its number."""
    return (await store.make_inode(parent, name, a_directory(), 1)).inode


async def removed_directory(store: MetadataStore) -> InodeNumber:
    """A directory that is an orphan."""
    inode = await make_directory(store, b"removed")
    await store.rmdir(ROOT_INODE, b"removed", 1)
    return inode


async def names(store: MetadataStore, directory: InodeNumber = ROOT_INODE) -> list[bytes]:
    """What is in a directory."""
    return [entry.name for entry in await store.list_directory(directory, 0, 1000)]


async def test_made_file(store: MetadataStore) -> None:
    """A new file has what was asked for, nlink 1, all times now; its parent's mtime and ctime move."""
    made = await store.make_inode(ROOT_INODE, b"f", a_file(0o640, 3, 4), 9)
    assert (made.inode, stat.S_IFREG | 0o640, 1, 3, 4, 0, 0, 9, 9, 9, 0) == made
    assert made == await store.lookup(ROOT_INODE, b"f")
    root = await store.attributes(ROOT_INODE)
    assert (2, 0, 9, 9) == (root.nlink, root.atime_ns, root.mtime_ns, root.ctime_ns)


async def test_made_directory_counts_in_its_parent(store: MetadataStore) -> None:
    """A directory has nlink 2, and its parent one more."""
    made = await store.make_inode(ROOT_INODE, b"d", a_directory(), 9)
    assert (2, 3) == (made.nlink, (await store.attributes(ROOT_INODE)).nlink)


async def test_setgid_directory_hands_down(store: MetadataStore) -> None:
    """Children of a setgid directory take its gid, subdirectories the bit too."""
    parent = (await store.make_inode(ROOT_INODE, b"s", a_directory(0o2755, gid=55), 1)).inode
    file = await store.make_inode(parent, b"f", a_file(), 1)
    directory = await store.make_inode(parent, b"d", a_directory(), 1)
    assert (55, stat.S_IFREG | 0o644) == (file.gid, file.mode)
    assert (55, stat.S_IFDIR | 0o2755) == (directory.gid, directory.mode)


@pytest.mark.parametrize("name", [b"x" * 255, b"\xff\xfe", b"...", b" ", b"\n"])
async def test_names_are_bytes(store: MetadataStore, name: bytes) -> None:
    """Any 1 to 255 bytes without slash and NUL are a name."""
    inode = await make(store, name)
    assert inode == (await store.lookup(ROOT_INODE, name)).inode


async def test_long_name(store: MetadataStore) -> None:
    """256 bytes are too long, for every operation."""
    name = b"x" * 256
    inode = await make(store, b"f")
    with fails(errno.ENAMETOOLONG):
        await store.lookup(ROOT_INODE, name)
    with fails(errno.ENAMETOOLONG):
        await make(store, name)
    with fails(errno.ENAMETOOLONG):
        await store.link(inode, ROOT_INODE, name, 1)
    with fails(errno.ENAMETOOLONG):
        await store.unlink(ROOT_INODE, name, 1)
    with fails(errno.ENAMETOOLONG):
        await store.rmdir(ROOT_INODE, name, 1)


async def test_lookup_of_dots(store: MetadataStore) -> None:
    """`.` is the directory, `..` its parent; the root is its own."""
    directory = await make_directory(store, b"d")
    assert directory == (await store.lookup(directory, b".")).inode
    assert ROOT_INODE == (await store.lookup(directory, b"..")).inode
    assert ROOT_INODE == (await store.lookup(ROOT_INODE, b"..")).inode
    with fails(errno.EEXIST):
        await make(store, b".", directory)
    with fails(errno.EEXIST):
        await make(store, b"..", directory)


async def test_lookup_of_nothing(store: MetadataStore) -> None:
    """A name that is not there raises ENOENT, one in a file ENOTDIR."""
    with fails(errno.ENOENT):
        await store.lookup(ROOT_INODE, b"none")
    with fails(errno.ENOTDIR):
        await store.lookup(await make(store, b"f"), b"none")


async def test_name_that_is_taken(store: MetadataStore) -> None:
    """A second inode, or link, by the same name raises EEXIST and changes nothing."""
    inode = await make(store, b"f")
    before = await store.attributes(ROOT_INODE)
    with fails(errno.EEXIST):
        await store.make_inode(ROOT_INODE, b"f", a_directory(), 9)
    with fails(errno.EEXIST):
        await store.link(inode, ROOT_INODE, b"f", 9)
    assert before == await store.attributes(ROOT_INODE)


async def test_nothing_new_in_a_removed_directory(store: MetadataStore) -> None:
    """A directory that was removed takes no names any more."""
    inode = await make(store, b"f")
    removed = await removed_directory(store)
    with fails(errno.ENOENT):
        await make(store, b"x", removed)
    with fails(errno.ENOENT):
        await store.link(inode, removed, b"x", 1)
    with fails(errno.ENOENT):
        await store.lookup(removed, b"x")
    assert [] == await names(store, removed)


async def test_nothing_new_in_a_file(store: MetadataStore) -> None:
    """A file is no parent."""
    inode = await make(store, b"f")
    with fails(errno.ENOTDIR):
        await make(store, b"x", inode)
    with fails(errno.ENOTDIR):
        await store.link(inode, inode, b"x", 1)
    with fails(errno.ENOTDIR):
        await store.unlink(inode, b"x", 1)
    with fails(errno.ENOTDIR):
        await store.list_directory(inode, 0, 10)


async def test_link(store: MetadataStore) -> None:
    """A further name counts in nlink, moves ctime, and shows the same inode."""
    inode = await make(store, b"f")
    linked = await store.link(inode, ROOT_INODE, b"g", 9)
    assert (inode, 2, 1, 9) == (linked.inode, linked.nlink, linked.mtime_ns, linked.ctime_ns)
    assert linked == await store.lookup(ROOT_INODE, b"f") == await store.lookup(ROOT_INODE, b"g")


async def test_link_of_a_directory(store: MetadataStore) -> None:
    """A directory takes no second name."""
    directory = await make_directory(store, b"d")
    with fails(errno.EPERM):
        await store.link(directory, ROOT_INODE, b"e", 1)


async def test_link_of_an_orphan(store: MetadataStore) -> None:
    """What has no name any more does not get one again."""
    inode = await make(store, b"f")
    await store.unlink(ROOT_INODE, b"f", 1)
    with fails(errno.ENOENT):
        await store.link(inode, ROOT_INODE, b"g", 1)


async def test_unlink_of_one_of_two_names(store: MetadataStore) -> None:
    """The inode lives as long as it has a name; ctime moves, the parent's times move."""
    inode = await make(store, b"f")
    await store.link(inode, ROOT_INODE, b"g", 1)
    assert Unlinked(inode, 1) == await store.unlink(ROOT_INODE, b"f", 9)
    attributes = await store.lookup(ROOT_INODE, b"g")
    assert (1, 9) == (attributes.nlink, attributes.ctime_ns)
    assert 9 == (await store.attributes(ROOT_INODE)).mtime_ns
    assert [] == await store.orphans()


async def test_unlinked_inode_is_an_orphan(store: MetadataStore) -> None:
    """Without a name an inode stays readable and writable until it is removed for good."""
    inode = await make(store, b"f")
    assert Unlinked(inode, 0) == await store.unlink(ROOT_INODE, b"f", 9)
    assert [inode] == await store.orphans()
    await store.note_write(inode, 5, 10)
    assert (0, 5) == ((await store.attributes(inode)).nlink, (await store.attributes(inode)).size_bytes)
    await store.remove_orphan(inode)
    assert [] == await store.orphans()
    with fails(errno.ESTALE):
        await store.attributes(inode)
    await store.remove_orphan(inode)


async def test_unlink_of_a_directory(store: MetadataStore) -> None:
    """unlink is for non-directories, rmdir for directories."""
    await make_directory(store, b"d")
    await make(store, b"f")
    with fails(errno.EISDIR):
        await store.unlink(ROOT_INODE, b"d", 1)
    with fails(errno.ENOTDIR):
        await store.rmdir(ROOT_INODE, b"f", 1)
    with fails(errno.ENOENT):
        await store.unlink(ROOT_INODE, b"none", 1)
    with fails(errno.ENOENT):
        await store.rmdir(ROOT_INODE, b"none", 1)


async def test_rmdir(store: MetadataStore) -> None:
    """A removed directory is an orphan with nlink 0 and its own parent; its parent's nlink falls."""
    directory = await make_directory(store, b"d")
    assert ROOT_INODE == await store.parent_of(directory)
    assert Unlinked(directory, 0) == await store.rmdir(ROOT_INODE, b"d", 9)
    root = await store.attributes(ROOT_INODE)
    assert (2, 9, 9) == (root.nlink, root.mtime_ns, root.ctime_ns)
    assert directory == await store.parent_of(directory)
    assert [directory] == await store.orphans()


async def test_rmdir_of_what_cannot_go(store: MetadataStore) -> None:
    """A directory with names in it stays, and so do `.` and `..`."""
    directory = await make_directory(store, b"d")
    await make(store, b"f", directory)
    with fails(errno.ENOTEMPTY):
        await store.rmdir(ROOT_INODE, b"d", 1)
    with fails(errno.EINVAL):
        await store.rmdir(directory, b".", 1)
    with fails(errno.ENOTEMPTY):
        await store.rmdir(directory, b"..", 1)


async def test_symlink_targets_are_limited(sqlite_store: MetadataStore) -> None:
    """A target has 1 to 4095 bytes."""
    await sqlite_store.make_inode(ROOT_INODE, b"l", a_symlink(b"x" * 4095), 1)
    with fails(errno.ENAMETOOLONG):
        await sqlite_store.make_inode(ROOT_INODE, b"m", a_symlink(b"x" * 4096), 1)
    with fails(errno.ENOENT):
        await sqlite_store.make_inode(ROOT_INODE, b"m", a_symlink(b""), 1)


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0b"])
async def test_what_is_no_name(sqlite_store: MetadataStore, name: bytes) -> None:
    """Names that no kernel passes are refused."""
    with fails(errno.EINVAL):
        await make(sqlite_store, name)


async def test_listing_by_cookie(store: MetadataStore) -> None:
    """Entries come in the order of their cookies, from 3 on, with their attributes, as many as asked for."""
    for number in range(7):
        await make(store, b"%d" % number)
    seen, cookie = [], 0
    while entries := await store.list_directory(ROOT_INODE, cookie, 3):
        assert len(entries) <= 3
        assert all(entry.cookie > max(cookie, 2) for entry in entries)
        assert all([entry.attributes == await store.lookup(ROOT_INODE, entry.name) for entry in entries])
        seen += [entry.name for entry in entries]
        cookie = entries[-1].cookie
    assert [b"%d" % number for number in range(7)] == seen


async def test_listing_while_names_go(store: MetadataStore) -> None:
    """Removing what was listed (rm -r) neither hides nor repeats the rest."""
    for number in range(6):
        await make(store, b"%d" % number)
    first = await store.list_directory(ROOT_INODE, 0, 3)
    for entry in first:
        await store.unlink(ROOT_INODE, entry.name, 1)
    rest = await store.list_directory(ROOT_INODE, first[-1].cookie, 10)
    assert [b"3", b"4", b"5"] == [entry.name for entry in rest]


async def test_cookies_are_not_reused(store: MetadataStore) -> None:
    """A name that is made again has a higher cookie."""
    await make(store, b"f")
    (before,) = await store.list_directory(ROOT_INODE, 0, 10)
    await store.unlink(ROOT_INODE, b"f", 1)
    await make(store, b"f")
    (after,) = await store.list_directory(ROOT_INODE, 0, 10)
    assert after.cookie > before.cookie


async def test_inode_numbers_are_not_reused(store: MetadataStore) -> None:
    """A number that was removed never comes back."""
    first = await make(store, b"f")
    await store.unlink(ROOT_INODE, b"f", 1)
    await store.remove_orphan(first)
    assert await make(store, b"f") > first
