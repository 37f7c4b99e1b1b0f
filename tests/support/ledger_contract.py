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
    from disfs.values import Recorded

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

    async def test_dirty_chunks_written_again(self, ledger: ChunkLedger) -> None:
        """The short way does what `mark_dirty` would do, whichever of both ways a chunk was written by before."""
        first = mark(ledger, 0, 3)
        ledger.renew_dirty(INODE, ChunkIndex(0), 3)
        third = mark(ledger, 1)
        fourth = ledger.renew_dirty(INODE, ChunkIndex(2), 1)
        second = ledger.renew_dirty(INODE, ChunkIndex(0), 1)
        assert first < third < fourth < second
        assert [
            DirtyChunk(key(0), second, first),
            DirtyChunk(key(1), third, first),
            DirtyChunk(key(2), fourth, first),
        ] == list(ledger.dirty_chunks())

    async def test_discarded_inode(self, ledger: ChunkLedger) -> None:
        """All that was noted of an inode goes with it, in whatever way and order it was noted; of others nothing."""
        mark(ledger, 0, inode=OTHER)
        ledger.write_small(INODE, b"content")
        mark(ledger, 5)
        ledger.discard(INODE)
        assert [key(0, OTHER)] == [chunk.key for chunk in ledger.dirty_chunks()]
        assert [] == list(ledger.small_lengths())
        revision = ledger.dirty_chunks()[0].revision
        await ledger.record_packs([a_pack(1, [(key(0, OTHER), revision)])])
        ledger.discard(OTHER)
        assert ([], {}) == (list(ledger.dirty_chunks()), places(ledger, 0, 9, OTHER))
        assert [1001] == dead(ledger)

    async def test_chunk_written_again_meanwhile(self, ledger: ChunkLedger) -> None:
        """Also by the short way a write makes an older copy the place of the chunk, but does not leave it clean."""
        sent = mark(ledger, 0)
        newer = ledger.renew_dirty(INODE, ChunkIndex(0), 1)
        recorded = answer(ledger.record_packs([a_pack(1, [(key(0), sent)])]))
        assert list(recorded.still_dirty) == [key(0)]
        assert [DirtyChunk(key(0), newer, Revision(sent + 1))] == list(ledger.dirty_chunks())

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

    async def test_recorded_chunks_are_known(self, ledger: ChunkLedger) -> None:
        """Those that lie in a pack, dirty or not; not those that were only written."""
        revision = mark(ledger, 0, 6)
        assert not ledger.has_recorded(INODE, ChunkIndex(0), 6)
        await ledger.record_packs([a_pack(1, [(key(2), revision), (key(3), revision)])])
        mark(ledger, 3)
        found = [first for first in range(6) if ledger.has_recorded(INODE, ChunkIndex(first), 1)]
        assert [2, 3] == found
        assert (True, False) == tuple(ledger.has_recorded(INODE, ChunkIndex(first), 2) for first in (1, 4))
        assert not ledger.has_recorded(OTHER, ChunkIndex(2), 1)

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

    async def test_moved_chunk(self, ledger: ChunkLedger) -> None:
        """A copy of a recorded chunk takes its place; what lay there is garbage, and nothing is dirty."""
        revision = mark(ledger, 0, 3)
        await ledger.record_packs([a_pack(1, [(key(n), revision) for n in range(3)])])
        origins = {key(n): (pack_id(1), n) for n in range(3)}
        moved = await ledger.record_moved([a_pack(2, [(key(n), revision) for n in (0, 1, 2)])], origins)
        assert 3 == moved
        assert [Extent(INODE, ChunkIndex(0), 3, pack_id(2), 0)] == list(
            await ledger.extents(INODE, ChunkIndex(0), ChunkIndex(9))
        )
        assert ([1001], []) == (dead(ledger), list(ledger.dirty_chunks()))

    async def test_moved_chunk_that_was_written_and_recorded(self, ledger: ChunkLedger) -> None:
        """A chunk whose newer content was recorded meanwhile stays where that lies; so do its neighbours move."""
        revision = mark(ledger, 0, 3)
        await ledger.record_packs([a_pack(1, [(key(n), revision) for n in range(3)])])
        newer = mark(ledger, 1)
        await ledger.record_packs([a_pack(2, [(key(1), newer)])])
        origins = {key(n): (pack_id(1), n) for n in range(3)}
        assert 2 == await ledger.record_moved([a_pack(3, [(key(n), revision) for n in range(3)])], origins)
        assert {0: (pack_id(3), 0), 1: (pack_id(2), 0), 2: (pack_id(3), 2)} == places(ledger, 0, 9)
        assert [1001] == dead(ledger)

    async def test_moved_chunk_that_was_cut(self, ledger: ChunkLedger) -> None:
        """What was cut meanwhile does not come back, and a message of nothing else is dead from the start."""
        revision = mark(ledger, 0)
        await ledger.record_packs([a_pack(1, [(key(0), revision)])])
        ledger.cut_chunks(INODE, ChunkIndex(0))
        assert 0 == await ledger.record_moved([a_pack(2, [(key(0), revision)])], {key(0): (pack_id(1), 0)})
        assert ({}, [1001, 1002]) == (places(ledger, 0, 9), dead(ledger))

    async def test_moved_chunk_in_another_slot_of_its_pack(self, ledger: ChunkLedger) -> None:
        """The slot counts, not the pack alone."""
        revision = mark(ledger, 0, 2)
        await ledger.record_packs([a_pack(1, [(key(n), revision) for n in range(2)])])
        origins = {key(0): (pack_id(1), 1)}
        assert 0 == await ledger.record_moved([a_pack(2, [(key(0), revision)])], origins)
        assert {0: (pack_id(1), 0), 1: (pack_id(1), 1)} == places(ledger, 0, 9)

    async def test_moved_chunk_that_is_dirty(self, ledger: ChunkLedger) -> None:
        """A dirty chunk's older content moves, the chunk stays dirty, and its newer content is recorded later."""
        revision = mark(ledger, 0)
        await ledger.record_packs([a_pack(1, [(key(0), revision)])])
        newer = mark(ledger, 0)
        assert 1 == await ledger.record_moved([a_pack(2, [(key(0), revision)])], {key(0): (pack_id(1), 0)})
        assert [DirtyChunk(key(0), newer, newer)] == list(ledger.dirty_chunks())
        recorded = await ledger.record_packs([a_pack(3, [(key(0), newer)])])
        assert ((key(0),), {0: (pack_id(3), 0)}) == (recorded.clean, places(ledger, 0, 9))
        assert [1001, 1002] == dead(ledger)

    async def test_moved_pack_is_recorded_once(self, ledger: ChunkLedger) -> None:
        """Recording a pack of copies again raises ValueError and changes nothing."""
        revision = mark(ledger, 0)
        await ledger.record_packs([a_pack(1, [(key(0), revision)])])
        with pytest.raises(ValueError, match="once"):
            await ledger.record_moved([a_pack(1, [(key(0), revision)])], {key(0): (pack_id(1), 0)})
        assert {0: (pack_id(1), 0)} == places(ledger, 0, 9)

    async def test_recording_in_steps(self, ledger: ChunkLedger) -> None:
        """Recorded in steps, every chunk is told of once, with what became of it."""
        sent = mark(ledger, 0, 300)
        mark(ledger, 7)
        ledger.cut_chunks(INODE, ChunkIndex(290))
        packs = [a_pack(n, [(key(c), sent) for c in range(n * 100, n * 100 + 100)], 9) for n in range(3)]
        told: list[Recorded] = []
        await ledger.record_in_steps(packs, told.append)
        assert [key(n) for n in range(290) if n != 7] == [name for step in told for name in step.clean]
        assert [key(7)] == [name for step in told for name in step.still_dirty]
        assert [key(n) for n in range(290, 300)] == [name for step in told for name in step.dropped]
        assert {n: (pack_id(n // 100), n % 100) for n in range(290)} == places(ledger, 0, 400)
        with pytest.raises(ValueError, match="once"):
            await ledger.record_in_steps(packs, told.append)

    async def test_sparse_messages(self, ledger: ChunkLedger) -> None:
        """Messages of which less than half is live come with their sizes, most garbage first; no dead, no full ones."""
        for number, inode in enumerate((5, 6, 7, 8), start=1):
            revision = mark(ledger, 0, 10 * number, InodeNumber(inode))
            chunks = [(key(n, InodeNumber(inode)), revision) for n in range(10 * number)]
            await ledger.record_packs([a_pack(number, chunks)])
        ledger.cut_chunks(InodeNumber(5), ChunkIndex(2))
        ledger.cut_chunks(InodeNumber(6), ChunkIndex(0))
        ledger.cut_chunks(InodeNumber(7), ChunkIndex(1))
        found = await ledger.sparse_messages(10)
        assert [(CHANNEL, 1003, 1035, 20), (CHANNEL, 1001, 245, 41)] == [
            (s.channel, s.message, s.stored_bytes, s.live_bytes) for s in found
        ]
        assert [1015, 204] == [s.garbage_bytes for s in found]
        assert [1003] == [s.message for s in await ledger.sparse_messages(1)]

    @pytest.mark.parametrize(("last", "sparse"), [(50, False), (51, True)])
    async def test_message_half_live_is_not_sparse(self, ledger: ChunkLedger, last: int, sparse: bool) -> None:
        """Exactly half live is enough, and the packs of a message count together."""
        revision = mark(ledger, 0, 4)
        packs = []
        for number, lengths in enumerate(([80, 20], [50, last])):
            where = Location(CHANNEL, MessageId(70), AttachmentId(number))
            record = PackRecord(pack_id(number), where, 400, SlotTable(lengths, [False, False]))
            packs.append(SentPack(record, tuple(SentChunk(key(2 * number + n), revision) for n in range(2))))
        await ledger.record_packs(packs)
        ledger.cut_chunks(INODE, ChunkIndex(2))
        assert sparse == (70 in [found.message for found in await ledger.sparse_messages(10)])

    async def test_packs_of_message(self, ledger: ChunkLedger) -> None:
        """A message's packs come in the order in which they were recorded, live or not."""
        revision = mark(ledger, 0, 3)
        packs = [a_pack(number, [(key(number), revision)], 77) for number in (2, 0, 1)]
        await ledger.record_packs(packs)
        ledger.cut_chunks(INODE, ChunkIndex(1))
        assert [pack_id(2), pack_id(0), pack_id(1)] == list(await ledger.packs_of_message(MessageId(77)))
        assert [] == list(await ledger.packs_of_message(MessageId(78)))

    async def test_chunks_of_pack(self, ledger: ChunkLedger) -> None:
        """The live chunks of a range of slots, clipped to it, of whichever inodes they are."""
        chunks = [key(5), key(6), key(7), key(0, OTHER), key(0), key(9)]
        sent = [(name, mark(ledger, name.chunk, inode=name.inode)) for name in chunks]
        await ledger.record_packs([a_pack(1, sent)])
        for first, count in ((0, 6), (1, 1), (1, 3), (2, 99), (5, 1), (6, 3)):
            expected = [(name, pack_id(1), slot) for slot, name in enumerate(chunks) if first <= slot < first + count]
            assert expected == list(await ledger.chunks_of_pack(pack_id(1), first, count))
        assert [] == list(await ledger.chunks_of_pack(pack_id(2), 0, 9))

    @pytest.mark.parametrize("dirty", [True, False])
    async def test_cutting_in_steps(self, ledger: ChunkLedger, dirty: bool) -> None:
        """Cut at one point after the other a file goes in steps, each of them small, and is empty in the end."""
        mark(ledger, 3, 1, OTHER)
        for number in range(30):
            revision = mark(ledger, 100 * number, 20)
            if not dirty or number % 3 == 0:
                chunks = [(key(chunk), revision) for chunk in range(100 * number, 100 * number + 20)]
                await ledger.record_packs([a_pack(number, chunks)])
        left, steps = 600, 0
        while point := ledger.cut_point(INODE, 50):
            ledger.cut_chunks(INODE, point)
            now = len(
                places(ledger, 0, 9999).keys() | {c.key.chunk for c in ledger.dirty_chunks() if c.key.inode == INODE}
            )
            assert 1 <= left - now <= 2 * 50 + 20
            left, steps = now, steps + 1
        assert left <= 2 * 50 + 20
        assert 5 <= steps
        assert [key(3, OTHER)] == [c.key for c in ledger.dirty_chunks() if c.key.inode == OTHER]

    async def test_sent_packs(self, ledger: ChunkLedger) -> None:
        """Which packs were about to be sent is known, however often that was noted, and of no others."""
        ledger.note_sending([pack_id(1), pack_id(2)])
        ledger.note_sending([pack_id(2), pack_id(3)])
        ledger.note_sending([])
        assert [False, True, True, True] == [ledger.has_sent(pack_id(number)) for number in range(4)]

    async def test_unrecorded_sends(self, ledger: ChunkLedger) -> None:
        """What was about to be sent and is not recorded is known until it is."""
        assert frozenset() == ledger.unrecorded_sends()
        ledger.note_sending([pack_id(1), pack_id(2)])
        await ledger.record_packs([a_pack(1, [(key(0), mark(ledger, 0))])])
        assert {pack_id(2)} == ledger.unrecorded_sends()

    async def test_unknown_messages(self, ledger: ChunkLedger) -> None:
        """A message is known as long as a pack in it is recorded, live or not."""
        await ledger.record_packs([a_pack(1, [(key(0), mark(ledger, 0))])])
        ledger.cut_chunks(INODE, ChunkIndex(0))
        asked = [MessageId(n) for n in range(950, 1050)]
        assert frozenset(asked) - {1001} == await ledger.unknown_messages(asked)
        await ledger.forget_messages(await ledger.dead_messages(10))
        assert frozenset(asked) == await ledger.unknown_messages(asked)
        assert frozenset() == await ledger.unknown_messages([])

    async def test_examined(self, ledger: ChunkLedger) -> None:
        """How far a channel was examined is kept for each channel."""
        ledger.set_examined(CHANNEL, MessageId(5))
        ledger.set_examined(CHANNEL, MessageId(9))
        assert (9, 0) == (ledger.examined(CHANNEL), ledger.examined(ChannelId(101)))

    async def test_pins(self, ledger: ChunkLedger) -> None:
        """Inodes are pinned and unpinned, once or often."""
        ledger.set_pinned([INODE, OTHER], True)
        ledger.set_pinned([INODE], True)
        assert {INODE, OTHER} == ledger.pinned_inodes()
        ledger.set_pinned([INODE, InodeNumber(77)], False)
        assert {OTHER} == ledger.pinned_inodes()

    async def test_small_content_is_kept(self, ledger: ChunkLedger) -> None:
        """What was kept last is there, with its length, until it is removed; an inode without one has nothing."""
        ledger.keep_small(OTHER, b"other")
        ledger.keep_small(INODE, b"older")
        ledger.write_small(INODE, b"content")
        assert (b"content", b"other") == (ledger.small_content(INODE), ledger.small_content(OTHER))
        assert [(INODE, 7), (OTHER, 5)] == list(ledger.small_lengths())
        ledger.remove_small(INODE)
        ledger.remove_small(INODE)
        assert b"" == ledger.small_content(INODE)
        assert [(OTHER, 5)] == list(ledger.small_lengths())

    async def test_written_small_content_is_dirty(self, ledger: ChunkLedger) -> None:
        """Writing a small content is a write of chunk 0: a new revision, `born` at the first; keeping one is none."""
        ledger.keep_small(INODE, b"kept")
        assert [] == list(ledger.dirty_chunks())
        first, second = ledger.write_small(INODE, b"one"), ledger.write_small(INODE, b"two")
        assert first < second < mark(ledger, 0, inode=OTHER)
        assert DirtyChunk(key(0), second, first) == ledger.dirty_chunks()[0]
        ledger.remove_small(INODE)
        assert DirtyChunk(key(0), second, first) == ledger.dirty_chunks()[0]

    async def test_small_content_of_a_recorded_chunk(self, ledger: ChunkLedger) -> None:
        """Recording and cutting chunks leave the small content alone."""
        revision = ledger.write_small(INODE, b"content")
        recorded = await ledger.record_packs([a_pack(1, [(key(0), revision)])])
        assert (key(0),) == recorded.clean
        assert b"content" == ledger.small_content(INODE)
        again = ledger.write_small(INODE, b"again")
        assert [DirtyChunk(key(0), again, again)] == list(ledger.dirty_chunks())
        assert {0: (pack_id(1), 0)} == places(ledger, 0, 0)
        ledger.cut_chunks(INODE, ChunkIndex(0))
        assert b"again" == ledger.small_content(INODE)


CHUNKS = 8
INODES = [INODE, OTHER]


class LedgerMachine(RuleBasedStateMachine):
    """Random writes, truncations, and packs that come in late and in any order, against a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = self.make_ledger()
        self.numbers = itertools.count(1)
        self.dirty: dict[ChunkKey, tuple[int, int]] = {}
        self.small: dict[InodeNumber, bytes] = {}
        self.where: dict[ChunkKey, tuple[int, int]] = {}
        self.packs: dict[int, tuple[int, SentPack]] = {}
        self.underway: list[tuple[int, SentPack]] = []
        self.copies: list[tuple[int, SentPack, dict[ChunkKey, tuple[int, int]]]] = []

    def make_ledger(self) -> ChunkLedger:
        """A new ledger."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Whatever there is of an inode, discarding it takes all of that, and of no other one."""
        for inode in INODES:
            self.ledger.discard(inode)
            assert b"" == self.ledger.small_content(inode)
            for table in (self.dirty, self.where):
                for name in [name for name in table if name.inode == inode]:
                    del table[name]
            self.dead_messages_are_those_without_live_packs()
            for number, pack in self.underway:
                recorded = answer(self.ledger.record_packs([pack]))
                assert inode not in {name.inode for name in (*recorded.clean, *recorded.still_dirty)}
                self.packs[number] = (pack.record.location.message, pack)
                for slot, sent in enumerate(pack.chunks):
                    self.settle(sent, (number, slot))
            self.underway = []
            self.dirty_chunks_are_known()
            self.chunks_are_where_they_belong()

    @rule(inode=st.sampled_from(INODES), first=st.integers(0, CHUNKS - 1), count=st.integers(1, CHUNKS))
    def write(self, inode: InodeNumber, first: int, count: int) -> None:
        """Mark chunks dirty."""
        revision = mark(self.ledger, first, min(count, CHUNKS - first), inode)
        for chunk in range(first, min(first + count, CHUNKS)):
            _, born = self.dirty.get(key(chunk, inode), (0, revision))
            self.dirty[key(chunk, inode)] = (revision, born)

    @precondition(lambda self: self.dirty)
    @rule(data=st.data(), most=st.integers(1, CHUNKS))
    def rewrite(self, data: st.DataObject, most: int) -> None:
        """Write some dirty chunks again, by the short way."""
        inode, first = data.draw(st.sampled_from(sorted(self.dirty)))
        count = next(n for n in range(1, CHUNKS + 1) if n == most or key(first + n, inode) not in self.dirty)
        revision = self.ledger.renew_dirty(inode, first, count)
        for name in (key(first + step, inode) for step in range(count)):
            self.dirty[name] = (revision, self.dirty[name][1])

    @rule(inode=st.sampled_from(INODES), length=st.integers(1, 5000))
    def write_small(self, inode: InodeNumber, length: int) -> None:
        """A small content is a write of chunk 0."""
        content = bytes([length % 251]) * length
        revision = self.ledger.write_small(inode, content)
        _, born = self.dirty.get(key(0, inode), (0, revision))
        self.dirty[key(0, inode)] = (revision, born)
        self.small[inode] = content

    @rule(inode=st.sampled_from(INODES))
    def remove_small(self, inode: InodeNumber) -> None:
        """A small content spills or is evicted."""
        self.ledger.remove_small(inode)
        self.small.pop(inode, None)

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

    @precondition(lambda self: self.where)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        """Compaction copies some recorded chunks into a pack that is underway from now on."""
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.where)), min_size=1, unique=True))
        number = next(self.numbers)
        origins = {name: self.where[name] for name in chosen}
        self.copies.append((number, a_pack(number, [(name, 0) for name in chosen]), origins))

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def record_copy(self, data: st.DataObject) -> None:
        """Discord acknowledges a pack of copies, not always the oldest; what moved on meanwhile stays where it is."""
        number, pack, origins = self.copies.pop(data.draw(st.integers(0, len(self.copies) - 1)))
        same = [name for name, origin in origins.items() if self.where.get(name) == origin]
        named = {name: (pack_id(old), slot) for name, (old, slot) in origins.items()}
        assert len(same) == answer(self.ledger.record_moved([pack], named))
        slots = {sent.key: slot for slot, sent in enumerate(pack.chunks)}
        self.where.update({name: (number, slots[name]) for name in same})
        self.packs[number] = (pack.record.location.message, pack)

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
    def small_contents_are_kept(self) -> None:
        """The small contents are those of the dict."""
        assert {inode: len(content) for inode, content in self.small.items()} == dict(self.ledger.small_lengths())
        assert [self.small.get(inode, b"") for inode in INODES] == [*map(self.ledger.small_content, INODES)]

    @invariant()
    def dead_messages_are_those_without_live_packs(self) -> None:
        """A message is dead exactly when no chunk lies in any of its packs."""
        live = {self.packs[number][0] for number, _ in self.where.values()}
        assert {message for message, _ in self.packs.values()} - live == set(dead(self.ledger))

    @invariant()
    def slots_know_their_chunks(self) -> None:
        """Asked by pack, the ledger names every chunk that lies in it, and no other."""
        for number in self.packs:
            expected = sorted((slot, name) for name, (pack, slot) in self.where.items() if pack == number)
            found = answer(self.ledger.chunks_of_pack(pack_id(number), 0, 100))
            assert expected == [(chunk.slot, chunk.key) for chunk in found]

    def live_bytes(self) -> dict[int, int]:
        """Stored bytes that are referred to, by pack, for ledgers that can be asked."""
        live = dict.fromkeys(self.packs, 0)
        for number, slot in self.where.values():
            live[number] += self.packs[number][1].record.slots.stored_length(slot)
        return live
