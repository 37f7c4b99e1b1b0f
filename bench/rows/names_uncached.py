"""Operations on names cost little more than the same handlers would that answer from a dict.

The kernel remembers nothing, so each operation is what the daemon takes for it. Both sides are mounted at once, and one
program works on them in turn. Uploads are paused: sending is not what is measured. The last pass is with the line full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.beside import duel, reference
from bench.duel import FSTATS
from bench.pairs import Comparison
from bench.report import Check, Outcome
from bench.rows.base import Row

if TYPE_CHECKING:
    from bench.duel import Seconds
    from bench.lab import Lab

ROUNDS = 30
COUNT = 250
"""Operations in a round: some tenths of a second, in which several group commits fall."""
FACTOR = 0.8
BUSY_SECONDS = 30.0
"""So long the line has something to send in the pass with uploads."""


def _run(lab: Lab, scale: float) -> Outcome:
    rounds = max(4, int(ROUNDS * scale))
    lab.shape_network()
    lab.mount("-o", "kernel_cache=0")
    lab.run("pause", str(lab.files))
    with reference(lab, "names-stock") as stock:
        unpolled = duel(lab, "names", lab.files, stock, max(4, rounds // 3), COUNT)
    with reference(lab, "names") as least:
        simplest = duel(lab, "names", lab.files, least, max(4, rounds // 3), COUNT)
    with reference(lab, "handlers") as other:
        duel(lab, "names", lab.files, other, 2, COUNT)  # both are warm now
        with lab.measured("uploads paused", rounds * COUNT * 5, "operation") as paused:
            quiet = duel(lab, "names", lab.files, other, rounds, COUNT)
        lab.write_file("up", int(lab.shape.up_bytes_per_second * BUSY_SECONDS * min(1.0, scale)), seed=1)
        lab.run("resume", str(lab.files))
        with lab.measured("uploads at full speed", rounds * COUNT * 5, "operation") as sending:
            busy = duel(lab, "names", lab.files, other, max(4, rounds // 3), COUNT)
        lab.run("pause", str(lab.files))
        lab.open_up()
        lab.run("resume", str(lab.files))
    return Outcome(_checks(quiet), (paused.costs, sending.costs), _notes(quiet, busy, simplest, unpolled))


def _checks(seconds: Seconds) -> tuple[Check, ...]:
    return tuple(
        Check.at_least(name, Comparison.of(pairs).ratio, "x dict", 1, factor=FACTOR) for name, pairs in seconds.items()
    )


def _notes(quiet: Seconds, busy: Seconds, simplest: Seconds, unpolled: Seconds) -> dict[str, str]:
    notes = {
        name: Comparison.of(pairs).rates(COUNT * (FSTATS if name == "fstat" else 1), "/s")
        for name, pairs in quiet.items()
    }
    return notes | {
        "while uploads fill the line": _ratios(busy),
        "against the simplest handlers of a dict, in the same loop": _ratios(simplest),
        "against these in pyfuse3's own loop": _ratios(unpolled),
    }


def _ratios(seconds: Seconds) -> str:
    return ", ".join(f"{name} {Comparison.of(pairs).ratio:.2f}x" for name, pairs in seconds.items())


ROW = Row("names-uncached", "operations on names, kernel caches off, against answers from a dict", _run)
