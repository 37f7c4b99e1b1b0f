"""Access control lists: the contract of every metadata store, and what they cost the real one."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

import pytest
from support.acls import an_acl
from support.answers import answer
from support.new_inodes import a_directory, a_file, a_symlink, fails

from disfs.metadata.base import XattrMode
from disfs.metadata.store import SqliteMetadataStore
from disfs.posix_acl import AclEntry, AclKind, Tag, parse_acl
from disfs.values import ROOT_INODE, AttributeChanges, InodeNumber

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from disfs.metadata.base import MetadataStore
    from disfs.posix_acl import Acl

ACCESS, DEFAULT = AclKind.ACCESS, AclKind.DEFAULT
SHARED = an_acl(7, 5, 4, mask=6, users={1000: 7})


async def acl_of(store: MetadataStore, inode: InodeNumber, kind: AclKind = ACCESS) -> Acl:
    """The ACL that is stored; empty for none, which is not listed either."""
    if kind.value in await store.list_xattrs(inode):
        return parse_acl(await store.get_xattr(inode, kind.value))
    with fails(errno.ENODATA):
        await store.get_xattr(inode, kind.value)
    return ()


async def mode_of(store: MetadataStore, inode: InodeNumber) -> int:
    return stat.S_IMODE((await store.attributes(inode)).mode)


async def a_shared_directory(store: MetadataStore, default: Acl = SHARED) -> InodeNumber:
    """One with a default ACL."""
    made = await store.make_inode(ROOT_INODE, b"d", a_directory(), 1)
    await store.set_acl(made.inode, DEFAULT, default, 2)
    return made.inode


async def test_access_acl_sets_the_mode(store: MetadataStore) -> None:
    """Owner, mask and others become the permission bits, other bits stay, ctime alone moves."""
    made = await store.make_inode(ROOT_INODE, b"f", a_file(0o6711), 1)
    await store.set_acl(made.inode, ACCESS, SHARED, 9)
    assert made._replace(mode=stat.S_IFREG | 0o6764, ctime_ns=9) == await store.attributes(made.inode)
    assert SHARED == await acl_of(store, made.inode)


async def test_setgid_goes_where_it_must(store: MetadataStore) -> None:
    """With `clears_setgid`; setuid is not touched."""
    made = await store.make_inode(ROOT_INODE, b"f", a_file(0o6711), 1)
    await store.set_acl(made.inode, ACCESS, SHARED, 9, clears_setgid=True)
    assert 0o4764 == await mode_of(store, made.inode)


async def test_minimal_access_acl_is_folded_into_the_mode(store: MetadataStore) -> None:
    """It sets the mode, is not stored, and takes the place of one that was."""
    inode = (await store.make_inode(ROOT_INODE, b"f", a_file(), 1)).inode
    await store.set_acl(inode, ACCESS, SHARED, 2)
    await store.set_acl(inode, ACCESS, an_acl(6, 4, 0), 3)
    assert (0o640, ()) == (await mode_of(store, inode), await acl_of(store, inode))


async def test_removed_acl_leaves_the_mode(store: MetadataStore) -> None:
    """The bits are as the ACL left them, ctime moves; removing what is not there does nothing, not even that."""
    inode = (await store.make_inode(ROOT_INODE, b"f", a_file(), 1)).inode
    await store.set_acl(inode, ACCESS, SHARED, 2)
    await store.set_acl(inode, ACCESS, (), 3)
    assert (0o764, ()) == (await mode_of(store, inode), await acl_of(store, inode))
    before = await store.attributes(inode)
    assert 3 == before.ctime_ns
    await store.set_acl(inode, ACCESS, (), 4)
    await store.set_acl(inode, DEFAULT, (), 4)
    assert before == await store.attributes(inode)


async def test_default_acl_is_for_directories(store: MetadataStore) -> None:
    """It changes no mode, a minimal one is kept, and what is no directory cannot have one."""
    directory = await a_shared_directory(store, an_acl(7, 0, 0))
    assert an_acl(7, 0, 0) == await acl_of(store, directory, DEFAULT)
    assert (0o755, 2) == (await mode_of(store, directory), (await store.attributes(directory)).ctime_ns)
    inode = (await store.make_inode(ROOT_INODE, b"f", a_file(), 1)).inode
    with fails(errno.EACCES):
        await store.set_acl(inode, DEFAULT, SHARED, 2)
    assert [] == list(await store.list_xattrs(inode))


async def test_chmod_moves_the_mask(store: MetadataStore) -> None:
    """The group's bits are the mask's; owner and others follow, names and the group's entry stay."""
    inode = (await store.make_inode(ROOT_INODE, b"f", a_file(), 1)).inode
    await store.set_acl(inode, ACCESS, SHARED, 2)
    await store.change_attributes(inode, AttributeChanges(mode=0o610), 3)
    assert an_acl(6, 5, 0, mask=1, users={1000: 7}) == await acl_of(store, inode)
    await store.change_attributes(inode, AttributeChanges(uid=5), 4)
    assert 0o610 == await mode_of(store, inode)


async def test_new_inode_inherits_instead_of_the_umask(store: MetadataStore) -> None:
    """A default ACL takes the umask's place, and a mode that asks for less bounds it."""
    directory = await a_shared_directory(store)
    new = a_file(0o666)._replace(umask=0o77)
    made = await store.make_inode(directory, b"f", new, 3)
    assert stat.S_IFREG | 0o664 == made.mode
    assert made == await store.attributes(made.inode)
    assert an_acl(6, 5, 4, mask=6, users={1000: 7}) == await acl_of(store, made.inode)
    assert () == await acl_of(store, made.inode, DEFAULT)


async def test_new_directory_inherits_the_default_acl_too(store: MetadataStore) -> None:
    """So that it goes on below."""
    directory = await a_shared_directory(store)
    made = await store.make_inode(directory, b"d", a_directory(0o777)._replace(umask=0o22), 3)
    assert stat.S_IFDIR | 0o764 == made.mode
    assert SHARED == await acl_of(store, made.inode)
    assert SHARED == await acl_of(store, made.inode, DEFAULT)


async def test_minimal_default_acl_leaves_nothing_but_bits(store: MetadataStore) -> None:
    """Files have no ACL then."""
    directory = await a_shared_directory(store, an_acl(7, 5, 0))
    made = await store.make_inode(directory, b"f", a_file(0o666)._replace(umask=0o777), 3)
    assert (stat.S_IFREG | 0o640, []) == (made.mode, list(await store.list_xattrs(made.inode)))


async def test_symbolic_link_inherits_nothing(store: MetadataStore) -> None:
    """Its mode is always 0777."""
    directory = await a_shared_directory(store)
    made = await store.make_inode(directory, b"l", a_symlink(b"x"), 3)
    assert (stat.S_IFLNK | 0o777, []) == (made.mode, list(await store.list_xattrs(made.inode)))


async def test_umask_counts_without_a_default_acl(store: MetadataStore) -> None:
    """An access ACL of the directory is nothing to inherit."""
    directory = (await store.make_inode(ROOT_INODE, b"d", a_directory(), 1)).inode
    await store.set_acl(directory, ACCESS, SHARED, 2)
    made = await store.make_inode(directory, b"f", a_file(0o666)._replace(umask=0o27), 3)
    assert (stat.S_IFREG | 0o640, []) == (made.mode, list(await store.list_xattrs(made.inode)))


async def test_acls_are_listed_among_the_others(store: MetadataStore) -> None:
    """With their names, in order."""
    directory = await a_shared_directory(store)
    await store.set_acl(directory, ACCESS, SHARED, 2)
    await store.set_xattr(directory, b"user.a", b"", XattrMode.EITHER, 3)
    expected = [b"system.posix_acl_access", b"system.posix_acl_default", b"user.a"]
    assert expected == list(await store.list_xattrs(directory))


async def test_acl_of_an_unknown_inode(store: MetadataStore) -> None:
    """ESTALE."""
    with fails(errno.ESTALE):
        await store.set_acl(InodeNumber(4711), ACCESS, SHARED, 1)


async def test_acl_goes_with_its_inode(sqlite_store: SqliteMetadataStore) -> None:
    """No row is left of an orphan that was removed."""
    inode = (await sqlite_store.make_inode(ROOT_INODE, b"f", a_file(), 1)).inode
    await sqlite_store.set_acl(inode, ACCESS, SHARED, 2)
    await sqlite_store.unlink(ROOT_INODE, b"f", 3)
    await sqlite_store.remove_orphan(inode)
    await sqlite_store.commit()
    assert [] == sqlite_store._database.rows("SELECT * FROM xattrs")


async def test_acl_that_is_too_long(sqlite_store: SqliteMetadataStore) -> None:
    """E2BIG beyond 64 KiB, and nothing has changed."""
    named = tuple(AclEntry(Tag.USER, 7, uid) for uid in range(9000))
    acl = (AclEntry(Tag.USER_OBJ, 0), *named, *an_acl(0, 0, 0, mask=0)[1:])
    before = await sqlite_store.attributes(ROOT_INODE)
    with fails(errno.E2BIG):
        await sqlite_store.set_acl(ROOT_INODE, ACCESS, acl, 1)
    assert before == await sqlite_store.attributes(ROOT_INODE)
    assert sqlite_store._database.failure is None


def statements(store: SqliteMetadataStore, call: Callable[[], Coroutine[Any, Any, object]]) -> int:
    """How many statements a call takes."""
    seen: list[str] = []
    store._database._connection.set_trace_callback(seen.append)
    answer(call())
    store._database._connection.set_trace_callback(None)
    return len(seen)


def costs(store: SqliteMetadataStore, name: bytes) -> list[int]:
    """Statements of: create, mkdir, chmod, stat, lookup, write, and the kernel's own question."""
    inode = answer(store.make_inode(ROOT_INODE, name, a_file(), 1)).inode
    return [
        statements(store, lambda: store.make_inode(ROOT_INODE, name + b"f", a_file(), 1)),
        statements(store, lambda: store.make_inode(ROOT_INODE, name + b"d", a_directory(), 1)),
        statements(store, lambda: store.change_attributes(inode, AttributeChanges(mode=0o600), 1)),
        statements(store, lambda: store.attributes(inode)),
        statements(store, lambda: store.lookup(ROOT_INODE, name)),
        statements(store, lambda: store.note_write(inode, 1, 1)),
    ]


async def test_acls_cost_nothing_where_there_are_none(sqlite_store: SqliteMetadataStore) -> None:
    """In a volume that never had one nothing is looked up; in another one create and chmod look once."""
    without = costs(sqlite_store, b"a")
    with fails(errno.ENODATA):
        assert 0 == statements(sqlite_store, lambda: sqlite_store.get_xattr(ROOT_INODE, ACCESS.value))
    other = (await sqlite_store.make_inode(ROOT_INODE, b"o", a_file(), 1)).inode
    await sqlite_store.set_acl(other, ACCESS, SHARED, 2)
    assert [1, 1, 1, 0, 0, 0] == [more - less for more, less in zip(costs(sqlite_store, b"b"), without, strict=True)]


async def test_acls_are_known_of_after_a_crash(tmp_path: Path) -> None:
    """That a volume has ACLs is committed with the first of them, and forgotten with it."""
    store = SqliteMetadataStore.open(tmp_path / "volume.db", create=True)
    await store.set_acl(ROOT_INODE, DEFAULT, SHARED, 1)
    await store.commit()
    store._database.close()
    store = SqliteMetadataStore.open(tmp_path / "volume.db")
    try:
        assert SHARED == await acl_of(store, ROOT_INODE, DEFAULT)
        made = await store.make_inode(ROOT_INODE, b"f", a_file(0o666), 2)
        assert stat.S_IFREG | 0o664 == made.mode
    finally:
        store.close()


async def test_broken_change_takes_the_knowledge_of_acls_along(
    sqlite_store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ACL breaks off halfway; the next first one is found after a restart as if that had not been."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    await sqlite_store.commit()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store._inodes, "set_mode", broken)
        with pytest.raises(ZeroDivisionError):
            await sqlite_store.set_acl(ROOT_INODE, ACCESS, SHARED, 1)
    assert () == await acl_of(sqlite_store, ROOT_INODE)
    await sqlite_store.set_acl(ROOT_INODE, ACCESS, SHARED, 2)
    assert [("1",)] == sqlite_store._database.rows("SELECT value FROM settings WHERE name = 'has_acls'")


async def test_full_disk_lets_acls_go(tmp_path: Path) -> None:
    """What frees space or changes a row in place is done; a new ACL is refused whole."""
    free = [1 << 40]
    store = SqliteMetadataStore.open(tmp_path / "volume.db", create=True, free_bytes=lambda: free[0])
    try:
        await store.set_acl(ROOT_INODE, ACCESS, SHARED, 1)
        await store.commit()
        free[0] = 1 << 16
        await store.change_attributes(ROOT_INODE, AttributeChanges(mode=0o711), 2)
        before = await store.attributes(ROOT_INODE)
        with fails(errno.ENOSPC):
            await store.set_acl(ROOT_INODE, DEFAULT, SHARED, 3)
        assert before == await store.attributes(ROOT_INODE)
        await store.set_acl(ROOT_INODE, ACCESS, an_acl(6, 0, 0), 4)
        assert 0o600 == await mode_of(store, ROOT_INODE)
    finally:
        free[0] = 1 << 40
        store.close()
