"""What people put on a disk comes back from Discord byte for byte, with every attribute."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.trees import below, differences, manifest

if TYPE_CHECKING:
    from support.product import Product

pytestmark = pytest.mark.fuse
MIB = 1 << 20


def command(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run a program of the system; a failure shows what it printed."""
    done = subprocess.run(
        [str(a) for a in arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def make_special(directory: Path) -> None:
    """One of everything that an inode can be, with attributes of all kinds."""
    directory.mkdir()
    (directory / "plain").write_bytes(b"plain")
    os.link(directory / "plain", directory / "second name")
    (directory / "link").symlink_to("plain")
    (directory / "dangling").symlink_to("/nowhere/" + "x" * 900)
    os.mkfifo(directory / "fifo", 0o640)
    os.mknod(directory / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(directory, os.O_PATH)
        server.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    (directory / os.fsdecode(bytes(range(1, 47)) + bytes(range(48, 256)))).write_bytes(b"254 odd bytes")
    (directory / ("n" * 255)).write_bytes(b"")
    (directory / "setuid").write_bytes(b"#!/bin/true\n")
    os.chown(directory / "setuid", 1234, 5678)
    (directory / "setuid").chmod(0o6751)
    os.setxattr(directory / "plain", "user.comment", b"\x00any \xff bytes")
    os.setxattr(directory / "plain", "user.empty", b"")
    os.setxattr(directory, "user.on-a-directory", b"x" * 3000)
    with (directory / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(5 * 1024 * MIB)
        file.write(b"end")
    (directory / "empty directory").mkdir(mode=0o2770)
    os.utime(directory / "link", ns=(1, 981173106_123456789), follow_symlinks=False)
    os.utime(directory / "plain", ns=(2, 2_000_000_000_999_999_999))
    os.utime(directory, ns=(3, 1_500_000_000_000_000_001))


def make_repository(directory: Path) -> None:
    """A small git repository with some history."""
    identity = ("-c", "user.name=N", "-c", "user.email=n@example.invalid")
    command("git", "init", "-q", directory)
    for number in range(5):
        for name in range(20):
            (directory / f"file{name}.txt").write_text(f"{number} {name}\n" * 50)
        command("git", "add", ".", cwd=directory)
        command("git", *identity, "commit", "-qm", f"commit {number}", cwd=directory)


def write_database(path: Path) -> None:
    """An SQLite database written in many transactions."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, body BLOB)")
    for batch in range(20):
        with connection:
            connection.executemany(
                "INSERT INTO things (body) VALUES (?)", [(os.urandom(300 + batch),) for _ in range(50)]
            )
    with connection:
        connection.execute("DELETE FROM things WHERE id % 3 = 0")
    connection.close()


@pytest.mark.slow
def test_everything_comes_back_from_discord(disk: Product, tmp_path: Path) -> None:
    """The standard library, a git clone, a database, a 300 MiB file and one of every kind of inode: after umount,
    a deleted cache and a new mount every byte, mode, time, link and xattr is equal."""
    local, remote = tmp_path / "local", disk.mountpoint
    local.mkdir()
    make_special(local / "special")
    make_repository(local / "repository")
    library = Path(sysconfig.get_paths()["stdlib"])
    shutil.copytree(
        library,
        local / "stdlib",
        symlinks=True,
        ignore=shutil.ignore_patterns("site-packages", "__pycache__", "test", "config-*", "idlelib", "dist-packages"),
    )
    with (local / "large.bin").open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(MIB))

    command("cp", "-a", local / "special", local / "large.bin", remote)
    command("rsync", "-aHX", f"{local}/stdlib", f"{remote}/")
    again = command("rsync", "-aHX", "--itemize-changes", f"{local}/stdlib", f"{remote}/")
    assert again == "", "the second rsync transfers nothing"
    command("git", "clone", "-q", "--no-hardlinks", local / "repository", remote / "clone")
    write_database(remote / "things.db")
    command("tar", "-C", remote, "-cf", remote / "stdlib.tar", "stdlib/json", "stdlib/email")
    command("mv", remote / "stdlib.tar", remote / "clone" / "moved.tar")
    command("cp", "-a", remote / "stdlib" / "json", remote / "doomed")
    command("rm", "-rf", remote / "doomed")
    before = manifest(remote)
    for name in ("special", "stdlib"):
        assert [] == differences(manifest(local / name), below(before, name))

    disk.cold()

    assert [] == differences(before, manifest(remote))
    assert 0 == disk.status()["dirty_bytes"]
    command("git", "fsck", "--full", "--strict", cwd=remote / "clone")
    assert "?? moved.tar\n" == command("git", "status", "--porcelain", cwd=remote / "clone")
    command("git", "add", ".", cwd=remote / "clone")
    command(
        "git",
        "-c",
        "user.name=N",
        "-c",
        "user.email=n@example.invalid",
        "commit",
        "-qm",
        "on the disk",
        cwd=remote / "clone",
    )
    assert "" == command("git", "status", "--porcelain", cwd=remote / "clone")
    connection = sqlite3.connect(remote / "things.db")
    assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
    assert [(667,)] == connection.execute("SELECT count(*) FROM things").fetchall()
    connection.close()
    command("tar", "-C", remote, "-df", remote / "clone" / "moved.tar")
    found = command("find", remote / "stdlib", "-type", "f").splitlines()
    assert len(found) == sum(1 for p in (local / "stdlib").rglob("*") if p.is_file() and not p.is_symlink())
    assert not (remote / "doomed").exists()


def test_all_bytes_travel_and_none_in_the_clear(disk: Product) -> None:
    """The emulator counted messages with attachments, and its files hold neither the text, nor the names, nor
    the passphrase."""
    secret = b"a line that nobody at Discord shall read "
    name = "a-file-name-that-nobody-shall-read"
    (disk.mountpoint / name).write_bytes(secret * 50_000)
    # What does not compress is stored as it is, but for the sealing: compression alone cannot hide it.
    random = os.urandom(MIB)
    (disk.mountpoint / "random").write_bytes(random)
    disk.run("sync", str(disk.mountpoint))
    counters = disk.control("GET", "/counters")
    assert counters["attachments"] >= 2, "the superblock and at least one pack"
    assert counters["attachment_bytes"] > MIB
    disk.umount()
    stored = 0
    for path in disk.emulator_directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            stored += len(content)
            for plain in (secret, random[:64], name.encode(), disk.environment["DISFS_PASSPHRASE"].encode()):
                assert plain not in content, f"{path.name} holds {plain!r}"
    assert stored > MIB


def test_deleted_files_never_leave_the_machine(disk: Product) -> None:
    """A file that is deleted before its writeback is not sent."""
    (disk.mountpoint / "short-lived").write_bytes(os.urandom(4 * MIB))
    (disk.mountpoint / "short-lived").unlink()
    disk.run("sync", str(disk.mountpoint))
    assert 0 == disk.status()["dirty_bytes"]
    assert [] == disk.data_messages()
    assert disk.status()["transport"]["sent_bytes"] < MIB  # the names
