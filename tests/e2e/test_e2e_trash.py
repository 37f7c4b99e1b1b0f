"""Deleted and replaced files come back on a real mount, whatever the kernel remembers, after kills and fires too."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from e2e.test_e2e_recover import burn, contents, recover, tree

if TYPE_CHECKING:
    from pathlib import Path

    from support.product import Product

pytestmark = pytest.mark.fuse


def fill(root: Path) -> None:
    """A tree with attributes of every kind."""
    (root / "tree" / "deep").mkdir(parents=True, mode=0o751)
    (root / "tree" / "large").write_bytes(os.urandom(700_000))
    (root / "tree" / "deep" / "small").write_text("words")
    (root / "tree" / "deep" / "empty").touch()
    (root / "tree" / "link").symlink_to("deep/small")
    os.mkfifo(root / "tree" / "pipe", 0o640)
    os.setxattr(root / "tree" / "large", "user.colour", b"blue\0")
    os.chown(root / "tree" / "deep" / "small", 1234, 4321)
    os.utime(root / "tree" / "large", ns=(1_000_000_001, 2_000_000_002))
    os.utime(root / "tree" / "deep", ns=(1_000_000_003, 2_000_000_004))


def alike(found: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Without what a deletion has to change: ctime, and the times of a directory that was emptied file by file."""
    left_out = {"ctime_ns", "atime_ns", "mtime_ns"}
    return {
        path: {
            name: value
            for name, value in facts.items()
            if name not in left_out or (name == "mtime_ns" and path == "large")
        }
        for path, facts in found.items()
    }


def test_tree_comes_back_with_every_attribute(disk: Product) -> None:
    """`rm -r`, then undelete: to the last attribute, although the kernel has just been told that nothing is there."""
    fill(disk.mountpoint)
    disk.run("sync", str(disk.mountpoint))
    before, bytes_before = tree(disk.mountpoint / "tree"), contents(disk.mountpoint / "tree")
    shutil.rmtree(disk.mountpoint / "tree")
    assert not (disk.mountpoint / "tree").exists()
    assert [] == list(disk.mountpoint.iterdir())
    assert "restored 7 files and directories" in disk.run("undelete", str(disk.mountpoint / "tree")).stdout
    assert ["tree"] == [path.name for path in disk.mountpoint.iterdir()]
    assert alike(before) == alike(tree(disk.mountpoint / "tree"))
    assert bytes_before == contents(disk.mountpoint / "tree")
    assert 0 == disk.status()["metadata"]["trash_count"]


def test_trash_outlives_kills_and_burnt_machines(disk: Product) -> None:
    """After kill -9, and after the state directory burnt and `disfs recover`, what was deleted comes back."""
    fill(disk.mountpoint)
    disk.run("sync", str(disk.mountpoint))
    before, bytes_before = tree(disk.mountpoint / "tree"), contents(disk.mountpoint / "tree")
    shutil.rmtree(disk.mountpoint / "tree")
    disk.run("sync", str(disk.mountpoint))
    disk.kill()
    disk.mount()
    assert 7 == disk.status()["metadata"]["trash_count"]
    disk.kill()
    burn(disk)
    recover(disk)
    disk.mount()
    disk.run("undelete", str(disk.mountpoint / "tree"))
    assert alike(before) == alike(tree(disk.mountpoint / "tree"))
    assert bytes_before == contents(disk.mountpoint / "tree")
    disk.cold()
    assert bytes_before == contents(disk.mountpoint / "tree")


def test_command_says_what_it_does(disk: Product) -> None:
    """Exit codes and lines, for a place that is no mount and for options that do not go together."""
    outside = disk.run("undelete", str(disk.mountpoint.parent / "file"), check=False)
    assert (27, True) == (outside.returncode, "is not on a mount of disfs" in outside.stderr)
    for arguments in (("--version", "3", "a", "b"), ("--json", "a"), ("--list", "--version", "3", "a")):
        assert 2 == disk.run("undelete", *arguments, check=False).returncode
