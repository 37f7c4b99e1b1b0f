"""The run: simulated power cuts, then kills on a real mount; each failure is kept, and the run goes on."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.chunk_worlds import in_this_thread
from support.power_cuts import cut_at_random
from support.product import product
from support.torture import Torture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ACTIONS = (*("kill",) * 7, "kill_at_once", "kill_unmounting", "kill_both")
"""What happens in a round; all of them kill the daemon."""
ROUNDS_PER_VOLUME = 100
"""Then another volume is begun, with the other mount options."""
OPTIONS: tuple[tuple[str, ...], ...] = (("-o", "cache_size=16M,dirty_limit=4M,writeback_delay=0.3"), ())
"""Everything is on its way all the time; and the usual ones."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what."""

    directory: Path
    kills: int
    power_cuts: int
    seed: int
    burn_every: int = 20
    """After so many kills everything is burnt and recovered; 0: never."""
    seconds: float = float("inf")
    """No further round is begun after that."""


@dataclass(slots=True)
class Finished:
    """What was done, and what did not hold."""

    kills: dict[str, int] = field(default_factory=dict)
    burns: int = 0
    power_cuts: int = 0
    volumes: int = 0
    operations: int = 0
    fsyncs: int = 0
    seconds: float = 0.0
    recovery_seconds: list[float] = field(default_factory=list)
    """How long each mount after a kill took to go on where the last one ended."""
    unsent_chunks: int = 0
    """Found again after kills, all together."""
    arrived_messages: int = 0
    """Recorded after kills instead of being sent again."""
    orphans: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing was lost and nothing unexpected happened."""
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"holds": self.holds, **asdict(self)}

    def lines(self) -> Iterator[str]:
        """For people."""
        kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(self.kills.items()))
        yield f"kill -9: {sum(self.kills.values())} ({kinds}) on {self.volumes} volumes"
        yield f"state and cache destroyed, recovered from Discord: {self.burns}"
        yield f"operations of the writers: {self.operations}; of these fsync, answered: {self.fsyncs}"
        if self.recovery_seconds:
            median, most = statistics.median(self.recovery_seconds), max(self.recovery_seconds)
            yield f"going on after a kill: {median:.2f} s in the middle, {most:.2f} s at most"
        yield (
            f"found again: {self.unsent_chunks} unsent chunks, {self.arrived_messages} messages that had arrived, "
            f"{self.orphans} orphans"
        )
        yield f"simulated power cuts: {self.power_cuts}"
        yield f"time: {self.seconds / 60:.0f} minutes"
        yield f"failures: {len(self.failures)}"
        for failure in self.failures:
            yield "-" * 80
            yield failure


class Crashes:
    """One run of a plan."""

    def __init__(self, plan: Plan, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._tell = tell
        self._random = Random(plan.seed)
        self._found = Finished()
        self._began = time.monotonic()

    def run(self) -> Finished:
        """All of it. What fails is noted, with what is needed to repeat it, and a new volume is begun."""
        seed = self._plan.seed * 1_000_000
        while self._found.power_cuts < self._plan.power_cuts and not self._is_over:
            self._cut(seed)
            seed += 1
        while self._kill_count < self._plan.kills and not self._is_over:
            self._one_volume(self._found.volumes)
        self._found.seconds = time.monotonic() - self._began
        return self._found

    @property
    def _kill_count(self) -> int:
        return sum(self._found.kills.values())

    @property
    def _is_over(self) -> bool:
        return time.monotonic() - self._began > self._plan.seconds

    def _one_volume(self, number: int) -> None:
        self._found.volumes += 1
        directory = self._plan.directory / f"volume-{number}"
        failures = len(self._found.failures)
        with product(directory) as disk:
            torture = Torture(
                disk, self._plan.seed * 1000 + number, mount_options=OPTIONS[number % 2], faults=False, writers=3
            )
            try:
                torture.begin()
                self._rounds(torture)
                torture.round("end")
            except AssertionError as error:
                self._found.failures.append(f"volume {number}: {error}")
                self._tell(f"volume {number} does not hold: {str(error).splitlines()[0]}")
            self._add_up(torture)
        if len(self._found.failures) == failures:
            shutil.rmtree(directory)

    def _rounds(self, torture: Torture) -> None:
        for _ in range(ROUNDS_PER_VOLUME):
            if self._kill_count >= self._plan.kills or self._is_over:
                return
            action = self._random.choice(ACTIONS)
            torture.round(action)
            self._found.kills[action] = self._found.kills.get(action, 0) + 1
            torture.look_closely()
            if self._plan.burn_every and self._kill_count % self._plan.burn_every == 0:
                torture.round("burn")
                torture.look_closely()
                self._found.burns += 1
            self._tell(f"{self._kill_count} kills, {self._found.burns} burnt, {torture.operation_count} operations")

    def _add_up(self, torture: Torture) -> None:
        found = self._found
        found.operations += torture.operation_count
        found.fsyncs += torture.fsync_count
        for recovery in torture.recoveries:
            found.recovery_seconds.append(recovery["seconds"])
            found.unsent_chunks += recovery["unsent_chunks"]
            found.arrived_messages += recovery["arrived_messages"]
            found.orphans += recovery["orphans"]

    def _cut(self, seed: int) -> None:
        eager_log = bool(seed % 2)
        directory = self._plan.directory / f"cuts-{seed}"
        directory.mkdir(parents=True)
        clock = trio.testing.MockClock(autojump_threshold=0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trio.to_thread, "run_sync", in_this_thread)

            async def cut() -> int:
                return await cut_at_random(directory, patch, seed, eager_log=eager_log)

            try:
                self._found.power_cuts += trio.run(cut, clock=clock)
            except* AssertionError as group:
                self._found.failures.append(f"power cuts with seed {seed}, eager_log {eager_log}: {group.exceptions}")
                self._found.power_cuts += 1
        shutil.rmtree(directory)
