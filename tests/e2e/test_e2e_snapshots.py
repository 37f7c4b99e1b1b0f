"""Snapshots on a real mount: seen below .snapshots, never changed, there after kills and fires."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from e2e.test_e2e_recover import burn, contents, recover, tree
from e2e.test_e2e_trash import fill

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.product import Product

pytestmark = pytest.mark.fuse


def attributes(root: Path) -> dict[str, dict[str, object]]:
    """Every attribute of everything below, but for inode numbers, which are others in a snapshot."""
    return {
        path: {name: value for name, value in facts.items() if name not in ("ino", "atime_ns")}
        for path, facts in tree(root).items()
    }


def snapshot(disk: Product, *arguments: str) -> str:
    """`disfs snapshot`, and what it printed."""
    return disk.run("snapshot", *arguments).stdout


def test_snapshot_outlives_changes_kills_and_fires(disk: Product) -> None:
    """The tree as it was, to the last attribute and byte: after everything was deleted, a kill, a burnt machine."""
    root = disk.mountpoint
    seen = root / ".snapshots" / "monday" / "tree"
    assert not seen.exists()
    fill(root)
    snapshot(disk, "create", "monday")
    before, bytes_before = attributes(root / "tree"), contents(root / "tree")
    assert before == attributes(seen)
    assert ["tree"] == [path.name for path in root.iterdir()]
    assert ["monday"] == [path.name for path in (root / ".snapshots").iterdir()]
    shutil.rmtree(root / "tree")
    (root / "other").write_text("later")
    disk.run("sync", str(root))
    disk.kill()
    disk.mount("-o", "trash_days=0,sweep_grace=0")
    assert (before, bytes_before) == (attributes(seen), contents(seen))
    disk.run("sync", str(root))
    disk.kill()
    burn(disk)
    assert "1 snapshot came back too: monday" in recover(disk)
    disk.mount("-o", "trash_days=0,sweep_grace=0")
    assert (before, bytes_before) == (attributes(seen), contents(seen))
    assert "restored" in snapshot(disk, "restore", "monday:tree")
    assert bytes_before == contents(root / "tree")
    snapshot(disk, "delete", "monday")
    assert not seen.exists()
    disk.run("sync", str(root))
    disk.kill()
    burn(disk)
    assert "snapshot" not in recover(disk)


REFUSED: dict[str, Callable[[Path, Path], object]] = {
    "write": lambda seen, root: (seen / "file").write_text("x"),
    "create": lambda seen, root: (seen / "new").touch(),
    "mkdir": lambda seen, root: (seen / "new").mkdir(),
    "unlink": lambda seen, root: (seen / "file").unlink(),
    "rmdir": lambda seen, root: (seen / "directory").rmdir(),
    "rename": lambda seen, root: (seen / "file").rename(seen / "other"),
    "move out": lambda seen, root: (seen / "file").rename(root / "other"),
    "move in": lambda seen, root: (root / "file").rename(seen / "file"),
    "link out": lambda seen, root: os.link(seen / "file", root / "other"),
    "link in": lambda seen, root: os.link(root / "file", seen / "other"),
    "symlink": lambda seen, root: (seen / "new").symlink_to("file"),
    "chmod": lambda seen, root: (seen / "file").chmod(0o600),
    "utime": lambda seen, root: os.utime(seen / "file"),
    "truncate": lambda seen, root: os.truncate(seen / "file", 0),
    "set an attribute": lambda seen, root: os.setxattr(seen / "file", "user.new", b"x"),
    "remove an attribute": lambda seen, root: os.removexattr(seen / "file", "user.colour"),
    "name it": lambda seen, root: (root / ".snapshots" / "new").mkdir(),
    "remove it": lambda seen, root: seen.rmdir(),
    "rename all": lambda seen, root: (root / ".snapshots").rename(root / "other"),
    "remove all": lambda seen, root: (root / ".snapshots").rmdir(),
}


def test_nothing_in_a_snapshot_can_be_changed(disk: Product) -> None:
    """Every way to write below .snapshots is EROFS: the volume is as it was, and so is the snapshot."""
    root = disk.mountpoint
    (root / "file").write_text("words")
    os.setxattr(root / "file", "user.colour", b"blue")
    (root / "directory").mkdir()
    snapshot(disk, "create", "one")
    seen = root / ".snapshots" / "one"
    before = attributes(seen)
    numbers = {}
    for what, change in REFUSED.items():
        with pytest.raises(OSError, match="Read-only") as caught:
            change(seen, root)
        numbers[what] = caught.value.errno
    assert dict.fromkeys(REFUSED, errno.EROFS) == numbers
    with pytest.raises(FileExistsError):
        (root / ".snapshots").mkdir()
    assert (before, {"file": b"words"}) == (attributes(seen), contents(seen))
    assert {"file", "directory"} == {path.name for path in root.iterdir()}
    assert disk.status()["metadata"]["failure"] is None


def test_command_says_what_it_does(disk: Product) -> None:
    """Names that are taken or cannot be, snapshots that are not there: one line, exit code 2; nothing is replaced."""
    root = disk.mountpoint
    (root / "file").write_text("old")
    assert "is made" in snapshot(disk, "create", "one")
    for arguments in (("create", "one"), ("create", "a/b"), ("create", ".."), ("delete", "two"), ("restore", "one:no")):
        done = disk.run("snapshot", *arguments, check=False)
        assert (2, 1) == (done.returncode, done.stderr.count("\n")), done.stderr
    assert snapshot(disk, "list").endswith("  one\n")
    (root / "file").write_text("new")
    assert f"restored {root}/file.one\n" == snapshot(disk, "restore", "one:file")
    assert f"restored {root}/deep/place\n" == snapshot(
        disk, "restore", "one:file", "--to", str(root / "deep" / "place")
    )
    assert 2 == disk.run("snapshot", "restore", "one:file", "--to", str(root / "file"), check=False).returncode
    assert {"file": b"new", "file.one": b"old", "deep/place": b"old"} == contents(root)
    assert "is deleted" in snapshot(disk, "delete", "one")
    assert "" == snapshot(disk, "list")


def test_snapshot_is_read_only_and_cold_from_discord(disk: Product) -> None:
    """Without a cache every byte of it comes from Discord, by mounts that only read, too; those make none."""
    root = disk.mountpoint
    fill(root)
    snapshot(disk, "create", "one")
    wanted = contents(root / "tree")
    disk.umount()
    disk.drop_cache()
    disk.mount("-o", "ro")
    assert wanted == contents(root / ".snapshots" / "one" / "tree")
    assert 2 == disk.run("snapshot", "create", "two", check=False).returncode


def test_fsck_finds_nothing_wrong_with_trash_and_snapshots(disk: Product) -> None:
    """Mounted and not, contents read too, over a recovery: what is in the trash or held is no damage and no stray."""
    root = disk.mountpoint
    fill(root)
    snapshot(disk, "create", "one")
    contents(root / ".snapshots" / "one")
    (root / "tree" / "large").write_bytes(b"x")
    shutil.rmtree(root / "tree" / "deep")
    disk.run("sync", str(root))
    for arguments in (("--read-data",), ()):
        assert 0 == disk.run("fsck", str(root), *arguments).returncode
    disk.umount()
    assert 0 == disk.run("fsck", "emulator", "--read-data", "--repair", "--yes").returncode
    burn(disk)
    recover(disk)
    assert 0 == disk.run("fsck", "emulator", "--read-data").returncode
    disk.mount()
    disk.run("undelete", str(root / "tree"))
    assert "words" == (root / "tree" / "deep" / "small").read_text()
