"""`python -m bench.statter DIRECTORY FIRST COUNT PACE`: how long each `stat` took, and how late each began, as JSON.

A program of its own, so that what it measures is not the measuring process that also writes and reads. Each name is
asked for once: the kernel does not know it yet, so every question reaches the daemon. How late the program itself
wakes from a sleep is what the machine adds: no answer can be had sooner than that by anybody.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time


def measure(directory: str, first: int, count: int, pace_seconds: float) -> dict[str, list[int]]:
    """Ask for `count` names, one every `pace_seconds`; nanoseconds."""
    taken, late = [], []
    gc.disable()
    pace = int(pace_seconds * 1e9)
    due = time.perf_counter_ns()
    for number in range(first, first + count):
        path = f"{directory}/{file_name(number)}"
        began = time.perf_counter_ns()
        os.stat(path)  # noqa: PTH116 - a Path would be measured too
        ended = time.perf_counter_ns()
        taken.append(ended - began)
        due = max(due + pace, ended)
        if due > ended:
            time.sleep((due - ended) / 1e9)
            late.append(max(0, time.perf_counter_ns() - due))
    return {"taken": taken, "late": late}


def file_name(number: int) -> str:
    """What the file of this number is called."""
    return f"f{number}"


if __name__ == "__main__":
    json.dump(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])), sys.stdout)
