"""Looking at processes and at the machine without disturbing them."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import Noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TICK = os.sysconf("SC_CLK_TCK")
_CALIBRATION_ROUNDS = 300_000


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors so far; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def group_cpu_seconds(group: int) -> float:
    """What the processes of a process group have used of the processors so far."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                total += (int(fields[11]) + int(fields[12])) / _TICK
    return total


def own_cpu_seconds() -> float:
    """What this process and those that it has waited for have used."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def machine_cpu_seconds() -> float:
    """What all processes of the machine together have used since it was started."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / _TICK


def memory_bytes(pid: int, name: str = "VmRSS") -> int:
    """A line of /proc/PID/status; VmHWM is the most that it ever was. 0 when the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def disk_bytes(directory: Path) -> int:
    """What the files below `directory` really take on the disk, holes left out."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).stat().st_blocks * 512
    return total


def noise() -> Noise:
    """How quiet the machine is now; takes some tens of milliseconds."""
    return Noise(os.getloadavg()[0], min(_calibration_ms() for _ in range(3)))


def _calibration_ms() -> float:
    began = time.perf_counter()
    total = 0
    for number in range(_CALIBRATION_ROUNDS):
        total += number & 7
    assert total > 0
    return (time.perf_counter() - began) * 1000


class Peak:
    """The largest and the last of the values that were seen."""

    def __init__(self) -> None:
        self.most = 0.0
        self.last = 0.0
        self.count = 0

    def see(self, value: float) -> None:
        """Note a value."""
        self.most, self.last, self.count = max(self.most, value), value, self.count + 1


@contextlib.contextmanager
def sampled(look: Callable[[], float], every_seconds: float) -> Iterator[Peak]:
    """Call `look` now and then in a thread while the block runs. What it raises is raised at the end."""
    peak, stop, failures = Peak(), threading.Event(), list[Exception]()

    def watch() -> None:
        while not stop.wait(every_seconds):
            try:
                peak.see(look())
            except Exception as error:
                failures.append(error)
                return

    thread = threading.Thread(target=watch, name="sampler", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]
