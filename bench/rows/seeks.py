"""A player that jumps about in a cold file sees the first picture after about one latency."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from bench.report import Check, Outcome, milliseconds, quantiles
from bench.rows.base import Row
from bench.rows.reading import prepare, read_at
from bench.shape import GIB, KIB, MIB

if TYPE_CHECKING:
    from bench.lab import Lab

SEEKS = 20
FIRST_BYTES = 4 * KIB
READ_BYTES = MIB
STEP_BYTES = 128 * KIB


def _run(lab: Lab, scale: float) -> Outcome:
    size = max(4 * SEEKS * READ_BYTES, int(2 * GIB * scale))
    prepare(lab, {"film": size})
    places = random.Random(8).sample(range(0, size // READ_BYTES - 1, 2), SEEKS)
    first, whole = [], []
    descriptor = os.open(lab.files / "film", os.O_RDONLY)
    try:
        with lab.measured("seek and read 1 MiB", SEEKS, "seek") as stretch:
            for place in places:
                start = place * READ_BYTES + 4321
                first.append(read_at(lab, descriptor, start, FIRST_BYTES, seed=0))
                rest = range(start + FIRST_BYTES, start + READ_BYTES, STEP_BYTES)
                whole.append(first[-1] + sum(read_at(lab, descriptor, at, STEP_BYTES, seed=0) for at in rest))
    finally:
        os.close(descriptor)
    best = lab.shape.latency_seconds * 1000
    return Outcome(
        (Check.at_most("first byte p50", quantiles(first)["p50"] * 1000, "ms", best, factor=2),),
        (stretch.costs,),
        {"first byte": milliseconds(first), "whole MiB": milliseconds(whole)},
    )


ROW = Row("seeks", "20 seeks in a cold 2 GiB file, 1 MiB read after each", _run)
