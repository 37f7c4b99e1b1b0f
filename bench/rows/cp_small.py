"""Copying a tree of small files is not slower than with other programs that make remote storage a disk.

What is timed is `cp -a` until it returns. All are mounted at once and copy in turn, each time to a new place; before
each turn everybody has done what was put off, so that nobody's sending falls into the time of another.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench import meters, peers
from bench.lab import LabError
from bench.pairs import Comparison
from bench.report import Check, Outcome
from bench.rows.base import Row
from bench.trees import make_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.lab import Lab
    from bench.peers import Peer

FILES = 36_000
DIRECTORIES = 7_000
ROUNDS = 3
PEERS = {"rclone": peers.rclone, "JuiceFS": peers.juicefs}


def _run(lab: Lab, scale: float) -> Outcome:
    files, directories = max(50, int(FILES * scale)), max(10, int(DIRECTORIES * scale))
    source = lab.files.parent / "source"
    size = make_tree(source, lab.contents, files=files, directories=directories)
    lab.shape_network()
    lab.mount()
    with ExitStack() as stack:
        settled = {lab.files: lambda: _settle(lab)}
        names, missing = {lab.files: "disfs"}, {}
        for name, mounted in PEERS.items():
            try:
                peer = stack.enter_context(_peer(lab, name, mounted))
            except peers.UnavailableError as error:
                missing[name] = f"skipped: {error}"
                continue
            names[peer.mountpoint], settled[peer.mountpoint] = name, peer.settle
        with lab.measured("all copies", files * ROUNDS, "file", written_bytes=size * ROUNDS) as stretch:
            seconds = _copies(source, settled)
    taken = {names[place]: found for place, found in seconds.items()}
    return Outcome(
        tuple(
            Check.at_least(f"as quick as {name}", _against(taken, name).ratio, f"x {name}", 1)
            for name in taken
            if name != "disfs"
        ),
        (stretch.costs,),
        {name: _line(files, found) for name, found in taken.items()} | missing,
    )


@contextlib.contextmanager
def _peer(lab: Lab, name: str, mounted: Callable[[Path], contextlib.AbstractContextManager[Peer]]) -> Iterator[Peer]:
    directory = lab.files.parent / name
    directory.mkdir()
    with mounted(directory) as peer:
        yield peer


def _copies(source: Path, settled: dict[Path, Callable[[], None]]) -> dict[Path, list[float]]:
    """The seconds of each round, by mount; who begins changes."""
    seconds: dict[Path, list[float]] = {place: [] for place in settled}
    places = list(settled)
    for number in range(ROUNDS):
        for place in places[number % len(places) :] + places[: number % len(places)]:
            for wait in settled.values():
                wait()
            seconds[place].append(_copy(source, place / f"copy-{number}"))
    return seconds


def _copy(source: Path, target: Path) -> float:
    began = time.perf_counter()
    done = subprocess.run(["cp", "-a", str(source), str(target)], capture_output=True, check=False)
    taken = time.perf_counter() - began
    if done.returncode != 0:
        raise LabError(f"cp -a to {target} exited {done.returncode}: {done.stderr.decode(errors='replace')[:300]}")
    return taken


def _settle(lab: Lab) -> None:
    lab.sync()
    peers.settle(lambda: meters.cpu_seconds(lab.daemon_pid))


def _against(taken: dict[str, list[float]], name: str) -> Comparison:
    return Comparison.of(list(zip(taken["disfs"], taken[name], strict=True)))


def _line(files: int, seconds: list[float]) -> str:
    each = ", ".join(f"{found:.1f}" for found in seconds)
    return f"{files / sorted(seconds)[len(seconds) // 2]:.0f} files/s; seconds by round: {each}"


ROW = Row("cp-small", "cp -a of 36,000 small files in 7,000 directories, against rclone and JuiceFS", _run)
