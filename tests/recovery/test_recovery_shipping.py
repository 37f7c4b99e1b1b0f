"""The metadata on their way to Discord and back: crashes, failures, other machines, damage."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import sqlite3
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.real_stores import VOLUME_ID, real_stores
from support.shipments import header, names, sealed
from support.shipped_rows import shipped_rows

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.faults import Fault
from disfs.errors import ExitCode, FilesystemError, TransientStorageError, UserError
from disfs.metadata.base import XattrMode
from disfs.metadata.store import SqliteMetadataStore
from disfs.recovery import frames
from disfs.recovery.building import CopyRule
from disfs.recovery.chain import gather
from disfs.recovery.index_channel import IndexChannel
from disfs.recovery.rebuild import rebuild
from disfs.values import ROOT_INODE, MessageId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.real_stores import RealStores

    from disfs.recovery.chain import Shipment
    from disfs.recovery.rebuild import Report
    from disfs.recovery.shipper_values import ShipperStatistics

CHUNK = 4096
EVERY_TIME = CopyRule(floor_bytes=0, share=0.0, journal_count=1)
LOST = TransientStorageError("no answer", maybe_done=True)


async def write(world: RealStores, name: bytes, content: bytes) -> None:
    """A file of that content."""
    handle, _ = await world.create(name)
    await world.filesystem.files.write(handle, 0, content)
    await world.filesystem.release(handle)


async def settle(world: RealStores) -> None:
    """Contents and names are in Discord."""
    await world.chunks.drain()
    await world.shipper.drain()


async def recovered(world: RealStores, path: Path, device: str | None = None) -> Report:
    """Rebuild from what the memory holds."""
    return await rebuild(
        IndexChannel(world.memory, world.index, world.key, VOLUME_ID),
        world.memory,
        path,
        volume=VOLUME_ID,
        chunk_bytes=CHUNK,
        device=device,
        settings={},
        on_progress=lambda progress: None,
    )


async def names_of(path: Path) -> set[bytes]:
    """What is in the root of a rebuilt volume."""
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        return {entry.name for entry in await store.list_directory(ROOT_INODE, 0, 1000)}


async def shipments(world: RealStores) -> list[Shipment]:
    """All that the index channel holds, oldest first."""
    index = IndexChannel(world.memory, world.index, world.key, VOLUME_ID)
    return gather(await index.parts(await index.messages(MessageId(0))))


def kinds(found: list[Shipment]) -> list[tuple[str, int]]:
    """Kind and sequence of each."""
    return [(each.kind.name, each.header.sequence) for each in found]


async def test_rebuilt_rows_are_those_of_the_volume(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Files, contents, deletions, overwritten chunks: to the last row."""
    async with real_stores(tmp_path, 2, ships=True) as (world, _):
        await write(world, b"one", b"1" * 3 * CHUNK)
        await write(world, b"two", b"2" * 100)
        await settle(world)
        await write(world, b"three", b"3" * 5 * CHUNK)
        await world.metadata.unlink(ROOT_INODE, b"two", 9)
        await settle(world)
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert ((), (), 0) == (report.missing, report.rebuilt.problems, report.rebuilt.lost_chunks)
        await world.metadata.commit()
        assert shipped_rows(tmp_path / "volume.db") == shipped_rows(tmp_path / "rebuilt.db")


async def test_first_state_is_a_copy_and_the_next_ones_are_journals(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """An untouched volume sends nothing; a change is in Discord some seconds later, without anybody asking."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await trio.sleep(60)
        assert [] == world.memory.messages(world.index)
        await write(world, b"one", b"1" * CHUNK)
        await trio.sleep(15)
        await write(world, b"two", b"2" * CHUNK)
        await trio.sleep(15)
        assert [("CHECKPOINT", 1), ("JOURNAL", 2)] == kinds(await shipments(world))
        statistics = world.shipper.statistics()
        assert (2, None, 1, 1, None) == (
            statistics.sequence,
            statistics.unshipped_seconds,
            statistics.journals,
            statistics.copies,
            statistics.failure,
        )


async def test_names_and_contents_of_one_moment_share_a_journal(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Requests are scarce: what is written together goes by one message of contents and one of names."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"first", b"x")
        await settle(world)
        sent = len(world.memory.messages(world.index))
        for number in range(30):
            await write(world, b"%d" % number, b"x" * 100)
        await trio.sleep(60)
        assert 1 == len(world.memory.messages(world.index)) - sent
        assert not world.metadata.shipping.has_unshipped


async def test_journals_keep_their_distance(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """However much changes, a journal comes every few seconds only."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        for number in range(120):
            await world.metadata.note_write(ROOT_INODE, 0, number + 5)
            await trio.sleep(0.5)
        assert 5 <= len(world.memory.messages(world.index)) <= 13


async def test_a_change_is_in_discord_within_the_delay_and_a_message(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """However long contents stay unsent, and whatever was being shipped when it was made."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"busy", b"1")
        await settle(world)
        world.chunks.pause()  # there are contents to be sent for as long as this lasts
        await world.chunks.write((await world.metadata.lookup(ROOT_INODE, b"busy")).inode, 0, b"2")
        made: deque[tuple[float, int]] = deque()
        oldest = 0.0
        for number in range(300):
            await world.metadata.set_xattr(ROOT_INODE, b"user.%d" % number, b"", XattrMode.CREATE, number)
            made.append((trio.current_time(), world.metadata.shipping.mark()))
            await trio.sleep(0.3)
            while made and world.metadata.shipping.is_shipped(made[0][1]):
                made.popleft()
            oldest = max(oldest, trio.current_time() - made[0][0] if made else 0.0)
        assert 5.0 <= oldest <= 5.0 + 2.0 + 0.6  # delay, at most one message of contents, and how often we look


async def test_dirty_chunks_are_lost_and_overwritten_ones_older(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What Discord lacks is an error and never zeros; what it has in an older content is told; both by path."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"older", b"1" * 2 * CHUNK)
        await settle(world)
        world.chunks.pause()
        inode = (await world.metadata.lookup(ROOT_INODE, b"older")).inode
        await world.chunks.write(inode, 0, b"2" * CHUNK)
        await world.metadata.note_write(inode, CHUNK, 7)
        await write(world, b"lost", b"3" * 2 * CHUNK)
        await world.shipper.drain()
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert (2, ("/lost",), ("/older",)) == (
            report.rebuilt.lost_chunks,
            report.rebuilt.lost.paths,
            report.rebuilt.older.paths,
        )
        with contextlib.closing(SqliteMetadataStore.open(tmp_path / "rebuilt.db")) as store:
            lost = (await store.lookup(ROOT_INODE, b"lost")).inode
            assert [(lost, 0), (lost, 1)] == [tuple(row.key) for row in store.dirty_chunks()]


@pytest.mark.parametrize("step", ["send", "ledger", "durable"])
async def test_failure_at_any_step_is_tried_again(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It is told while it lasts, nothing is acknowledged before Discord has all, and then all is there."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await settle(world)
        broken = True
        if step == "send":
            world.transport.plan("send", 1, Fault(before=TransientStorageError("no network")))
        elif step == "durable":

            async def fails() -> None:
                nonlocal broken
                if broken:
                    broken = False
                    raise FilesystemError(5, "the disk is broken")

            monkeypatch.setattr(world.shipper, "_ask", world.shipper._ask._replace(make_durable=fails))
        else:
            monkeypatch.setattr(world.metadata.shipping.snapshot, "begin", _failing_once(world))
        world.chunks.pause()
        await world.metadata.note_write(ROOT_INODE, 0, 99)
        await trio.sleep(5.3)
        assert world.shipper.statistics().failure
        assert world.metadata.shipping.has_unshipped
        await world.shipper.drain()
        assert None is world.shipper.statistics().failure
        await recovered(world, tmp_path / "rebuilt.db")
        await world.metadata.commit()
        assert shipped_rows(tmp_path / "volume.db") == shipped_rows(tmp_path / "rebuilt.db")


def _failing_once(world: RealStores) -> object:
    begin = world.metadata.shipping.snapshot.begin
    calls = []

    def fails() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise FilesystemError(28, "no room")
        begin()

    return fails


@pytest.mark.parametrize("step", ["before the send", "after the send", "after the record"])
async def test_crash_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock, step: str
) -> None:
    """Killed at any moment, the next life goes on in the chain, and the volume can be rebuilt, whole."""
    async with real_stores(tmp_path, ships=True) as (world, nursery):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        held = trio.Event()
        fault = Fault(hold=held) if step == "before the send" else Fault(hold_after=held)
        await write(world, b"two", b"2" * CHUNK)
        await world.chunks.drain()
        if step == "after the record":
            await world.shipper.drain()
            fault.reached.set()
        else:
            world.transport.plan("send", 1, fault)
            nursery.start_soon(world.shipper.drain)
        await fault.reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        await world.crash(nursery)
        await write(world, b"three", b"3" * CHUNK)
        await settle(world)
        assert None is world.shipper.statistics().conflict
        whole = [each for each in await shipments(world) if each.is_whole]
        assert [1, 2, 3][: len(whole)] == [each.header.sequence for each in whole]
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert (whole[-1].header.sequence, ()) == (report.sequence, report.missing)
        await world.metadata.commit()
        assert shipped_rows(tmp_path / "volume.db") == shipped_rows(tmp_path / "rebuilt.db")


async def test_nothing_is_sent_that_a_power_cut_could_take(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a state leaves the machine all of it is synced here, and so is the note that it was begun."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await world.chunks.drain()
        steps: list[str] = []
        synced: list[int] = []
        make_durable, send = world.shipper._ask.make_durable, world.transport.send

        async def durable() -> None:
            await make_durable()
            steps.append("durable")
            synced.append(len(world.metadata.shipping.position().attempts))
            assert not world.metadata._database.has_open_transaction

        async def sent(*arguments: Any, **named: Any) -> Any:
            steps.append("send")
            return await send(*arguments, **named)

        monkeypatch.setattr(world.shipper, "_ask", world.shipper._ask._replace(make_durable=durable))
        monkeypatch.setattr(world.transport, "send", sent)
        await world.shipper.drain()
        assert (["durable", "send"], [1]) == (steps, synced)


async def test_lost_answer_stores_a_journal_once(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What has arrived without being acknowledged is found in the channel, long after Discord forgot the nonce."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        world.transport.plan("send", 1, Fault(after=LOST))
        world.transport.plan(
            "list_messages", 2, Fault(before=TransientStorageError("no network", retry_after_seconds=1))
        )
        world.chunks.pause()
        await world.metadata.note_write(ROOT_INODE, 0, 99)
        with trio.fail_after(3000):
            await trio.sleep(400)
            await world.shipper.drain()
        assert [("CHECKPOINT", 1)] == kinds(await shipments(world))
        assert 1 == len(world.memory.messages(world.index))


@contextlib.asynccontextmanager
async def another_machine(world: RealStores, path: Path) -> AsyncIterator[SqliteMetadataStore]:
    """A machine on which the volume was recovered, and which has sent its first state."""
    await recovered(world, path)
    with contextlib.closing(SqliteMetadataStore.open(path)) as store:
        await drained(world, store)
        yield store


async def drained(world: RealStores, store: SqliteMetadataStore) -> ShipperStatistics:
    """Let another machine ship what it has."""
    shipper = world.make_shipper(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shipper.run)
        await shipper.drain()
        nursery.cancel_scope.cancel()
    return shipper.statistics()


async def test_second_machine_ends_the_first_one(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """The old machine comes back after a recovery elsewhere: it says so, ships and sweeps nothing, and works on."""
    async with real_stores(tmp_path, ships=True, sweep_grace_seconds=0, sweep_interval_seconds=1) as (world, _):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        async with another_machine(world, tmp_path / "second.db"):
            await write(world, b"old", b"x" * CHUNK)
            await settle(world)
            told = world.shipper.statistics()
            assert "another machine has gone on" in (told.conflict or "")
            one = (await world.metadata.unlink(ROOT_INODE, b"one", 9)).inode
            world.chunks.discard(one)
            await trio.sleep(300)
            assert 2 == sum(len(world.memory.messages(channel)) for channel in world.channels)
            assert [1, 2] == [each.header.sequence for each in await shipments(world)]
        await recovered(world, tmp_path / "third.db")
        assert {b"one"} == await names_of(tmp_path / "third.db")


async def test_conflict_is_found_again_after_a_restart(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """It is not forgotten: the next life of the old machine does not go on either."""
    async with real_stores(tmp_path, ships=True) as (world, nursery):
        await write(world, b"one", b"1")
        await settle(world)
        async with another_machine(world, tmp_path / "second.db"):
            for _ in range(2):
                await world.metadata.note_write(ROOT_INODE, 0, 99)
                await world.shipper.drain()
                assert world.shipper.is_stopped
                await world.restart(nursery)
                assert not world.shipper.is_stopped


async def test_machine_that_was_put_back_stops(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A state directory from a backup does not know what was sent since: nothing contradicts that, and it is told."""
    async with real_stores(tmp_path, ships=True) as (world, nursery):
        await write(world, b"one", b"1")
        await settle(world)
        with (
            contextlib.closing(sqlite3.connect(tmp_path / "volume.db")) as live,
            contextlib.closing(sqlite3.connect(tmp_path / "backup.db")) as backup,
        ):
            live.backup(backup)
        await write(world, b"two", b"2")
        await settle(world)

        def put_back() -> None:
            for name in ("volume.db-wal", "volume.db-shm"):
                (tmp_path / name).unlink(missing_ok=True)
            (tmp_path / "backup.db").replace(tmp_path / "volume.db")

        await world.cut_power(nursery, put_back)
        await write(world, b"three", b"3")
        await settle(world)
        assert "put back from a backup" in (world.shipper.statistics().conflict or "")
        assert [("CHECKPOINT", 1), ("JOURNAL", 2)] == kinds(await shipments(world))
        await recovered(world, tmp_path / "rebuilt.db")
        assert {b"one", b"two"} == await names_of(tmp_path / "rebuilt.db")


async def test_two_branches_are_told_apart_by_device(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Two machines that went on at the same moment: neither is preferred, and whoever is chosen ends the other."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await settle(world)
        await recovered(world, tmp_path / "second.db")
        await write(world, b"first", b"1")
        await settle(world)
        with contextlib.closing(SqliteMetadataStore.open(tmp_path / "second.db")) as store:
            store.shipping.examined(world.memory.messages(world.index)[-1].message)  # it looked a moment before
            await drained(world, store)
            second = store.shipping.position().device.hex()
        with pytest.raises(UserError, match="--device") as caught:
            await recovered(world, tmp_path / "third.db")
        assert ExitCode.USAGE == caught.value.exit_code
        assert second[:8] in str(caught.value)
        with pytest.raises(UserError, match="no machine"):
            await recovered(world, tmp_path / "fourth.db", "zz")
        await recovered(world, tmp_path / "chosen.db", second[:8])
        assert {b"one"} == await names_of(tmp_path / "chosen.db")
        with contextlib.closing(SqliteMetadataStore.open(tmp_path / "chosen.db")) as store:
            assert None is (await drained(world, store)).conflict
        await recovered(world, tmp_path / "after.db")
        assert {b"one"} == await names_of(tmp_path / "after.db")


async def damage(world: RealStores, shipment: Shipment) -> None:
    """Bit rot in the middle of the first part of a shipment."""
    location = shipment.parts[0].location
    content = bytearray(world.memory.stored_bytes(location.attachment))
    content[len(content) // 2] ^= 1
    world.memory.damage(location.attachment, bytes(content))


async def test_damaged_newest_journal_leaves_the_state_before(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Whatever of it is damaged: the state before it is taken, and what is missing is said."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        for name in (b"one", b"two", b"three"):
            await write(world, name, b"x")
            await settle(world)
        newest = (await shipments(world))[-1]
        await damage(world, newest)
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert {b"one", b"two"} == await names_of(tmp_path / "rebuilt.db")
        assert (2, True) == (report.sequence, bool(report.missing))


async def test_short_journals_are_fetched_once(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What was looked at is kept until it is read; one that came damaged is asked for again."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        for name in (b"one", b"two", b"three"):
            await write(world, name, b"x")
            await settle(world)
        for broken in (False, True):
            before = world.memory.statistics().fetches
            index = IndexChannel(world.memory, world.index, world.key, VOLUME_ID, keep_bytes=1 << 20)
            parts = await index.parts(await index.messages(MessageId(0)))
            if broken:
                index._kept[parts[1].location.attachment] = b"no part" * 20
            assert [1, 2, 3] == [(await index.read(part)).header.sequence for part in parts]
            assert 3 + broken == world.memory.statistics().fetches - before


async def test_nothing_whole_is_told_with_what_is_wrong(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """All that there is is damaged: the line names it, and the last resort."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"x")
        await settle(world)
        await damage(world, (await shipments(world))[0])
        with pytest.raises(UserError, match=r"checkpoint copy 1 is damaged \(.*--from-packs") as caught:
            await recovered(world, tmp_path / "rebuilt.db")
        assert ExitCode.VOLUME_DAMAGED == caught.value.exit_code


async def test_damaged_newest_copy_is_passed_over(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """The older copy and the journals since then give the same state: nothing is lost."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"x")
        await settle(world)
        world.shipper._builder = dataclasses.replace(world.shipper._builder, rule=EVERY_TIME)
        await write(world, b"two", b"x")
        await settle(world)
        await trio.sleep(10)
        found = await shipments(world)
        assert [("CHECKPOINT", 1), ("JOURNAL", 2), ("CHECKPOINT", 2)] == kinds(found)
        await damage(world, found[-1])
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert {b"one", b"two"} == await names_of(tmp_path / "rebuilt.db")
        assert (2, 1) == (report.sequence, report.journal_count)


async def test_newest_two_copies_and_the_journals_since_stay(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """With each new copy what only older states need is deleted, and nothing before."""
    async with real_stores(tmp_path, ships=True) as (world, nursery):
        world.copy_rule = EVERY_TIME
        await world.restart(nursery)
        for number in range(6):
            await write(world, b"%d" % number, b"x")
            await settle(world)
            await trio.sleep(20)
        assert [
            ("CHECKPOINT", 5), ("JOURNAL", 6), ("CHECKPOINT", 6),
        ] == sorted(kinds(await shipments(world)), key=lambda each: (each[1], each[0] == "CHECKPOINT"))  # fmt: skip
        assert world.shipper.statistics().deleted_messages > 0
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert ((), 6) == (report.missing, report.sequence)


async def test_crash_while_a_copy_is_sent_leaves_no_mess(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What arrived of it is deleted with the next copy, and the volume can be rebuilt all the time."""
    async with real_stores(tmp_path, ships=True) as (world, nursery):
        await write(world, b"one", b"x")
        await settle(world)
        world.copy_rule = EVERY_TIME
        await world.restart(nursery)
        held = trio.Event()
        fault = world.transport.plan("send", 3, Fault(hold_after=held))
        await write(world, b"two", b"x")
        await settle(world)
        await fault.reached.wait()
        await world.crash(nursery)
        assert {b"one", b"two"} == await _names_now(world, tmp_path / "rebuilt.db")
        for name in (b"three", b"four", b"five"):
            await write(world, name, b"x")
            await settle(world)
            await trio.sleep(20)
        assert {"CHECKPOINT": 2, "JOURNAL": 1} == Counter(kind for kind, _ in kinds(await shipments(world)))


@pytest.mark.parametrize("step", ["before", "after"])
async def test_crash_while_old_ones_are_deleted_deletes_the_rest_later(
    tmp_path: Path, autojump_clock: trio.abc.Clock, step: str
) -> None:
    """Whether Discord had deleted them or not: the next copy's turn ends with what it would have ended with."""
    async with real_stores(tmp_path, ships=True) as (world, nursery):
        world.copy_rule = EVERY_TIME
        await world.restart(nursery)
        for name in (b"one", b"two"):
            await write(world, name, b"x")
            await settle(world)
            await trio.sleep(20)
        held = trio.Event()
        fault = Fault(hold=held) if step == "before" else Fault(hold_after=held)
        world.transport.plan("delete", 1, fault)
        await write(world, b"three", b"x")
        await settle(world)
        await fault.reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        await world.crash(nursery)
        assert {b"one", b"two", b"three"} == await _names_now(world, tmp_path / "rebuilt.db")
        await write(world, b"four", b"x")
        await settle(world)
        await trio.sleep(20)
        assert [3, 4, 4] == sorted(each.header.sequence for each in await shipments(world))


async def _names_now(world: RealStores, path: Path) -> set[bytes]:
    await recovered(world, path)
    return await names_of(path)


async def test_half_sent_journal_of_several_messages_does_not_count(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """Killed between two messages of one journal: the state before it is what there is, until the next life."""
    async with real_stores(tmp_path, ships=True) as (world, nursery):
        await write(world, b"one", b"x")
        await settle(world)
        world.attachment_bytes = 256 * 1024
        world.shipper_settings = dataclasses.replace(world.shipper_settings, message_bytes=300 * 1024)
        await world.restart(nursery)
        noise = random.Random(4)
        inode = (await world.metadata.lookup(ROOT_INODE, b"one")).inode
        for number in range(12):
            value = noise.randbytes(60_000)
            await world.metadata.set_xattr(inode, b"user.%d" % number, value, XattrMode.EITHER, 5)
        fault = world.transport.plan("send", 3, Fault(hold=trio.Event()))
        nursery.start_soon(world.shipper.drain)
        await fault.reached.wait()
        assert {b"one"} == await _names_now(world, tmp_path / "before.db")
        (half,) = [each for each in await shipments(world) if not each.is_whole]
        assert (2, 2) == (len(half.messages), half.header.sequence)
        report = await recovered(world, tmp_path / "half.db")
        assert (1, True) == (report.sequence, bool(report.missing))
        await world.crash(nursery)
        await settle(world)
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert (2, ()) == (report.sequence, report.missing)
        await world.metadata.commit()
        assert shipped_rows(tmp_path / "volume.db") == shipped_rows(tmp_path / "rebuilt.db")


async def test_limit_that_discord_lowers_is_learnt(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """An attachment that is refused as too large is cut into smaller ones."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        world.attachment_bytes = 4 << 20
        world.memory.attachment_limit_bytes = 600_000
        noise = random.Random(3)
        for number in range(20):
            await write(world, b"%d" % number, b"x")
            inode = (await world.metadata.lookup(ROOT_INODE, b"%d" % number)).inode
            await world.metadata.set_xattr(inode, b"user.noise", noise.randbytes(60_000), XattrMode.EITHER, 5)
        await settle(world)
        (copy,) = await shipments(world)
        assert copy.is_whole
        assert len(copy.parts) > 2
        await recovered(world, tmp_path / "rebuilt.db")
        await world.metadata.commit()
        assert shipped_rows(tmp_path / "volume.db") == shipped_rows(tmp_path / "rebuilt.db")


async def test_what_others_write_into_the_channel_is_ignored(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Chat, pictures, packs and another volume's journals: none of it matters to shipping or to recovery."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        other_volume = sealed(header("a"), PackKind.JOURNAL, [names(3)])[0]
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        pack = world.memory.messages(world.channels[0])[0].attachments[0]
        for number, content in enumerate((b"hello", b"x", other_volume, world.memory.stored_bytes(pack.attachment))):
            upload = Upload("picture.png", (content,))
            await world.memory.send(world.index, [upload], nonce=f"foreign{number}", content="look at this")
        await write(world, b"two", b"2")
        await settle(world)
        assert (None, None) == (world.shipper.statistics().conflict, world.shipper.statistics().failure)
        report = await recovered(world, tmp_path / "rebuilt.db")
        (told,) = report.missing
        assert "not of this volume" in told
        assert told.endswith(": 1"), "the other volume's journal might be a damaged one of this volume"
        assert 2 == report.sequence
        assert {b"one", b"two"} == await names_of(tmp_path / "rebuilt.db")


async def test_newer_format_in_the_channel_is_refused(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later disfs has gone on with the volume: this one does not guess, and says what is needed."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await settle(world)
        with monkeypatch.context() as later:
            later.setattr(frames, "ROWS_VERSION", 2)
            (newer,) = sealed(header("a"), PackKind.JOURNAL, [], key=world.key)
        await world.memory.send(world.index, [Upload("x.bin", (newer,))], nonce="newer")
        with pytest.raises(UserError, match="version 2, this disfs knows 1"):
            await recovered(world, tmp_path / "rebuilt.db")
        await write(world, b"two", b"2")
        await settle(world)
        assert "use a newer disfs" in (world.shipper.statistics().conflict or "")


async def test_empty_channel_cannot_be_recovered_from(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """One line that says so."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        with pytest.raises(UserError, match="no whole copy") as caught:
            await recovered(world, tmp_path / "rebuilt.db")
        assert ExitCode.VOLUME_DAMAGED == caught.value.exit_code


async def test_garbage_stays_until_its_journal_is_in_discord(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A deleted file's contents outlive the file until no recoverable state refers to them, and are then deleted."""
    async with real_stores(tmp_path, ships=True, sweep_grace_seconds=1, sweep_interval_seconds=1) as (world, _):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        world.shipper.pause()
        one = (await world.metadata.unlink(ROOT_INODE, b"one", 9)).inode
        world.chunks.discard(one)
        await world.metadata.remove_orphan(one)
        await trio.sleep(600)
        assert 1 == len(world.memory.messages(world.channels[0]))
        world.shipper.resume()
        await trio.sleep(60)
        assert 0 == len(world.memory.messages(world.channels[0]))


async def test_nothing_is_deleted_before_a_look_at_the_channel(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """After a start nobody knows whether the volume has gone on elsewhere, and refers to what is garbage here."""
    async with real_stores(tmp_path, ships=True, sweep_grace_seconds=1, sweep_interval_seconds=50) as (world, nursery):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        one = (await world.metadata.unlink(ROOT_INODE, b"one", 9)).inode
        world.chunks.discard(one)
        await settle(world)
        held = trio.Event()
        world.transport.plan("list_messages", 1, Fault(hold=held))
        await world.restart(nursery)
        await trio.sleep(600)
        assert 1 == len(world.memory.messages(world.channels[0]))
        held.set()
        await trio.sleep(200)
        assert 0 == len(world.memory.messages(world.channels[0]))


async def test_paused_shipper_begins_nothing(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A drain waits for the resume."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        world.shipper.pause()
        await world.metadata.note_write(ROOT_INODE, 0, 99)
        with trio.move_on_after(100):
            await world.shipper.drain()
        assert [] == world.memory.messages(world.index)
        world.shipper.resume()
        await world.shipper.drain()
        assert 1 == len(world.memory.messages(world.index))


async def test_regression_journal_that_was_stored_twice_is_no_conflict(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """A slow request is given up and repeated, and both are stored: the second one is the same journal."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await settle(world)
        await write(world, b"two", b"2")
        await settle(world)
        newest = world.memory.messages(world.index)[-1].attachments[0]
        raw = world.memory.stored_bytes(newest.attachment)
        await world.memory.send(world.index, [Upload("again.bin", (raw,))], nonce="late")
        await write(world, b"three", b"3")
        await settle(world)
        assert None is world.shipper.statistics().conflict
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert (3, ()) == (report.sequence, report.missing)


async def test_regression_rotten_version_of_a_journal_leaves_the_state_before(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """One flipped bit of the newest journal costs the newest journal, not the volume."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        for name in (b"one", b"two"):
            await write(world, name, b"x")
            await settle(world)
        location = (await shipments(world))[-1].parts[0].location
        content = bytearray(world.memory.stored_bytes(location.attachment))
        content[-24] ^= 2
        world.memory.damage(location.attachment, bytes(content))
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert {b"one"} == await names_of(tmp_path / "rebuilt.db")
        assert any("newer disfs" in missing for missing in report.missing)


async def test_regression_forged_trailer_stops_neither_shipping_nor_recovery(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """Whoever may write into the channel, without any key, must not be able to end either for good."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await settle(world)
        forged = b"DISFSPCK\x02\x00" + bytes(22)
        await world.memory.send(world.index, [Upload("x.bin", (forged,))], nonce="anybody")
        await write(world, b"two", b"2")
        with trio.move_on_after(100):
            await settle(world)
        told = world.shipper.statistics()
        assert (None, 1) == (told.conflict, told.unreadable)
        await recovered(world, tmp_path / "rebuilt.db")
        assert {b"one", b"two"} == await names_of(tmp_path / "rebuilt.db")


async def test_regression_attempt_that_arrives_late_is_no_conflict(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """kill -9 while Discord works on the request: it may be stored after the next life has sent the same again."""
    async with real_stores(tmp_path, ships=True) as (world, nursery):
        await write(world, b"one", b"1")
        await settle(world)
        held = trio.Event()
        world.transport.plan("send", 2, Fault(hold=held))  # the first one has the contents
        await write(world, b"two", b"2")
        with trio.move_on_after(40):
            await settle(world)
        turn = world.shipper._turn
        assert turn is not None
        late = turn.built.read(turn.built.parts[0])
        await world.crash(nursery)
        await settle(world)
        await world.memory.send(world.index, [Upload("late.bin", (late,))], nonce="late")
        await write(world, b"three", b"3")
        await settle(world)
        assert None is world.shipper.statistics().conflict


async def test_late_first_copy_counts_as_no_copy(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """An abandoned attempt at the first copy arrives whole, after another one: it is deleted with the next copy."""
    async with real_stores(tmp_path, ships=True) as (world, nursery):
        await write(world, b"one", b"1")
        await world.chunks.drain()
        fault = world.transport.plan("send", 1, Fault(hold=trio.Event()))
        nursery.start_soon(world.shipper.drain)
        await fault.reached.wait()
        turn = world.shipper._turn
        assert turn is not None
        late = turn.built.read(turn.built.parts[0])
        await world.crash(nursery)
        await settle(world)
        stored = await world.memory.send(world.index, [Upload("late.bin", (late,))], nonce="late")
        await write(world, b"two", b"2")
        await settle(world)
        assert None is world.shipper.statistics().conflict
        assert 0 == {each.message: each.kind for each in world.metadata.shipping.messages()}[stored.message]
