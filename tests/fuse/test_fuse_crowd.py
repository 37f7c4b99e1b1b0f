"""Many processes in one directory of a real mount: whatever they do to each other, what they leave is in order.

`DISFS_CROWD_TURNS` makes each of them work longer, `DISFS_CROWD_SEED` differently.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.crowd import CUT_BYTES, MAPPED_BYTES, MAPPERS, STABLE_COUNT, records, stable_name
from support.kept_disk import kept_disk
from support.metadata_invariants import faults_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.kept_disk import KeptDisk

TURNS = int(os.environ.get("DISFS_CROWD_TURNS", "1"))
SEED = int(os.environ.get("DISFS_CROWD_SEED", "1"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 60 * TURNS)]


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[KeptDisk]:
    """A mount whose files are many chunks; when it is unmounted its metadata must hold together."""
    with kept_disk(tmp_path) as disk:
        yield disk
        disk.remount()
        check_links(disk.root)
        disk.unmount()
        assert [] == faults_of(disk.metadata_path)


def work(directory: Path, *crowd: tuple[str, int]) -> None:
    """Processes with these roles and so many turns each, at the same time, until all are done."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[1:3]))}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "support.crowd", role, str(directory), str(SEED * 100 + number), str(turns * TURNS)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, (role, turns) in enumerate(crowd)
    ]
    errors = [process.communicate()[1] for process in started]
    assert [""] * len(crowd) == errors


def check_links(top: Path) -> None:
    """Each inode's link count is what the tree shows."""
    found: dict[int, list[Path]] = {}
    for path in top.rglob("*"):
        found.setdefault(path.lstat().st_ino, []).append(path)
    for paths in found.values():
        status = paths[0].lstat()
        if stat.S_ISDIR(status.st_mode):
            assert 1 == len(paths)
            assert 2 + sum(below.is_dir() for below in paths[0].iterdir()) == status.st_nlink
        else:
            assert len(paths) == status.st_nlink


def test_the_same_names_changed_by_many(crowded: KeptDisk) -> None:
    """Processes make, link, rename, exchange and remove the same names: link counts and the tree stay whole."""
    (crowded.root / "d0" / "d1").mkdir(parents=True)
    work(crowded.root, *[("names", 1500)] * 4)
    check_links(crowded.root)


def test_records_appended_by_many(crowded: KeptDisk) -> None:
    """Records that processes append at once are all there, whole, each process's in order, after a remount too."""
    work(crowded.root, *[("append", 120)] * 4)
    for _ in range(2):
        found = records((crowded.root / "log").read_bytes())
        assert [list(range(120 * TURNS))] * 4 == list(found.values())
        crowded.remount()


def test_listing_while_names_come_and_go(crowded: KeptDisk) -> None:
    """While others make, rename and remove names, a listing shows no name twice and misses none that stays."""
    for number in range(STABLE_COUNT):
        (crowded.root / stable_name(number)).touch()
    work(crowded.root, ("churn", 800), ("churn", 800), ("listing", 25), ("listing", 25))


def test_cut_bytes_stay_away_from_concurrent_readers(crowded: KeptDisk) -> None:
    """While one process cuts a file and fills it anew, no reader sees bytes again that were cut before."""
    # The numbers are one byte: more turns would begin again.
    work(crowded.root, ("cut", 40 if TURNS == 1 else 240 // TURNS), ("watch", 400), ("watch", 400))
    assert CUT_BYTES == (crowded.root / "cut").stat().st_size


def test_one_file_mapped_by_many(crowded: KeptDisk) -> None:
    """Each process's bytes in a shared mapping are its own: none is lost, also after a remount."""
    (crowded.root / "mapped").write_bytes(bytes(MAPPED_BYTES))
    work(crowded.root, *[("mapped", 3)] * MAPPERS)
    expected = bytes([3 * TURNS % 256] * MAPPERS + [0] * (8 - MAPPERS)) * (MAPPED_BYTES // 8)
    for _ in range(2):
        assert expected == (crowded.root / "mapped").read_bytes()
        crowded.remount()
