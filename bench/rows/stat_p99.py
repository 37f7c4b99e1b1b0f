"""Looking at names stays quick while the daemon sends and fetches as fast as the line goes.

The bytes to be sent are written before, so that only sending, fetching and looking go on while it is measured.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.lab import LabError
from bench.report import Check, Outcome, milliseconds, quantiles
from bench.rows.base import Row
from bench.rows.reading import read_file
from bench.statter import file_name

if TYPE_CHECKING:
    from bench.lab import Lab

SECONDS = 20.0
"""How long each pass lasts at scale 1."""
PACE_SECONDS = 0.002
BUSY_FACTOR = 1.4
"""So much more is sent and fetched than the line takes in a pass: both directions are busy to its end."""
_DIRECTORY = "names"


@dataclass(frozen=True, slots=True)
class _Answers:
    """In seconds."""

    taken: list[float]
    late: list[float]


def _run(lab: Lab, scale: float) -> Outcome:
    seconds = max(2.0, SECONDS * scale)
    count = int(seconds / PACE_SECONDS)
    down = int(lab.shape.down_bytes_per_second * seconds * BUSY_FACTOR)
    up = int(lab.shape.up_bytes_per_second * seconds * BUSY_FACTOR)
    _prepare(lab, count, down)
    with lab.measured("idle", count, "stat") as quiet:
        idle = _stats(lab, 0, count)
    lab.write_file("up", up, seed=1)
    with lab.measured("busy", count, "stat") as loaded:
        syncing = threading.Thread(target=lab.sync)
        reading = threading.Thread(target=read_file, args=(lab, lab.files / "down", 0))
        syncing.start()
        reading.start()
        began = time.perf_counter()
        busy = _stats(lab, count, count)
        took = time.perf_counter() - began
        still = [name for name, thread in (("upload", syncing), ("download", reading)) if thread.is_alive()]
        counted = lab.control("GET", "/counters")
        reading.join()
        syncing.join()
    best, found = quantiles(idle.taken), quantiles(busy.taken)
    return Outcome(
        (Check.at_most("p99, as when idle", found["p99"] * 1000, "ms", best["p99"] * 1000, factor=5),),
        (quiet.costs, loaded.costs),
        {
            "idle": milliseconds(idle.taken),
            "busy": milliseconds(busy.taken),
            "a sleep was late by": f"p99 {_late_ms(idle):.2g} ms idle, {_late_ms(busy):.2g} ms busy",
            "line": _line(lab, counted, took),
            "still running at the end": ", ".join(still) or "nothing: the load was too short",
        },
    )


def _line(lab: Lab, counted: dict[str, int], seconds: float) -> str:
    up = counted["received_bytes"] / lab.shape.up_bytes_per_second / seconds
    down = counted["sent_bytes"] / lab.shape.down_bytes_per_second / seconds
    return f"{up:.0%} of the bandwidth up, {down:.0%} down while it was measured"


def _prepare(lab: Lab, count: int, down_bytes: int) -> None:
    """A cold file and names that the kernel has not seen, for two passes."""
    lab.mount()
    directory = lab.files / _DIRECTORY
    directory.mkdir()
    for number in range(2 * count):
        (directory / file_name(number)).touch()
    lab.write_file("down", down_bytes, seed=0)
    lab.sync()
    lab.shape_network()
    lab.cold()


def _stats(lab: Lab, first: int, count: int) -> _Answers:
    """Ask for names, in a process of its own."""
    with lab.python("bench.statter", str(lab.files / _DIRECTORY), str(first), str(count), str(PACE_SECONDS)) as statter:
        output, _ = statter.communicate()
    if statter.returncode != 0:
        raise LabError(f"the program that asks for names exited {statter.returncode}")
    found = json.loads(output)
    return _Answers([taken / 1e9 for taken in found["taken"]], [late / 1e9 for late in found["late"]])


def _late_ms(answers: _Answers) -> float:
    return quantiles(answers.late)["p99"] * 1000 if answers.late else 0.0


ROW = Row("stat-p99", "stat while uploads and downloads run at full speed", _run)
