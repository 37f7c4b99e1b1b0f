"""A machine that burns loses seconds: the volume comes back from Discord with every attribute."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from support.product import Product

pytestmark = pytest.mark.fuse


def tree(root: Path) -> dict[str, dict[str, Any]]:
    """Every attribute of everything below a directory, and the directory itself. Reading moves no atime here."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        facts = path.lstat()
        entry: dict[str, Any] = {
            name: getattr(facts, f"st_{name}")
            for name in (
                "ino",
                "mode",
                "nlink",
                "uid",
                "gid",
                "rdev",
                "size",
                "blocks",
                "atime_ns",
                "mtime_ns",
                "ctime_ns",
            )
        }
        entry["xattrs"] = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        if stat.S_ISLNK(facts.st_mode):
            entry["target"] = str(path.readlink())
        found[str(path.relative_to(root))] = entry
    return found


def contents(root: Path) -> dict[str, bytes]:
    """What is in all files."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def fill(root: Path) -> None:
    """Something of every kind."""
    (root / "docs" / "deep").mkdir(parents=True)
    (root / "docs" / "report.txt").write_text("numbers\n" * 1000)
    (root / "docs" / "deep" / "large").write_bytes(os.urandom(700_000))
    (root / "docs" / "empty").touch()
    os.link(root / "docs" / "report.txt", root / "second name")
    (root / "link").symlink_to("docs/report.txt")
    os.mkfifo(root / "pipe", 0o640)
    with (root / "sparse").open("wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"in the middle")
    os.setxattr(root / "docs", "user.colour", b"blue\0")
    os.setxattr(root / "docs" / "report.txt", "user.long", os.urandom(5000))
    (root / "docs" / "empty").chmod(0o4751)
    os.chown(root / "docs" / "empty", 1234, 4321)
    os.utime(root / "docs" / "empty", ns=(1_000_000_001, 2_000_000_002))
    (root / b"\xff odd".decode(errors="surrogateescape")).write_bytes(b"x")
    (root / "gone").write_bytes(b"y" * 100_000)
    (root / "gone").unlink()


def burn(disk: Product, *, config: bool = True) -> None:
    """The machine is gone: all that it knew of the volume. The emulator, which is Discord here, is not."""
    shutil.rmtree(disk.home / "state" / "volumes")
    shutil.rmtree(disk.home / "cache")
    if config:
        kept = disk.home / "config" / "volumes" / "emulator.passphrase"
        for path in (disk.home / "config" / "volumes").iterdir():
            if path != kept:
                path.unlink()


def recover(disk: Product, *arguments: str) -> str:
    """`disfs recover`; what it printed, both streams together."""
    done = disk.run("recover", "emulator", "--emulator", *arguments)
    return done.stdout + done.stderr


def test_volume_comes_back_with_every_attribute(disk: Product) -> None:
    """State and cache are destroyed after a sync: `disfs recover` and a mount give the same tree, to the last bit."""
    fill(disk.mountpoint)
    tree(disk.mountpoint)  # moves the atimes of directories, once
    disk.run("sync", str(disk.mountpoint))
    before = tree(disk.mountpoint)
    disk.kill()
    burn(disk)
    told = recover(disk)
    assert "nothing is missing" in told
    assert "recovered as it was at" in told
    disk.mount("-o", "noatime")
    assert before == tree(disk.mountpoint)
    found = contents(disk.mountpoint)
    assert "numbers\n" * 1000 == found["second name"].decode()
    assert 700_000 == len(found["docs/deep/large"])
    assert bytes(5 << 20) + b"in the middle" + bytes((5 << 20) - 13) == found["sparse"]
    (disk.mountpoint / "new").write_bytes(b"life goes on")
    disk.umount()
    disk.mount()
    assert b"life goes on" == (disk.mountpoint / "new").read_bytes()
