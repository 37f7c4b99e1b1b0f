"""Far more than the cache holds streams through, up and down, in bounded memory and bounded cache.

The cache is looked at in two ways: what disfs says that it holds, which is what the budget is about, and what the
files of the cache take on the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import meters
from bench.report import Check, Outcome
from bench.rows.base import Row
from bench.rows.reading import read_file
from bench.shape import GIB, MIB

if TYPE_CHECKING:
    from bench.lab import Lab

FILES = 10
CACHE_BYTES = GIB
MIN_CACHE_BYTES = 64 * MIB
MAX_MEMORY_BYTES = 200 * MIB
PACK_BYTES = 10 * MIB
STATUS_SECONDS = 5.0
LOOK_SECONDS = 0.25


def _run(lab: Lab, scale: float) -> Outcome:
    size = int(GIB * scale)
    cache = max(MIN_CACHE_BYTES, int(CACHE_BYTES * scale))
    lab.shape_network()
    lab.mount("--cache-size", str(cache))
    bare = meters.memory_bytes(lab.daemon_pid)
    with (
        meters.sampled(lambda: meters.memory_bytes(lab.daemon_pid), LOOK_SECONDS) as resident,
        meters.sampled(lambda: meters.disk_bytes(lab.cache), LOOK_SECONDS) as on_disk,
        meters.sampled(lambda: float(lab.status()["cache_bytes"]), STATUS_SECONDS) as cached,
    ):
        mib = FILES * size // MIB
        with lab.measured("write and sync", mib, "MiB", written_bytes=FILES * size) as writing:
            for number in range(FILES):
                lab.write_file(f"file{number}", size, seed=number)
            lab.sync()
        with lab.measured("read", mib, "MiB") as reading:
            for number in range(FILES):
                read_file(lab, lab.files / f"file{number}", seed=number)
        cached.see(float(lab.status()["cache_bytes"]))
        peak = max(meters.memory_bytes(lab.daemon_pid, "VmHWM"), resident.most)
    return Outcome(
        (
            Check.at_most("peak memory", peak / MIB, "MiB", MAX_MEMORY_BYTES / MIB),
            Check.at_most("cache", cached.most / MIB, "MiB", (cache + PACK_BYTES) / MIB),
            Check.at_most("cache on the disk", on_disk.most / MIB, "MiB", (cache + PACK_BYTES) / MIB),
        ),
        (writing.costs, reading.costs),
        {
            "resident": f"{bare / MIB:.0f} MiB when mounted, at most {resident.most / MIB:.0f} MiB in {resident.count} "
            f"looks, {resident.last / MIB:.0f} MiB at the end",
            "rates": f"written at {FILES * size / writing.seconds / 1e6:.1f} MB/s, "
            f"read at {FILES * size / reading.seconds / 1e6:.1f} MB/s",
        },
    )


ROW = Row("memory", "10 GiB stream through a 1 GiB cache", _run)
