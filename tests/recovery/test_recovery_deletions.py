"""What is deleted in Discord, and what is not because another machine, or another state of this one, refers to it."""

from __future__ import annotations

import ast
import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.real_stores import real_stores
from test_recovery_shipping import (  # type: ignore[import-not-found]  # mypy sees no module in this directory
    CHUNK,
    another_machine,
    damage,
    names_of,
    recovered,
    settle,
    shipments,
    write,
)

import disfs
from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.faults import Fault
from disfs.errors import TransientStorageError, UserError
from disfs.metadata.shipping import ShippedMessage
from disfs.recovery.arrivals import ForkedError
from disfs.recovery.retention import superfluous
from disfs.values import ROOT_INODE, MessageId

if TYPE_CHECKING:
    from support.real_stores import RealStores

    from disfs.chunkstore.transport.base import StoredMessage
    from disfs.values import ChannelId


async def delete(world: RealStores, name: bytes) -> None:
    """A file of the root is gone, here."""
    inode = (await world.metadata.unlink(ROOT_INODE, name, 9)).inode
    world.chunks.discard(inode)
    await world.metadata.remove_orphan(inode)


async def test_regression_late_journal_sweeps_nothing_of_the_other_machine(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """A laptop sleeps with a journal on its way; the volume is recovered elsewhere; the laptop wakes up."""
    async with real_stores(tmp_path, ships=True, sweep_grace_seconds=1, sweep_interval_seconds=1) as (world, _):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        awake = trio.Event()
        world.transport.plan("send", 1, Fault(hold=awake))
        await delete(world, b"one")
        await trio.sleep(30)  # the look is done, the send is under way
        async with another_machine(world, tmp_path / "second.db"):
            awake.set()
            await trio.sleep(300)
            assert 1 == len(world.memory.messages(world.channels[0])), "the contents of the other machine's file"


async def test_regression_machine_that_was_put_back_deletes_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """A snapshot of the machine from the middle of an upload: what came of that upload is needed by the journals."""
    async with real_stores(tmp_path, ships=True, sweep_grace_seconds=1, sweep_interval_seconds=1, stray_seconds=10) as (
        world,
        nursery,
    ):
        await write(world, b"zero", b"0" * CHUNK)
        await settle(world)
        underway = trio.Event()
        world.transport.plan("send", 1, Fault(hold=underway))
        await write(world, b"one", b"1" * CHUNK)
        await trio.sleep(8)
        await world.metadata.commit()
        with (
            contextlib.closing(sqlite3.connect(tmp_path / "volume.db")) as live,
            contextlib.closing(sqlite3.connect(tmp_path / "backup.db")) as backup,
        ):
            live.backup(backup)
        underway.set()
        await settle(world)
        stored = len(world.memory.messages(world.channels[0]))
        assert 2 == stored

        def put_back() -> None:
            for name in ("volume.db-wal", "volume.db-shm"):
                (tmp_path / name).unlink(missing_ok=True)
            (tmp_path / "backup.db").replace(tmp_path / "volume.db")

        await world.cut_power(nursery, put_back, paused=True)
        await trio.sleep(300)
        assert "put back" in (world.shipper.statistics().conflict or "")
        assert stored == len(world.memory.messages(world.channels[0])), "what the newest journal refers to"


async def test_old_journals_stay_when_another_machine_has_come(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """The look that comes before the deletion finds it: what it was recovered from may be among them."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"x")
        await settle(world)
        doomed = world.memory.messages(world.index)[0].message
        world.metadata.shipping.note_remains([doomed])
        async with another_machine(world, tmp_path / "second.db"):
            world.metadata.shipping.note([ShippedMessage(MessageId(1), PackKind.CHECKPOINT, 1)])
            assert [doomed] == superfluous(world.metadata.shipping.messages())
            await world.shipper._retention.clean_up()
            assert doomed in {each.message for each in world.memory.messages(world.index)}
            assert world.shipper.is_stopped


async def test_regression_snapshot_stays_when_another_machine_has_come(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """Deleting a snapshot of a volume that was recovered elsewhere is refused: it is shown, and it is in Discord."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"x")
        desk = world.make_snapshot_desk()
        await desk.create("monday")
        await settle(world)
        before = [each.message for each in world.memory.messages(world.index)]
        async with another_machine(world, tmp_path / "second.db"):
            with pytest.raises(UserError, match="nothing of this mount is sent any more"):
                await desk.delete("monday")
        assert {*before} <= {each.message for each in world.memory.messages(world.index)}
        assert ["monday"] == [each["name"] for each in desk.listed()]


async def test_regression_remains_of_a_snapshot_stay_when_another_machine_has_come(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """What a kill left to be deleted is not deleted by a machine that was left behind."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"x")
        desk = world.make_snapshot_desk()
        await desk.create("monday")
        await settle(world)
        (record,) = world.metadata.snapshots.all()
        world.metadata.snapshots.begin_removal(record.snapshot)
        before = [each.message for each in world.memory.messages(world.index)]
        async with another_machine(world, tmp_path / "second.db"):
            with pytest.raises(ForkedError):
                await desk.finish()
        assert {*before} <= {each.message for each in world.memory.messages(world.index)}


def test_every_place_that_deletes_in_discord_is_known() -> None:
    """Each confirms before it deletes, which `ConfirmedDeletions` enforces in tests; leases need not, nor superblocks
    in whose place there is another one of the same key."""
    package = Path(disfs.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        place = path.relative_to(package).as_posix()
        if not place.startswith(("chunkstore/transport/", "emulator/")) and ".delete(" in path.read_text():
            calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
            names = {ast.unparse(call.func) for call in calls}
            found |= {place for name in names if name.endswith("transport.delete")}
    assert {
        "chunkstore/strays.py",
        "chunkstore/sweep.py",
        "new_superblock.py",
        "recovery/fsck_repair.py",
        "recovery/holding.py",
        "recovery/retention.py",
        "recovery/snapshot_shipments.py",
    } == found


async def test_each_batch_comes_after_a_look(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Garbage of an hour ago does not go on the strength of a look of an hour ago."""
    async with real_stores(tmp_path, ships=True, sweep_grace_seconds=1, sweep_interval_seconds=1) as (world, _):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        await delete(world, b"one")
        held = trio.Event()
        world.transport.plan("list_messages", 2, Fault(hold=held))  # the journal's look, and then the sweep's
        await settle(world)
        await trio.sleep(300)
        assert 1 == len(world.memory.messages(world.channels[0]))
        held.set()
        await trio.sleep(10)
        assert [] == world.memory.messages(world.channels[0])


async def test_look_that_fails_deletes_nothing_and_is_told(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """While the index channel cannot be listed nothing is swept; status says why, and it goes on by itself."""
    async with real_stores(tmp_path, ships=True, sweep_grace_seconds=1, sweep_interval_seconds=5) as (world, _):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        await delete(world, b"one")
        lost = TransientStorageError("no network")
        fault = world.transport.plan("list_messages", 2, Fault(before=lost))
        await settle(world)
        await fault.reached.wait()
        await trio.sleep(1)
        assert 1 == len(world.memory.messages(world.channels[0]))
        assert "no network" == world.chunks.statistics().sweep.failure
        await trio.sleep(30)
        assert [] == world.memory.messages(world.channels[0])


async def test_stop_during_a_look_is_final(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A look that comes back after this machine had to give way allows nothing."""
    async with real_stores(tmp_path, ships=True) as (world, nursery):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        held = trio.Event()
        fault = world.transport.plan("list_messages", 1, Fault(hold=held))
        nursery.start_soon(world.shipper.look)
        await fault.reached.wait()
        world.shipper._stop(TransientStorageError("another machine has it"))
        held.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not world.metadata.shipping.may_delete


async def test_each_repeat_of_a_journal_comes_after_a_look(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """The network comes back after the volume was recovered elsewhere: what failed before is not sent then."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await settle(world)
        world.chunks.pause()
        fault = world.transport.plan("send", 1, Fault(before=TransientStorageError("no network")))
        await world.metadata.note_write(ROOT_INODE, 0, 99)
        await fault.reached.wait()
        async with another_machine(world, tmp_path / "second.db"):
            await world.shipper.drain()
            assert [1, 2] == [each.header.sequence for each in await shipments(world)]
            assert world.shipper.is_stopped


async def test_regression_contents_that_were_swept_are_told_when_an_older_state_comes_back(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """The journal that freed them is damaged: the state before it names a message that is deleted."""
    async with real_stores(tmp_path, ships=True, sweep_grace_seconds=1, sweep_interval_seconds=1) as (world, _):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        await delete(world, b"one")
        await settle(world)
        await trio.sleep(60)
        assert [] == world.memory.messages(world.channels[0])
        for journal in (await shipments(world))[1:]:
            await damage(world, journal)
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert {b"one"} == await names_of(tmp_path / "rebuilt.db")
        assert (("/one",), 1) == (report.rebuilt.lost.paths, report.rebuilt.lost_chunks)
        assert "messages with contents that are not in Discord any more: 1" in report.missing
        assert () == report.rebuilt.problems


async def test_contents_among_other_messages_are_found(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """More messages than a listing shows, those of others among them, one of ours deleted: one file has lost some."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        for number in range(3):
            await write(world, b"%d" % number, b"x" * CHUNK)
            await world.chunks.drain()
            for other in range(150):
                await world.memory.send(world.channels[0], [Upload("x", (b"x",))], nonce=f"{number}-{other}")
        await settle(world)
        packs = sorted(
            each.message for each in world.memory.messages(world.channels[0]) if each.attachments[0].size_bytes > 1
        )
        await world.memory.delete(world.channels[0], [packs[1]])
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert (("/1",), 1) == (report.rebuilt.lost.paths, report.rebuilt.lost_chunks)


async def test_stale_listing_loses_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that one listing does not show is asked for once more."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"x" * CHUNK)
        await settle(world)
        listing, calls = world.memory.list_messages, []

        async def stale(channel: ChannelId, **named: Any) -> list[StoredMessage]:
            calls.append(channel)
            shown = await listing(channel, **named)
            return [] if calls.count(world.channels[0]) == 1 and channel == world.channels[0] else shown

        monkeypatch.setattr(world.memory, "list_messages", stale)
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert (0, ()) == (report.rebuilt.lost_chunks, report.missing)
        assert 2 == calls.count(world.channels[0])


async def test_regression_lost_run_hides_no_longer_one(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What was sent is gone, what was written over and behind it was not sent: all of it is lost, nothing zeros."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        world.chunks.pause()
        inode = (await world.metadata.lookup(ROOT_INODE, b"one")).inode
        await world.chunks.write(inode, 0, b"2" * 5 * CHUNK)
        await world.metadata.note_write(inode, 5 * CHUNK, 7)
        await world.shipper.drain()
        (pack,) = world.memory.messages(world.channels[0])
        await world.memory.delete(world.channels[0], [pack.message])
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert 5 == report.rebuilt.lost_chunks
