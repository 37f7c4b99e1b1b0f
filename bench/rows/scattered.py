"""Scattered overwrites share a few messages, and their writer never waits for an upload.

Overwrites are paced, so that a pass lasts long enough to see every phase of an upload. The first passes find a
clean file and nothing on its way; the last one writes while everything that the pass before it changed is being sent.
"""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TYPE_CHECKING

from bench.report import Check, Outcome, milliseconds, quantiles
from bench.rows.base import Row
from bench.shape import CHUNK_BYTES, GIB, KIB, messages_for

if TYPE_CHECKING:
    from bench.lab import Lab

OVERWRITES = 1000
WRITE_BYTES = 4 * KIB
MAX_MESSAGES = 8
PACE_SECONDS = 0.005
SLOWER_FACTOR = 1.25
"""What counts as "not slower": the noise between two passes over a clean file is about as large."""


def _run(lab: Lab, scale: float) -> Outcome:
    size, count = int(GIB * scale), max(10, int(OVERWRITES * scale))
    lab.mount()
    lab.write_file("cached", size, seed=3)
    lab.sync()
    lab.shape_network()
    lab.remount()  # a daemon that has not seen the open network; the cache is kept
    rng = random.Random(3)
    offsets = [rng.randrange(size // WRITE_BYTES) * WRITE_BYTES for _ in range(count)]
    written = count * WRITE_BYTES
    with lab.measured("first pass and sync", count, "overwrite", written_bytes=written) as stretch:
        clean = _overwrite(lab, offsets, seed=4)
        lab.sync()
    clean += _overwrite(lab, offsets, seed=5)
    with lab.measured("second pass during upload", count, "overwrite", written_bytes=2 * written) as second:
        syncing = threading.Thread(target=lab.sync)
        syncing.start()
        time.sleep(1.0)  # until the first messages are on their way
        busy = _overwrite(lab, offsets, seed=6)
        syncing.join()
        lab.sync()
    chunks = len({offset // CHUNK_BYTES for offset in offsets})
    messages = stretch.costs.requests.get("create_message", 0)
    best, found = quantiles(clean), quantiles(busy)
    return Outcome(
        (
            Check.bounded("messages", messages, "messages", messages_for(chunks * CHUNK_BYTES), MAX_MESSAGES),
            Check.at_most("acknowledgement p50", found["p50"] * 1000, "ms", best["p50"] * 1000, factor=SLOWER_FACTOR),
            Check.at_most(
                "acknowledgement p99", found["p99"] * 1000, "ms", best["p99"] * 1000, factor=2 * SLOWER_FACTOR
            ),
        ),
        (stretch.costs, second.costs),
        {"on a clean file": milliseconds(clean), "while uploading": milliseconds(busy)},
    )


def _overwrite(lab: Lab, offsets: list[int], seed: int) -> list[float]:
    """How long each overwrite took to be acknowledged, in seconds."""
    taken = []
    descriptor = os.open(lab.files / "cached", os.O_WRONLY)
    try:
        for number, offset in enumerate(offsets):
            data = lab.contents.piece(seed, number, WRITE_BYTES)
            began = time.perf_counter()
            os.pwrite(descriptor, data, offset)
            taken.append(time.perf_counter() - began)
            time.sleep(PACE_SECONDS)
    finally:
        os.close(descriptor)
    return taken


ROW = Row("scattered", "1,000 scattered 4 KiB overwrites in a cached 1 GiB file, then sync", _run)
