"""Runs a scenario, lets one fault happen, and holds against the model what the next lives find.

After each fault: the machine is mounted again, and again with a Discord that answers; and it burns, and the volume is
rebuilt elsewhere from what Discord held at that moment.
"""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from disfs.errors import DisfsError, ExitCode, FilesystemError, TransientStorageError, UserError
from disfs.recovery.fsck import Check, Scope
from disfs.recovery.fsck_findings import Kind
from disfs.volume_state import METADATA_NAME
from support.fault_actor import Actor, StoppedError, is_tree, walk
from support.fault_machine import KEY, new_discord, send_superblock
from support.fault_model import Found, Model
from support.fault_tape import REMOTE, Moment, Tape
from support.metadata_invariants import faults_of
from support.shipped_rows import shipped_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container
    from pathlib import Path

    from disfs.config import VolumeConfig
    from support.fault_disk import Image
    from support.fault_machine import Life, Machine, Worlds
    from support.fault_model import FoundTree, Tree
    from support.fault_scenarios import Scenario, Script
    from support.fault_tape import Discord, Point


PROOF = b"/goes on"
"""A file that is made after a fault, to show that the volume can be used."""


class Fault(enum.Enum):
    """What happens at a point, other than the end of everything."""

    FAIL = "fail"
    """The call gives the error that it can give; after its effect: its answer is lost."""
    CANCEL = "cancel"
    """Whoever asked for what runs goes away."""
    STOP = "stop"
    """The whole mount is cancelled."""


@dataclass(frozen=True)
class World:
    """All there is at a moment, and what was promised until then."""

    image: Image
    discord: Discord
    model: Model


@dataclass(frozen=True)
class Disturbed:
    """What a fault leaves that something goes on after."""

    point: Point
    world: World
    error: BaseException | None
    """How the mount ended, if that was by an error."""
    was_mounted: bool


@dataclass(frozen=True)
class Wreck:
    """What a fault leaves that ends everything."""

    point: Point
    killed: World
    cut: World


class Trial:
    """A scenario, ready to be run again and again. Under one jumping clock."""

    def __init__(self, scenario: Scenario, worlds: Worlds, directory: Path) -> None:
        self._scenario = scenario
        self._worlds = worlds
        self._directory = directory
        self._count = 0
        self._volume: VolumeConfig
        self._start: World

    async def prepare(self) -> None:
        """Run what comes before, once."""
        discord, self._volume = new_discord()
        await send_superblock(discord, self._volume)
        model = Model()
        left: list[World] = []
        with self._worlds.machine({}, discord, self._volume) as machine:
            machine.init()

            async def script(life: Life) -> None:
                await self._scenario.before(Actor(life, model))
                if self._scenario.killed:
                    left.append(World(machine.disk.as_killed(), discord.copy(), model.copy()))

            await machine.live(script)
            self._start = left[0] if left else World(machine.disk.as_killed(), discord.copy(), model)

    async def live(self, script: Callable[[Life], Awaitable[None]]) -> None:
        """One life after what came before, without a tape."""
        with self._worlds.machine(self._start.image, self._start.discord.copy(), self._volume) as machine:
            await machine.live(script)

    # -- with a fault -------------------------------------------------------------------------------------------

    async def points(self) -> list[Point]:
        """The scenario without a fault; all the moments at which there can be one."""
        run = await self._run(lambda _run: None)
        assert run.error is None
        return run.tape.points

    async def wrecks(self, wanted: Container[int]) -> list[Wreck]:
        """What kill -9 and a power cut leave at the points of these positions; from one run without a fault."""
        found: list[Wreck] = []

        def on_point(run: _Run) -> None:
            if run.position in wanted:
                found.append(run.wreck())

        await self._run(on_point)
        return found

    async def disturbed(self, position: int, fault: Fault) -> Disturbed | None:
        """Run it with one fault at a point; None if it came to an end before.

        Times of day are in what is stored, so that now and then a run has a commit more than another one.
        """

        def on_point(run: _Run) -> None:
            if run.position != position:
                return
            run.is_hit = True
            if fault is Fault.STOP:
                run.scope.cancel()
            elif fault is Fault.CANCEL:
                run.cancel()
            else:
                raise error_of(run.point)

        run = await self._run(on_point)
        if not run.is_hit:
            return None
        return Disturbed(run.tape.points[position], run.world(), run.error, run.was_mounted)

    async def _run(self, on_point: Callable[[_Run], None]) -> _Run:
        model = self._start.model.copy()
        tape = Tape()
        elsewhere = self._scenario.elsewhere
        image = {} if elsewhere else self._start.image
        with self._worlds.machine(
            image, self._start.discord.copy(), self._volume, tape, elsewhere=elsewhere
        ) as machine:
            run = _Run(machine, model, tape)
            tape.on_point = lambda _point: on_point(run)
            await run.live(self._scenario.during)
            run.end()
        return run

    # -- afterwards ---------------------------------------------------------------------------------------------

    async def check_machine(self, world: World, *, may_lose: bool = False, may_forget: bool = False) -> None:
        """Mount what is left, hold it against the model, bring all of it to Discord, and look through everything.

        `may_lose`: see `Admissible`. `may_forget`: what was noted of a send may be lost, so that its message stays.
        """
        model, elsewhere = world.model, self._scenario.elsewhere
        with self._worlds.machine(world.image, world.discord.copy(), self._volume, elsewhere=elsewhere) as machine:
            machine.takes_over = elsewhere
            if not (machine.state / METADATA_NAME).exists():
                await machine.recover()
            shown: list[FoundTree] = []

            async def script(life: Life) -> None:
                found = await walk(life)
                complaint = model.here.complaint(found, may_lose=may_lose)
                assert complaint is None, complaint
                shown.append(found)
                await Actor(life, Model()).put(PROOF, b"goes on")
                await life.sync()
                # Long enough for the sweep of what a send has left behind.
                await trio.sleep(90)
                life.chunks.evict_all()
                again = await walk(life)
                assert again.pop(PROOF, None) == Found(7, (b"goes on",))
                assert found == again, f"{found} became {again}"

            assert ExitCode.OK == await machine.live(script)
            lost = sum(isinstance(chunk, int) for file in shown[0].values() if file for chunk in file.chunks)
            await self._check_settled(machine, lost, Kind.UNKNOWN if may_forget else Kind.NOTE)

    async def _check_settled(self, machine: Machine, lost: int, passed: Kind) -> None:
        """fsck has nothing to say, and a recovery gives the very same metadata. `lost`: chunks that are errors."""
        assert [] == faults_of(machine.state / METADATA_NAME)
        with Check(Scope(self._volume, machine.state, machine.cache, False)) as check:
            await check.run(machine.transport, KEY, None)
            found = [each for each in check.findings if each.kind not in (Kind.NOTE, passed)]
        assert lost or [] == found, found
        rebuilt = self._directory / f"rebuilt-{machine.disk.directory.name}.db"
        report = await machine.rebuild(rebuilt)
        assert ((), ()) == (report.missing, report.rebuilt.problems)
        assert lost or 0 == report.rebuilt.lost_chunks
        assert shipped_rows(machine.state / METADATA_NAME) == shipped_rows(rebuilt)
        rebuilt.unlink()

    @staticmethod
    def _check_nothing_was_sent(model: Model, error: UserError) -> None:
        assert ExitCode.VOLUME_DAMAGED == error.exit_code
        assert {} in model.remote.trees, f"what was sent is nowhere: {error}"

    async def check_burnt(self, world: World) -> None:
        """The machine is gone: rebuild the volume elsewhere from what Discord has, and hold that against the model."""
        model = world.model
        elsewhere = not self._scenario.elsewhere
        with self._worlds.machine({}, world.discord.copy(), self._volume, elsewhere=elsewhere) as machine:
            try:
                report = await machine.recover()
            except UserError as error:
                self._check_nothing_was_sent(model, error)
                return
            assert not any("not in Discord any more" in line for line in report.missing), report.missing

            async def script(life: Life) -> None:
                complaint = model.remote.complaint(await walk(life), may_lose=True)
                assert complaint is None, complaint
                for name, tree in model.snapshots.items():
                    await _check_snapshot(life, name, tree)

            assert ExitCode.OK == await machine.live(script)


async def _check_snapshot(life: Life, name: str, tree: Tree) -> None:
    top = b"/.snapshots/" + name.encode()
    found = await walk(life, top)
    assert is_tree({top + path: file for path, file in tree.items()}, found)


class _Run:
    """One run of a scenario, while a fault may happen to it."""

    def __init__(self, machine: Machine, model: Model, tape: Tape) -> None:
        self.machine = machine
        self.model = model
        self.tape = tape
        self.scope = trio.CancelScope()
        self.is_hit = False
        self.error: BaseException | None = None
        self._actor: Actor | None = None
        self._world: World | None = None

    @property
    def was_mounted(self) -> bool:
        """Whether it has come so far."""
        return self._actor is not None

    @property
    def position(self) -> int:
        """Where the tape is."""
        return len(self.tape.points) - 1

    @property
    def point(self) -> Point:
        """The point there."""
        return self.tape.points[-1]

    def cancel(self) -> None:
        """Whoever asked for what runs goes away."""
        if self._actor is not None:
            self._actor.cancel()

    async def live(self, script: Script) -> None:
        """The mount, until it ends in one way or another."""

        async def acted(life: Life) -> None:
            self._actor = Actor(life, self.model)
            try:
                await script(self._actor)
            except StoppedError:
                life._stopping.set()

        with self.scope:
            try:
                if not (self.machine.state / METADATA_NAME).exists():
                    await self.machine.recover()
                if await self.machine.live(acted) == ExitCode.OK:
                    self.model.here.settle(self.model.tree, None)
                    self.model.remote.settle(self.model.tree, None)
            except (DisfsError, BaseExceptionGroup) as error:
                if any(not isinstance(each, DisfsError) for each in leaves(error)):
                    raise
                self.error = error

    def wreck(self) -> Wreck:
        """What kill -9 and a power cut leave now."""
        disk, discord, model = self.machine.disk, self.machine.discord.copy(), self.model.copy()
        return Wreck(self.point, World(disk.as_killed(), discord, model), World(disk.as_cut(), discord, model))

    def end(self) -> None:
        """The process is over."""
        self.tape.stop()
        self._world = World(self.machine.disk.as_killed(), self.machine.discord.copy(), self.model)

    def world(self) -> World:
        """What it left."""
        assert self._world is not None
        return self._world


def leaves(error: BaseException) -> list[BaseException]:
    """An error, or all that a group has."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


def can_fail(point: Point) -> bool:
    """Whether there is an error that a step can give there."""
    return point.moment is Moment.BEFORE or point.kind in REMOTE


def error_of(point: Point) -> Exception:
    """The error that a step can give there."""
    if point.kind in REMOTE:
        return TransientStorageError("no network", maybe_done=point.moment is Moment.AFTER)
    if point.kind == "commit" or "cache" in point.what or "checkpoint" in point.what:
        return FilesystemError(errno.EIO, "the disk is broken")
    return OSError(errno.EIO, "the disk is broken")
