"""A small read of a cold file costs one request of about one sealed chunk."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from bench.report import Check, Outcome, milliseconds, quantiles
from bench.rows.base import Row
from bench.rows.reading import prepare, read_at
from bench.shape import CHUNK_BYTES, GIB, KIB

if TYPE_CHECKING:
    from bench.lab import Lab

READS = 200
READ_BYTES = 4 * KIB
APART_CHUNKS = 3
"""Reads lie in chunks that are no neighbours, so that none finds what another one brought."""


def _run(lab: Lab, scale: float) -> Outcome:
    size, count = int(GIB * scale), max(20, int(READS * scale))
    prepare(lab, {"large": size})
    rng = random.Random(7)
    chunks = rng.sample(range(0, size // CHUNK_BYTES, APART_CHUNKS), count)
    within = CHUNK_BYTES - READ_BYTES
    descriptor = os.open(lab.files / "large", os.O_RDONLY)
    try:
        with lab.measured("read", count, "read") as stretch:
            taken = [
                read_at(lab, descriptor, chunk * CHUNK_BYTES + rng.randrange(within), READ_BYTES, seed=0)
                for chunk in chunks
            ]
    finally:
        os.close(descriptor)
    requests = stretch.costs.requests.get("cdn_get", 0) / count
    best = lab.shape.chunk_read_seconds() * 1000
    return Outcome(
        (
            Check.at_most("CDN requests per read", requests, "requests", 1),
            Check.at_most("p50", quantiles(taken)["p50"] * 1000, "ms", best, factor=1.3),
        ),
        (stretch.costs,),
        {"latency": milliseconds(taken)},
    )


ROW = Row("random-read", "cold random 4 KiB reads", _run)
