"""Another file system, mounted beside disfs for a comparison; nothing is left of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from typing import TYPE_CHECKING

from bench.lab import END_SECONDS, LabError
from bench.reference.__main__ import READY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.duel import Seconds
    from bench.lab import Lab


@contextlib.contextmanager
def reference(lab: Lab, kind: str, *arguments: str) -> Iterator[Path]:
    """A reference file system, see `bench.reference`; gives its mountpoint."""
    mountpoint = lab.files.parent / f"reference-{kind}"
    mountpoint.mkdir()
    process = lab.python("bench.reference", kind, str(mountpoint), *arguments)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != READY:
            raise LabError(f"the reference file system exited {process.wait()}")
        yield mountpoint
    finally:
        detach(mountpoint)
        try:
            process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def detach(mountpoint: Path) -> None:
    """Take away what is mounted there, in use or not."""
    for flags in ("-u", "-uz"):
        if mountpoint.is_mount():
            subprocess.run(["fusermount3", flags, str(mountpoint)], capture_output=True, check=False)


def duel(lab: Lab, kind: str, left: Path, right: Path, rounds: int, count: int, *more: str) -> Seconds:
    """Run `bench.duel` in a process of its own."""
    with lab.python("bench.duel", kind, str(left), str(right), str(rounds), str(count), *more) as process:
        output, _ = process.communicate()
    if process.returncode != 0:
        raise LabError(f"the program that compares exited {process.returncode}")
    found: Seconds = json.loads(output)
    return found
