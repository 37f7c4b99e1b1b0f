"""The SQLite store as the chunk store's ledger."""

from __future__ import annotations

import contextlib
import errno
import itertools
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant
from support.answers import answer
from support.ledger_contract import (
    INODE,
    INODES,
    OTHER,
    LedgerContract,
    LedgerMachine,
    a_pack,
    dead,
    key,
    mark,
    pack_id,
    places,
)
from support.new_inodes import a_directory, a_file

from disfs.errors import FilesystemError
from disfs.metadata.store import SqliteMetadataStore
from disfs.values import ROOT_INODE, ChannelId, ChunkIndex, MessageId, PackId

if TYPE_CHECKING:
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.values import ChunkKey, Recorded


def live_bytes_of(store: SqliteMetadataStore) -> dict[PackId, int]:
    """What the packs table says."""
    return {PackId(row[0]): row[1] for row in store._database.rows("SELECT pack_id, live_bytes FROM packs")}


def make_inodes(store: SqliteMetadataStore) -> None:
    """Files up to the highest number of the contract's inodes."""
    number = itertools.count()
    while answer(store.make_inode(ROOT_INODE, b"%d" % next(number), a_file(), 1)).inode < max(INODES):
        pass


class TestSqliteLedger(LedgerContract):
    """The contract, on SQLite."""

    @pytest.fixture
    def ledger(self, sqlite_store: SqliteMetadataStore) -> ChunkLedger:
        """A new volume, with the inodes that the contract speaks of."""
        make_inodes(sqlite_store)
        return sqlite_store


class SqliteLedgerMachine(LedgerMachine):
    """The state machine, on SQLite, with its live bytes."""

    def make_ledger(self) -> SqliteMetadataStore:
        """A new volume in a directory of its own."""
        self.directory = tempfile.TemporaryDirectory()
        self.store = SqliteMetadataStore.open(Path(self.directory.name) / "volume.db", create=True)
        make_inodes(self.store)
        return self.store

    @invariant()
    def chunk_counts_add_up(self) -> None:
        """The chunks of a file that are no holes are those that are dirty or lie in a pack."""
        for inode in INODES:
            expected = {name for name in {*self.dirty, *self.where} if name.inode == inode}
            assert len(expected) == answer(self.store.attributes(inode)).chunk_count

    @invariant()
    def live_bytes_add_up(self) -> None:
        """The live bytes of a pack are the stored bytes of the slots that extents refer to."""
        expected = {pack_id(number): live for number, live in self.live_bytes().items()}
        assert expected == live_bytes_of(self.store)
        stored = Counter[int]()
        for message, pack in self.packs.values():
            stored[message] += pack.record.slots.offset(len(pack.record.slots))
        assert stored == dict(self.store._database.rows("SELECT message, stored_bytes FROM messages"))
        (total,) = self.store._database.rows("SELECT coalesce(sum(live_bytes), 0) FROM messages")
        assert (sum(expected.values()),) == total

    def teardown(self) -> None:
        """Nothing is left behind."""
        try:
            super().teardown()
        finally:
            self.store.close()
            self.directory.cleanup()


TestSqliteLedgerMachine = SqliteLedgerMachine.TestCase
TestSqliteLedgerMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


async def test_cut_of_a_huge_file_costs_nothing(sqlite_store: SqliteMetadataStore) -> None:
    """A file of a petabyte with two chunks is cut like one of two chunks."""
    last = 2**50 // (128 * 1024) - 1
    one, two = mark(sqlite_store, 0), mark(sqlite_store, last)
    await sqlite_store.record_packs([a_pack(1, [(key(0), one), (key(last), two)])])
    before = sqlite_store._database._connection.total_changes
    sqlite_store.cut_chunks(INODE, ChunkIndex(0))
    assert sqlite_store._database._connection.total_changes - before < 20
    assert {} == places(sqlite_store, 0, last)


async def test_cut_takes_the_same_statements_for_any_number_of_runs(sqlite_store: SqliteMetadataStore) -> None:
    """Cutting is done by set: the statements do not grow with the runs."""

    def statements(count: int) -> int:
        for chunk in range(count):
            revision = mark(sqlite_store, 2 * chunk)
            answer(sqlite_store.record_packs([a_pack(chunk + 1000 * count, [(key(2 * chunk), revision)])]))
        seen: list[str] = []
        sqlite_store._database._connection.set_trace_callback(seen.append)
        sqlite_store.cut_chunks(INODE, ChunkIndex(0))
        sqlite_store._database._connection.set_trace_callback(None)
        return len(seen)

    assert statements(2) == statements(50)
    assert {0} == set(live_bytes_of(sqlite_store).values())


async def test_paths(sqlite_store: SqliteMetadataStore) -> None:
    """An inode is found under all of its names, an orphan under none, the root under `/`."""
    directory = (await sqlite_store.make_inode(ROOT_INODE, b"d", a_directory(), 1)).inode
    deep = (await sqlite_store.make_inode(directory, b"e", a_directory(), 1)).inode
    file = (await sqlite_store.make_inode(deep, b"f\xff", a_file(), 1)).inode
    await sqlite_store.link(file, ROOT_INODE, b"g", 1)
    assert [b"/d/e/f\xff", b"/g"] == list(await sqlite_store.paths(file))
    assert ([b"/"], [b"/d/e"]) == (list(await sqlite_store.paths(ROOT_INODE)), list(await sqlite_store.paths(deep)))
    await sqlite_store.unlink(ROOT_INODE, b"g", 1)
    await sqlite_store.unlink(deep, b"f\xff", 1)
    assert [] == list(await sqlite_store.paths(file))


async def test_pin_goes_with_its_inode(sqlite_store: SqliteMetadataStore) -> None:
    """A pin outlives the name of its file, and goes when the inode goes; an inode that is gone cannot be pinned."""
    file = (await sqlite_store.make_inode(ROOT_INODE, b"f", a_file(), 1)).inode
    sqlite_store.set_pinned([file], True)
    await sqlite_store.unlink(ROOT_INODE, b"f", 1)
    assert {file} == sqlite_store.pinned_inodes()
    await sqlite_store.remove_orphan(file)
    assert frozenset() == sqlite_store.pinned_inodes()
    sqlite_store.set_pinned([file], True)
    assert frozenset() == sqlite_store.pinned_inodes()


async def test_message_that_is_being_recorded_is_not_dead(sqlite_store: SqliteMetadataStore) -> None:
    """Between the steps of a record whose first chunks were all cut, sweep does not see the message."""
    make_inodes(sqlite_store)
    revision = mark(sqlite_store, 0, 200)
    sqlite_store.cut_chunks(INODE, ChunkIndex(0))
    alive = mark(sqlite_store, 0, 1, OTHER)
    pack = a_pack(1, [*((key(n), revision) for n in range(200)), (key(0, OTHER), alive)])
    seen = []

    def look(recorded: Recorded) -> None:
        seen.append((dead(sqlite_store), answer(sqlite_store.sparse_messages(9))))

    await sqlite_store.record_in_steps([pack], look)
    assert [([], [])] * 4 == seen
    assert ([], 1) == (dead(sqlite_store), len(await sqlite_store.sparse_messages(9)))


async def test_recording_in_steps_goes_on_after_a_failure(
    sqlite_store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a step fails, a repeat records what is left, and tells nothing twice."""
    make_inodes(sqlite_store)
    revision = mark(sqlite_store, 0, 200)
    pack = a_pack(1, [(key(n), revision) for n in range(200)])
    told: list[ChunkKey] = []
    begin_change = sqlite_store._database.begin_change

    def fail_third(grows: bool) -> None:
        if len(told) == 128:
            assert [] == dead(sqlite_store)
            raise FilesystemError(errno.EIO)
        begin_change(grows)

    monkeypatch.setattr(sqlite_store._database, "begin_change", fail_third)
    with pytest.raises(FilesystemError):
        await sqlite_store.record_in_steps([pack], lambda step: told.extend(step.clean))
    assert (128, [*range(128, 200)]) == (len(told), [chunk.key.chunk for chunk in sqlite_store.dirty_chunks()])
    monkeypatch.undo()
    await sqlite_store.record_in_steps([pack], lambda step: told.extend(step.clean))
    assert ([key(n) for n in range(200)], []) == (told, list(sqlite_store.dirty_chunks()))


async def test_examined_and_pins_are_kept(tmp_path: Path) -> None:
    """Both survive a restart."""
    path = tmp_path / "volume.db"
    with contextlib.closing(SqliteMetadataStore.open(path, create=True)) as store:
        store.set_pinned([ROOT_INODE], True)
        store.set_examined(ChannelId(4), MessageId(1 << 62))
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        assert frozenset({ROOT_INODE}) == store.pinned_inodes()
        assert 1 << 62 == store.examined(ChannelId(4))


async def test_regression_kill_during_a_send_keeps_the_note_of_it(tmp_path: Path) -> None:
    """Discord may have the message before the next group commit: unknown, it would never be swept or found again."""
    path = tmp_path / "volume.db"
    with contextlib.closing(SqliteMetadataStore.open(path, create=True)) as store:
        store.note_sending([pack_id(1)])
        store._database._undo()  # as kill -9: what is not committed is gone
        assert store.has_sent(pack_id(1))
