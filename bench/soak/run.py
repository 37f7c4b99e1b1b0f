"""The run: mount, load with faults, quiet, and then everything is looked at, warm and cold."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.soak import leftovers
from bench.soak.disk import Disk
from bench.soak.faults import TRIALS, Rotation, TrialResult
from bench.soak.report import Finished
from bench.soak.twin import differences
from bench.soak.watch import Watch
from bench.soak.work import WEIGHTS, Scale, WorkReport, run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from multiprocessing.context import SpawnProcess
    from pathlib import Path

SHAPE: dict[str, Any] = {
    "latency_seconds": 0.08,
    "upload_bytes_per_second": 12_500_000.0,
    "download_bytes_per_second": 50_000_000.0,
    # URLs expire within the run, and the files of deleted messages go soon.
    "url_seconds": 480,
    "url_rounding_seconds": 60,
    "delete_grace_seconds": 10.0,
    # A kill -9 loses nothing without it, and the emulator's disk is not what is measured.
    "fsync": False,
}
NO_LIMITS: dict[str, Any] = {"rate_limits": False, "latency_seconds": 0.0}
STUCK_SECONDS = 300.0
"""How long a process may take to end once it was told to: a call that hangs longer never ends."""
SWEEP_SECONDS = 1500.0
"""How long the sweep may take: what nobody knows of is deleted only when it is ten minutes old, by two looks."""
SYNC_EVERY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do; sizes in bytes, times in seconds."""

    directory: Path
    seconds: float
    seed: int
    probability: float = 0.01
    trial_seconds: float = 0.0
    """0: so that every trial has its turn."""
    options: str = "cache_size=64M,writeback_delay=2,sweep_grace=3,trash_days=0"
    shape: dict[str, Any] = field(default_factory=lambda: dict(SHAPE))
    scale: Scale = field(default_factory=Scale)
    quiet_seconds: float = 40.0
    """How long nothing is deleted before the sweep counts as done: longer than its interval. 0: nobody waits for it."""


class Soak:
    """One run. `tell` gets a line now and then."""

    def __init__(self, plan: Plan, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._tell = tell
        self._twins = plan.directory / "twins"
        self._reports = plan.directory / "reports"
        for made in (self._twins, self._reports):
            made.mkdir(parents=True)
        self._disk = Disk(plan.directory, plan.options)
        self._rotation = Rotation(plan.seed, plan.probability)
        self._trials: dict[str, TrialResult] = {}
        self._sync: subprocess.Popen[str] | None = None
        self._next_sync = 0.0
        self._problems: list[str] = []

    def run(self) -> Finished:
        """Do all of it. Whatever happens, nothing stays mounted or running."""
        began = time.monotonic()
        try:
            self._disk.mount()
            self._disk.shape(self._plan.shape)
            watch = Watch(self._disk)
            works = self._load(watch)
            self._calm_down(watch)
            status = self._disk.status()
            self._disk.umount()
            left = leftovers.find(self._disk)
            cold = self._cold()
        finally:
            self._stop_syncing()
            self._disk.close()
        return Finished(
            seed=self._plan.seed,
            probability=self._plan.probability,
            seconds=time.monotonic() - began,
            works=works,
            trials=list(self._trials.values()),
            seen=watch.seen,
            status=status,
            left=left,
            cold=cold,
            problems=self._problems,
            log=self._disk.log(),
            swept=self._plan.quiet_seconds > 0,
        )

    # -- load ------------------------------------------------------------------------------------------------------

    def _load(self, watch: Watch) -> list[WorkReport]:
        """All processes work while one trial follows the other; then they compare what they have."""
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        plan = self._plan
        workers = [
            context.Process(
                target=run,
                name=kind,
                args=(
                    kind, self._disk.mountpoint / kind, self._twins / kind, self._reports / f"{kind}.json",
                    str(plan.seed), plan.scale, stop,
                ),
            )
            for kind in WEIGHTS
        ]  # fmt: skip
        for worker in workers:
            worker.start()
        try:
            self._go_through_trials(watch, workers)
            stop.set()
            self._wait_for(workers, watch)
        finally:
            for worker in workers:
                if worker.is_alive():
                    worker.kill()
        return [self._report_of(worker) for worker in workers]

    def _go_through_trials(self, watch: Watch, workers: list[SpawnProcess]) -> None:
        end = time.monotonic() + self._plan.seconds
        each = self._plan.trial_seconds or max(2.0, self._plan.seconds / len(TRIALS))
        while time.monotonic() < end and any(worker.is_alive() for worker in workers):
            name, faults = self._rotation.next()
            trial = self._trials.setdefault(name, TrialResult(name))
            began = time.monotonic()
            numbers = [self._disk.control("POST", "/faults", fault)["id"] for fault in faults]
            while time.monotonic() < min(began + each, end):
                time.sleep(1.0)
                self._sync_now_and_then()
                watch.tick(trial)
            trial.fired += watch.revive()
            self._end_trial(trial, numbers)
            trial.seconds += time.monotonic() - began
            self._tell(f"{name}: {trial.fired} of {trial.seen} requests hit, {dict(sorted(trial.statuses.items()))}")

    def _end_trial(self, trial: TrialResult, numbers: list[int]) -> None:
        rules = [rule for rule in self._disk.control("GET", "/faults") if rule["id"] in numbers]
        self._disk.control("DELETE", "/faults")
        trial.seen += max((rule["seen"] for rule in rules), default=0)
        trial.fired += sum(rule["fired"] for rule in rules)

    def _wait_for(self, workers: list[SpawnProcess], watch: Watch) -> None:
        """Until all have compared what they have; without faults."""
        quiet = self._trials.setdefault("comparing, no fault", TrialResult("comparing, no fault"))
        deadline = time.monotonic() + STUCK_SECONDS
        began = time.monotonic()
        while any(worker.is_alive() for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.5)
            watch.tick(quiet)
        quiet.seconds += time.monotonic() - began

    def _report_of(self, worker: SpawnProcess) -> WorkReport:
        if worker.exitcode != 0:
            self._problems.append(f"the process {worker.name} ended with {worker.exitcode} instead of a report")
            return WorkReport(worker.name)
        return WorkReport(**json.loads((self._reports / f"{worker.name}.json").read_text()))

    def _sync_now_and_then(self) -> None:
        """One `disfs sync` after the other, while everything goes on."""
        if self._sync is None:
            if time.monotonic() >= self._next_sync:
                self._sync = self._disk.start("sync", str(self._disk.mountpoint))
        elif (code := self._sync.poll()) is not None:
            printed = self._sync.communicate()[0].strip()
            if code != 0:
                self._problems.append(f"disfs sync exited with {code}: {printed}")
            self._sync, self._next_sync = None, time.monotonic() + SYNC_EVERY_SECONDS

    def _stop_syncing(self) -> None:
        if self._sync is not None:
            self._sync.kill()
            self._sync.communicate()
            self._sync = None

    # -- the end ---------------------------------------------------------------------------------------------------

    def _calm_down(self, watch: Watch) -> None:
        """Everything is sent, and all garbage deleted, now that nothing fails."""
        self._stop_syncing()
        self._tell("sending the rest, and sweeping")
        self._disk.sync()
        self._disk.shape(NO_LIMITS)
        quiet = self._trials["comparing, no fault"]
        deadline = time.monotonic() + SWEEP_SECONDS
        last, since = (-1, -1), time.monotonic()
        while time.monotonic() < deadline:
            status = self._disk.status()
            # A round of compaction empties messages that the sweep has yet to delete.
            done = (status["sweep"]["swept_messages"], status["compaction"]["rewritten_messages"])
            if status["sweep"]["waiting_messages"] or done != last:
                last, since = done, time.monotonic()
            if time.monotonic() - since >= self._plan.quiet_seconds:
                if not self._plan.quiet_seconds or not leftovers.find(self._disk).orphans:
                    break
                self._tell("there are messages that nobody knows of: waiting until the sweep finds them")
                since = time.monotonic()
            time.sleep(1.0)
            watch.tick(quiet)

    def _cold(self) -> list[str]:
        """Everything once more, from Discord."""
        self._tell("comparing everything on a cold mount")
        self._disk.drop_cache()
        self._disk.mount()
        found = [
            f"{kind}/{line}"
            for kind in WEIGHTS
            if (self._twins / kind).exists()
            for line in differences(self._disk.mountpoint / kind, self._twins / kind)
        ]
        self._disk.umount()
        with contextlib.suppress(OSError):
            self._disk.control("POST", "/shutdown")
        return found
