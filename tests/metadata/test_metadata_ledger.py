"""The SQLite store as the chunk store's ledger."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant
from support.answers import answer
from support.ledger_contract import INODE, INODES, LedgerContract, LedgerMachine, a_pack, key, mark, pack_id, places
from support.new_inodes import a_directory, a_file

from disfs.metadata.store import SqliteMetadataStore
from disfs.values import ROOT_INODE, ChunkIndex, PackId

if TYPE_CHECKING:
    from disfs.chunkstore.ledger import ChunkLedger


def live_bytes_of(store: SqliteMetadataStore) -> dict[PackId, int]:
    """What the packs table says."""
    return {PackId(row[0]): row[1] for row in store._database.rows("SELECT pack_id, live_bytes FROM packs")}


class TestSqliteLedger(LedgerContract):
    """The contract, on SQLite."""

    @pytest.fixture
    def ledger(self, sqlite_store: SqliteMetadataStore) -> ChunkLedger:
        """A new volume."""
        return sqlite_store


class SqliteLedgerMachine(LedgerMachine):
    """The state machine, on SQLite, with its live bytes."""

    names = itertools.count()

    def make_ledger(self) -> SqliteMetadataStore:
        """A new volume in a directory of its own."""
        self.directory = tempfile.TemporaryDirectory()
        self.store = SqliteMetadataStore.open(Path(self.directory.name) / "volume.db", create=True)
        while answer(self.store.make_inode(ROOT_INODE, b"%d" % next(self.names), a_file(), 1)).inode < max(INODES):
            pass
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
        (total,) = self.store._database.rows("SELECT coalesce(sum(live_bytes), 0) FROM messages")
        assert (sum(expected.values()),) == total

    def teardown(self) -> None:
        """Nothing is left behind."""
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
