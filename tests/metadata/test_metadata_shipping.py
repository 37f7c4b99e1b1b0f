"""What is noted in the outbox is enough: a copy, and what was noted since, give the volume again."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.acls import an_acl
from support.answers import answer
from support.names_machine import NAMES, PLACES, NamesMachine
from support.new_inodes import a_file
from support.shipped_rows import shipped_rows

from disfs.errors import MetadataDamagedError
from disfs.metadata import outbox
from disfs.metadata.base import RenameMode, XattrMode
from disfs.metadata.completing import Origin
from disfs.metadata.restoring import Restoration
from disfs.metadata.store import SqliteMetadataStore
from disfs.posix_acl import AclKind
from disfs.values import (
    ROOT_INODE,
    AttachmentId,
    AttributeChanges,
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
    from collections.abc import Callable, Sequence

    from disfs.metadata.completing import Rebuilt
    from disfs.metadata.replicated import Block
    from disfs.metadata.shipping import Begun

GOLDEN = Path(__file__).parent.parent / "golden"


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


class Told:
    """A volume, and all that was told of it by the outbox alone."""

    def __init__(self, store: SqliteMetadataStore) -> None:
        self.history: list[Block] = []
        self._shipped = 0
        self.copy(store)

    def copy(self, store: SqliteMetadataStore) -> None:
        """A checkpoint copy: what was told before is forgotten."""
        begun = store.shipping.begin()
        self.history = list(store.shipping.snapshot.everything())
        store.shipping.snapshot.end()
        self._acknowledge(store, begun)

    def ship(self, store: SqliteMetadataStore, *, acknowledged: bool = True) -> None:
        """A journal; one that is not acknowledged is shipped again, within the next one."""
        begun = store.shipping.begin()
        self.history += store.shipping.snapshot.changes(begun.last)
        store.shipping.snapshot.end()
        if acknowledged:
            self._acknowledge(store, begun)

    def _acknowledge(self, store: SqliteMetadataStore, begun: Begun) -> None:
        self._shipped += 1
        state = self._shipped.to_bytes(16, "big")
        store.shipping.acknowledged(begun, state, (), 100, as_copy=self._shipped % 2 == 0)
        answer(store.commit())

    def check(self, store: SqliteMetadataStore, path: Path) -> None:
        """What was told is what there is, to the last row; what Discord lacks is lost, and nothing else."""
        self.ship(store)
        rebuilt_path = path.with_name("rebuilt.db")
        rebuilt_path.unlink(missing_ok=True)
        rebuilt = restored(rebuilt_path, self.history, origin(store))
        assert () == rebuilt.problems
        answer(store.commit())
        assert shipped_rows(path) == shipped_rows(rebuilt_path)
        with contextlib.closing(SqliteMetadataStore.open(rebuilt_path)) as again:
            assert answer(store.usage()) == answer(again.usage())
            recorded = {
                (inode, chunk)
                for inode, first, count in store._database.rows("SELECT inode, first_chunk, count FROM extents")
                for chunk in range(first, first + count)
            }
            unsent = {tuple(row.key) for row in store.dirty_chunks()}
            assert unsent - recorded == {tuple(row.key) for row in again.dirty_chunks()}
            newest = max((row.revision for row in store.dirty_chunks()), default=0)
            assert newest < again.mark_dirty(ROOT_INODE, ChunkIndex(0), 1)


class ShippedNamesMachine(NamesMachine):
    """Random operations on names and attributes, of which a second database is told by the outbox alone."""

    def __init__(self) -> None:
        super().__init__()
        self.told = Told(self.real)

    @rule(acknowledged=st.booleans())
    def ship(self, acknowledged: bool) -> None:
        """A journal."""
        self.told.ship(self.real, acknowledged=acknowledged)

    @rule()
    def begin_anew(self) -> None:
        """A copy in the middle."""
        self.told.copy(self.real)

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
        """What was told is what there is."""
        self.told.check(self.real, self.path)

    @invariant()
    def trees_are_equal(self) -> None:
        """Left to the machine that this one comes from: looking writes rows, and here they are to be held back."""

    def teardown(self) -> None:
        """A last look."""
        self.rebuild()
        super().teardown()


class ShippedContentsMachine(RuleBasedStateMachine):
    """The same for where the contents of three files lie; with as few rules as there are kinds of changes."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "volume.db"
        self.store = SqliteMetadataStore.open(self.path, create=True, now_ns=0)
        self.files = [answer(self.store.make_inode(ROOT_INODE, b"%d" % n, a_file(), 1)).inode for n in range(3)]
        self.numbers = itertools.count(1)
        self.told = Told(self.store)

    @rule(file=st.integers(0, 2), first=st.integers(0, 4), count=st.integers(1, 4))
    def mark(self, file: int, first: int, count: int) -> None:
        """Chunks are written, without a word about the file's times."""
        self.store.mark_dirty(self.files[file], ChunkIndex(first), count)

    @rule(spared=st.sets(st.integers(0, 7), max_size=3))
    def record(self, spared: set[int]) -> None:
        """Most dirty chunks have come to Discord."""
        dirty = [row for number, row in enumerate(self.store.dirty_chunks()) if number not in spared]
        if dirty:
            keys = [(*row.key, row.revision) for row in dirty]
            answer(self.store.record_packs([a_sent_pack(next(self.numbers), keys)]))

    @rule(file=st.integers(0, 2), first=st.integers(0, 5))
    def cut(self, file: int, first: int) -> None:
        """A file loses its end, without a word about its size."""
        self.store.cut_chunks(self.files[file], ChunkIndex(first))

    @rule()
    def sweep(self) -> None:
        """What is dead is deleted."""
        answer(self.store.forget_messages(answer(self.store.dead_messages(10))))

    @rule(acknowledged=st.booleans())
    def ship(self, acknowledged: bool) -> None:
        """A journal."""
        self.told.ship(self.store, acknowledged=acknowledged)

    @rule()
    def rebuild(self) -> None:
        """What was told is what there is."""
        self.told.check(self.store, self.path)

    def teardown(self) -> None:
        """A last look."""
        self.rebuild()
        self.store.close()
        self.directory.cleanup()


TestShippedNamesMachine = ShippedNamesMachine.TestCase
TestShippedNamesMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestShippedContentsMachine = ShippedContentsMachine.TestCase
TestShippedContentsMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def remove(store: SqliteMetadataStore, file: InodeNumber) -> None:
    """For good: name, then inode."""
    answer(store.unlink(ROOT_INODE, b"file", 5))
    answer(store.commit())


CHANGES: dict[str, tuple[Callable[[SqliteMetadataStore, InodeNumber], object], ...]] = {
    "an orphan goes": (remove, lambda store, file: answer(store.remove_orphan(file))),
    "an ACL goes": (
        lambda store, file: answer(store.set_acl(file, AclKind.ACCESS, an_acl(6, 4, 0, mask=7, users={5: 2}), 5)),
        lambda store, file: answer(store.set_acl(file, AclKind.ACCESS, (), 6)),
    ),
    "an ACL follows the mode": (
        lambda store, file: answer(store.set_acl(file, AclKind.ACCESS, an_acl(6, 4, 0, mask=7, users={5: 2}), 5)),
        lambda store, file: answer(store.change_attributes(file, AttributeChanges(mode=0o600), 6)),
    ),
    "an attribute goes": (
        lambda store, file: answer(store.set_xattr(file, b"user.a", b"1", XattrMode.EITHER, 5)),
        lambda store, file: answer(store.remove_xattr(file, b"user.a", 6)),
    ),
    "a name moves": (
        lambda store, file: None,
        lambda store, file: answer(store.rename(ROOT_INODE, b"file", ROOT_INODE, b"other", RenameMode.REPLACE, 5)),
    ),
    "another name": (lambda store, file: None, lambda store, file: answer(store.link(file, ROOT_INODE, b"more", 5))),
    "it was read": (lambda store, file: None, lambda store, file: answer(store.note_read(file, 50))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_after_a_journal_goes_with_the_next_one(change: str, tmp_path: Path) -> None:
    """Whatever a change touches is noted by that change, not only by what came before it."""
    before, after = CHANGES[change]
    path = tmp_path / "volume.db"
    with contextlib.closing(SqliteMetadataStore.open(path, create=True, now_ns=0)) as store:
        file = answer(store.make_inode(ROOT_INODE, b"file", a_file(), 1)).inode
        told = Told(store)
        before(store, file)
        told.ship(store)
        after(store, file)
        told.check(store, path)


def pending(store: SqliteMetadataStore) -> tuple[bool, bool]:
    """Whether something is to be shipped, and whether the oldest such change has an age."""
    return store.shipping.has_unshipped, store.shipping.oldest_ns is not None


def test_nothing_is_pending_once_all_is_acknowledged(tmp_path: Path) -> None:
    """What came after a state was fixed is pending still when that state is acknowledged, with an age of its own."""
    with contextlib.closing(SqliteMetadataStore.open(tmp_path / "volume.db", create=True, now_ns=0)) as store:
        assert (False, False) == pending(store)
        answer(store.make_inode(ROOT_INODE, b"one", a_file(), 1))
        mark = store.shipping.mark()
        first = store.shipping.oldest_ns or 0
        begun = store.shipping.begin()
        store.shipping.snapshot.end()
        answer(store.make_inode(ROOT_INODE, b"two", a_file(), 1))
        later = store.shipping.mark()
        assert (True, False) == (store.shipping.pending.is_set(), store.shipping.is_shipped(mark))
        store.shipping.acknowledged(begun, bytes(16), (), 1, as_copy=True)
        assert (True, False) == (store.shipping.is_shipped(mark), store.shipping.is_shipped(later))
        assert (True, True) == pending(store)
        assert first < (store.shipping.oldest_ns or 0)
        begun = store.shipping.begin()
        store.shipping.snapshot.end()
        store.shipping.acknowledged(begun, bytes(range(16)), (), 1, as_copy=False)
        assert (False, False) == pending(store)


def test_damaged_note_of_changes_is_noticed(tmp_path: Path) -> None:
    """A row of the outbox that is not what was written is an error: everything can still be read."""
    with contextlib.closing(SqliteMetadataStore.open(tmp_path / "volume.db", create=True, now_ns=0)) as store:
        answer(store.make_inode(ROOT_INODE, b"one", a_file(), 1))
        answer(store.commit())
        with store._database.changing:
            store._database.write("UPDATE outbox SET keys = CAST(substr(keys, 1, length(keys) - 1) || x'00' AS BLOB)")
        begun = store.shipping.begin()
        with pytest.raises(MetadataDamagedError):
            list(store.shipping.snapshot.changes(begun.last))
        assert list(store.shipping.snapshot.everything())
        store.shipping.snapshot.end()


def test_much_that_was_noted_is_forgotten_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is acknowledged after a long time without a network goes a part at a time, oldest first."""
    monkeypatch.setattr(outbox, "_FORGOTTEN_AT_ONCE", 10)
    with contextlib.closing(SqliteMetadataStore.open(tmp_path / "volume.db", create=True, now_ns=0)) as store:
        for number in range(25):
            answer(store.note_write(ROOT_INODE, 0, number))
            answer(store.commit())
        begun = store.shipping.begin()
        store.shipping.snapshot.end()
        store.shipping.acknowledged(begun, bytes(range(16)), (), 1, as_copy=False)
        steps = [store.shipping.forget_more(begun) for _ in range(3)]
        assert [True, False, False] == steps
        assert (False, False) == pending(store)


def test_volume_of_an_earlier_version_ships_a_copy_first(tmp_path: Path) -> None:
    """Nothing of it is in Discord, and nothing has noted its rows: everything goes, without a change being needed."""
    path = tmp_path / "metadata.db"
    path.write_bytes(gzip.decompress((GOLDEN / "metadata-v4.db.gz").read_bytes()))
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        assert (True, True) == (store.shipping.has_unshipped, store.shipping.position().needs_copy)
        begun = store.shipping.begin()
        told = list(store.shipping.snapshot.everything())
        store.shipping.snapshot.end()
        store.shipping.acknowledged(begun, bytes(range(16)), (), 1, as_copy=True)
        store.shipping.copied(1, (), 1, 0)
        assert (False, False) == (store.shipping.has_unshipped, store.shipping.position().needs_copy)
        answer(store.commit())
        restored(tmp_path / "rebuilt.db", told, origin(store))
        answer(store.commit())
        assert shipped_rows(path) == shipped_rows(tmp_path / "rebuilt.db")


def test_too_much_that_is_noted_becomes_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long Discord is away: the outbox stays small, and whatever is not noted any more goes with a copy.

    Also what is dropped after the copy was begun: then another copy follows.
    """
    monkeypatch.setattr(outbox, "MAX_ROWS", 100)
    path = tmp_path / "volume.db"
    with contextlib.closing(SqliteMetadataStore.open(path, create=True, now_ns=0)) as store:
        told = Told(store)
        told.ship(store)
        begun = None
        for number in range(300):
            answer(store.make_inode(ROOT_INODE, b"%d" % number, a_file(), 1))
            answer(store.commit())
            if number == 150:
                begun = store.shipping.begin()
                store.shipping.snapshot.end()
        (count,) = store._database.row("SELECT count(*) FROM outbox") or (0,)
        assert 36 <= count <= 101
        assert store.shipping.position().needs_copy
        assert begun is not None
        store.shipping.acknowledged(begun, bytes(range(16)), (), 1, as_copy=True)
        while store.shipping.forget_more(begun):
            pass
        assert store.shipping.position().needs_copy
        assert not store.shipping.is_shipped(begun.last)
        told.copy(store)
        store.shipping.acknowledged(store.shipping.begin(), bytes(reversed(range(16))), (), 1, as_copy=True)
        store.shipping.snapshot.end()
        store.shipping.copied(9, (), 1, 0)
        assert not store.shipping.position().needs_copy
        told.check(store, path)


def test_regression_forgetting_takes_as_long_however_much_is_noted(tmp_path: Path) -> None:
    """Steps of SQLite's machine for one step of `forget`: the main thread stands still meanwhile."""

    def steps(rows: int) -> int:
        store = SqliteMetadataStore.open(tmp_path / f"{rows}.db", create=True, chunk_bytes=4096)
        with contextlib.closing(store):
            database, outbox = store._database, store.shipping._outbox
            with database.changing:
                database.write_all(
                    "INSERT INTO outbox (number, noted_ns, keys) VALUES (?, ?, x'')",
                    [(number, number) for number in range(1, rows + 1)],
                )
            taken = 0

            def count() -> int:
                nonlocal taken
                taken += 1
                return 0

            database._connection.set_progress_handler(count, 1)
            with database.changing:
                outbox.forget(rows)
            database._connection.set_progress_handler(None, 0)
            return taken

    assert steps(2_000) < 2 * steps(200)


async def test_regression_copy_that_is_found_late_is_not_enough_when_rows_were_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first copy's answer is lost, too much changes, a restart finds the copy: another one goes all the same."""
    monkeypatch.setattr(outbox, "MAX_ROWS", 20)
    path = tmp_path / "volume.db"
    with contextlib.closing(SqliteMetadataStore.open(path, create=True, chunk_bytes=4096)) as store:
        await store.note_write(ROOT_INODE, 0, 1)
        store.shipping.begin()
        store.shipping.snapshot.end()
        store.shipping.attempt(b"x" * 16)
        for moment in range(200):
            await store.note_write(ROOT_INODE, 0, moment)
            await store.commit()
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        store.shipping.adopt(b"x" * 16, [], as_copy=True)
        assert store.shipping.position().needs_copy
