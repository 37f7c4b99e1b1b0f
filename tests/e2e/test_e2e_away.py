"""Discord goes away and comes back while a volume is mounted: a network that is down, a laptop that sleeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from support.processes import is_gone, until
from support.trouble import MIB, eventually, fault, no_faults, problems, read_cold, sync, write

if TYPE_CHECKING:
    from support.product import Product

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture
def disk(shared_disk: Product) -> Product:
    """The volume of all tests here."""
    return shared_disk


def stop_discord(disk: Product) -> dict[str, Any]:
    """Connections are refused from now on; what is needed to bring it back."""
    info = disk.emulator()
    pid = int((disk.emulator_directory / "info.json").read_text().split('"pid":')[1].split(",")[0].strip(" }"))
    os.kill(pid, signal.SIGTERM)
    until(is_gone(pid))
    return info


def start_discord(disk: Product, info: dict[str, Any]) -> None:
    """At the same address, with everything that it had."""
    port = str(urlsplit(info["api_url"]).port)
    subprocess.run(
        ["sh", "-c", f"{sys.executable} -m disfs emulator --port {port} >/dev/null 2>&1 &"],
        env=disk.environment,
        start_new_session=True,
        check=True,
    )
    until(lambda: disk.run("emulator", "--info", check=False).returncode == 0)


def test_network_that_goes_and_comes_needs_no_remount(disk: Product) -> None:
    """While connections are refused, what is cached or pinned is read and writing goes on; status says what is wrong;
    when they are accepted again everything is sent by itself, and what is cold can be read."""
    kept, cold = write(disk, "kept", 2 * MIB), write(disk, "cold", MIB)
    sync(disk)
    disk.cold()
    disk.run("pin", str(disk.mountpoint / "kept"))
    info = stop_discord(disk)
    late = write(disk, "late", MIB)
    assert kept == read_cold(disk.mountpoint / "kept")
    assert late == read_cold(disk.mountpoint / "late")
    eventually(disk, lambda: bool(problems(disk)))
    assert (MIB, "retrying") == (disk.status()["dirty_bytes"], disk.status()["uploads"])

    start_discord(disk, info)
    eventually(disk, lambda: disk.status()["dirty_bytes"] == 0 and not problems(disk))
    assert cold == read_cold(disk.mountpoint / "cold")
    assert disk.status()["lease"]["held"]
    disk.cold()
    assert late == (disk.mountpoint / "late").read_bytes()


def test_laptop_that_slept_goes_on(disk: Product) -> None:
    """Stopped in the middle of an upload, woken a month later in another network: the connections are dead, all
    addresses have expired, the lease is over, and everything goes on by itself."""
    old = write(disk, "old", 2 * MIB)
    sync(disk)
    disk.cold()
    assert old[:4096] == read_cold(disk.mountpoint / "old", 0, 4096)
    fault(disk, kind="status", status=503, route="create_message")
    new = write(disk, "new", MIB)
    eventually(disk, lambda: bool(disk.status()["writeback"]["failures"] or disk.status()["transport"]["trouble"]))
    pid = disk.pid()
    os.kill(pid, signal.SIGSTOP)
    no_faults(disk)
    info = stop_discord(disk)
    start_discord(disk, info)
    disk.control("POST", "/clock", {"seconds": 30 * 86_400})
    os.kill(pid, signal.SIGCONT)

    assert old == read_cold(disk.mountpoint / "old")
    eventually(disk, lambda: disk.status()["dirty_bytes"] == 0 and not problems(disk))
    sync(disk)
    status = disk.status()
    assert (pid, None, True) == (status["pid"], status["journal"]["conflict"], status["lease"]["held"])
    disk.cold()
    assert new == (disk.mountpoint / "new").read_bytes()
