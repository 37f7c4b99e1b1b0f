"""A large file goes out as fast as the line takes it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.report import Check, Outcome
from bench.rows.base import Row
from bench.shape import GIB, MIB

if TYPE_CHECKING:
    from bench.lab import Lab


def _run(lab: Lab, scale: float) -> Outcome:
    size = int(GIB * scale)
    lab.shape_network()
    lab.mount()
    with lab.measured("write and sync", size // MIB, "MiB", written_bytes=size) as stretch:
        began = time.perf_counter()
        lab.write_file("large", size, seed=1)
        taken = time.perf_counter() - began
        lab.sync()
    limit = lab.shape.write_seconds(size)
    return Outcome(
        (Check.at_most("write and sync", stretch.seconds, "s", limit, factor=1.15),),
        (stretch.costs,),
        {"writer": f"close returned after {taken:.2f} s, {size / MIB / taken:.0f} MiB/s into the cache"},
    )


ROW = Row("write-1g", "1 GiB file written, then disfs sync", _run)
