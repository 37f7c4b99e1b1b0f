"""Promises of the README that only the whole program can show."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.product import Product

pytestmark = pytest.mark.fuse
MIB = 1 << 20


def stored(disk: Product) -> int:
    """How many bytes of attachments Discord keeps. From the control API, which has no rate limit."""
    return int(disk.control("GET", "/counters")["attachment_bytes"])


def test_umount_waits_until_everything_is_in_discord(disk: Product) -> None:
    """`disfs umount` returns when everything is in Discord, and shows how far it is; interrupting it loses nothing."""
    content = os.urandom(30 * MIB)
    (disk.mountpoint / "file").write_bytes(content)
    disk.control("PATCH", "/settings", {"upload_bytes_per_second": 4 * MIB})
    waiting = subprocess.Popen(
        [sys.executable, "-m", "disfs", "umount", str(disk.mountpoint)],
        env=disk.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert waiting.stdout is not None
    shown = waiting.stdout.readline()
    assert "MiB" in shown or "%" in shown
    waiting.send_signal(signal.SIGINT)
    rest = waiting.communicate(timeout=60)[0]
    assert 29 == waiting.returncode, shown + rest
    disk.wait_for(lambda: not disk.daemons())
    disk.control("PATCH", "/settings", {"upload_bytes_per_second": 0})
    disk.mount()
    assert content == (disk.mountpoint / "file").read_bytes()
    disk.cold()
    assert content == (disk.mountpoint / "file").read_bytes()


def test_sigterm_waits_until_everything_is_in_discord(disk: Product) -> None:
    """SIGTERM unmounts after everything was sent: a cold mount has it all."""
    content = os.urandom(5 * MIB)
    (disk.mountpoint / "file").write_bytes(content)
    pid = disk.pid()
    os.kill(pid, signal.SIGTERM)
    disk._wait_gone(pid)
    disk.drop_cache()
    disk.mount()
    assert content == (disk.mountpoint / "file").read_bytes()


def test_secrets_stay_secret(disk: Product) -> None:
    """Token, keys and signed URLs never appear in logs, errors, process lists or the control socket."""
    (disk.mountpoint / "file").write_bytes(os.urandom(MIB))
    disk.run("sync", str(disk.mountpoint))
    command_line = Path(f"/proc/{disk.pid()}/cmdline").read_bytes().decode()
    told = json.dumps(disk.status()) + disk.run("status", str(disk.mountpoint)).stdout + command_line
    token = disk.emulator()["token"]
    disk.cold()
    (disk.mountpoint / "file").read_bytes()
    told += disk.log() + "".join(path.read_text(errors="replace") for path in disk.home.rglob("*.log*"))
    for secret in (token, disk.environment["DISFS_PASSPHRASE"], "hm="):
        assert secret not in told


def test_rate_limits_are_obeyed(disk: Product) -> None:
    """Rate limits are obeyed before they are hit; a 429 is rare, counted, and shown in status."""
    for number in range(12):
        (disk.mountpoint / f"file{number}").write_bytes(os.urandom(6 * MIB))
    disk.run("sync", str(disk.mountpoint))
    transport = disk.status()["transport"]
    assert transport["rate_limited"] <= 1
    assert transport["sends"] >= 3


def test_deleting_frees_the_space_on_discord(disk: Product) -> None:
    """Deleting frees the space on Discord, once its time in the trash is over; nothing that is still referred to is
    deleted."""
    disk.umount()
    disk.mount("-o", "sweep_grace=0,trash_days=0")
    kept = os.urandom(MIB)
    (disk.mountpoint / "kept").write_bytes(kept)
    disk.run("sync", str(disk.mountpoint))
    (disk.mountpoint / "doomed").write_bytes(os.urandom(8 * MIB))
    disk.run("sync", str(disk.mountpoint))
    before = stored(disk)
    (disk.mountpoint / "doomed").unlink()
    disk.wait_for(lambda: stored(disk) < before - 8 * MIB)
    disk.cold()
    assert kept == (disk.mountpoint / "kept").read_bytes()
