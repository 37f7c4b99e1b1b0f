"""Looking at names is answered in large pieces the first time, and by the kernel the second time.

What counts is the number of requests that reach the daemon, as it counts them itself. Before the first listing the
volume is mounted anew, so the kernel knows nothing.

`ls -l` asks each file for its ACL, a question that no reply of a listing can spare; what is held against the target is
the mount without ACLs, and the other stands beside it. A listing that reached the daemon makes the kernel doubt the
directory's atime, and ask for it the next time: so each command runs once before any runs a second time, as at a
person's desk.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from bench.lab import LabError
from bench.report import Check, Outcome
from bench.rows.base import Row
from bench.trees import make_tree

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from bench.lab import Lab

LISTED = 10_000
REQUESTS_PER_ENTRY = 0.02
TREE_FILES = 40_000
TREE_DIRECTORIES = 2_000
MAX_REQUESTS = 100
ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LC_ALL": "C",
    # Whatever the person who measures has configured: git as it comes.
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "bench",
    "GIT_AUTHOR_EMAIL": "bench@localhost",
    "GIT_COMMITTER_NAME": "bench",
    "GIT_COMMITTER_EMAIL": "bench@localhost",
}


class _Look:
    """A command's cost: seconds, and the requests that it made of the daemon."""

    def __init__(self, lab: Lab, directory: Path, *command: str) -> None:
        before = lab.kernel_requests()
        began = time.perf_counter()
        _run_in(directory, *command)
        self.seconds = time.perf_counter() - began
        self.requests = lab.kernel_requests() - before - asking(lab)

    def line(self) -> str:
        """For people."""
        return f"{self.seconds:.2f} s; {kinds(self.requests)}"


def kinds(requests: Counter[str]) -> str:
    """Counts by kind, most first."""
    return ", ".join(f"{kind} {count}" for kind, count in requests.most_common()) or "no requests"


def asking(lab: Lab) -> Counter[str]:
    """What asking for the counts costs by itself."""
    before = lab.kernel_requests()
    return lab.kernel_requests() - before


def _run(lab: Lab, scale: float) -> Outcome:
    listed = max(100, int(LISTED * scale))
    files, directories = max(100, int(TREE_FILES * scale)), max(10, int(TREE_DIRECTORIES * scale))
    lab.mount()
    (lab.files / "flat").mkdir()
    for number in range(listed):
        (lab.files / "flat" / f"a-file-of-some-name-{number}").touch()
    _place_repository(lab, files, directories)
    lab.sync()
    lab.remount("-o", "noacl")
    cold = _Look(lab, lab.files / "flat", "ls", "-l")
    lab.remount()
    with_acls = _Look(lab, lab.files / "flat", "ls", "-l")
    looks = {}
    for run in ("first run", "second run"):
        for name, command in (("git status", ("git", "status")), ("find", ("find", "."))):
            looks[f"{name}, {run}"] = _Look(lab, lab.files / "tree", *command)
    return Outcome(
        (
            Check.at_most("ls -l, cold, noacl", cold.requests.total(), "requests", listed * REQUESTS_PER_ENTRY),
            *(
                Check.bounded(name, look.requests.total(), "requests", 0, MAX_REQUESTS)
                for name, look in looks.items()
                if name.endswith("second run")
            ),
        ),
        notes={"ls -l, cold, noacl": cold.line(), "ls -l, cold, with ACLs": with_acls.line()}
        | {name: look.line() for name, look in looks.items()},
    )


def _place_repository(lab: Lab, files: int, directories: int) -> None:
    """Make a repository on the local disk, and copy it: thousands of loose objects are not what is measured."""
    local = lab.files.parent / "tree"
    make_tree(local, lab.contents, files=files, directories=directories)
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "all"), ("repack", "-adq")):
        _run_in(local, "git", *command)
    _run_in(local.parent, "cp", "-a", str(local), str(lab.files))


def _run_in(directory: Path, *command: str) -> None:
    done = subprocess.run(
        command, cwd=directory, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} exited {done.returncode}: {done.stderr.decode(errors='replace').strip()}")


ROW = Row("listing", "requests for ls -l, find and git status", _run)
