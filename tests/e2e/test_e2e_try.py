"""`./try`: one command to a mounted disk, and the same command again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.product import product

if TYPE_CHECKING:
    from support.product import Product

pytestmark = pytest.mark.fuse
ROOT = Path(__file__).resolve().parent.parent.parent
INSTALLED = ROOT / ".venv" / "disfs-installed"


def attempt(disk: Product) -> list[str]:
    """Run `./try` from another directory; the lines that it printed."""
    done = subprocess.run(
        [ROOT / "try", disk.mountpoint],
        cwd="/",
        env=disk.environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_try_mounts_and_says_what_to_do(tmp_path: Path) -> None:
    """It mounts, ends with five lines, changes nothing when repeated, and recovers after kill -9."""
    if not INSTALLED.exists():  # it would install, which is not a test's business; ./check has done so
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs what ./check installs")
    with product(tmp_path) as disk:
        disk.mountpoint.rmdir()
        told = attempt(disk)[-5:]
        assert f"{disk.mountpoint} is a disk now" in told[0]
        assert [f"{number}." for number in range(1, 5)] == [line[:2] for line in told[1:]]
        assert all(word in "\n".join(told) for word in ("cp -a", "status", "umount", "README.md"))
        (disk.mountpoint / "file").write_text("kept")
        assert any("mounted already" in line for line in attempt(disk))
        disk.run("sync", str(disk.mountpoint))
        os.kill(disk.pid(), 9)
        assert told == attempt(disk)[-5:]
        assert "kept" == (disk.mountpoint / "file").read_text()
