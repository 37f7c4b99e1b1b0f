"""The daemon says how it is at once, also while it writes, sends and fetches as fast as it can.

Load: both directions of the line are full, and a program writes new files without end.
The question is asked as `disfs status` asks it, by a client of the control socket in this process; how long the whole
program takes, which is mostly Python's start, is reported beside it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from bench.report import Check, Outcome, milliseconds, quantiles
from bench.rows.base import Row
from bench.rows.reading import read_file
from disfs.control.client import ControlClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.lab import Lab

SECONDS = 20.0
"""How long each pass lasts at scale 1."""
PACE_SECONDS = 0.05
MUST_MS = 100.0
BUSY_FACTOR = 1.4
"""So much more is sent and fetched than the line takes in a pass: both directions are busy to its end."""
_SMALL = b"x" * 4096
_FILES = 400
"""In one directory of the program that writes."""


def _run(lab: Lab, scale: float) -> Outcome:
    seconds = max(2.0, SECONDS * scale)
    lab.mount()
    lab.write_file("down", int(lab.shape.down_bytes_per_second * seconds * BUSY_FACTOR), seed=0)
    lab.sync()
    lab.shape_network()
    lab.cold()
    volume = lab.home / "state" / "volumes" / str(lab.status()["volume"])
    with lab.measured("idle", int(seconds / PACE_SECONDS), "status") as quiet:
        idle = _asked(volume, seconds)
    lab.write_file("up", int(lab.shape.up_bytes_per_second * seconds * BUSY_FACTOR), seed=1)
    with lab.measured("busy", int(seconds / PACE_SECONDS), "status") as loaded, _load(lab) as written:
        busy = _asked(volume, seconds)
        programs = _programs(lab, 5)
    busy_ms = max(busy) * 1000
    return Outcome(
        (
            Check.bounded("slowest answer under full load", busy_ms, "ms", max(idle) * 1000, MUST_MS),
            Check.bounded(
                "p99 under full load", quantiles(busy)["p99"] * 1000, "ms", quantiles(idle)["p99"] * 1000, MUST_MS
            ),
        ),
        (quiet.costs, loaded.costs),
        {
            "idle": milliseconds(idle),
            "busy": milliseconds(busy),
            "the whole program, busy": milliseconds(programs),
            "files written meanwhile": str(len(written)),
        },
    )


def _asked(volume: Path, seconds: float) -> list[float]:
    """How long each answer took, in seconds."""
    taken = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        with ControlClient.connect(volume) as client:
            client.status()
        taken.append(time.perf_counter() - began)
        time.sleep(PACE_SECONDS)
    return taken


def _programs(lab: Lab, count: int) -> list[float]:
    """How long `disfs status` takes as a program of its own."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        lab.status()
        taken.append(time.perf_counter() - began)
    return taken


@contextlib.contextmanager
def _load(lab: Lab) -> Iterator[list[int]]:
    """Send, fetch and write small files while the block runs; the numbers of the files that were written."""
    over = threading.Event()
    written: list[int] = []

    def write() -> None:
        while not over.is_set():
            number = len(written)
            directory = lab.files / f"small{number // _FILES}"
            directory.mkdir(exist_ok=True)
            (directory / f"f{number}").write_bytes(_SMALL)
            written.append(number)

    work = [
        threading.Thread(target=lab.sync),
        threading.Thread(target=read_file, args=(lab, lab.files / "down", 0)),
        threading.Thread(target=write),
    ]
    for thread in work:
        thread.start()
    try:
        yield written
    finally:
        over.set()
        for thread in work:
            thread.join()


ROW = Row("status", "how the daemon is, asked for while it writes, sends and fetches at full speed", _run)
