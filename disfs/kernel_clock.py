"""The clock of the kernel's own timestamps: what "now" must be, so that no time of a file ever goes backwards.

`touch` and utimensat(2) with UTIME_NOW bring the kernel's now; writes and changes of names get ours. A file that
is touched and written in turn shows whether the two agree. The kernel's is its coarse clock, up to 4 ms behind
`time_ns`; since Linux 6.13 (multigrain timestamps) it is not behind the newest fine time that any file system has
handed out either, and that floor cannot be asked for. So this clock is the coarse one too, and not behind any time
that was set through the mount and is not in the future.
"""

from __future__ import annotations

import time

_CLOCK_REALTIME_COARSE = 5
"""linux/time.h; Python's `time` does not name it."""
_TICK_NS = 20_000_000
"""Longer than the coarse clock stands still, 10 ms at 100 Hz. A floor further ahead dates from before a step back."""


class KernelClock:
    """The time as the kernel would stamp it."""

    def __init__(self) -> None:
        self._floor_ns = 0

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        coarse_ns = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
        if coarse_ns < self._floor_ns <= coarse_ns + _TICK_NS:
            return self._floor_ns
        return coarse_ns

    def saw(self, time_ns: int | None) -> None:
        """Somebody set this time, which may be the kernel's now; None for a time that was left as it is."""
        if time_ns is not None and time_ns <= time.time_ns():
            self._floor_ns = max(self._floor_ns, time_ns)
