"""The disk below cache and metadata fills: writers are refused, nothing that was taken is lost, and it heals itself."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from support.product import product
from support.trouble import told

from disfs.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.product import Product

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a disk of its own"),
]
MIB = 1 << 20
DISK_BYTES = 256 * MIB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Product]:
    """A mounted volume whose home lies on a small disk of its own; Discord does not."""
    home, elsewhere = tmp_path / "home", tmp_path / "emulator"
    home.mkdir()
    elsewhere.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "disfs-test", str(home)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        (home / "state").mkdir(mode=0o700)
        (home / "state" / "emulator").symlink_to(elsewhere)
        with product(tmp_path) as disk:
            disk.mount()
            yield disk
            # It is told to stop here: `product` looks for it below the home, where there is only a link to it.
            emulator = disk.emulator()["pid"]
            disk.umount("--no-wait")
            disk.control("POST", "/shutdown")
            disk._wait_gone(emulator)
    finally:
        for flags in ((), ("-l",)):
            if os.path.ismount(home):
                subprocess.run(["umount", *flags, str(home)], capture_output=True, check=False)


@contextlib.contextmanager
def somebody_fills(disk: Product, left_bytes: int) -> Iterator[None]:
    """Somebody else takes all of the disk but `left_bytes`, until the end of the block."""
    ballast = disk.home / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        piece = bytes(64 * 1024)
        while free_bytes(disk) > left_bytes:
            file.write(piece)
    try:
        yield
    finally:
        ballast.unlink()


def free_bytes(disk: Product) -> int:
    """The room left on the disk of the volume's home."""
    found = os.statvfs(disk.home)
    return found.f_bavail * found.f_frsize


def test_a_disk_that_fills_refuses_writers_and_keeps_what_it_has(small: Product) -> None:
    """Writers get ENOSPC while the disk is full, or nearly so, and status says that it is; what was written before is
    there and is sent; with room again writing works, with no help."""
    contents = {}
    for left_bytes in (MIB, 0):
        small.control("POST", "/faults", {"kind": "status", "status": 503, "route": "create_message", "count": None})
        unsent = contents[f"unsent {left_bytes}"] = os.urandom(4 * MIB)
        (small.mountpoint / f"unsent {left_bytes}").write_bytes(unsent)
        with somebody_fills(small, left_bytes):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                (small.mountpoint / "refused").write_bytes(os.urandom(16 * MIB))
            small.wait_for(lambda: "problem" in told(small) and "full" in told(small), seconds=20)
            assert unsent == (small.mountpoint / f"unsent {left_bytes}").read_bytes()
            small.control("DELETE", "/faults")
        small.wait_for(lambda: "full" not in told(small), seconds=20)
        after = contents[f"after {left_bytes}"] = os.urandom(4 * MIB)
        (small.mountpoint / f"after {left_bytes}").write_bytes(after)
        small.run("sync", str(small.mountpoint))

    assert (0, 0) == (small.status()["dirty_bytes"], small.status()["lost_chunks"])
    small.cold()
    assert contents == {name: (small.mountpoint / name).read_bytes() for name in contents}


@dataclass
class Load:
    """Work with names on a volume, each step by its number, and what became of it."""

    root: Path
    done: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)

    def step(self, number: int) -> None:
        """A directory with a file in it that is written, renamed and given an attribute; ENOSPC may end it anywhere."""
        directory = self.root / f"directory {number}"
        try:
            directory.mkdir()
            with (directory / "unfinished").open("wb") as file:
                file.write(b"%d" % number * 1000)
                file.flush()
                os.setxattr(file.fileno(), "user.number", b"%d" % number * 1000)
                (directory / "unfinished").rename(directory / "finished")
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self.refused.add(number)
        else:
            self.done.add(number)

    def missing(self) -> list[str]:
        """What is not as it was left: steps that were synced are there whole, the others as far as they came."""
        wrong = []
        for number in self.done:
            path = self.root / f"directory {number}" / "finished"
            if (path.read_bytes(), os.getxattr(path, "user.number")) != (b"%d" % number * 1000,) * 2:
                wrong.append(f"{number} is not what was synced")
        for number in self.refused:
            directory = self.root / f"directory {number}"
            found = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
            if found not in ([], ["unfinished"], ["finished"]):
                wrong.append(f"{number} is halfway: {found}")
        return wrong


def test_a_full_disk_halves_no_operation_and_survives_a_kill(small: Product) -> None:
    """While the disk is full, names are refused or made whole; after kill -9 there, the volume mounts, or says that
    there is no room until there is some; then everything that was synced is there, and new work is taken."""
    load = Load(small.mountpoint)
    for number in range(50):
        load.step(number)
    assert set(range(50)) == load.done
    with somebody_fills(small, 0):
        for number in range(50, 70):
            load.step(number)
        assert set(range(50, 70)) == load.refused
        assert [] == load.missing()
        small.kill()
        again = small.run("mount", "--emulator", str(small.mountpoint), check=False)
        if again.returncode == 0:
            assert [] == load.missing()
            load.step(70)
            assert 70 in load.refused
            small.kill()
        else:
            assert (ExitCode.STATE_FULL, 1) == (again.returncode, len(again.stderr.splitlines())), again.stderr
            assert "full" in again.stderr
    small.mount()
    assert [] == load.missing()
    for number in range(100, 120):
        load.step(number)
    assert load.done >= set(range(100, 120))
    assert [] == load.missing()
    (small.mountpoint / "refused 1").mkdir()
    small.run("sync", str(small.mountpoint))
    assert "problem" not in told(small)
