"""`python -m bench.statter DIRECTORY FIRST COUNT PACE`: how long `stat` takes, as a JSON list of nanoseconds.

A program of its own, so that what it measures is not the measuring process that also writes and reads. Each name is
asked for once: the kernel does not know it yet, so every question reaches the daemon.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time


def measure(directory: str, first: int, count: int, pace_seconds: float) -> list[int]:
    """Ask for `count` names, one every `pace_seconds`."""
    found = []
    gc.disable()
    due = time.perf_counter()
    for number in range(first, first + count):
        path = f"{directory}/{file_name(number)}"
        began = time.perf_counter_ns()
        os.stat(path)  # noqa: PTH116 - a Path would be measured too
        found.append(time.perf_counter_ns() - began)
        due = max(due + pace_seconds, time.perf_counter())
        time.sleep(due - time.perf_counter() if due > time.perf_counter() else 0)
    return found


def file_name(number: int) -> str:
    """What the file of this number is called."""
    return f"f{number}"


if __name__ == "__main__":
    json.dump(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])), sys.stdout)
