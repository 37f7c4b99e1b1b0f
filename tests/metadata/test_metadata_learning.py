"""Names of small directories are learnt, so that making files in them asks the database for none; and cheap deletes."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from support.new_inodes import a_file, fails

from disfs.errors import MetadataDamagedError
from disfs.metadata import dentries
from disfs.metadata.store import SqliteMetadataStore
from disfs.metadata.views import SNAPSHOTS_NAME
from disfs.values import FIRST_VIEW_INODE, ROOT_INODE, ChunkIndex

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

    from disfs.values import InodeNumber


async def make(store: SqliteMetadataStore, name: bytes) -> InodeNumber:
    """A new file in the root directory; its number."""
    return (await store.make_inode(ROOT_INODE, name, a_file(), 1)).inode


class Queries:
    """Counts what is asked of the database for single names."""

    def __init__(self, store: SqliteMetadataStore, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._row = store._database.row
        patch.setattr(store._database, "row", self._counted)

    def _counted(self, sql: str, parameters: Iterable[object] = ()) -> object:
        self.count += "FROM dentries" in sql
        return self._row(sql, tuple(parameters))


async def look_in_vain(store: SqliteMetadataStore, prefix: bytes, count: int) -> None:
    """Look for so many names in the root directory that are not there."""
    for number in range(count):
        with fails(errno.ENOENT):
            await store.lookup(ROOT_INODE, b"%s%d" % (prefix, number))


async def test_small_directory_is_learnt(sqlite_store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has asked for enough absent names of a small directory is then answered without a query, whatever he asks."""
    old = await make(sqlite_store, b"old")
    await sqlite_store.commit()
    await look_in_vain(sqlite_store, b"absent", dentries._IN_VAIN)
    queries = Queries(sqlite_store, monkeypatch)
    await look_in_vain(sqlite_store, b"other", 5)
    made = await make(sqlite_store, b"new")
    await sqlite_store.commit()
    assert [old, made] == [(await sqlite_store.lookup(ROOT_INODE, name)).inode for name in (b"old", b"new")]
    await sqlite_store.unlink(ROOT_INODE, b"old", 5)
    await sqlite_store.commit()
    await look_in_vain(sqlite_store, b"ol", 1)
    with fails(errno.ENOENT):
        await sqlite_store.lookup(ROOT_INODE, b"old")
    assert 0 == queries.count


async def test_large_directory_is_not_learnt(
    sqlite_store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a directory with more names than are learnt, each absent one is asked for; those that are there are found."""
    monkeypatch.setattr(dentries, "_LEARNT", 2)
    for name in (b"a", b"b", b"c"):
        await make(sqlite_store, name)
    await look_in_vain(sqlite_store, b"absent", 2 * dentries._IN_VAIN)
    queries = Queries(sqlite_store, monkeypatch)
    await look_in_vain(sqlite_store, b"other", 3)
    assert 3 == queries.count
    assert all([await sqlite_store.lookup(ROOT_INODE, name) for name in (b"a", b"b", b"c")])


async def test_snapshots_are_found_in_a_learnt_root(sqlite_store: SqliteMetadataStore) -> None:
    """The directory of snapshots has no row, and is there all the same when all names of the root are known."""
    await look_in_vain(sqlite_store, b"absent", dentries._IN_VAIN)
    assert FIRST_VIEW_INODE == (await sqlite_store.lookup(ROOT_INODE, SNAPSHOTS_NAME)).inode


async def test_nothing_is_learnt_where_damage_is_feared(
    sqlite_store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash, and where damage is known, only what is asked for is read."""
    sqlite_store._database.guards_changes = True
    await look_in_vain(sqlite_store, b"absent", dentries._IN_VAIN)
    queries = Queries(sqlite_store, monkeypatch)
    await look_in_vain(sqlite_store, b"other", 1)
    assert 1 == queries.count


async def test_damage_beside_an_absent_name_is_no_error(
    sqlite_store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the other names of the directory cannot be read, the one that was asked for is absent nevertheless."""
    await look_in_vain(sqlite_store, b"absent", dentries._IN_VAIN - 1)

    def rows(*_: object) -> None:
        raise MetadataDamagedError("found by the test")

    monkeypatch.setattr(sqlite_store._database, "rows", rows)
    await look_in_vain(sqlite_store, b"other", 1)


async def test_all_rows_of_many_are_written(tmp_path: Path) -> None:
    """Names, inodes and contents are all there after a stop, more than one statement inserts and fewer."""
    store = SqliteMetadataStore.open(tmp_path / "volume.db", create=True)
    inodes = []
    for number in range(61):
        inodes.append(await make(store, b"%d" % number))
        store.write_small(inodes[-1], b"content %d" % number)
        if number == 3:
            await store.commit()
    store.close()
    store = SqliteMetadataStore.open(tmp_path / "volume.db")
    try:
        assert inodes == [(await store.lookup(ROOT_INODE, b"%d" % number)).inode for number in range(61)]
        assert [b"content %d" % number for number in range(61)] == [store.small_content(inode) for inode in inodes]
        assert [(inode, ChunkIndex(0)) for inode in inodes] == [tuple(chunk.key) for chunk in store.dirty_chunks()]
    finally:
        store.close()


async def test_deleting_contents_writes_little(sqlite_store: SqliteMetadataStore) -> None:
    """What was deleted is not written to the log once more."""
    inodes = [await make(sqlite_store, b"%d" % number) for number in range(100)]
    for inode in inodes:
        sqlite_store.write_small(inode, bytes(4096))
    await sqlite_store.commit()
    before = sqlite_store.statistics().wal_bytes
    for inode in inodes:
        sqlite_store.remove_small(inode)
    await sqlite_store.commit()
    assert sqlite_store.statistics().wal_bytes - before < 100 * 4096 // 2
