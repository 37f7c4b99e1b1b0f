"""The quick ones of the independent suites: what others, and programs of every day, ask of a file system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
QUICK = {"everyday-quick": 20, "posix-quick": 1000, "exerciser-quick": 6, "cpython-quick": 200, "stress-ng-quick": 6}
"""And the fewest tests that each of them must have passed: a suite that runs nothing finds nothing."""


NEEDED = {"cpython-quick": "/usr/lib/python3.11/test/test_file.py", "stress-ng-quick": "/usr/bin/stress-ng"}
"""What has to be installed: `python -m bench.suites` does it by itself, but a test is no reason to install anything."""


@pytest.mark.skipif(os.geteuid() != 0, reason="the suites become other users and make device files")
@pytest.mark.parametrize("name", QUICK)
def test_suite_finds_nothing(tmp_path: Path, name: str) -> None:
    """Every test of the suite passes on a mount, but for those that are known to fail, with their reasons."""
    needed = Path(NEEDED.get(name, "/"))
    if not needed.exists():
        pytest.skip(f"{needed} is not installed")
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.suites", "--only", name, "--json", report],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert 0 == done.returncode, f"{done.stdout}\n{done.stderr}"
    (found,) = json.loads(report.read_text())
    assert found["result"]["passed"] >= QUICK[name]
