"""`python -m bench.profiled OUTPUT ARGUMENTS...`: run `disfs ARGUMENTS` here, and say where its CPU time went.

A thread looks at the stacks of all others a few hundred times a second and charges each with the CPU time that its
thread has used since the last look, by the thread's own clock: waiting costs nothing, and C code is charged to the line
that called it. OUTPUT gets the lines and functions that cost most, by thread.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

_Key = TypeVar("_Key")

INTERVAL_SECONDS = 0.004
SHOWN = 45
_DEPTH = 6
"""How many callers a stack is shown with."""


class Sampler:
    """Charges CPU time to stacks until it is told to stop."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._clocks: dict[int, float] = {}
        self._lines: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._stacks: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._threads: defaultdict[str, float] = defaultdict(float)
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="profiler", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():  # noqa: SLF001 - made for exactly this
                if ident != self._thread.ident:
                    self._charge(ident, names.get(ident, "unnamed"), frame)

    def _charge(self, ident: int, thread: str, frame: FrameType) -> None:
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            now = time.clock_gettime(time.pthread_getcpuclockid(ident))
            used = now - self._clocks.get(ident, now)
            self._clocks[ident] = now
            if used <= 0:
                return
            thread = thread.split(" from ", maxsplit=1)[0].rstrip("0123456789-_ ")
            stack = _stack(frame)
            self._threads[thread] += used
            self._lines[thread, stack[0]] += used
            self._stacks[thread, " < ".join(stack)] += used

    def write(self, path: Path) -> None:
        """What was found."""
        wall = time.monotonic() - self._began
        lines = [f"{wall:.1f} s; CPU seconds by thread:"]
        lines += [f"{used:8.2f}  {name}" for name, used in _largest(self._threads)]
        for title, found in (("line", self._lines), ("stack", self._stacks)):
            lines += ["", f"CPU seconds by {title}:"]
            lines += [f"{used:8.2f}  [{thread}] {place}" for (thread, place), used in _largest(found)]
        path.write_text("\n".join(lines) + "\n")


def _largest(found: Mapping[_Key, float]) -> list[tuple[_Key, float]]:
    return sorted(found.items(), key=lambda item: -item[1])[:SHOWN]


def _stack(frame: FrameType) -> list[str]:
    """The innermost places, innermost first."""
    places: list[str] = []
    at: FrameType | None = frame
    while at is not None and len(places) < _DEPTH:
        name = "/".join(Path(at.f_code.co_filename).parts[-2:])
        places.append(f"{name}:{at.f_lineno} {at.f_code.co_name}")
        at = at.f_back
    return places


def main() -> None:
    """Run disfs under the sampler."""
    from disfs.__main__ import main as disfs_main

    output = Path(sys.argv[1])
    sys.argv = ["disfs", *sys.argv[2:]]
    sampler = Sampler()
    sampler.start()
    try:
        disfs_main()
    finally:
        sampler.stop()
        sampler.write(output)


if __name__ == "__main__":
    main()
