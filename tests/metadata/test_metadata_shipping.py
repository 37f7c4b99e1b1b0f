"""What is noted in the outbox is enough: a copy, and what was noted since, give the volume again."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from support.answers import answer
from support.names_machine import NAMES, PLACES, NamesMachine

from disfs.metadata.base import XattrMode
from disfs.metadata.restoring import Origin, Restoration
from disfs.metadata.store import SqliteMetadataStore
from disfs.values import (
    ROOT_INODE,
    AttachmentId,
    ChannelId,
    ChunkIndex,
    ChunkKey,
    InodeNumber,
    Location,
    MessageId,
    PackId,
    PackRecord,
    Revision,
    SentChunk,
    SentPack,
    SlotTable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from disfs.metadata.replicated import Block
    from disfs.metadata.restoring import Rebuilt

REPLICATED = {
    "inodes": "*",
    "dentries": "*",
    "xattrs": "*",
    "packs": "*",
    "messages": "message, channel, live_bytes, stored_bytes, dead_since IS NULL",
    "extents": "*",
    "orphans": "*",
}


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row that a rebuilt volume must have again."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {
            table: sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
            for table, columns in REPLICATED.items()
        }


def origin(store: SqliteMetadataStore) -> Origin:
    """Where a restoration comes from, as little as a test needs."""
    begun = store.shipping.begin()
    store.shipping.snapshot.end()
    return Origin(bytes(16), store.chunk_bytes, bytes(16), 1, (), begun.counters, (), 0, {})


def restored(path: Path, history: list[Block], origin: Origin) -> Rebuilt:
    """Build a database from blocks."""
    restoration = Restoration(path)
    try:
        for block in history:
            restoration.apply(block)
        return restoration.finish(origin)
    finally:
        restoration.close()


def a_sent_pack(number: int, keys: Sequence[tuple[int, int, int]]) -> SentPack:
    """A pack whose sizes are those of the format; `keys` are (inode, chunk, revision)."""
    stored = [100 + number % 7 + slot for slot in range(len(keys))]
    size_bytes = sum(stored) + 36 * len(keys) + 56
    return SentPack(
        PackRecord(
            PackId(number.to_bytes(16, "big")),
            Location(ChannelId(5), MessageId(1000 + number // 2), AttachmentId(number)),
            size_bytes,
            SlotTable(stored, [False] * len(keys)),
        ),
        tuple(SentChunk(ChunkKey(InodeNumber(i), ChunkIndex(c)), Revision(r)) for i, c, r in keys),
    )


class ShippingMachine(NamesMachine):
    """Random operations, of which a second database is told by the outbox alone."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Block] = []
        self.numbers = itertools.count(1)
        self.shipped = 0
        self.ship_copy()

    def ship_copy(self) -> None:
        """A checkpoint copy: what was told before is forgotten."""
        begun = self.real.shipping.begin()
        self.history = list(self.real.shipping.snapshot.everything())
        self.real.shipping.snapshot.end()
        self.acknowledge(begun)

    def acknowledge(self, begun: object) -> None:
        """Discord has it."""
        self.shipped += 1
        state = self.shipped.to_bytes(16, "big")
        self.real.shipping.acknowledged(begun, state, (), 100, as_copy=self.shipped % 2 == 0)  # type: ignore[arg-type] # of `begin`
        answer(self.real.commit())

    @rule(acknowledged=st.booleans())
    def ship(self, acknowledged: bool) -> None:
        """A journal; one that is not acknowledged is shipped again, within the next one."""
        begun = self.real.shipping.begin()
        self.history += self.real.shipping.snapshot.changes(begun.last)
        self.real.shipping.snapshot.end()
        if acknowledged:
            self.acknowledge(begun)

    @rule()
    def begin_anew(self) -> None:
        """A copy in the middle."""
        self.ship_copy()

    @rule(chosen=st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True))
    def record(self, chosen: list[int]) -> None:
        """Some dirty chunks have come to Discord."""
        dirty = self.real.dirty_chunks()
        keys = [(*dirty[n].key, dirty[n].revision) for n in chosen if n < len(dirty)]
        if keys:
            answer(self.real.record_packs([a_sent_pack(next(self.numbers), keys)]))

    @rule(chunk=st.integers(0, 2), place=PLACES)
    def mark_again(self, place: int, chunk: int) -> None:
        """A chunk is written, without a word about the file's times."""
        model, real = self.place(place)
        if answer(self.model.attributes(model)).mode & 0o100000:
            for store, inode in ((self.model, model), (self.real, real)):
                store.mark_dirty(inode, ChunkIndex(chunk), 1)

    @rule()
    def sweep(self) -> None:
        """What is dead is deleted."""
        answer(self.real.forget_messages(answer(self.real.dead_messages(10))))

    @rule(place=PLACES, name=NAMES, value=st.sampled_from([b"", b"1"]))
    def set_xattr(self, place: int, name: bytes, value: bytes) -> None:
        """An attribute of a user's."""
        model, real = self.place(place)
        answer(self.model.set_xattr(model, b"user." + name, value, XattrMode.EITHER, 5))
        answer(self.real.set_xattr(real, b"user." + name, value, XattrMode.EITHER, 5))

    @rule(place=PLACES, name=NAMES)
    def remove_xattr(self, place: int, name: bytes) -> None:
        """It goes again."""
        model, real = self.place(place)
        if b"user." + name in answer(self.model.list_xattrs(model)):
            answer(self.model.remove_xattr(model, b"user." + name, 6))
            answer(self.real.remove_xattr(real, b"user." + name, 6))

    @rule()
    def rebuild(self) -> None:
        """What was told is what there is, to the last row; what Discord lacks is lost, and nothing else."""
        self.ship(acknowledged=True)
        path = self.path.with_name("rebuilt.db")
        path.unlink(missing_ok=True)
        rebuilt = restored(path, self.history, origin(self.real))
        assert () == rebuilt.problems
        answer(self.real.commit())
        assert rows(self.path) == rows(path)
        with contextlib.closing(SqliteMetadataStore.open(path)) as store:
            assert answer(self.real.usage()) == answer(store.usage())
            recorded = {
                (inode, chunk)
                for inode, first, count in self.real._database.rows("SELECT inode, first_chunk, count FROM extents")
                for chunk in range(first, first + count)
            }
            unsent = {tuple(row.key) for row in self.real.dirty_chunks()}
            assert unsent - recorded == {tuple(row.key) for row in store.dirty_chunks()}
            newest = max((row.revision for row in self.real.dirty_chunks()), default=0)
            assert newest < store.mark_dirty(ROOT_INODE, ChunkIndex(0), 1)

    @invariant()
    def trees_are_equal(self) -> None:
        """Left to the machine that this one comes from: looking writes rows, and here they are to be held back."""

    def teardown(self) -> None:
        """A last look."""
        self.rebuild()
        super().teardown()


TestShippingMachine = ShippingMachine.TestCase
TestShippingMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
