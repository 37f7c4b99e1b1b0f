"""`fsck --repair` killed at any of its steps, or failing there: the next one finishes it, and no file is lost.

A step is a remote call, a transaction or a sync, as in `tests/faults`; `DISFS_FAULT_STEPS` is the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from support.chunk_worlds import in_this_thread
from support.fault_disk import Disk, watch_disk, write_image
from support.fault_tape import Discord, Tape, TapedTransport
from support.fault_trial import can_fail, error_of
from support.fsck_world import CONTENTS, KEY, FsckWorld

from disfs.errors import DisfsError
from disfs.metadata.repairs import Repairs
from disfs.recovery import repair_right
from disfs.recovery.fsck_repair import Repair
from disfs.recovery.index_channel import IndexChannel
from disfs.recovery.repair_right import RepairRight, right_to_repair

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.fault_disk import Image
    from support.fault_tape import Point
    from trio.testing import MockClock

    from disfs.recovery.holding import LeaseHolder

WANTED = os.environ.get("DISFS_FAULT_STEPS", "4")


def damage(world: FsckWorld) -> Discord:
    """A lost message, a wrong link count, a superblock that is gone, and a message that nothing refers to."""
    world.sql("UPDATE inodes SET nlink = nlink + 3 WHERE inode = (SELECT max(inode) FROM inodes)")
    discord = Discord()
    vars(discord).update(vars(world.memory))
    del discord._channels[world.index][discord.messages(world.index)[0].message]
    lost = world.messages()[0]
    del discord._channels[lost.channel][lost.message]
    return discord


class Unrivalled(RepairRight):
    """No other machine has the volume: the lease has tests of its own."""

    async def confirm(self) -> None:
        """It may."""
        await trio.lowlevel.checkpoint()


async def repaired(world: FsckWorld, discord: Discord, tape: Tape) -> None:
    """Check and repair."""
    transport = TapedTransport(discord, tape)
    with world.opened() as check:
        await check.run(transport, KEY, None)
        index = IndexChannel(transport, world.index, KEY, world.volume.superblock.volume_id)
        right = Unrivalled(None, index, check.rows)  # type: ignore[arg-type] # nobody asks it for a lease
        await Repair(check, online=True, delete_unknown=False).run(transport, right, lambda _line: None)


async def check_finished(world: FsckWorld, directory: Path, image: Image, discord: Discord) -> None:
    """Another repair ends it; each file is where it was or set aside, and what of it can be read is what it was."""
    write_image(directory, image)
    other = FsckWorld(directory)
    other.memory, other.index, other.channels = discord, world.index, world.channels
    other.volume, other.inodes = world.volume, world.inodes
    assert [] == await other.repair()
    found = await other.contents()
    for name, content in CONTENTS.items():
        here = [path for path in found if path == f"/{name.decode()}" or path.endswith(f"-{name.decode()}")]
        assert 1 == len(here), found.keys()
        assert found[here[0]] in (content, errno.EIO)
    assert not any(finding.kind.value == "superblock" for finding in await other.check())


async def run(
    world: FsckWorld, directory: Path, image: Image, discord: Discord, on_point: Callable[[Disk, Discord, Tape], None]
) -> Tape:
    """One repair on a disk of its own."""
    with Disk.holding(directory, image) as disk:
        tape = Tape()
        disk.tape = tape
        twin = discord.copy()
        tape.on_point = lambda _point: on_point(disk, twin, tape)
        other = FsckWorld(directory)
        other.index, other.channels, other.volume = world.index, world.channels, world.volume
        with contextlib.suppress(DisfsError, OSError), pytest.MonkeyPatch.context() as patch:
            patch.setattr(trio.to_thread, "run_sync", in_this_thread)
            watch_disk(lambda: disk, patch)
            patch.setattr(Repairs, "_transaction", stepped(disk, Repairs._transaction))
            await repaired(other, twin, tape)
        tape.stop()
        on_point(disk, twin, tape)
    return tape


def stepped(
    disk: Disk, transaction: Callable[[Repairs], contextlib.AbstractContextManager[sqlite3.Connection]]
) -> Callable[[Repairs], contextlib.AbstractContextManager[sqlite3.Connection]]:
    """Each transaction of a repair is a step too."""

    @contextlib.contextmanager
    def stepping(repairs: Repairs) -> Iterator[sqlite3.Connection]:
        with disk.step("commit of a repair"), transaction(repairs) as connection:
            yield connection

    return stepping


def end_at(
    points: list[Point],
    position: int,
    fails: bool,
    left: list[tuple[Image, Discord]],
    disk: Disk,
    discord: Discord,
    tape: Tape,
) -> None:
    """Let the step at a position fail, or note what there is at it, or in the end, in `left`."""
    is_there = len(tape.points) - 1 == position
    if tape.is_running and is_there and fails and can_fail(points[position]):
        raise error_of(points[position])
    if not left and (not tape.is_running if fails else is_there):
        left.append((disk.as_killed(), discord.copy()))


async def test_repair_is_finished_by_the_next_one(world: FsckWorld, tmp_path: Path, autojump_clock: MockClock) -> None:
    """Killed before and after each step, and each step failing."""
    discord = damage(world)
    image = Disk(world.directory).as_killed()
    tape = await run(world, tmp_path / "clean", image, discord, lambda _disk, _discord, _tape: None)
    points: list[Point] = tape.points
    assert {"commit", "fsync", "list", "send"} <= {point.kind for point in points}
    count = len(points) if WANTED == "all" else int(WANTED)
    for number in range(count):
        position = number * len(points) // count
        for fails in (False, True):
            left: list[tuple[Image, Discord]] = []

            on_point = partial(end_at, points, position, fails, left)
            name = f"{position}-{fails}"
            await run(world, tmp_path / name, image, discord, on_point)
            await check_finished(world, tmp_path / f"{name}-then", *left[0])


async def test_regression_repair_before_the_first_mount_is_not_held_up_by_a_killed_one(
    world: FsckWorld, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recovered volume has no device id yet; its lease says all the same that it was this machine's."""
    world.sql("DELETE FROM settings WHERE name = 'device'")

    async def killed(_holder: LeaseHolder) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(repair_right, "give_back", killed)
    for _ in range(2):
        with world.opened() as check:
            await check.run(world.memory, KEY, None)
            async with right_to_repair(world.volume, world.directory, check.rows, world.memory, KEY) as right:
                await right.confirm()
