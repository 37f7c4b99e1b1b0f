"""Sequential reading and writing of what is cached costs little more than pread and pwrite of one file would.

The program drops the kernel's pages before each pass, so that reads reach the daemon, which the daemon's own count of
requests shows. Uploads are paused; what is overwritten is in the cache, and in Discord.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.beside import duel, reference
from bench.pairs import Comparison
from bench.report import Check, Outcome
from bench.rows.base import Row
from bench.shape import MIB

if TYPE_CHECKING:
    from bench.lab import Lab

ROUNDS = 16
SIZE_MIB = 128
FACTOR = 0.8
LARGEST_READ_BYTES = MIB


class UnseenError(Exception):
    """Reads were answered by the kernel: nothing of the daemon was measured."""


def _run(lab: Lab, scale: float) -> Outcome:
    rounds, size = max(4, int(ROUNDS * scale)), SIZE_MIB * MIB
    lab.mount()
    path = lab.write_file("data", size, seed=0)
    lab.sync()
    lab.run("pause", str(lab.files))
    backing = lab.files.parent / "backing"
    backing.write_bytes(path.read_bytes())
    with reference(lab, "contents", str(backing)) as other:
        duel(lab, "data", path, other / "data", 2, size)
        before = lab.kernel_requests()
        with lab.measured("both sides", 4 * rounds * SIZE_MIB, "MiB") as stretch:
            seconds = duel(lab, "data", path, other / "data", rounds, size)
        after = lab.kernel_requests()
    reads = after["read"] - before["read"]
    if reads < 2 * rounds * size // LARGEST_READ_BYTES:
        raise UnseenError(f"only {reads} reads reached the daemon")
    compared = {name: Comparison.of(pairs) for name, pairs in seconds.items()}
    lab.open_up()
    lab.run("resume", str(lab.files))
    return Outcome(
        tuple(Check.at_least(name, found.ratio, "x pread", 1, factor=FACTOR) for name, found in compared.items()),
        (stretch.costs,),
        {name: found.rates(size / 1e6, "MB/s") for name, found in compared.items()}
        | {"requests": f"{reads} reads and {after['write'] - before['write']} writes reached the daemon"},
    )


ROW = Row("sequential", "sequential reads and writes of cached data, against pread and pwrite of one file", _run)
