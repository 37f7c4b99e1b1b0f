"""What holds for every test: nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def fuse_mounts() -> set[str]:
    """The mount points of all FUSE file systems on this machine."""
    rows = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return {row[1] for row in rows if row[2].startswith("fuse") and row[2] not in ("fusectl", "fuseblk")}


def disfs_processes(root: Path) -> set[int]:
    """Processes that were started with an argument or a DISFS_HOME below `root`."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            seen = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(root).encode() in seen:
            found.add(int(entry.name))
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A run that leaves a mount or a process behind fails."""
    before = fuse_mounts()
    yield
    base = tmp_path_factory.getbasetemp()
    assert set() == fuse_mounts() - before, "mounts were left behind"
    assert set() == disfs_processes(base), "processes were left behind"
