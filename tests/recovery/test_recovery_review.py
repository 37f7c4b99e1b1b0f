"""What must hold of shipping and recovery and does not yet: each of these fails, and says so when it no longer does.

Whoever mends one moves it to the tests of its module as a `test_regression_*`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio
from support.real_stores import real_stores
from support.shipments import OTHER_DEVICE, header, seen
from test_recovery_chain import (  # type: ignore[import-not-found]  # mypy sees no module in this directory
    COPY,
    JOURNAL,
    A,
    B,
    C,
    chain,
    heads,
)
from test_recovery_shipping import (  # type: ignore[import-not-found]  # mypy sees no module in this directory
    CHUNK,
    EVERY_TIME,
    another_machine,
    damage,
    names_of,
    recovered,
    settle,
    shipments,
    write,
)

from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.faults import Fault
from disfs.errors import FilesystemError
from disfs.recovery.rebuild import _superseded
from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    from pathlib import Path

    from support.real_stores import RealStores

    from disfs.chunkstore.transport.base import Urgency
    from disfs.recovery.building import Built

pytestmark = pytest.mark.xfail(strict=True, reason="known, and to be mended")


async def _delete(world: RealStores, name: bytes) -> None:
    inode = (await world.metadata.unlink(ROOT_INODE, name, 9)).inode
    world.chunks.discard(inode)
    await world.metadata.remove_orphan(inode)


async def test_journal_that_got_through_late_sweeps_nothing_of_the_other_machine(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """A laptop sleeps with a journal on its way; the volume is recovered elsewhere; the laptop wakes up."""
    async with real_stores(tmp_path, ships=True, sweep_grace_seconds=1, sweep_interval_seconds=1) as (world, _):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        awake = trio.Event()
        world.transport.plan("send", 1, Fault(hold=awake))
        await _delete(world, b"one")
        await trio.sleep(30)  # the look is done, the send is under way
        async with another_machine(world, tmp_path / "second.db"):
            awake.set()
            await trio.sleep(300)
            assert 1 == len(world.memory.messages(world.channels[0])), "the contents of the other machine's file"


async def test_machine_that_was_put_back_deletes_nothing(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
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


async def test_rotten_version_of_a_journal_leaves_the_state_before(
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
        await recovered(world, tmp_path / "rebuilt.db")
        assert {b"one"} == await names_of(tmp_path / "rebuilt.db")


async def test_forged_trailer_stops_neither_shipping_nor_recovery(
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
        told = world.shipper.statistics().conflict
        await recovered(world, tmp_path / "rebuilt.db")
        assert told is None


async def test_attempt_that_arrives_late_is_no_conflict(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
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


def test_left_behind_branch_stays_left_behind_after_another_recovery() -> None:
    """A volume is recovered from a fork, and later once more: nobody is asked again about the fork."""
    x1 = header("x", "a", 2, device=OTHER_DEVICE)
    x2 = header("y", "x", 9, device=OTHER_DEVICE)
    chosen = header("z", "b", 3, device=b"a third device 3", superseded=("y",))
    parts = [seen(A, COPY), seen(B, JOURNAL), seen(x1, JOURNAL), seen(x2, COPY), seen(chosen, COPY)]
    found = chain(*parts)
    assert ["z"] == heads(found)
    head = found.heads()[0]
    told = tuple(each.rstrip(b".").decode() for each in _superseded(found, head))
    again = header("w", "z", 4, device=b"fourth device 04", superseded=told)
    later = header("v", "w", 5, device=b"fourth device 04", superseded=told)
    # The retention of the fourth device deletes what it followed, once it has two copies of its own.
    assert ["v"] == heads(chain(seen(x1, JOURNAL), seen(x2, COPY), seen(again, COPY), seen(later, COPY)))


def test_attempt_that_was_made_again_is_no_fork_after_a_recovery() -> None:
    """What the old machine sent twice stays no branch when another machine has gone on."""
    again = header("b2", "a", 2)
    parts = [seen(A, COPY), seen(B, JOURNAL), seen(again, JOURNAL), seen(C, JOURNAL)]
    found = chain(*parts)
    assert ["c"] == heads(found)
    told = tuple(each.rstrip(b".").decode() for each in _superseded(found, found.heads()[0]))
    other = header("x", "c", 4, device=OTHER_DEVICE, superseded=told)
    assert ["x"] == heads(chain(*parts, seen(other, COPY)))


async def test_copy_that_cannot_be_read_back_ends_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spool on a bad sector: the copy goes with a later journal, and the volume stays mounted."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await settle(world)
        world.shipper._builder = dataclasses.replace(world.shipper._builder, rule=EVERY_TIME)
        send = world.shipper._delivery.send

        async def bad_sector(built: Built, urgency: Urgency) -> None:
            if built.kind is COPY:
                raise OSError(5, "Input/output error")
            await send(built, urgency)

        monkeypatch.setattr(world.shipper._delivery, "send", bad_sector)
        await write(world, b"two", b"2")
        await settle(world)
        await trio.sleep(60)


async def test_store_that_stops_while_a_copy_is_sent_ends_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """Everything raises EIO then, and the mount stays, as it does when the store stops at any other time."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        await settle(world)
        world.shipper._builder = dataclasses.replace(world.shipper._builder, rule=EVERY_TIME)
        held = trio.Event()
        world.transport.plan("send", 3, Fault(hold=held))  # contents, journal, copy
        await write(world, b"two", b"2")
        await settle(world)
        await trio.sleep(1)
        world.metadata._database.fail("a test")
        held.set()
        await trio.sleep(60)


async def test_contents_that_were_swept_are_told_when_an_older_state_comes_back(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """The journal that freed them is damaged: the state before it names a message that is deleted."""
    async with real_stores(tmp_path, ships=True, sweep_grace_seconds=1, sweep_interval_seconds=1) as (world, _):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        await _delete(world, b"one")
        await settle(world)
        await trio.sleep(60)
        assert [] == world.memory.messages(world.channels[0])
        for journal in (await shipments(world))[1:]:
            await damage(world, journal)
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert {b"one"} == await names_of(tmp_path / "rebuilt.db")
        assert 1 == report.rebuilt.lost.count, "what was said: " + repr(report)


async def test_store_that_stopped_when_all_was_shipped_ends_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 6, at the step that waits for the next change."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        await write(world, b"one", b"1")
        clean_up = world.shipper._retention.clean_up

        async def stops() -> None:
            await clean_up()
            world.metadata._database.fail("a test")

        monkeypatch.setattr(world.shipper._retention, "clean_up", stops)
        with contextlib.suppress(FilesystemError):
            await settle(world)
        await trio.sleep(60)
