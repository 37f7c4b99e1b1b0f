"""One volume on two machines: two homes, one Discord, real mounts."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from support.product import product

from disfs.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.product import Product


@pytest.fixture
def second(disk: Product, tmp_path: Path) -> Iterator[Product]:
    """Another machine, with a home of its own, which has recovered the volume from Discord."""
    (disk.mountpoint / "one").write_bytes(b"1")
    disk.run("sync", str(disk.mountpoint))
    info = disk.emulator()
    with product(tmp_path / "second") as other:
        other.environment |= {"DISFS_API_URL": info["api_url"], "DISFS_TOKEN": info["token"]}
        other.run("recover", "emulator")
        yield other


def mount(machine: Product, *arguments: str) -> tuple[int, str]:
    """Exit code, and what was said."""
    done = machine.run("mount", str(machine.mountpoint), *arguments, check=False)
    return done.returncode, done.stderr


def test_second_machine_is_refused_and_may_read(disk: Product, second: Product) -> None:
    """One line with the way out, for a repair too; a read-only mount is let in; after an unmount any mount is."""
    code, said = mount(second)
    assert ExitCode.VOLUME_HELD == code
    assert 1 == len(said.splitlines())
    assert "volume 'emulator' is mounted on" in said
    repair = second.run("fsck", "emulator", "--repair", "--yes", check=False)
    assert (ExitCode.VOLUME_HELD, 1) == (repair.returncode, len(repair.stderr.splitlines()))
    assert (0, "") == mount(second, "-o", "ro")
    assert b"1" == (second.mountpoint / "one").read_bytes()
    second.umount()
    status = disk.status()
    assert (None, True) == (status["journal"]["conflict"], status["lease"]["held"])
    (disk.mountpoint / "two").write_bytes(b"2")
    disk.umount()
    (second.home / "state" / "volumes" / "emulator" / "metadata.db").unlink()
    second.run("recover", "emulator")
    assert (0, "") == mount(second)
    assert {"one", "two"} == {path.name for path in second.mountpoint.iterdir()}
    second.umount()


def test_kill_leaves_the_lease_to_its_own_machine(disk: Product, second: Product) -> None:
    """The one that was killed comes back at once, another one is refused; --takeover warns, and the first one stops."""
    os.kill(disk.pid(), signal.SIGKILL)
    assert ExitCode.VOLUME_HELD == mount(second)[0]
    disk.clear_mount()
    disk.mount()
    assert disk.status()["lease"]["held"]
    code, said = mount(second, "--takeover")
    assert 0 == code
    assert "was taken over from" in said
    (second.mountpoint / "mine").write_bytes(b"2")
    (disk.mountpoint / "too late").write_bytes(b"3")
    assert ExitCode.UNSENT_DATA == disk.run("sync", str(disk.mountpoint), check=False).returncode
    assert "has had this volume mounted since" in disk.status()["journal"]["conflict"]
    assert not disk.status()["lease"]["held"]
    second.run("sync", str(second.mountpoint))
    status = second.status()
    assert (None, True) == (status["journal"]["conflict"], status["lease"]["held"])
    second.umount()
