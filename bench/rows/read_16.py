"""Sixteen readers share the line: together as fast as one alone, and none waits while others run ahead."""

from __future__ import annotations

import statistics
import threading
from typing import TYPE_CHECKING

from bench.report import Check, Outcome
from bench.rows.base import Row
from bench.rows.reading import prepare, read_file
from bench.shape import GIB, MIB

if TYPE_CHECKING:
    from bench.lab import Lab

READERS = 16
SAME_FACTOR = 0.95
"""What counts as the same bandwidth."""


def _run(lab: Lab, scale: float) -> Outcome:
    size = int(GIB * scale) // READERS
    alone_size = 4 * size
    prepare(lab, {f"file{number}": size for number in range(READERS)} | {"alone": alone_size})
    with lab.measured("one reader", alone_size // MIB, "MiB") as one:
        alone = alone_size / read_file(lab, lab.files / "alone", seed=READERS)
    with lab.measured("sixteen readers", READERS * size // MIB, "MiB") as sixteen:
        taken = _read_all(lab)
    together = READERS * size / max(taken)
    slowest, median = max(taken), statistics.median(taken)
    return Outcome(
        (
            Check.at_least("bandwidth, as one reader", together / 1e6, "MB/s", alone / 1e6, factor=SAME_FACTOR),
            Check.at_most("slowest, as the median", slowest, "s", median, factor=2),
        ),
        (one.costs, sixteen.costs),
        {
            "of the line": f"{together / lab.shape.down_bytes_per_second:.0%}",
            "readers took": f"{min(taken):.2f} to {slowest:.2f} s, median {median:.2f} s",
        },
    )


def _read_all(lab: Lab) -> list[float]:
    """Read all files at once; how long each took, in seconds. The first error is raised at the end."""
    taken: list[float] = []
    failures: list[Exception] = []

    def read(number: int) -> None:
        try:
            taken.append(read_file(lab, lab.files / f"file{number}", seed=number))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return taken


ROW = Row("read-16", "16 cold files read at once", _run)
