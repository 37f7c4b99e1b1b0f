"""Kills by the hundred, a few of them: the program that does a thousand keeps working, and finds nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.product import Product

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("DISFS_CRASH_KILLS", "2"))
POWER_CUTS = int(os.environ.get("DISFS_CRASH_POWER_CUTS", "4"))


@pytest.mark.timeout(300 + 60 * KILLS)
def test_a_few_crashes_lose_nothing(tmp_path: Path) -> None:
    """Writers on a real mount, kill -9, a machine that burns, power cuts: every fsynced byte and name is there, the
    metadata agree, and no log has a traceback."""
    report = tmp_path / "report.json"
    counts = ("--kills", str(KILLS), "--burn-every", "2", "--power-cuts", str(POWER_CUTS))
    done = subprocess.run(
        [sys.executable, "-m", "bench.crashes", *counts, "--directory", tmp_path / "work", "--report", report],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, f"{done.stdout}\n{done.stderr}"
    found = json.loads(report.read_text())
    assert found["holds"]
    assert KILLS == sum(found["kills"].values())
    assert KILLS // 2 == found["burns"]
    assert POWER_CUTS <= found["power_cuts"]
    assert found["fsyncs"] > 0


def test_mount_after_a_kill_says_what_it_found(disk: Product) -> None:
    """One line on the terminal and in the log, and all of it in `status --json`; nothing after a stop in order."""
    disk.run("pause", str(disk.mountpoint))
    with (disk.mountpoint / "file").open("wb") as file:
        file.write(b"x" * 300_000)
        file.flush()
        os.fsync(file.fileno())
    disk.kill()
    said = disk.mount().stdout.splitlines()
    assert said[0].startswith("recovered after a crash in ")
    assert said[0].endswith(": 3 unsent chunks found again")
    assert said[0] in disk.log()
    found = disk.status()["recovery"]
    assert (True, 3, 0, 0) == (
        found["crashed"],
        found["unsent_chunks"],
        found["lost_chunks"],
        found["arrived_messages"],
    )
    assert 300_000 == (disk.mountpoint / "file").stat().st_size
    disk.umount()
    assert 1 == len(disk.mount().stdout.splitlines())
    assert not disk.status()["recovery"]["crashed"]
