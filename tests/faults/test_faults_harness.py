"""A fault at each remote call, commit and sync of the product's paths, and then everything is held against a model.

By default a few steps of each scenario; `DISFS_FAULT_STEPS=N` takes N of each, `DISFS_FAULT_STEPS=all` every one, which
takes a while. A failure names the step: `DISFS_FAULT_ONLY=17` takes the 17th moment alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
from support.fault_actor import Actor
from support.fault_machine import Worlds
from support.fault_model import Model
from support.fault_scenarios import SCENARIOS
from support.fault_tape import REMOTE
from support.fault_trial import Fault, Trial, can_fail, leaves

from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from support.fault_machine import Life
    from trio.testing import MockClock

WANTED = os.environ.get("DISFS_FAULT_STEPS", "2")
ONLY = os.environ.get("DISFS_FAULT_ONLY")
_AT_ONCE = 40
"""How many wrecks are held in memory."""


def sample(count: int, name: str, *, of: int = 1) -> list[int]:
    """Which of so many points are tried; other ones for each scenario. `of`: in how many kinds."""
    if ONLY is not None:
        return [int(ONLY)]
    if WANTED == "all":
        return list(range(count))
    wanted = int(WANTED) * of
    begin = list(SCENARIOS).index(name) * 7
    return sorted({(begin + number * count // wanted) % count for number in range(wanted)})


class Complaints:
    """What went wrong, of many trials; a test that tries them all tells all."""

    def __init__(self) -> None:
        self._found: list[str] = []

    async def of(self, label: str, trial: Awaitable[object]) -> None:
        """Try it."""
        try:
            await trial
        except (Exception, BaseExceptionGroup) as error:  # all of them are told in the end
            self._found.append(f"{label}: {'; '.join(repr(leaf) for leaf in leaves(error))}")

    def tell(self) -> None:
        """Fail if there was any."""
        assert not self._found, "\n".join(self._found)


async def prepared(name: str, directory: Path, patch: pytest.MonkeyPatch) -> Trial:
    """A trial of the scenario of that name."""
    trial = Trial(SCENARIOS[name], Worlds(directory, patch), directory)
    await trial.prepare()
    return trial


@pytest.mark.parametrize("name", SCENARIOS)
async def test_volume_is_whole_after_kill_power_cut_and_fire(
    name: str, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any step: what was fsynced is there, and what was sent can be recovered elsewhere; then it goes on."""
    trial = await prepared(name, tmp_path, monkeypatch)
    chosen = sample(len(await trial.points()), name)
    complaints = Complaints()
    for begin in range(0, len(chosen), _AT_ONCE):
        for wreck in await trial.wrecks(chosen[begin : begin + _AT_ONCE]):
            await complaints.of(f"killed {wreck.point}", trial.check_machine(wreck.killed))
            cut = trial.check_machine(wreck.cut, may_lose=True, may_forget=True)
            await complaints.of(f"power cut {wreck.point}", cut)
            await complaints.of(f"burnt {wreck.point}", trial.check_burnt(wreck.killed))
    complaints.tell()


async def check_disturbed(trial: Trial, position: int, fault: Fault) -> None:
    """The mount goes on or ends in order; and what it leaves is whole."""
    disturbed = await trial.disturbed(position, fault)
    if disturbed is None:
        return
    of_disk = fault is Fault.FAIL and disturbed.point.kind not in REMOTE
    error = disturbed.error
    # Only a disk that fails may end a mount that was there; one that is not there yet may be refused.
    assert error is None or of_disk or not disturbed.was_mounted, error
    await trial.check_machine(disturbed.world, may_forget=of_disk)
    await trial.check_burnt(disturbed.world)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_volume_is_whole_after_a_failure_and_a_cancel(
    name: str, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any step: it is tried again, or its error is told; nothing is lost, here or for a recovery."""
    trial = await prepared(name, tmp_path, monkeypatch)
    points = await trial.points()
    complaints = Complaints()
    faults = list(Fault)
    for number, position in enumerate(sample(len(points), name, of=2)):
        for fault in faults if WANTED == "all" or ONLY else [faults[(number + list(SCENARIOS).index(name)) % 3]]:
            if fault is Fault.FAIL and not can_fail(points[position]):
                continue
            label = f"{fault.value} {points[position]} ({position})"
            await complaints.of(label, check_disturbed(trial, position, fault))
    complaints.tell()


async def test_regression_sync_ends_when_the_metadata_stop_meanwhile(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives in Discord can be recorded no more: `disfs sync` and `umount` say so instead of waiting for ever."""
    trial = await prepared("write and fsync", tmp_path, monkeypatch)

    async def script(life: Life) -> None:
        life.chunks.pause()
        await Actor(life, Model()).put(b"/file", b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_soon, life)
            with trio.fail_after(60), pytest.raises(FilesystemError, match="has stopped"):
                await life.sync()

    async def stop_soon(life: Life) -> None:
        await trio.sleep(1)
        life.metadata._database.fail("a test")

    with pytest.raises((FilesystemError, BaseExceptionGroup)) as caught:
        await trial.live(script)
    assert all(isinstance(leaf, FilesystemError) for leaf in leaves(caught.value)), caught.value
