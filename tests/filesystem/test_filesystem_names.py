"""What the file system decides about names and attributes itself; the rest is the metadata store's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.acls import an_acl
from support.filesystem_world import Member

from disfs.errors import FilesystemError
from disfs.filesystem import Filesystem
from disfs.fuse_ops import FuseOperations
from disfs.metadata.base import VolumeUsage
from disfs.posix_acl import AclKind, build_acl
from disfs.values import ROOT_INODE, AttributeChanges, NewInode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.filesystem_world import World

DIRECTORY = NewInode(mode=0o40755, uid=1, gid=2)


@pytest.mark.parametrize("flags", [3, 4, 8, 1 << 31])
async def test_unknown_rename_flags_are_refused(world: World, flags: int) -> None:
    """Nothing moves, EINVAL."""
    await world.create(b"a")
    with pytest.raises(FilesystemError, match="EINVAL"):
        await world.filesystem.rename(ROOT_INODE, b"a", ROOT_INODE, b"b", flags)
    assert await world.filesystem.lookup(ROOT_INODE, b"a") is not None


async def test_rename_flags_reach_the_store(world: World) -> None:
    """1 is NOREPLACE, 2 EXCHANGE."""
    _, a = await world.create(b"a")
    _, b = await world.create(b"b")
    with pytest.raises(FilesystemError, match="EEXIST"):
        await world.filesystem.rename(ROOT_INODE, b"a", ROOT_INODE, b"b", 1)
    await world.filesystem.rename(ROOT_INODE, b"a", ROOT_INODE, b"b", 2)
    found = [await world.filesystem.lookup(ROOT_INODE, name) for name in (b"a", b"b")]
    assert [b, a] == [attributes.inode for attributes in found if attributes is not None]


@pytest.mark.parametrize(("length", "error"), [(0, "ENOENT"), (4096, "ENAMETOOLONG")])
async def test_symlink_targets_have_bounds(world: World, length: int, error: str) -> None:
    """Empty and too long targets are refused and leave no name."""
    with pytest.raises(FilesystemError, match=error):
        await world.filesystem.symlink(ROOT_INODE, b"link", b"x" * length, 1, 2)
    assert await world.filesystem.lookup(ROOT_INODE, b"link") is None


async def test_symlink_remembers_target_and_owner(world: World) -> None:
    """The longest target comes back."""
    made = await world.filesystem.symlink(ROOT_INODE, b"link", b"x" * 4095, 11, 12)
    assert (0o120777, 11, 12, 4095) == (made.mode, made.uid, made.gid, made.size_bytes)
    assert b"x" * 4095 == await world.filesystem.symlink_target(made.inode)


async def test_dot_finds_files_too(world: World) -> None:
    """`.` of any inode is that inode: how the kernel turns file handles back into inodes. What is gone is ESTALE."""
    _, inode = await world.create()
    found = await world.filesystem.lookup(inode, b".")
    assert found is not None
    assert inode == found.inode
    with pytest.raises(FilesystemError, match="ESTALE"):
        await world.filesystem.lookup(type(inode)(4711), b".")


async def test_regression_no_way_back_to_a_removed_file(world: World) -> None:
    """The handle of a file that was removed is stale at once, not only when the kernel's forget has come."""
    fh, inode = await world.create()
    await world.filesystem.release(fh)
    await world.filesystem.unlink(ROOT_INODE, b"file")
    with pytest.raises(FilesystemError, match="ESTALE"):
        await world.filesystem.lookup(inode, b".")


@pytest.mark.parametrize(
    ("name", "error"),
    [(b"system.other", "ENOTSUP"), (b"other", "ENOTSUP"), (b"user.", "EINVAL")],
)
async def test_xattr_namespaces(world: World, name: bytes, error: str) -> None:
    """Only user, trusted and security, and of system the ACLs, are kept, and a name needs more than its namespace."""
    _, inode = await world.create()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: world.filesystem.get_xattr(inode, name),
        lambda: world.filesystem.set_xattr(inode, name, b"", Member()),
        lambda: world.filesystem.remove_xattr(inode, name),
    ]
    for call in calls:
        with pytest.raises(FilesystemError, match=error):
            await call()


async def test_absent_capability_is_remembered_until_it_is_set(world: World) -> None:
    """The question that the kernel asks at each write is answered from memory, and never wrongly."""
    _, inode = await world.create()
    for _ in range(2):
        assert await world.filesystem.get_xattr(inode, b"security.capability") is None
    await world.filesystem.set_xattr(inode, b"security.capability", b"value", Member())
    assert b"value" == await world.filesystem.get_xattr(inode, b"security.capability")
    await world.filesystem.remove_xattr(inode, b"security.capability")
    assert await world.filesystem.get_xattr(inode, b"security.capability") is None


async def test_xattrs_are_listed(world: World) -> None:
    """Names of what is set."""
    _, inode = await world.create()
    await world.filesystem.set_xattr(inode, b"user.b", b"", Member())
    await world.filesystem.set_xattr(inode, b"user.a", b"1", Member())
    assert {b"user.a", b"user.b"} == set(await world.filesystem.list_xattrs(inode, Member()))
    with pytest.raises(FilesystemError, match="ENODATA"):
        await world.filesystem.remove_xattr(inode, b"user.c")


async def test_space_is_capacity_and_usage(world: World) -> None:
    """statfs has the capacity that was set, and counts what is there."""
    fh, _ = await world.create()
    await world.filesystem.files.write(fh, 0, bytes(5000))
    space = await world.filesystem.space()
    assert (1 << 40, VolumeUsage(2, 5000, 8192)) == (space.capacity_bytes, space.usage)


async def test_chmod_leaves_contents_and_kind(world: World) -> None:
    """A change without a size does not touch the chunk store."""
    made = await world.filesystem.make_inode(ROOT_INODE, b"dir", DIRECTORY)
    world.chunks.hold()
    changed = await world.filesystem.change_attributes(made.inode, AttributeChanges(mode=0o1700, uid=5))
    assert (0o41700, 5, 2) == (changed.mode, changed.uid, changed.gid)


async def test_acl_is_refused_if_it_is_none(world: World) -> None:
    """What is not an ACL is EINVAL, whatever its name promises, and nothing has changed."""
    _, inode = await world.create()
    before = await world.filesystem.attributes(inode)
    with pytest.raises(FilesystemError, match="EINVAL"):
        await world.filesystem.set_xattr(inode, AclKind.ACCESS.value, b"abc", Member())
    assert before == await world.filesystem.attributes(inode)


async def test_acl_is_an_attribute(world: World) -> None:
    """It is set, found, listed and removed by its name; removing it again is no error."""
    _, inode = await world.create()
    name, value = AclKind.ACCESS.value, build_acl(an_acl(6, 4, 0, mask=6))
    assert await world.filesystem.get_xattr(inode, name) is None
    await world.filesystem.set_xattr(inode, name, value, Member())
    assert value == await world.filesystem.get_xattr(inode, name)
    assert [name] == list(await world.filesystem.list_xattrs(inode, Member()))
    assert 0o100660 == (await world.filesystem.attributes(inode)).mode
    for _ in range(2):
        await world.filesystem.remove_xattr(inode, name)
        assert await world.filesystem.get_xattr(inode, name) is None


@pytest.mark.parametrize(("gids", "mode"), [({2}, 0o2660), (set(), 0o660)])
async def test_acl_from_outside_the_group_takes_setgid_away(world: World, gids: set[int], mode: int) -> None:
    """As chmod does, which the kernel sees to: who is not in the file's group leaves no setgid bit."""
    made = await world.filesystem.make_inode(ROOT_INODE, b"f", NewInode(mode=0o102644, uid=1, gid=2))
    value = build_acl(an_acl(6, 4, 0, mask=6))
    await world.filesystem.set_xattr(made.inode, AclKind.ACCESS.value, value, Member(frozenset(gids)))
    assert 0o100000 | mode == (await world.filesystem.attributes(made.inode)).mode


async def test_regression_trusted_names_are_for_the_privileged(world: World) -> None:
    """The kernel checks who reads a `trusted` attribute, and leaves it to the file system not to list it."""
    _, inode = await world.create()
    for name in (b"user.a", b"trusted.b"):
        await world.filesystem.set_xattr(inode, name, b"", Member())
    assert [b"user.a"] == list(await world.filesystem.list_xattrs(inode, Member()))
    privileged = Member(is_privileged=True)
    assert [b"trusted.b", b"user.a"] == list(await world.filesystem.list_xattrs(inode, privileged))


async def test_mount_without_acls(world: World) -> None:
    """The kernel is not told of ACLs; they are refused and not listed. What is stored goes on following the mode."""
    _, inode = await world.create()
    name, value = AclKind.ACCESS.value, build_acl(an_acl(6, 4, 0, mask=6))
    await world.filesystem.set_xattr(inode, name, value, Member())
    without = Filesystem(world.metadata, world.chunks, has_acls=False)
    assert (True, False) == (FuseOperations(world.filesystem).enable_acl, FuseOperations(without).enable_acl)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: without.get_xattr(inode, name),
        lambda: without.set_xattr(inode, name, value, Member()),
        lambda: without.remove_xattr(inode, name),
    ]
    for call in calls:
        with pytest.raises(FilesystemError, match="ENOTSUP"):
            await call()
    assert [] == list(await without.list_xattrs(inode, Member(is_privileged=True)))
    await without.change_attributes(inode, AttributeChanges(mode=0o604))
    assert build_acl(an_acl(6, 4, 4, mask=0)) == await world.filesystem.get_xattr(inode, name)
