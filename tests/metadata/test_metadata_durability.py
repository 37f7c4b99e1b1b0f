"""Group commit, crashes, syncs, checkpoints, clean stops."""

from __future__ import annotations

import errno
import shutil
import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from support.answers import answer
from support.ledger_contract import a_pack, key, mark, places
from support.new_inodes import a_file, fails

from disfs.metadata.store import SqliteMetadataStore
from disfs.metadata.upkeep import CHECKPOINT_SECONDS, COMMIT_SECONDS
from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    from pathlib import Path


class CountedSync:
    """Stands in for the fsync of the log: counts, can be held up, can fail."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()
        self.error: OSError | None = None

    def __call__(self) -> None:
        """Runs in a worker thread."""
        self.count += 1
        self.gate.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def sync() -> CountedSync:
    """The sync of `store`."""
    return CountedSync()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the volume lies."""
    return tmp_path / "volume.db"


def make(store: SqliteMetadataStore, name: bytes) -> None:
    """A change."""
    answer(store.make_inode(ROOT_INODE, name, a_file(), 1))


def names(store: SqliteMetadataStore) -> list[bytes]:
    """What is in the root directory."""
    return [entry.name for entry in answer(store.list_directory(ROOT_INODE, 0, 1000))]


def after_kill(path: Path, directory: Path) -> list[bytes]:
    """What a mount finds when the process is killed now: the files as they are, and no shared memory."""
    directory.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), directory / f"copy.db{suffix}")
    store = SqliteMetadataStore.open(directory / "copy.db")
    found = names(store)
    assert not store.was_clean
    assert [(1,)] == [(n,) for (n,) in store._database.rows("SELECT count(*) FROM pragma_integrity_check")]
    store.close()
    return found


def test_what_was_committed_survives_a_kill(path: Path, tmp_path: Path) -> None:
    """At whatever moment the process dies, every committed change is there, whole, and nothing of an open one."""
    store = SqliteMetadataStore.open(path, create=True)
    committed: list[bytes] = []
    for number in range(12):
        make(store, b"%d" % number)
        assert committed == after_kill(path, tmp_path / f"before-{number}")
        if number % 3 == 2:
            answer(store.commit())
            committed = names(store)
        if number == 6:
            answer_checkpoint(store)
        assert committed == after_kill(path, tmp_path / f"after-{number}")
    store.close()


def answer_checkpoint(store: SqliteMetadataStore) -> None:
    """One pass, here and now."""
    store._checkpointer._pass()


def test_clean_stop(path: Path) -> None:
    """After `close` everything is in the database file alone, the stop counts as clean, and numbers go on."""
    store = SqliteMetadataStore.open(path, create=True)
    make(store, b"a")
    store.close()
    store.close()
    assert [path] == list(path.parent.iterdir())
    store = SqliteMetadataStore.open(path)
    assert (True, [b"a"]) == (store.was_clean, names(store))
    make(store, b"b")
    assert [2, 3] == [answer(store.lookup(ROOT_INODE, name)).inode for name in (b"a", b"b")]
    store.close()


def test_numbers_are_not_reused_after_a_crash(path: Path, tmp_path: Path) -> None:
    """A revision that a pack may carry is not given out again, although its transaction was lost."""
    store = SqliteMetadataStore.open(path, create=True)
    copy = tmp_path / "copy.db"
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), copy.with_name(copy.name + suffix))
    lost_revision = mark(store, 0, 8)
    make(store, b"lost")
    lost_inode = answer(store.lookup(ROOT_INODE, b"lost")).inode
    store.close()
    store = SqliteMetadataStore.open(copy)
    make(store, b"new")
    assert mark(store, 0) > lost_revision
    assert answer(store.lookup(ROOT_INODE, b"new")).inode > lost_inode
    store.close()


def test_everything_is_found_again(path: Path) -> None:
    """Dirty chunks, extents, packs, orphans and totals are as they were."""
    store = SqliteMetadataStore.open(path, create=True, chunk_bytes=4096)
    revision = mark(store, 0, 4)
    pack = a_pack(1, [(key(n), revision) for n in range(3)])
    answer(store.record_packs([pack]))
    make(store, b"f")
    answer(store.note_write(answer(store.lookup(ROOT_INODE, b"f")).inode, 99, 2))
    make(store, b"g")
    answer(store.unlink(ROOT_INODE, b"g", 2))
    before = (store.dirty_chunks(), places(store, 0, 9), answer(store.orphans()), answer(store.usage()))
    store.close()
    store = SqliteMetadataStore.open(path)
    after = (store.dirty_chunks(), places(store, 0, 9), answer(store.orphans()), answer(store.usage()))
    assert before == after
    assert (pack.record, 4096) == (answer(store.pack(pack.record.pack)), store.chunk_bytes)
    store.close()


async def test_group_commit(path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Changes share a transaction, which is committed a moment after its first; nothing is committed for nothing."""
    store = SqliteMetadataStore.open(path, create=True)
    before = store.statistics().commit_count
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        make(store, b"a")
        make(store, b"b")
        await trio.sleep(2 * COMMIT_SECONDS)
        assert 1 == store.statistics().commit_count - before
        assert not store._database.has_open_transaction
        await trio.sleep(100 * COMMIT_SECONDS)
        assert 1 == store.statistics().commit_count - before
        make(store, b"c")
        await trio.sleep(2 * COMMIT_SECONDS)
        assert 2 == store.statistics().commit_count - before
        nursery.cancel_scope.cancel()
    store.close()


async def test_checkpoints_run_by_themselves(path: Path, tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """What was committed gets into the database file after a while, without anybody asking."""
    mock_clock.rate = 0
    store = SqliteMetadataStore.open(path, create=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        make(store, b"a")
        await store.commit()
        while store.statistics().checkpoint_count == 0:
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(CHECKPOINT_SECONDS / 10)
        nursery.cancel_scope.cancel()
    shutil.copy(path, tmp_path / "alone.db")
    alone = SqliteMetadataStore.open(tmp_path / "alone.db")
    assert [b"a"] == names(alone)
    alone.close()
    store.close()


async def test_make_durable_syncs_what_was_changed(path: Path, sync: CountedSync, tmp_path: Path) -> None:
    """make_durable commits, then syncs the log; without news since the last one it does neither."""
    store = SqliteMetadataStore.open(path, create=True, sync=sync)
    make(store, b"a")
    await store.make_durable()
    assert (1, [b"a"]) == (sync.count, after_kill(path, tmp_path / "killed"))
    await store.make_durable()
    assert 1 == sync.count
    store.close()


async def test_real_sync(path: Path) -> None:
    """The log is found and synced, again and again, also after it began anew."""
    store = SqliteMetadataStore.open(path, create=True)
    for number in range(3):
        make(store, b"%d" % number)
        await store.make_durable()
        await store._checkpointer.checkpoint()
    assert 3 == store.statistics().sync_count
    store.close()


async def test_make_durable_is_shared(path: Path, sync: CountedSync) -> None:
    """Callers that come while a sync runs share the next one: it begins after each of their calls."""
    store = SqliteMetadataStore.open(path, create=True, sync=sync)
    sync.gate.clear()
    make(store, b"first")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.make_durable)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(10):
            make(store, b"%d" % number)
            nursery.start_soon(store.make_durable)
        await trio.testing.wait_all_tasks_blocked()
        begun_at_first = store.statistics().sync_count
        sync.gate.set()
    assert (1, 2) == (begun_at_first, sync.count)
    store.close()


async def test_failed_sync_stops_the_store(path: Path, sync: CountedSync, caplog: pytest.LogCaptureFixture) -> None:
    """When the log cannot be synced nobody is told that it was, and nothing is answered from then on."""
    store = SqliteMetadataStore.open(path, create=True, sync=sync)
    sync.error = OSError(errno.EIO, "the disk is broken")
    make(store, b"a")
    with fails(errno.EIO):
        await store.make_durable()
    assert ["CRITICAL"] == [record.levelname for record in caplog.records]
    with fails(errno.EIO):
        await store.lookup(ROOT_INODE, b"a")
    with fails(errno.EIO):
        await store.make_inode(ROOT_INODE, b"b", a_file(), 1)
    with fails(errno.EIO):
        await store.commit()
    assert None is not store.statistics().failure
    store.close()


async def test_cancelled_caller_of_make_durable(path: Path, sync: CountedSync) -> None:
    """A caller that is cancelled while it waits for its turn leaves the others served."""
    store = SqliteMetadataStore.open(path, create=True, sync=sync)
    sync.gate.clear()
    make(store, b"a")
    scope = trio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await store.make_durable()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.make_durable)
        await trio.testing.wait_all_tasks_blocked()
        make(store, b"b")
        nursery.start_soon(cancelled)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(store.make_durable)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        sync.gate.set()
    assert (2, True) == (sync.count, scope.cancelled_caught)
    store.close()
