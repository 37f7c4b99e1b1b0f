"""The benchmark's program: one row with hardly any work, through a real mount."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.fuse
@pytest.mark.slow
def test_a_row_runs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A scaled-down row mounts, measures, writes its report and takes everything away again."""
    output, work = tmp_path / "report.json", tmp_path / "work"
    work.mkdir()
    command = ["-m", "bench", "--only", "write-1g", "--scale", "0.005", "--no-ceiling"]
    done = subprocess.run(
        [sys.executable, *command, "--json", str(output), "--directory", str(work)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr  # whether the target is met is not the question here
    (found,) = json.loads(output.read_text())
    assert found["failure"] is None
    assert [check["name"] for check in found["outcome"]["checks"]] == ["write and sync"]
    (costs,) = found["outcome"]["costs"]
    assert costs["requests"]["create_message"] >= 1
    assert costs["sent_bytes"] >= costs["written_bytes"] > 0
    assert [] == list(work.iterdir())


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.parametrize("row", ["names-uncached", "sequential", "listing", "scale"])
def test_a_row_of_names_or_contents_measures_and_leaves_nothing_behind(tmp_path: Path, row: str) -> None:
    """Both sides of a comparison are mounted, work, and are taken away."""
    output, work = tmp_path / "report.json", tmp_path / "work"
    work.mkdir()
    command = ["-m", "bench", "--only", row, "--scale", "0.001", "--no-ceiling"]
    done = subprocess.run(
        [sys.executable, *command, "--json", str(output), "--directory", str(work)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr  # whether the target is met is not the question here
    (found,) = json.loads(output.read_text())
    assert found["failure"] is None
    assert found["outcome"]["checks"]
    assert str(work) not in Path("/proc/mounts").read_text()
    assert [] == list(work.iterdir())
