"""What every ChunkLedger must do: a class of tests, and a state machine against a dict.

A test module runs both on a ledger of its own:

    class TestMyLedger(LedgerContract):
        @pytest.fixture
        def ledger(self) -> ChunkLedger: ...

    class MyMachine(LedgerMachine):
        def make_ledger(self) -> ChunkLedger: ...
    TestMyMachine = MyMachine.TestCase
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from disfs.values import (
    AttachmentId,
    ChannelId,
    ChunkIndex,
    ChunkKey,
    DirtyChunk,
    Extent,
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
from support.answers import answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from disfs.chunkstore.ledger import ChunkLedger

INODE = InodeNumber(5)
OTHER = InodeNumber(6)
CHANNEL = ChannelId(100)


def key(chunk: int, inode: InodeNumber = INODE) -> ChunkKey:
    """Names a chunk."""
    return ChunkKey(inode, ChunkIndex(chunk))


def a_pack(number: int, chunks: Iterable[tuple[ChunkKey, int]], message: int | None = None) -> SentPack:
    """A pack that holds `chunks`, each with its revision; stored lengths differ from slot to slot."""
    sent = tuple(SentChunk(name, Revision(revision)) for name, revision in chunks)
    slots = SlotTable([20 + slot for slot in range(len(sent))], [slot % 2 == 0 for slot in range(len(sent))])
    message = 1000 + number if message is None else message
    location = Location(CHANNEL, MessageId(message), AttachmentId(5000 + number))
    return SentPack(PackRecord(pack_id(number), location, 10_000, slots), sent)


def pack_id(number: int) -> PackId:
    """The id of pack `number`."""
    return PackId(number.to_bytes(16, "big"))


def mark(ledger: ChunkLedger, first: int, count: int = 1, inode: InodeNumber = INODE) -> Revision:
    """A write to `count` chunks."""
    return ledger.mark_dirty(inode, ChunkIndex(first), count)


def places(ledger: ChunkLedger, first: int, last: int, inode: InodeNumber = INODE) -> dict[int, tuple[PackId, int]]:
    """Pack and slot of each chunk that has one."""
    found = {}
    for extent in answer(ledger.extents(inode, ChunkIndex(first), ChunkIndex(last))):
        assert inode == extent.inode
        for chunk in range(extent.first_chunk, extent.first_chunk + extent.count):
            assert first <= chunk <= last
            assert chunk not in found
            found[chunk] = (extent.pack, extent.slot_of(ChunkIndex(chunk)))
    return found


def dead(ledger: ChunkLedger, limit: int = 100) -> list[int]:
    """Ids of the dead messages, in order."""
    return [message.location.message for message in answer(ledger.dead_messages(limit))]


class LedgerContract:
    """Single behaviours. A subclass gives the fixture `ledger`: a new one for each test."""

    async def test_revisions_rise(self, ledger: ChunkLedger) -> None:
        """Each write has a higher revision than every one before, of whichever inode."""
        revisions = [mark(ledger, 0), mark(ledger, 7, 3), mark(ledger, 0, inode=OTHER), mark(ledger, 0)]
        assert sorted(set(revisions)) == revisions

    async def test_dirty_chunks_in_order(self, ledger: ChunkLedger) -> None:
        """Dirty chunks come by inode and index; `born` stays at the first write."""
        first = mark(ledger, 1, inode=OTHER)
        second = mark(ledger, 3, 2)
        third = mark(ledger, 4)
        assert [
            DirtyChunk(key(3), second, second),
            DirtyChunk(key(4), third, second),
            DirtyChunk(key(1, OTHER), first, first),
        ] == list(ledger.dirty_chunks())

    @pytest.mark.parametrize("count", [1, 8, 16, 17, 33])
    async def test_many_chunks_at_once(self, ledger: ChunkLedger, count: int) -> None:
        """One write marks every chunk that it touches, with one revision."""
        revision = mark(ledger, 100, count)
        assert [DirtyChunk(key(100 + n), revision, revision) for n in range(count)] == list(ledger.dirty_chunks())

    async def test_recorded_chunk_is_clean(self, ledger: ChunkLedger) -> None:
        """A chunk that was not written meanwhile is clean, and found in its pack."""
        revision = mark(ledger, 0, 3)
        pack = a_pack(1, [(key(n), revision) for n in range(3)])
        recorded = await ledger.record_packs([pack])
        assert ((key(0), key(1), key(2)), (), ()) == (recorded.clean, recorded.still_dirty, recorded.dropped)
        assert [] == list(ledger.dirty_chunks())
        assert [Extent(INODE, ChunkIndex(0), 3, pack_id(1), 0)] == list(
            await ledger.extents(INODE, ChunkIndex(0), ChunkIndex(9))
        )
        assert pack.record == await ledger.pack(pack_id(1))

    async def test_unknown_pack(self, ledger: ChunkLedger) -> None:
        """A pack that was never recorded raises KeyError."""
        with pytest.raises(KeyError):
            await ledger.pack(pack_id(1))

    async def test_chunk_written_meanwhile(self, ledger: ChunkLedger) -> None:
        """A chunk that was written after it was sealed is recorded, and dirty still."""
        sent = mark(ledger, 0)
        newer = mark(ledger, 0)
        recorded = await ledger.record_packs([a_pack(1, [(key(0), sent)])])
        assert ((), (key(0),), ()) == (recorded.clean, recorded.still_dirty, recorded.dropped)
        assert [newer] == [chunk.revision for chunk in ledger.dirty_chunks()]
        assert {0: (pack_id(1), 0)} == places(ledger, 0, 0)

    async def test_chunk_cut_meanwhile(self, ledger: ChunkLedger) -> None:
        """A chunk that was truncated after it was sealed is not recorded, and its message is dead."""
        sent = mark(ledger, 0, 2)
        ledger.cut_chunks(INODE, ChunkIndex(1))
        recorded = await ledger.record_packs([a_pack(1, [(key(1), sent)])])
        assert ((), (), (key(1),)) == (recorded.clean, recorded.still_dirty, recorded.dropped)
        assert ({}, [1001]) == (places(ledger, 0, 9), dead(ledger))

    async def test_chunk_of_an_older_life(self, ledger: ChunkLedger) -> None:
        """A chunk that was truncated and written anew does not get its old content back."""
        sent = mark(ledger, 0)
        ledger.cut_chunks(INODE, ChunkIndex(0))
        newer = mark(ledger, 0)
        recorded = await ledger.record_packs([a_pack(1, [(key(0), sent)])])
        assert (key(0),) == recorded.dropped
        assert [DirtyChunk(key(0), newer, newer)] == list(ledger.dirty_chunks())

    async def test_older_pack_comes_late(self, ledger: ChunkLedger) -> None:
        """A pack that was sealed earlier but comes in later does not replace the newer one."""
        older, newer, _ = mark(ledger, 0), mark(ledger, 0), mark(ledger, 0)
        await ledger.record_packs([a_pack(2, [(key(0), newer)])])
        recorded = await ledger.record_packs([a_pack(1, [(key(0), older)])])
        assert (key(0),) == recorded.dropped
        assert {0: (pack_id(2), 0)} == places(ledger, 0, 0)

    async def test_pack_is_recorded_once(self, ledger: ChunkLedger) -> None:
        """Recording a pack again raises ValueError and changes nothing."""
        revision = mark(ledger, 0)
        await ledger.record_packs([a_pack(1, [(key(0), revision)])])
        again = mark(ledger, 0)
        with pytest.raises(ValueError, match="once"):
            await ledger.record_packs([a_pack(2, [(key(0), again)]), a_pack(1, [(key(0), revision)])])
        assert {0: (pack_id(1), 0)} == places(ledger, 0, 0)
        assert 1 == len(ledger.dirty_chunks())

    async def test_overwrite_in_the_middle(self, ledger: ChunkLedger) -> None:
        """Chunks overwritten inside a run split it; what is left on either side stays where it is."""
        revision = mark(ledger, 0, 6)
        await ledger.record_packs([a_pack(1, [(key(n), revision) for n in range(6)])])
        revision = mark(ledger, 2, 2)
        await ledger.record_packs([a_pack(2, [(key(2), revision), (key(3), revision)])])
        assert [
            Extent(INODE, ChunkIndex(1), 1, pack_id(1), 1),
            Extent(INODE, ChunkIndex(2), 2, pack_id(2), 0),
            Extent(INODE, ChunkIndex(4), 1, pack_id(1), 4),
        ] == list(await ledger.extents(INODE, ChunkIndex(1), ChunkIndex(4)))

    async def test_overwrite_of_everything(self, ledger: ChunkLedger) -> None:
        """A pack whose last live chunk was overwritten is dead; its message shows where it lies."""
        for number in (1, 2):
            revision = mark(ledger, 0, 2)
            await ledger.record_packs([a_pack(number, [(key(0), revision), (key(1), revision)])])
        (message,) = await ledger.dead_messages(10)
        assert (1001, CHANNEL, (pack_id(1),)) == (message.location.message, message.location.channel, message.packs)

    async def test_message_lives_with_any_of_its_packs(self, ledger: ChunkLedger) -> None:
        """A message is dead when all of its packs are."""
        one, two = mark(ledger, 0), mark(ledger, 1)
        await ledger.record_packs([a_pack(1, [(key(0), one)], 77), a_pack(2, [(key(1), two)], 77)])
        ledger.cut_chunks(INODE, ChunkIndex(1))
        assert [] == dead(ledger)
        ledger.cut_chunks(INODE, ChunkIndex(0))
        (message,) = await ledger.dead_messages(10)
        assert {pack_id(1), pack_id(2)} == set(message.packs)

    async def test_longest_dead_first(self, ledger: ChunkLedger) -> None:
        """Dead messages come in the order of their deaths, as many as asked for."""
        for number, inode in enumerate((5, 6, 7)):
            revision = mark(ledger, 0, inode=InodeNumber(inode))
            await ledger.record_packs([a_pack(number, [(key(0, InodeNumber(inode)), revision)])])
        for inode in (6, 7, 5):
            ledger.cut_chunks(InodeNumber(inode), ChunkIndex(0))
        assert [1001, 1002, 1000] == dead(ledger)
        assert [1001, 1002] == dead(ledger, 2)

    async def test_forgotten_message(self, ledger: ChunkLedger) -> None:
        """A message that was deleted is no longer dead, and its packs are unknown."""
        revision = mark(ledger, 0)
        await ledger.record_packs([a_pack(1, [(key(0), revision)])])
        ledger.cut_chunks(INODE, ChunkIndex(0))
        await ledger.forget_messages(await ledger.dead_messages(10))
        assert [] == dead(ledger)
        with pytest.raises(KeyError):
            await ledger.pack(pack_id(1))

    async def test_cut_inside_a_run(self, ledger: ChunkLedger) -> None:
        """Truncating keeps what lies before, forgets dirty and recorded chunks after, and leaves other inodes alone."""
        revision = mark(ledger, 0, 4)
        other = mark(ledger, 9, inode=OTHER)
        await ledger.record_packs([a_pack(1, [(key(n), revision) for n in range(4)])])
        mark(ledger, 1, 3)
        ledger.cut_chunks(INODE, ChunkIndex(2))
        assert {0: (pack_id(1), 0), 1: (pack_id(1), 1)} == places(ledger, 0, 2**50)
        assert [key(1), key(9, OTHER)] == [chunk.key for chunk in ledger.dirty_chunks()]
        assert other == ledger.dirty_chunks()[1].revision

    async def test_one_pack_of_many_inodes(self, ledger: ChunkLedger) -> None:
        """Slots of one pack may belong to any inodes, in any order."""
        chunks = [key(3), key(4), key(0, OTHER), key(5), key(1)]
        sent = [(name, mark(ledger, name.chunk, inode=name.inode)) for name in chunks]
        recorded = await ledger.record_packs([a_pack(1, sent)])
        assert tuple(chunks) == recorded.clean
        assert {3: 0, 4: 1, 5: 3, 1: 4} == {chunk: slot for chunk, (_, slot) in places(ledger, 0, 9).items()}
        assert {0: (pack_id(1), 2)} == places(ledger, 0, 9, OTHER)


CHUNKS = 8
INODES = [INODE, OTHER]


class LedgerMachine(RuleBasedStateMachine):
    """Random writes, truncations, and packs that come in late and in any order, against a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = self.make_ledger()
        self.numbers = itertools.count(1)
        self.dirty: dict[ChunkKey, tuple[int, int]] = {}
        self.where: dict[ChunkKey, tuple[int, int]] = {}
        self.packs: dict[int, tuple[int, SentPack]] = {}
        self.underway: list[tuple[int, SentPack]] = []

    def make_ledger(self) -> ChunkLedger:
        """A new ledger."""
        raise NotImplementedError

    @rule(inode=st.sampled_from(INODES), first=st.integers(0, CHUNKS - 1), count=st.integers(1, CHUNKS))
    def write(self, inode: InodeNumber, first: int, count: int) -> None:
        """Mark chunks dirty."""
        revision = mark(self.ledger, first, min(count, CHUNKS - first), inode)
        for chunk in range(first, min(first + count, CHUNKS)):
            _, born = self.dirty.get(key(chunk, inode), (0, revision))
            self.dirty[key(chunk, inode)] = (revision, born)

    @rule(inode=st.sampled_from(INODES), first=st.integers(0, CHUNKS))
    def cut(self, inode: InodeNumber, first: int) -> None:
        """Truncate."""
        self.ledger.cut_chunks(inode, ChunkIndex(first))
        for table in (self.dirty, self.where):
            for name in [name for name in table if name.inode == inode and name.chunk >= first]:
                del table[name]

    @precondition(lambda self: self.dirty)
    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        """Put some dirty chunks, in some order, into a pack that is underway from now on."""
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.dirty)), min_size=1, unique=True))
        number = next(self.numbers)
        message = data.draw(st.sampled_from([1000 + number, 7]))
        self.underway.append((number, a_pack(number, [(name, self.dirty[name][0]) for name in chosen], message)))

    @precondition(lambda self: self.underway)
    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        """Discord acknowledges a pack, not always the oldest."""
        number, pack = self.underway.pop(data.draw(st.integers(0, len(self.underway) - 1)))
        expected: dict[str, list[ChunkKey]] = {"clean": [], "still_dirty": [], "dropped": []}
        for slot, sent in enumerate(pack.chunks):
            expected[self.settle(sent, (number, slot))].append(sent.key)
        self.packs[number] = (pack.record.location.message, pack)
        recorded = answer(self.ledger.record_packs([pack]))
        assert expected == {
            "clean": list(recorded.clean),
            "still_dirty": list(recorded.still_dirty),
            "dropped": list(recorded.dropped),
        }

    def settle(self, sent: SentChunk, place: tuple[int, int]) -> str:
        """What must become of one chunk of a pack."""
        revision, born = self.dirty.get(sent.key, (0, 1 << 63))
        if sent.revision < born:
            return "dropped"
        self.where[sent.key] = place
        if sent.revision == revision:
            del self.dirty[sent.key]
            return "clean"
        self.dirty[sent.key] = (revision, sent.revision + 1)
        return "still_dirty"

    @rule()
    def sweep(self) -> None:
        """Delete what is dead."""
        messages = answer(self.ledger.dead_messages(100))
        answer(self.ledger.forget_messages(messages))
        gone = {message.location.message for message in messages}
        self.packs = {number: entry for number, entry in self.packs.items() if entry[0] not in gone}

    @invariant()
    def chunks_are_where_they_belong(self) -> None:
        """Extents, whole and clipped, say what the dict says."""
        for inode in INODES:
            for first, last in ((0, CHUNKS), (2, 4), (3, 3)):
                expected = {
                    name.chunk: (pack_id(number), slot)
                    for name, (number, slot) in self.where.items()
                    if name.inode == inode and first <= name.chunk <= last
                }
                assert expected == places(self.ledger, first, last, inode)

    @invariant()
    def dirty_chunks_are_known(self) -> None:
        """The dirty chunks are those of the dict."""
        found = [(chunk.key, (chunk.revision, chunk.born)) for chunk in self.ledger.dirty_chunks()]
        assert sorted(self.dirty.items()) == found

    @invariant()
    def dead_messages_are_those_without_live_packs(self) -> None:
        """A message is dead exactly when no chunk lies in any of its packs."""
        live = {self.packs[number][0] for number, _ in self.where.values()}
        assert {message for message, _ in self.packs.values()} - live == set(dead(self.ledger))

    def live_bytes(self) -> dict[int, int]:
        """Stored bytes that are referred to, by pack, for ledgers that can be asked."""
        live = dict.fromkeys(self.packs, 0)
        for number, slot in self.where.values():
            live[number] += self.packs[number][1].record.slots.stored_length(slot)
        return live
