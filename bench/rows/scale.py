"""What an operation costs does not depend on how many files the volume has.

Two volumes are mounted at once, one with a million files and one with a thousand, and the same is done on both in turn,
on names from everywhere in them, with the kernel remembering nothing. In the end the large one is mounted as usual and
a directory of all its files is listed with attributes: the kernel then knows them all, and so does the daemon.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

from bench import meters
from bench.beside import duel
from bench.duel import PAGES
from bench.filler import FLAT
from bench.lab import Lab, LabError
from bench.pairs import Comparison
from bench.report import Check, Outcome
from bench.rows.base import Row
from bench.shape import MIB

if TYPE_CHECKING:
    from pathlib import Path

FILES = 1_000_000
SMALL_FILES = 1_000
ROUNDS = 30
COUNT = 200
FACTOR = 1.2
MAX_BYTES = 250 * MIB
MAX_MOUNT_SECONDS = 2.0
MOUNTS = 5
MEASURED = ("lookup", "create", "readdir page")
UNCACHED = ("-o", "kernel_cache=0")


def _run(lab: Lab, scale: float) -> Outcome:
    count = max(2 * SMALL_FILES, int(FILES * scale))
    rounds = max(6, int(ROUNDS * min(1.0, scale * 10)))
    with Lab(lab.files.parent / "small", lab.shape, lab.contents) as small:
        filled = [_fill(lab, count), _fill(small, SMALL_FILES)]
        mounts = [_mount_seconds(lab), _mount_seconds(small)]
        lab.mount(*UNCACHED)
        small.mount(*UNCACHED)
        with lab.measured("both volumes", rounds * COUNT * 2, "operation") as stretch:
            seconds = duel(lab, "volumes", lab.files, small.files, rounds, COUNT, json.dumps(filled))
        busy_bytes = meters.memory_bytes(lab.daemon_pid, "VmHWM")
        small.umount()
    lab.remount()
    listed_seconds = _list(lab.files / FLAT, count)
    peak_bytes = max(busy_bytes, meters.memory_bytes(lab.daemon_pid, "VmHWM"))
    compared = {name: Comparison.of(pairs) for name, pairs in seconds.items()}
    return Outcome(
        (
            *(Check.at_most(name, 1 / compared[name].ratio, "x small", 1, factor=FACTOR) for name in MEASURED),
            Check.bounded("mount", mounts[0], "s", mounts[1], MAX_MOUNT_SECONDS),
            Check.at_most("peak memory", peak_bytes / MIB, "MiB", MAX_BYTES / MIB),
        ),
        (stretch.costs,),
        {name: found.rates(PAGES if name == "readdir page" else COUNT, "/s") for name, found in compared.items()}
        | {
            "memory": f"{busy_bytes / MIB:.0f} MiB after these operations",
            "listing": f"{count} entries with attributes in {listed_seconds:.1f} s",
        },
    )


def _fill(lab: Lab, count: int) -> dict[str, Any]:
    with lab.python("bench.filler", "emulator", str(count)) as filler:
        output, _ = filler.communicate()
    if filler.returncode != 0:
        raise LabError(f"the program that fills the volume exited {filler.returncode}")
    found: dict[str, Any] = json.loads(output)
    return found


def _mount_seconds(lab: Lab) -> float:
    """The command from its start to its end, in the median of a few mounts."""
    taken = []
    for _ in range(MOUNTS):
        began = time.perf_counter()
        lab.mount()
        taken.append(time.perf_counter() - began)
        lab.umount()
    return statistics.median(taken)


def _list(directory: Path, count: int) -> float:
    """Look at every entry and its attributes; the seconds."""
    began = time.perf_counter()
    with os.scandir(directory) as entries:
        seen = sum(1 for entry in entries if entry.stat(follow_symlinks=False).st_nlink)
    if seen != count:
        raise LabError(f"{directory} lists {seen} of {count} entries")
    return time.perf_counter() - began


ROW = Row("scale", "a volume of 1,000,000 files against one of 1,000", _run)
