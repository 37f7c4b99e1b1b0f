"""Mostly dead messages are rewritten, and nothing that happens meanwhile, or breaks, loses a byte."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.chunk_worlds import CHUNK, FILE, OTHER, chunk_world

from disfs.chunkstore.moving import merged
from disfs.chunkstore.packer import PackReader
from disfs.chunkstore.states import ChunkState
from disfs.chunkstore.transport.faults import Fault
from disfs.chunkstore.victims import Victims
from disfs.errors import PermissionMissingError, TooLargeError, TransientStorageError
from disfs.values import ChannelId, ChunkIndex, ChunkKey, InodeNumber, MessageId, SparseMessage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.chunk_worlds import ChunkWorld

THIRD = InodeNumber(9)


def pattern(seed: int, count: int) -> bytes:
    """Contents of `count` chunks that do not compress, different for each seed."""
    state, out = seed * 7919 + 1, bytearray()
    while len(out) < count * CHUNK:
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        out += state.to_bytes(8, "little")
    return bytes(out[: count * CHUNK])


@asynccontextmanager
async def sparse_world(directory: Path, **changes: Any) -> AsyncIterator[tuple[ChunkWorld, trio.Nursery]]:
    """Two messages of 14 chunks each, of FILE and of OTHER, of which two chunks each are live.

    What overwrote the rest lies in messages that are wholly live. Nobody compacts but the test.
    """
    settings: dict[str, Any] = {
        "compaction_interval_seconds": 1e9,
        "compaction_patience_seconds": 0.0,
        "sweep_interval_seconds": 1e9,
        "sweep_grace_seconds": 0.0,
        "fetch_bytes": 64 * CHUNK,
        "cache_bytes": 256 * CHUNK,
    }
    async with chunk_world(directory, **(settings | changes)) as (world, nursery):
        for inode in (FILE, OTHER):
            await world.write(inode, 0, pattern(inode, 14))
            await world.store.drain()
        for inode in (FILE, OTHER):
            await world.write(inode, 2 * CHUNK, pattern(inode + 1, 12))
        await world.store.drain()
        assert 2 == len(await world.ledger.sparse_messages(10))
        yield world, nursery


def expected(inode: InodeNumber) -> bytes:
    """What a file of `sparse_world` holds."""
    return pattern(inode, 14)[: 2 * CHUNK] + pattern(inode + 1, 12)


def place(world: ChunkWorld, inode: InodeNumber, chunk: int) -> tuple[Any, int]:
    """Pack and slot of a chunk."""
    return world.ledger.state.where[ChunkKey(inode, ChunkIndex(chunk))]


async def check(world: ChunkWorld) -> None:
    """Both files read right, warm and cold."""
    for inode in (FILE, OTHER):
        assert expected(inode) == await world.contents(inode)
    world.store.evict_all()
    for inode in (FILE, OTHER):
        assert expected(inode) == await world.contents(inode)


@pytest.mark.parametrize("cached", [True, False])
async def test_sparse_messages_become_one(tmp_path: Path, autojump_clock: trio.abc.Clock, cached: bool) -> None:
    """The live chunks of two mostly dead messages move into one; these are then dead, and nothing reads differently."""
    async with sparse_world(tmp_path) as (world, _):
        if not cached:
            world.store.evict_all()
        victims = {found.message for found in await world.ledger.sparse_messages(10)}
        sent = world.transport.calls["send"]
        assert await world.store.compact()
        assert 1 == world.transport.calls["send"] - sent
        assert victims == {found.location.message for found in await world.ledger.dead_messages(10)}
        assert [] == await world.ledger.sparse_messages(10)
        assert (2, 0) == (world.store.statistics().compaction.rewritten_messages, len(world.ledger.dirty_chunks()))
        assert not await world.store.compact()
        await world.store.sweep()
        await check(world)


async def test_cached_chunks_are_not_fetched(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Of a victim whose live chunks are cached only the directory comes from Discord."""
    async with sparse_world(tmp_path) as (world, _):
        before = world.memory.statistics()
        await world.store.compact()
        after = world.memory.statistics()
        assert 2 == after.fetches - before.fetches
        assert after.fetched_bytes - before.fetched_bytes < CHUNK


@pytest.mark.parametrize("first", [FILE, OTHER])
async def test_copies_keep_order_and_revision(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch, first: InodeNumber
) -> None:
    """Copies lie by inode and index, whichever victim comes first, with the revisions that their contents had."""
    async with sparse_world(tmp_path) as (world, _):
        sparse = world.ledger.sparse_messages

        async def in_order(limit: int) -> Any:
            location = world.ledger.state.packs[place(world, first, 0)[0]].location
            return sorted(await sparse(limit), key=lambda found: found.message != location.message)

        monkeypatch.setattr(world.ledger, "sparse_messages", in_order)
        keys = [ChunkKey(inode, ChunkIndex(n)) for inode in (FILE, OTHER) for n in (0, 1)]
        old = {key: revision_of(world, key) for key in keys}
        await world.store.compact()
        assert old == {key: revision_of(world, key) for key in keys}
        assert [0, 1, 2, 3] == [place(world, *key)[1] for key in keys]
        assert 1 == len({place(world, *key)[0] for key in keys})


def revision_of(world: ChunkWorld, key: ChunkKey) -> int:
    """What the directory of the pack says in which a chunk lies."""
    pack, slot = world.ledger.state.where[key]
    location = world.ledger.state.packs[pack].location
    entry = PackReader(world.key, world.memory.stored_bytes(location.attachment)).entries[slot]
    assert key == entry.key
    return entry.revision


async def during_send(world: ChunkWorld, nursery: trio.Nursery) -> trio.Event:
    """A round that has taken its copies and is held in its send; set the event to let it go on."""
    hold = trio.Event()
    fault = world.transport.plan("send", 1, Fault(hold_after=hold))
    nursery.start_soon(world.store.compact)
    await fault.reached.wait()
    return hold


@pytest.mark.parametrize("then", ["nothing", "drain"])
async def test_write_during_move(tmp_path: Path, autojump_clock: trio.abc.Clock, then: str) -> None:
    """A chunk that is written while its copy is on its way has the new content, dirty or recorded meanwhile."""
    async with sparse_world(tmp_path) as (world, nursery):
        hold = await during_send(world, nursery)
        await world.write(FILE, 0, b"n" * 100)
        if then == "drain":
            await world.store.drain()
        hold.set()
        await trio.testing.wait_all_tasks_blocked()
        now = b"n" * 100 + expected(FILE)[100:]
        assert now == await world.contents(FILE)
        await world.store.drain()
        world.store.evict_all()
        assert now == await world.contents(FILE)
        await world.store.sweep()
        world.store.evict_all()
        assert (now, expected(OTHER)) == (await world.contents(FILE), await world.contents(OTHER))


@pytest.mark.parametrize("gone", ["cut", "discard"])
async def test_cut_during_move(tmp_path: Path, autojump_clock: trio.abc.Clock, gone: str) -> None:
    """A chunk that is cut away while its copy is on its way does not come back."""
    async with sparse_world(tmp_path) as (world, nursery):
        hold = await during_send(world, nursery)
        if gone == "cut":
            await world.cut(FILE, CHUNK)
        else:
            world.discard(FILE)
        hold.set()
        await trio.testing.wait_all_tasks_blocked()
        assert ChunkKey(FILE, ChunkIndex(1)) not in world.ledger.state.where
        await world.store.sweep()
        if gone == "cut":
            await world.cut(FILE, 2 * CHUNK)
            world.store.evict_all()
            assert expected(FILE)[:CHUNK] + bytes(CHUNK) == await world.contents(FILE)
        assert expected(OTHER) == await world.contents(OTHER)


async def test_eviction_during_move(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Chunks that are evicted after their copy was taken are read from their new place."""
    async with sparse_world(tmp_path) as (world, nursery):
        hold = await during_send(world, nursery)
        world.store.evict_all()
        hold.set()
        await trio.testing.wait_all_tasks_blocked()
        await world.store.sweep()
        await check(world)


async def test_chunk_evicted_before_its_copy_stays(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A chunk that leaves the cache between looking and copying keeps its place; a later round takes it."""
    async with sparse_world(tmp_path) as (world, nursery):
        hold = trio.Event()
        fault = world.transport.plan("fetch", 1, Fault(hold_after=hold))
        nursery.start_soon(world.store.compact)
        await fault.reached.wait()
        old = place(world, FILE, 0)
        world.store.evict_all()
        hold.set()
        await trio.testing.wait_all_tasks_blocked()
        assert old == place(world, FILE, 0)
        await check(world)
        assert await world.store.compact()
        assert old != place(world, FILE, 0)
        await check(world)


async def test_fetch_during_move(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A reader that is on its way to the old place gets the content, also when that is deleted before it arrives."""
    async with sparse_world(tmp_path) as (world, nursery):
        world.store.evict_all()
        hold = trio.Event()
        fault = world.transport.plan("fetch", 1, Fault(hold=hold))
        found: list[bytes] = []

        async def read() -> None:
            found.append(await world.store.read(FILE, 0, 2 * CHUNK))

        nursery.start_soon(read)
        await fault.reached.wait()
        assert await world.store.compact()
        await world.store.sweep()
        assert [] == await world.ledger.dead_messages(10)
        hold.set()
        await trio.testing.wait_all_tasks_blocked()
        assert [expected(FILE)[: 2 * CHUNK]] == found


async def test_dirty_victim_waits(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A message whose live chunk is dirty is left alone: sending that chunk makes more of it garbage by itself."""
    async with sparse_world(tmp_path, writeback_delay_seconds=1000, writeback_age_seconds=1000) as (world, _):
        old = place(world, FILE, 0), place(world, FILE, 1)
        await world.write(FILE, 0, b"new")
        assert await world.store.compact()
        assert old == (place(world, FILE, 0), place(world, FILE, 1))
        assert 1 == world.store.statistics().compaction.rewritten_messages
        assert b"new" + expected(FILE)[3:] == await world.contents(FILE)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("method", "number"), [("fetch", 1), ("fetch", 2), ("send", 1)])
async def test_failing_request(
    tmp_path: Path, autojump_clock: trio.abc.Clock, method: Any, number: int, when: str
) -> None:
    """Whichever request of a round fails, all contents stay readable, and a later round gets the work done."""
    async with sparse_world(tmp_path) as (world, _):
        world.store.evict_all()
        error = TransientStorageError("the network", maybe_done=when == "after")
        world.transport.plan(method, number, Fault(before=error) if when == "before" else Fault(after=error))
        for _ in range(4):
            try:
                await world.store.compact()
            except TransientStorageError:
                await check(world)
                world.store.evict_all()
            await trio.sleep(700)
        assert [] == await world.ledger.sparse_messages(10)
        await world.store.sweep()
        await check(world)


@pytest.mark.parametrize("step", ["fetched", "sent", "recorded", "committed", "swept"])
async def test_crash_at_each_step(tmp_path: Path, autojump_clock: trio.abc.Clock, step: str) -> None:
    """kill -9 at any point of a round leaves every content readable; the round can be done again."""
    async with sparse_world(tmp_path) as (world, nursery):
        world.ledger.commit()
        if step in {"fetched", "sent"}:
            world.store.evict_all()
            method: Any = "fetch" if step == "fetched" else "send"
            fault = world.transport.plan(method, 1, Fault(hold_after=trio.Event()))
            world.nursery.start_soon(world.store.compact)  # type: ignore[union-attr] # it has started
            await fault.reached.wait()
        else:
            await world.store.compact()
        if step in {"committed", "swept"}:
            world.ledger.commit()
        if step == "swept":
            await world.store.sweep()
        await world.crash(nursery)
        await check(world)
        await world.store.compact()
        assert [] == await world.ledger.sparse_messages(10)
        await world.store.sweep()
        await check(world)


@pytest.mark.parametrize("where", ["slot", "directory"])
async def test_damaged_victim_is_left_alone(
    tmp_path: Path, autojump_clock: trio.abc.Clock, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A message with a chunk that cannot be read keeps it, is tried a few times and no more; the other one moves."""
    async with sparse_world(tmp_path) as (world, _):
        world.store.evict_all()
        pack, slot = place(world, FILE, 0)
        record = world.ledger.state.packs[pack]
        raw = bytearray(world.memory.stored_bytes(record.location.attachment))
        raw[record.slots.offset(slot) if where == "slot" else -40] ^= 1
        world.memory.damage(record.location.attachment, bytes(raw))
        for _ in range(6):
            await world.store.compact()
            await trio.sleep(700)
        assert (pack, slot) == place(world, FILE, 0)
        assert 1 == world.store.statistics().compaction.unreadable_messages
        fetches = world.transport.calls["fetch"]
        assert not await world.store.compact()
        assert fetches == world.transport.calls["fetch"]
        assert expected(OTHER) == await world.contents(OTHER)
        assert "cannot be rewritten" in caplog.text


async def test_vanished_victim_is_left_alone(
    tmp_path: Path, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that somebody deleted in Discord is not asked for again and again; its chunks stay recorded there."""
    async with sparse_world(tmp_path) as (world, _):
        world.store.evict_all()
        old = place(world, FILE, 0)
        location = world.ledger.state.packs[old[0]].location
        await world.memory.delete(location.channel, [location.message])
        for _ in range(6):
            await world.store.compact()
            await trio.sleep(700)
        assert old == place(world, FILE, 0)
        assert 1 == world.store.statistics().compaction.unreadable_messages
        assert "cannot be rewritten" in caplog.text


async def test_nothing_happens_while_writeback_is_busy(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A round does not begin while something is due; one that is under way waits with its send."""
    async with sparse_world(tmp_path) as (world, nursery):
        world.store.pause()
        assert not await world.store.compact()
        world.store.resume()
        hold = trio.Event()
        fault = world.transport.plan("fetch", 2, Fault(hold_after=hold))
        nursery.start_soon(world.store.compact)
        await fault.reached.wait()
        world.store.pause()
        hold.set()
        await trio.sleep(30)
        sent = world.transport.calls["send"]
        world.store.resume()
        await trio.sleep(2)
        assert sent + 1 == world.transport.calls["send"]


async def test_round_is_given_up_when_writeback_stays_busy(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A round does not hold its message in memory for ever; nothing is sent, nothing moved."""
    async with sparse_world(tmp_path) as (world, nursery):
        hold = trio.Event()
        fault = world.transport.plan("fetch", 2, Fault(hold_after=hold))
        results: list[bool] = []

        async def compact() -> None:
            results.append(await world.store.compact())

        nursery.start_soon(compact)
        await fault.reached.wait()
        world.store.pause()
        hold.set()
        await trio.sleep(100)
        assert [False] == results
        assert 2 == len(await world.ledger.sparse_messages(10))


async def test_refused_for_size(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """When a message is too large for Discord the next round makes a smaller one."""
    async with sparse_world(tmp_path) as (world, _):
        world.transport.plan("send", 1, Fault(before=TooLargeError("413")))
        with pytest.raises(TooLargeError):
            await world.store.compact()
        sizes: list[int] = []
        send = world.memory.send

        async def noting(channel: ChannelId, uploads: Any, **named: Any) -> Any:
            sizes.append(sum(upload.size_bytes for upload in uploads))
            return await send(channel, uploads, **named)

        world.memory.send = noting  # type: ignore[method-assign] # looks, and passes on
        while await world.store.compact():
            pass
        assert max(sizes) <= 4 * CHUNK * 3 // 4 + 2 * CHUNK
        assert [] == await world.ledger.sparse_messages(10)
        await check(world)


async def test_refusing_channel_rests(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A channel that takes nothing is left alone for a while: the next round goes to another one."""
    async with sparse_world(tmp_path) as (world, _):
        world.transport.plan("send", 1, Fault(before=PermissionMissingError("403", "Attach Files")))
        used: list[ChannelId] = []
        send = world.transport.send

        async def noting(channel: ChannelId, *args: Any, **named: Any) -> Any:
            used.append(channel)
            return await send(channel, *args, **named)

        world.transport.send = noting  # type: ignore[method-assign] # looks, and passes on
        with pytest.raises(PermissionMissingError):
            await world.store.compact()
        assert await world.store.compact()
        assert {*world.channels} == {*used}
        await check(world)


async def test_share_of_the_time(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """In the background it works a tenth of the time at most, and rests in between."""
    async with sparse_world(tmp_path, compaction_interval_seconds=5.0, compaction_share=0.1) as (world, _):
        began = trio.current_time()
        hold = trio.Event()
        fault = world.transport.plan("send", 1, Fault(hold=hold))
        await fault.reached.wait()
        assert 5 >= trio.current_time() - began
        await trio.sleep(100)  # a slow send
        hold.set()
        await trio.testing.wait_all_tasks_blocked()
        await world.write(THIRD, 0, pattern(3, 14))
        await world.store.drain()
        await world.cut(THIRD, CHUNK)
        sent = world.transport.calls["send"]
        await trio.sleep(890)
        assert sent == world.transport.calls["send"]
        await trio.sleep(120)
        assert sent + 1 == world.transport.calls["send"]


async def test_turned_off(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A share of 0 turns it off."""
    async with sparse_world(tmp_path, compaction_interval_seconds=1.0, compaction_share=0.0) as (world, _):
        await trio.sleep(1000)
        assert 2 == len(await world.ledger.sparse_messages(10))


async def test_cancel_in_the_send(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A round that is cancelled leaves everything as it was."""
    async with sparse_world(tmp_path) as (world, _):
        world.transport.plan("send", 1, Fault(hold=trio.Event()))
        with trio.move_on_after(5):
            await world.store.compact()
        await check(world)
        assert await world.store.compact()
        await check(world)


async def test_cancel_between_send_and_record(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What Discord has acknowledged is recorded, even by a round that is cancelled at that moment."""
    async with sparse_world(tmp_path) as (world, _):
        scope, record = trio.CancelScope(), world.ledger.record_moved

        async def cancelled(*args: Any) -> int:
            scope.cancel()
            await trio.lowlevel.checkpoint()
            return await record(*args)

        world.ledger.record_moved = cancelled  # type: ignore[assignment,method-assign] # the moment that matters
        with scope:
            await world.store.compact()
        assert [] == await world.ledger.sparse_messages(10)
        await check(world)


async def test_send_of_compaction_is_no_stray(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A message of copies whose answer takes long is not taken for a stray."""
    async with sparse_world(tmp_path, stray_seconds=60.0) as (world, nursery):
        hold = await during_send(world, nursery)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            await world.store.sweep()
            await trio.sleep(60)
        hold.set()
        await trio.testing.wait_all_tasks_blocked()
        await world.store.sweep()
        await check(world)


async def test_chunk_recorded_elsewhere_before_its_copy(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A cached chunk that is clean again, but with newer content, is not copied under the old revision."""
    async with sparse_world(tmp_path) as (world, nursery):
        hold = trio.Event()
        fault = world.transport.plan("fetch", 2, Fault(hold_after=hold))
        nursery.start_soon(world.store.compact)
        await fault.reached.wait()
        await world.write(FILE, 0, b"newer")
        await world.store.drain()
        before = set(world.ledger.state.packs)
        hold.set()
        await trio.sleep(5)
        (copies,) = set(world.ledger.state.packs) - before
        location = world.ledger.state.packs[copies].location
        entries = PackReader(world.key, world.memory.stored_bytes(location.attachment)).entries
        assert ChunkKey(FILE, ChunkIndex(0)) not in {entry.key for entry in entries}
        assert b"newer" + expected(FILE)[5:] == await world.contents(FILE)


async def test_slot_of_another_chunk_is_not_moved(
    tmp_path: Path, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """When the ledger and a pack's own directory name different chunks, nothing of that message is moved."""
    async with sparse_world(tmp_path) as (world, _):
        world.store.evict_all()
        where = world.ledger.state.where
        one, two = ChunkKey(FILE, ChunkIndex(0)), ChunkKey(FILE, ChunkIndex(1))
        where[one], where[two] = where[two], where[one]
        old = where[one], where[two]
        for _ in range(4):
            await world.store.compact()
            await trio.sleep(700)
        assert old == (where[one], where[two])
        assert "holds another chunk" in caplog.text


async def test_states_of_cached_chunks_do_not_change(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Moving a chunk neither brings it into the cache nor throws it out."""
    async with sparse_world(tmp_path) as (world, _):
        world.store.evict_all()
        await world.store.read(FILE, 0, 1)
        await world.store.compact()
        states = [world.store._map.state(ChunkKey(FILE, ChunkIndex(n))) for n in (0, 1)]
        assert [ChunkState.CLEAN, ChunkState.ABSENT] == states


# -- what is chosen, purely ---------------------------------------------------------------------------------------


def a_sparse(number: int, stored: int, live: int) -> SparseMessage:
    """A sparse message."""
    return SparseMessage(ChannelId(1), MessageId(number), stored, live)


def chosen(victims: Victims, sparse: list[SparseMessage], now: float) -> list[int]:
    """Which messages are chosen for a message of 1000 bytes."""
    return [found.message for found in victims.choose(sparse, 1000, now)]


def test_a_message_worth_of_garbage_is_chosen_at_once() -> None:
    """What frees a whole message does not wait."""
    assert [1, 2] == chosen(Victims(100), [a_sparse(1, 900, 300), a_sparse(2, 600, 200)], 0)
    assert [] == chosen(Victims(100), [a_sparse(1, 900, 301), a_sparse(2, 600, 200)], 0)


def test_victims_fit_into_one_message() -> None:
    """Live chunks of one message are never split up among two: a victim that does not fit waits."""
    sparse = [a_sparse(1, 2000, 700), a_sparse(2, 900, 400), a_sparse(3, 700, 300)]
    assert [1, 3] == chosen(Victims(100), sparse, 0)


@pytest.mark.parametrize(("garbage", "worth"), [(125, True), (124, False)])
def test_less_goes_after_a_wait(garbage: int, worth: bool) -> None:
    """After a long wait an eighth of a message is worth it, less is not."""
    victims = Victims(100)
    sparse = [a_sparse(1, 50 + garbage, 50)]
    assert [] == chosen(victims, sparse, 0)
    assert [] == chosen(victims, sparse, 99)
    assert ([1] if worth else []) == chosen(victims, sparse, 100)


def test_many_small_messages_go_after_a_wait() -> None:
    """Eight messages that become one are worth it however small they are."""
    victims = Victims(100)
    sparse = [a_sparse(n, 9, 4) for n in range(8)]
    assert [] == chosen(victims, sparse, 0)
    assert [] == chosen(victims, sparse[:7], 100)
    assert 8 == len(chosen(victims, sparse, 101))


def test_wait_begins_anew_when_a_message_was_gone() -> None:
    """Since when a message is sparse is forgotten when it no longer is."""
    victims = Victims(100)
    sparse = [a_sparse(1, 900, 50)]
    chosen(victims, sparse, 0)
    chosen(victims, [], 50)
    assert [] == chosen(victims, sparse, 100)


def test_postponed_message() -> None:
    """A postponed message is not chosen before its time, and is forgotten when it is no longer sparse."""
    victims = Victims(100)
    victims.postpone(MessageId(1), 10)
    sparse = [a_sparse(1, 2000, 50)]
    assert ([], 1) == (chosen(victims, sparse, 9), victims.postponed_count)
    assert ([1], 0) == (chosen(victims, sparse, 10), victims.postponed_count)


def test_merged_ranges() -> None:
    """Neighbouring spans are fetched together, up to a limit; a gap that is cheaper than a request is fetched along."""
    kib = 1024
    assert [(0, 10)] == list(merged([(0, 10)], 5))
    assert [(0, 30)] == list(merged([(0, 10), (10, 20), (20, 30)], 30))
    assert [(0, 20), (20, 30)] == list(merged([(0, 10), (10, 20), (20, 30)], 29))
    assert [(0, 257 * kib)] == list(merged([(0, kib // 2), (256 * kib + kib // 2, 257 * kib)], 1 << 30))
    assert 2 == len(list(merged([(0, kib), (257 * kib + 1, 258 * kib)], 1 << 30)))
