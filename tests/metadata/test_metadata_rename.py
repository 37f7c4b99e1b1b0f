"""rename: the contract of every metadata store."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from support.new_inodes import a_directory, a_file, fails

from disfs.metadata.base import RenameMode, Unlinked
from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    from disfs.metadata.base import MetadataStore
    from disfs.values import InodeNumber

ALL_MODES = list(RenameMode)


async def make(store: MetadataStore, name: bytes, parent: InodeNumber = ROOT_INODE) -> InodeNumber:
    """A new file; its number."""
    return (await store.make_inode(parent, name, a_file(), 1)).inode


async def make_directory(store: MetadataStore, name: bytes, parent: InodeNumber = ROOT_INODE) -> InodeNumber:
    """A new directory; its number."""
    return (await store.make_inode(parent, name, a_directory(), 1)).inode


async def move(
    store: MetadataStore,
    name: bytes,
    new_name: bytes,
    parent: InodeNumber = ROOT_INODE,
    new_parent: InodeNumber = ROOT_INODE,
    mode: RenameMode = RenameMode.REPLACE,
) -> Unlinked | None:
    """Rename at time 9."""
    return await store.rename(parent, name, new_parent, new_name, mode, 9)


async def names(store: MetadataStore, directory: InodeNumber = ROOT_INODE) -> set[bytes]:
    """What is in a directory."""
    return {entry.name for entry in await store.list_directory(directory, 0, 1000)}


async def nlink(store: MetadataStore, inode: InodeNumber) -> int:
    """Its link count."""
    return (await store.attributes(inode)).nlink


async def test_rename_within_a_directory(store: MetadataStore) -> None:
    """The name changes, the inode stays; ctime of the inode and times of the directory move."""
    inode = await make(store, b"a")
    assert None is await move(store, b"a", b"b")
    assert {b"b"} == await names(store)
    moved = await store.lookup(ROOT_INODE, b"b")
    assert (inode, 1, 9) == (moved.inode, moved.mtime_ns, moved.ctime_ns)
    root = await store.attributes(ROOT_INODE)
    assert (9, 9) == (root.mtime_ns, root.ctime_ns)


async def test_rename_of_a_directory_to_another_parent(store: MetadataStore) -> None:
    """Both parents' link counts follow, and so does `..`."""
    source, target = await make_directory(store, b"s"), await make_directory(store, b"t")
    child = await make_directory(store, b"c", source)
    await move(store, b"c", b"c", source, target)
    assert (2, 3) == (await nlink(store, source), await nlink(store, target))
    assert target == await store.parent_of(child)
    assert 9 == (await store.attributes(source)).mtime_ns == (await store.attributes(target)).ctime_ns


async def test_rename_over_a_file(store: MetadataStore) -> None:
    """What was there loses a name; the caller learns which inode and what is left of it."""
    moved, replaced = await make(store, b"a"), await make(store, b"b")
    await store.link(replaced, ROOT_INODE, b"c", 1)
    assert Unlinked(replaced, 1) == await move(store, b"a", b"b")
    assert moved == (await store.lookup(ROOT_INODE, b"b")).inode
    assert 9 == (await store.attributes(replaced)).ctime_ns
    assert Unlinked(replaced, 0) == await move(store, b"b", b"c")
    assert [replaced] == await store.orphans()


async def test_rename_over_an_empty_directory(store: MetadataStore) -> None:
    """A directory replaces an empty directory, which becomes an orphan; link counts add up."""
    source, target = await make_directory(store, b"s"), await make_directory(store, b"t")
    moved, replaced = await make_directory(store, b"m", source), await make_directory(store, b"r", target)
    assert Unlinked(replaced, 0) == await move(store, b"m", b"r", source, target)
    assert (2, 3, 0) == (await nlink(store, source), await nlink(store, target), await nlink(store, replaced))
    assert (target, replaced) == (await store.parent_of(moved), await store.parent_of(replaced))
    await make_directory(store, b"e")
    assert None is not await move(store, b"s", b"e")
    assert 4 == await nlink(store, ROOT_INODE)


async def test_rename_replaces_like_with_like(store: MetadataStore) -> None:
    """File over directory, directory over file, and anything over a full directory are refused."""
    await make(store, b"f")
    directory = await make_directory(store, b"d")
    full = await make_directory(store, b"full")
    await make(store, b"x", full)
    with fails(errno.EISDIR):
        await move(store, b"f", b"d")
    with fails(errno.ENOTDIR):
        await move(store, b"d", b"f")
    with fails(errno.ENOTEMPTY):
        await move(store, b"d", b"full")
    with fails(errno.EISDIR):
        await move(store, b"x", b"d", full)
    assert {b"f", b"d", b"full"} == await names(store)
    assert (2, 2) == (await nlink(store, directory), await nlink(store, full))


async def test_rename_of_nothing(store: MetadataStore) -> None:
    """A source, or a parent, that is not there raises ENOENT; a file as a parent ENOTDIR."""
    file = await make(store, b"f")
    removed = await make_directory(store, b"gone")
    await store.rmdir(ROOT_INODE, b"gone", 1)
    with fails(errno.ENOENT):
        await move(store, b"none", b"x")
    with fails(errno.ENOENT):
        await move(store, b"f", b"x", new_parent=removed)
    with fails(errno.ENOTDIR):
        await move(store, b"f", b"x", new_parent=file)
    with fails(errno.ENOTDIR):
        await move(store, b"f", b"x", file)
    with fails(errno.ENAMETOOLONG):
        await move(store, b"f", b"x" * 256)


@pytest.mark.parametrize("mode", [RenameMode.REPLACE, RenameMode.NOREPLACE])
async def test_rename_into_itself(store: MetadataStore, mode: RenameMode) -> None:
    """A directory moves neither into itself nor into anything below it."""
    top = await make_directory(store, b"top")
    middle = await make_directory(store, b"middle", top)
    low = await make_directory(store, b"low", middle)
    for parent in (top, middle, low):
        with fails(errno.EINVAL):
            await move(store, b"top", b"x", ROOT_INODE, parent, mode)


async def test_rename_onto_an_ancestor(store: MetadataStore) -> None:
    """A directory does not replace one that holds it."""
    top = await make_directory(store, b"top")
    await make_directory(store, b"low", top)
    with fails(errno.ENOTEMPTY):
        await move(store, b"low", b"top", top, ROOT_INODE)


@pytest.mark.parametrize("mode", [RenameMode.REPLACE, RenameMode.EXCHANGE])
async def test_rename_of_two_names_of_one_inode(store: MetadataStore, mode: RenameMode) -> None:
    """Nothing happens when both names stand for the same inode."""
    inode = await make(store, b"a")
    await store.link(inode, ROOT_INODE, b"b", 1)
    before = await store.attributes(inode)
    assert None is await move(store, b"a", b"b", mode=mode)
    assert None is await move(store, b"a", b"a", mode=mode)
    assert ({b"a", b"b"}, before) == (await names(store), await store.attributes(inode))


async def test_noreplace(store: MetadataStore) -> None:
    """NOREPLACE moves to a free name and refuses a taken one, whatever it is."""
    inode = await make(store, b"a")
    await store.link(inode, ROOT_INODE, b"b", 1)
    await move(store, b"a", b"free", mode=RenameMode.NOREPLACE)
    with fails(errno.EEXIST):
        await move(store, b"free", b"b", mode=RenameMode.NOREPLACE)
    with fails(errno.EEXIST):
        await move(store, b"free", b"free", mode=RenameMode.NOREPLACE)


async def test_exchange(store: MetadataStore) -> None:
    """Two names swap what they stand for, of any type, and the link counts of their parents follow."""
    left, right = await make_directory(store, b"left"), await make_directory(store, b"right")
    file, directory = await make(store, b"f", left), await make_directory(store, b"d", right)
    await make(store, b"inside", directory)
    assert None is await move(store, b"f", b"d", left, right, RenameMode.EXCHANGE)
    assert directory == (await store.lookup(left, b"f")).inode
    assert file == (await store.lookup(right, b"d")).inode
    assert (3, 2) == (await nlink(store, left), await nlink(store, right))
    assert left == await store.parent_of(directory)
    assert [9, 9, 9, 9] == [(await store.attributes(i)).ctime_ns for i in (left, right, file, directory)]


async def test_exchange_of_two_directories(store: MetadataStore) -> None:
    """Each takes the other's place; the counts stay."""
    left, right = await make_directory(store, b"left"), await make_directory(store, b"right")
    one, two = await make_directory(store, b"1", left), await make_directory(store, b"2", right)
    await move(store, b"1", b"2", left, right, RenameMode.EXCHANGE)
    assert (3, 3) == (await nlink(store, left), await nlink(store, right))
    assert (right, left) == (await store.parent_of(one), await store.parent_of(two))


async def test_exchange_with_nothing(store: MetadataStore) -> None:
    """Both names must be there."""
    await make(store, b"a")
    with fails(errno.ENOENT):
        await move(store, b"a", b"none", mode=RenameMode.EXCHANGE)


async def test_exchange_with_an_ancestor(store: MetadataStore) -> None:
    """Neither side may end up inside itself."""
    top = await make_directory(store, b"top")
    middle = await make_directory(store, b"middle", top)
    await make(store, b"f", middle)
    with fails(errno.EINVAL):
        await move(store, b"f", b"top", middle, ROOT_INODE, RenameMode.EXCHANGE)
    with fails(errno.EINVAL):
        await move(store, b"top", b"f", ROOT_INODE, middle, RenameMode.EXCHANGE)


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize("dot", [b".", b".."])
async def test_rename_of_dots(sqlite_store: MetadataStore, mode: RenameMode, dot: bytes) -> None:
    """`.` and `..` are nobody's to rename."""
    await make(sqlite_store, b"f")
    with fails(errno.EINVAL):
        await move(sqlite_store, dot, b"x", mode=mode)
    with fails(errno.EINVAL):
        await move(sqlite_store, b"f", dot, mode=mode)


async def test_listing_ends_while_everything_is_renamed(sqlite_store: MetadataStore) -> None:
    """A program that renames what it is shown sees each entry once."""
    for number in range(5):
        await make(sqlite_store, b"%d" % number)
    seen, cookie = [], 0
    while entries := await sqlite_store.list_directory(ROOT_INODE, cookie, 1):
        seen.append(entries[0].name)
        cookie = entries[0].cookie
        await move(sqlite_store, entries[0].name, entries[0].name + b".bak")
    assert [b"0", b"1", b"2", b"3", b"4"] == seen


async def test_listing_shows_a_name_that_is_replaced(sqlite_store: MetadataStore) -> None:
    """A file that is saved by renaming another over it never misses from a listing."""
    for name in (b"a", b"new", b"b", b"z"):
        await make(sqlite_store, name)
    first = await sqlite_store.list_directory(ROOT_INODE, 0, 2)
    await move(sqlite_store, b"new", b"z")
    rest = await sqlite_store.list_directory(ROOT_INODE, first[-1].cookie, 10)
    assert [b"b", b"z"] == [entry.name for entry in rest]
