"""A large cold file comes in as fast as the line gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report import Check, Outcome
from bench.rows.base import Row
from bench.rows.reading import prepare, read_file
from bench.shape import GIB, MIB

if TYPE_CHECKING:
    from bench.lab import Lab


def _run(lab: Lab, scale: float) -> Outcome:
    size = int(GIB * scale)
    prepare(lab, {"large": size})
    with lab.measured("read", size // MIB, "MiB") as stretch:
        taken = read_file(lab, lab.files / "large", seed=0)
    best = lab.shape.down_bytes_per_second
    return Outcome(
        (Check.at_least("bandwidth", size / taken / 1e6, "MB/s", best / 1e6, factor=0.85),), (stretch.costs,)
    )


ROW = Row("read-1g", "1 GiB cold sequential read", _run)
