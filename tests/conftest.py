"""What holds for every test: nothing is left behind, and what mounts is skipped where nothing can be mounted."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long an example takes says how busy the machine is, and nothing of the code: speed is measured in `bench`.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `fuse` with a reason where nothing can be mounted; with CI set, fail it."""
    needed = {"/dev/fuse": os.access("/dev/fuse", os.R_OK | os.W_OK), "fusermount3": shutil.which("fusermount3")}
    missing = [what for what, is_there in needed.items() if not is_there]
    if missing and item.get_closest_marker("fuse"):
        # In continuous integration a run that mounts nothing must not look like one that passed.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {' and '.join(missing)}")


def fuse_mounts() -> set[str]:
    """The mount points of all FUSE file systems on this machine."""
    rows = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return {row[1] for row in rows if row[2].startswith("fuse") and row[2] not in ("fusectl", "fuseblk")}


def ancestors(pid: int) -> Iterator[int]:
    """`pid`, its parent, and so on: a shell that started us may well name our directory."""
    while pid > 0:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def disfs_processes(root: Path) -> dict[int, str]:
    """Processes that were started with an argument or a variable below `root`, and their command lines."""
    found = {}
    ours = set(ancestors(os.getpid()))
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in ours:
            continue
        try:
            seen = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(root).encode() in seen:
            found[int(entry.name)] = seen.split(b"\0\0")[0].replace(b"\0", b" ").decode(errors="replace")
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A run that leaves a mount or a process behind fails."""
    yield
    base = tmp_path_factory.getbasetemp()
    assert [] == [mount for mount in fuse_mounts() if Path(mount).is_relative_to(base)], "mounts were left behind"
    deadline = time.monotonic() + 10
    while disfs_processes(base) and time.monotonic() < deadline:
        time.sleep(0.05)  # a daemon that was told to stop ends a moment after its mount: only the process table knows
    assert {} == disfs_processes(base), "processes were left behind"
