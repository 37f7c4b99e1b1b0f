"""Full disks and broken changes: what is refused, what is kept, when the store stops."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from support.answers import answer
from support.ledger_contract import INODE, OTHER, a_pack, key, mark
from support.new_inodes import a_file, fails

from disfs.errors import FilesystemError
from disfs.metadata.base import RenameMode, VolumeUsage, XattrMode
from disfs.metadata.store import SqliteMetadataStore
from disfs.values import ROOT_INODE, AttributeChanges, ChunkIndex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from disfs.values import SlotTable

RESERVE_BYTES = 64 << 20


class Disk:
    """The disk of the volume, as far as the store asks about it."""

    free_bytes = 1 << 40


@pytest.fixture
def disk() -> Disk:
    """The disk that `store` lies on."""
    return Disk()


@pytest.fixture
def store(tmp_path: Path, disk: Disk) -> Iterator[SqliteMetadataStore]:
    """A new volume on `disk`."""
    opened = SqliteMetadataStore.open(
        tmp_path / "volume.db", create=True, free_bytes=lambda: disk.free_bytes, reserve_bytes=RESERVE_BYTES
    )
    yield opened
    disk.free_bytes = 1 << 40
    opened.close()


def make(store: SqliteMetadataStore, name: bytes) -> None:
    """A change that needs space."""
    answer(store.make_inode(ROOT_INODE, name, a_file(), 1))


def limit_pages(store: SqliteMetadataStore, spare: int) -> None:
    """Let the database grow by `spare` pages at most: SQLite says that the disk is full then."""
    ((pages,),) = store._database.rows("PRAGMA page_count")
    store._database.rows(f"PRAGMA max_page_count = {pages + spare}")


def fill(store: SqliteMetadataStore) -> None:
    """Make files until it fails."""
    for number in range(10_000):
        answer(store.set_xattr(ROOT_INODE, b"user.%d" % number, b"x" * 4000, XattrMode.EITHER, 1))


def is_open(store: SqliteMetadataStore) -> bool:
    """Whether there is something to commit."""
    return store._database.has_open_transaction


def test_below_the_reserve_nothing_new_is_accepted(store: SqliteMetadataStore, disk: Disk) -> None:
    """With too little room for the log whatever needs more of it raises ENOSPC and changes nothing."""
    make(store, b"f")
    answer(store.commit())
    inode = answer(store.lookup(ROOT_INODE, b"f")).inode
    disk.free_bytes = RESERVE_BYTES - 1
    with fails(errno.ENOSPC):
        make(store, b"g")
    with fails(errno.ENOSPC):
        answer(store.link(inode, ROOT_INODE, b"g", 1))
    with fails(errno.ENOSPC):
        answer(store.rename(ROOT_INODE, b"f", ROOT_INODE, b"g", RenameMode.REPLACE, 1))
    with fails(errno.ENOSPC):
        answer(store.set_xattr(inode, b"user.a", b"", XattrMode.EITHER, 1))
    with fails(errno.ENOSPC):
        mark(store, 0)
    assert ([b"f"], True) == ([e.name for e in answer(store.list_directory(ROOT_INODE, 0, 9))], low(store))


def low(store: SqliteMetadataStore) -> bool:
    """Whether the store says that it is short of room."""
    return store.statistics().low_space


def test_below_the_reserve_deletes_go_on(store: SqliteMetadataStore, disk: Disk) -> None:
    """What gives space back, or records that Discord has something, is never refused for want of space."""
    make(store, b"f")
    revision = mark(store, 0, 2)
    inode = answer(store.lookup(ROOT_INODE, b"f")).inode
    answer(store.commit())
    disk.free_bytes = RESERVE_BYTES - 1
    recorded = answer(store.record_packs([a_pack(1, [(key(0), revision), (key(1), revision)])]))
    answer(store.change_attributes(inode, AttributeChanges(size_bytes=0), 1))
    answer(store.unlink(ROOT_INODE, b"f", 1))
    answer(store.remove_orphan(inode))
    store.cut_chunks(INODE, ChunkIndex(0))
    answer(store.forget_messages(answer(store.dead_messages(9))))
    answer(store.commit())
    assert (2, 0) == (len(recorded.clean), len(answer(store.dead_messages(9))))


def test_room_again(store: SqliteMetadataStore, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    """As soon as there is room, changes are accepted; both turns are logged, once."""
    caplog.set_level("INFO")
    disk.free_bytes = 0
    for name in (b"a", b"b"):
        with fails(errno.ENOSPC):
            make(store, name)
    disk.free_bytes = 1 << 40
    make(store, b"c")
    assert ["WARNING", "INFO"] == [record.levelname for record in caplog.records]


def test_commit_waits_for_room(store: SqliteMetadataStore, disk: Disk) -> None:
    """A transaction that does not fit on the disk is kept, not lost: it is committed when there is room."""
    make(store, b"a")
    disk.free_bytes = 0
    with fails(errno.ENOSPC):
        answer(store.commit())
    assert b"a" == answer(store.list_directory(ROOT_INODE, 0, 9))[0].name
    disk.free_bytes = 1 << 40
    answer(store.commit())
    assert not store._database.has_open_transaction


def test_close_tries_all_the_same(tmp_path: Path, disk: Disk) -> None:
    """What could not be committed for want of room is tried once more at the end, and a clean stop is a clean stop."""
    store = SqliteMetadataStore.open(tmp_path / "other.db", create=True, free_bytes=lambda: disk.free_bytes)
    make(store, b"a")
    disk.free_bytes = 0
    store.close()
    again = SqliteMetadataStore.open(tmp_path / "other.db")
    assert (True, b"a") == (again.was_clean, answer(again.list_directory(ROOT_INODE, 0, 9))[0].name)
    again.close()


async def test_group_commit_outlives_a_full_disk(
    store: SqliteMetadataStore, disk: Disk, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The background task keeps trying, and says so."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        make(store, b"a")
        disk.free_bytes = 0
        await trio.sleep(3)
        assert is_open(store)
        disk.free_bytes = 1 << 40
        await trio.sleep(3)
        assert not is_open(store)
        nursery.cancel_scope.cancel()
    assert "A group commit failed" in caplog.text


def test_full_for_the_first_change_of_a_transaction(store: SqliteMetadataStore) -> None:
    """When SQLite itself meets a full disk and nothing else is lost with it, ENOSPC is all that happens."""
    before = answer(store.usage())
    limit_pages(store, 3)
    with fails(errno.ENOSPC):
        answer(store.set_xattr(ROOT_INODE, b"user.a", b"x" * 60_000, XattrMode.EITHER, 1))
    assert (before, []) == (answer(store.usage()), list(answer(store.list_xattrs(ROOT_INODE))))
    store._database.rows("PRAGMA max_page_count = 1000000")
    make(store, b"a")
    answer(store.commit())
    assert None is store.statistics().failure


def test_full_in_the_middle_stops_the_store(
    store: SqliteMetadataStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When SQLite gives up a transaction that holds answered changes, the store stops and says so at CRITICAL.

    What was committed before is there after the next start.
    """
    make(store, b"kept")
    answer(store.commit())
    limit_pages(store, 20)
    with fails(errno.ENOSPC):
        fill(store)
    assert "CRITICAL" in [record.levelname for record in caplog.records]
    with fails(errno.EIO):
        answer(store.attributes(ROOT_INODE))
    store.close()
    again = SqliteMetadataStore.open(tmp_path / "volume.db")
    assert ([b"kept"], False) == ([e.name for e in answer(again.list_directory(ROOT_INODE, 0, 9))], again.was_clean)
    assert [] == list(answer(again.list_xattrs(ROOT_INODE)))
    again.close()


def test_change_that_breaks_off_is_undone(store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception between the writes of one operation leaves neither half of it, in memory neither."""

    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(store._dentries, "insert", broken)
        with pytest.raises(RuntimeError):
            make(store, b"a")
    assert VolumeUsage(1, 0) == answer(store.usage())
    make(store, b"a")
    assert VolumeUsage(2, 0) == answer(store.usage())


def test_change_that_breaks_off_beside_answered_ones(
    store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If answered changes would be undone along with it, the store stops instead of going on without them."""

    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    make(store, b"answered")
    monkeypatch.setattr(store._inodes, "set_ctime", broken)
    with pytest.raises(RuntimeError):
        answer(store.set_xattr(ROOT_INODE, b"user.a", b"", XattrMode.EITHER, 1))
    with fails(errno.EIO):
        answer(store.attributes(ROOT_INODE))
    assert ["CRITICAL"] == [record.levelname for record in caplog.records]


def test_change_in_memory_that_breaks_off_beside_answered_ones(
    store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that had altered nothing but what is held back leaves no trace, and what was answered before stays."""

    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    make(store, b"answered")
    with monkeypatch.context() as patched:
        patched.setattr(store._inodes, "touch_directory", broken)
        with pytest.raises(RuntimeError):
            answer(store.unlink(ROOT_INODE, b"answered", 2))
        with pytest.raises(RuntimeError):
            make(store, b"a")
    answer(store.commit())
    assert [b"answered"] == [entry.name for entry in answer(store.list_directory(ROOT_INODE, 0, 9))]
    assert 1 == answer(store.lookup(ROOT_INODE, b"answered")).nlink


def test_regression_renamed_name_was_forgotten_meanwhile(
    store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename whose source falls out of memory while its target is looked for goes on all the same."""
    monkeypatch.setattr("disfs.metadata.dentries._KNOWN", 4)
    monkeypatch.setattr("disfs.metadata.inodes._KNOWN", 2)
    for number in range(8):
        make(store, b"%d" % number)
    answer(store.commit())
    for number in range(8):
        answer(store.rename(ROOT_INODE, b"%d" % number, ROOT_INODE, b"new %d" % number, RenameMode.REPLACE, 2))
        answer(store.rename(ROOT_INODE, b"new 0", ROOT_INODE, b"new %d" % number, RenameMode.REPLACE, 2))
        answer(store.rename(ROOT_INODE, b"new %d" % number, ROOT_INODE, b"new 0", RenameMode.REPLACE, 2))
    assert [b"new 0"] == [entry.name for entry in answer(store.list_directory(ROOT_INODE, 0, 9))]


def test_refusals_leave_no_trace(store: SqliteMetadataStore) -> None:
    """A change that is refused by its checks neither writes nor harms the open transaction."""
    make(store, b"a")
    connection = store._database._connection
    before = connection.total_changes
    refused = [
        store.make_inode(ROOT_INODE, b"a", a_file(), 2),
        store.unlink(ROOT_INODE, b"none", 2),
        store.rmdir(ROOT_INODE, b"a", 2),
        store.rename(ROOT_INODE, b"none", ROOT_INODE, b"b", RenameMode.REPLACE, 2),
        store.link(ROOT_INODE, ROOT_INODE, b"b", 2),
        store.remove_xattr(ROOT_INODE, b"user.none", 2),
        store.change_attributes(ROOT_INODE, AttributeChanges(size_bytes=1), 2),
    ]
    for call in refused:
        with pytest.raises(FilesystemError):
            answer(call)
    assert (before, True) == (connection.total_changes, connection.in_transaction)


async def test_regression_a_record_that_cannot_be_read_for_counts_nothing(
    store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step had added up in memory when the disk refused a read is not counted when it is repeated.

    Otherwise a message looks dead that is not, and is deleted.
    """
    revision = mark(store, 0, 3)
    await store.record_packs([a_pack(1, [(key(chunk), revision) for chunk in range(3)])])
    many = mark(store, 0, 64, OTHER)
    middle = mark(store, 1)
    await store.commit()
    new = a_pack(2, [*((key(chunk, OTHER), many) for chunk in range(64)), (key(1), middle)])
    slots = store._packs.slots

    def unreadable(number: int) -> SlotTable:
        if number == 1:
            raise FilesystemError(errno.EIO, "disk I/O error")
        return slots(number)

    with monkeypatch.context() as patched:
        patched.setattr(store._packs, "slots", unreadable)
        with fails(errno.EIO):
            await store.record_in_steps([new], lambda _: None)
    await store.record_in_steps([new], lambda _: None)
    old_live_bytes = 20 + 22  # the outer two of its three slots
    assert [(old_live_bytes,), (new.record.slots.offset(65),)] == store._database.rows(
        "SELECT live_bytes FROM messages ORDER BY message"
    )


async def test_regression_message_with_a_wrong_sum_is_not_dead(store: SqliteMetadataStore) -> None:
    """Should the sums ever be wrong, no message is given up for deletion while an extent names one of its packs."""
    revision = mark(store, 0, 2)
    await store.record_packs([a_pack(1, [(key(chunk), revision) for chunk in range(2)])])
    with store._database.changing:
        store._database.write("UPDATE messages SET live_bytes = 0, dead_since = 1")
    assert [] == await store.dead_messages(10)
