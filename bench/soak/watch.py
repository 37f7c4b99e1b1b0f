"""Looks at daemon and emulator every second: memory, descriptors, what status says, how many requests were made."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from disfs.errors import UserError

if TYPE_CHECKING:
    from bench.soak.disk import Disk
    from bench.soak.faults import TrialResult

STATUS_SECONDS = 5.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Seen:
    """What was seen, for the report."""

    resident_bytes: list[int] = field(default_factory=list)
    """Of the daemon, one a second."""
    descriptors: list[int] = field(default_factory=list)
    cache_bytes: list[int] = field(default_factory=list)
    cache_limit_bytes: int = 0
    status_seconds: list[float] = field(default_factory=list)
    """How long the daemon took to answer what its status is."""
    troubles: Counter[str] = field(default_factory=Counter)
    """What status complained about, and how often."""
    requests: Counter[str] = field(default_factory=Counter)
    """By route."""
    statuses: Counter[str] = field(default_factory=Counter)
    """By status; 0 is no answer."""
    received_bytes: int = 0
    """Bodies that Discord received."""
    sent_bytes: int = 0
    """Bodies that Discord sent."""
    revivals: int = 0
    """How often the emulator had died, by a fault, and was started again."""


class DaemonEndedError(Exception):
    """The daemon is gone though nobody ended it: nothing else can be said about the run."""


class Watch:
    """`tick` about once a second."""

    def __init__(self, disk: Disk) -> None:
        self.seen = Seen()
        self._disk = disk
        self._pid = int(disk.status()["pid"])
        self._counters: dict[str, Any] = {}
        self._next_status = 0.0

    def tick(self, trial: TrialResult) -> None:
        """Take samples; requests count for the trial that runs. DaemonEndedError."""
        try:
            self.seen.resident_bytes.append(_resident_bytes(self._pid))
            self.seen.descriptors.append(len(os.listdir(f"/proc/{self._pid}/fd")))  # noqa: PTH208 - a number, not paths
        except OSError as error:
            raise DaemonEndedError(f"the daemon ended by itself during '{trial.name}'") from error
        trial.fired += self.revive()
        self.count(trial)
        if time.monotonic() >= self._next_status:
            self._look_at_status()
            self._next_status = time.monotonic() + STATUS_SECONDS

    def revive(self) -> bool:
        """Start the emulator again if a fault has killed it; whether it had."""
        dead = self._disk.revive()
        if dead:
            self.seen.revivals += 1
            self._counters = {}
        return dead

    def count(self, trial: TrialResult) -> None:
        """Add what was requested since the last time."""
        try:
            counters = self._disk.control("GET", "/counters")
        except OSError:
            return  # it has just died, and the next tick revives it
        before, self._counters = self._counters, counters
        for route, count in counters["requests"].items():
            self.seen.requests[route] += count - before.get("requests", {}).get(route, 0)
        for route, answers in counters["statuses"].items():
            earlier = before.get("statuses", {}).get(route, {})
            for status, count in answers.items():
                added = count - earlier.get(status, 0)
                self.seen.statuses[status] += added
                if added:
                    trial.statuses[status] = trial.statuses.get(status, 0) + added
        self.seen.received_bytes += counters["received_bytes"] - before.get("received_bytes", 0)
        self.seen.sent_bytes += counters["sent_bytes"] - before.get("sent_bytes", 0)

    def _look_at_status(self) -> None:
        began = time.perf_counter()
        try:
            status = self._disk.status()
        except UserError as error:
            self.seen.troubles[f"no status: {error}"] += 1
            return
        self.seen.status_seconds.append(time.perf_counter() - began)
        self.seen.cache_bytes.append(status["cache_bytes"])
        self.seen.cache_limit_bytes = status["cache_limit_bytes"]
        troubles = (status["warning"], status["transport"]["trouble"], status["sweep"]["failure"])
        for trouble in (*troubles, *status["writeback"]["failures"]):
            if trouble:
                self.seen.troubles[trouble] += 1


def growth(samples: list[int]) -> float:
    """By how much the median of the last quarter is above that of the second: 0.1 is a tenth. 0 for a few samples."""
    quarter = len(samples) // 4
    if quarter < 10:
        return 0.0
    before, after = statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])
    return after / before - 1


def _resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES
