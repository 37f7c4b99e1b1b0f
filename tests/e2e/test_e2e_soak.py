"""A few seconds of the soak: the program that runs for an hour keeps working, and finds nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]


def test_a_short_soak_finds_nothing(tmp_path: Path) -> None:
    """Mixed load, one fault after the other: no wrong byte, no failed call, nothing lost, and a report that says so."""
    report = tmp_path / "report.json"
    arguments = ("--small", "--minutes", "0.1", "--probability", "0.05", "--directory", tmp_path, "--report", report)
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert 0 == done.returncode, f"{done.stdout}\n{done.stderr}"
    found = json.loads(report.read_text())
    assert found["holds"]
    assert found["operations"]["write"]["count"] > 100
    assert "## Soak" in done.stdout
