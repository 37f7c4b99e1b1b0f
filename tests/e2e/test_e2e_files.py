"""`disfs ls`, `disfs history` and the attributes that say where a file's contents are, on a real mount."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.syscalls import failing
from support.trouble import MIB, settings, sync, write

from disfs.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from support.product import Product

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


def listed(disk: Product, path: Path | None = None) -> dict[str, dict[str, Any]]:
    """What `disfs ls --json` says, by name."""
    printed = disk.run("ls", "--json", str(path or disk.mountpoint)).stdout
    return {entry.pop("name"): entry for entry in map(json.loads, printed.splitlines())}


def attribute(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.disfs.{name}").decode()


def state(where: str | None, sent: int | None = None, cached: int | None = 100, pinned: bool = False) -> dict[str, Any]:
    return {"state": where, "sent_percent": sent, "cached_percent": cached, "pinned": pinned}


def test_files_on_their_way_through_all_states(shared_disk: Product) -> None:
    """A file is local, then uploading with its percent, then in Discord; cached, then not, then pinned."""
    disk, directory = shared_disk, shared_disk.mountpoint / "states"
    directory.mkdir()
    disk.run("pause", str(disk.mountpoint))
    path = directory / "film.mkv"
    write(disk, "states/film.mkv", 4 * MIB)
    (directory / "empty").touch()
    (directory / "below").mkdir()
    assert {
        "film.mkv": state("local", 0),
        "empty": state("discord"),
        "below": state(None, None, None),
    } == listed(disk, directory)
    assert ("local", "100") == (attribute(path, "state"), attribute(path, "cached"))

    settings(disk, upload_bytes_per_second=MIB)
    disk.run("resume", str(disk.mountpoint))
    disk.wait_for(lambda: 0 < (listed(disk, directory)["film.mkv"]["sent_percent"] or 0) < 100)
    assert "uploading" == attribute(path, "state")
    assert re.match(r"uploading \d+ % +cached ", disk.run("ls", str(path)).stdout)
    settings(disk, upload_bytes_per_second=0)
    sync(disk)
    assert state("discord") == listed(disk, directory)["film.mkv"]

    disk.cold()
    assert state("discord", cached=0) == listed(disk, directory)["film.mkv"]
    with path.open("rb") as file:
        file.read(1000)
    assert 0 < int(attribute(path, "cached")) < 100
    disk.run("pin", str(path))
    assert state("discord", pinned=True) == listed(disk, directory)["film.mkv"]
    long = disk.run("ls", "-l", str(path)).stdout
    assert re.fullmatch(r"in Discord +cached +pinned +-rw-r--r-- +4\.0 MiB \d{4}-.* .*film\.mkv\n", long), long


def test_damage_shows_until_the_file_is_written_anew(shared_disk: Product) -> None:
    """A file of which a message is gone is damaged once a read has found that out, and no longer when it is whole."""
    disk, path = shared_disk, shared_disk.mountpoint / "fragile"
    before = set(disk.data_messages())
    content = write(disk, "fragile", MIB)
    sync(disk)
    (message,) = set(disk.data_messages()) - before
    disk.umount()
    disk.drop_cache()
    disk.delete_message(message)
    disk.mount()
    assert errno.EIO == failing(path.read_bytes)
    assert "damaged" == attribute(path, "state")
    assert listed(disk)["fragile"]["state"] == "damaged"
    path.write_bytes(content)
    sync(disk)
    assert "discord" == attribute(path, "state")
    path.unlink()


def test_attributes_are_not_copied_and_cannot_be_set(shared_disk: Product, tmp_path: Path) -> None:
    """No listing names them, so `cp -a` and `rsync -X` leave them; setting and removing them is EPERM."""
    path = shared_disk.mountpoint / "attributes"
    path.write_bytes(b"x")
    os.setxattr(path, "user.mine", b"1")
    assert ["user.mine"] == os.listxattr(path)
    for name in ("user.disfs.state", "user.disfs.other"):
        assert errno.EPERM == failing(functools.partial(os.setxattr, path, name, b"discord"))
        assert errno.EPERM == failing(functools.partial(os.removexattr, path, name))
    assert errno.ENODATA == failing(lambda: os.getxattr(path, "user.disfs.other"))
    assert errno.ENODATA == failing(lambda: os.getxattr(shared_disk.mountpoint, "user.disfs.state"))
    subprocess.run(["cp", "-a", path, tmp_path / "copy"], check=True)
    assert ["user.mine"] == os.listxattr(tmp_path / "copy")


def test_history_names_messages_trash_and_snapshots(shared_disk: Product) -> None:
    """When a file was sent, in which message it lies, and which versions there are elsewhere."""
    disk, path = shared_disk, shared_disk.mountpoint / "story.txt"
    path.write_bytes(b"first")
    sync(disk)
    disk.run("snapshot", "create", "monday", "--mountpoint", str(disk.mountpoint))
    other = disk.mountpoint / "other"
    other.write_bytes(b"second version")
    other.rename(path)
    began = int(time.time())
    sync(disk)
    told = json.loads(disk.run("history", "--json", str(path)).stdout)
    assert "/story.txt" == told["path"]
    assert state("discord") == told["state"]
    (message,) = told["messages"]
    assert (int(message["message_id"]), int(message["channel_id"])) in disk.data_messages()
    assert 1 == message["chunks"] == told["message_count"]
    assert ["replaced"] == [entry["reason"] for entry in told["trash"]]
    assert [("monday", 5)] == [(found["name"], found["size_bytes"]) for found in told["snapshots"]]
    sent = time.mktime(time.strptime(message["sent"], "%Y-%m-%d %H:%M:%S"))
    assert began - 1 <= sent <= time.time() + 1
    printed = disk.run("history", str(path)).stdout
    assert f"message {message['message_id']} in channel {message['channel_id']} of the emulator" in printed
    assert "snapshot  monday: 5 bytes, written " in printed


def test_ten_thousand_files_are_listed_in_order(shared_disk: Product) -> None:
    """A directory of 10,000 files is listed whole and in order, in no more than a few requests to the daemon."""
    disk, directory = shared_disk, shared_disk.mountpoint / "many"
    directory.mkdir()
    for number in range(10_000):
        os.mknod(directory / f"f{number:05}")
    names = [line.split()[-1] for line in disk.run("ls", str(directory)).stdout.splitlines()]
    assert [f"f{number:05}" for number in range(10_000)] == names


def test_output_in_a_pipe_is_a_line_for_each_name(shared_disk: Product) -> None:
    """A name with line ends and escape sequences is one line without them, and a reader that has enough ends it."""
    directory = shared_disk.mountpoint / "odd"
    directory.mkdir()
    (directory / "a\nb\x1b[31m").touch()
    assert ["in", "Discord", "cached", "a\\x0ab\\x1b[31m"] == shared_disk.run("ls", str(directory)).stdout.split()
    command = [sys.executable, "-m", "disfs", "ls", str(directory)]
    with subprocess.Popen(command, env=shared_disk.environment, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.close()
        assert 0 == program.wait(timeout=30)


def test_reports_can_be_read_like_files(shared_disk: Product) -> None:
    """cat, grep, dd, less and Python read what the daemon says; it is not listed, and found by who names it."""
    reports = shared_disk.mountpoint / ".disfs"
    assert ".disfs" not in os.listdir(shared_disk.mountpoint)  # noqa: PTH208 - what readdir says
    assert ["metrics", "status", "status.json"] == sorted(path.name for path in reports.iterdir())
    assert b"volume    emulator, mounted" in subprocess.check_output(["cat", reports / "status"])
    assert b"disfs_capacity_bytes{" in subprocess.check_output(["grep", "capacity", reports / "metrics"])
    whole = json.loads((reports / "status.json").read_text())
    assert shared_disk.status()["pid"] == whole["pid"]
    with (reports / "status.json").open("rb", buffering=0) as file:
        pieces = iter(functools.partial(file.read, 7), b"")
        assert "emulator" == json.loads(b"".join(pieces))["volume"], "it changed while it was read"
        file.seek(1)
        assert file.read(10) == os.pread(file.fileno(), 10, 1)
    parts = subprocess.check_output(["dd", f"if={reports / 'metrics'}", "bs=100", "status=none"])
    assert parts.endswith(b"\n")
    assert parts.splitlines()[-1].startswith(b"disfs_kernel_requests_total")
    assert b"-r-------- 1" in subprocess.check_output(["ls", "-l", reports / "status"])


def test_reading_reports_changes_nothing_and_nothing_can_be_changed(shared_disk: Product, tmp_path: Path) -> None:
    """Each attempt to change something is refused, copies do not have them, and reading sends nothing."""
    reports = shared_disk.mountpoint / ".disfs"
    sync(shared_disk)
    before = shared_disk.status()["requests"]
    for _ in range(20):
        (reports / "status.json").read_bytes()
    assert before == shared_disk.status()["requests"]
    for change in (
        functools.partial((reports / "status").write_text, "x"),
        functools.partial((reports / "new").write_text, "x"),
        (reports / "status").unlink,
        reports.rmdir,
        functools.partial(os.truncate, reports / "status", 0),
        functools.partial(os.setxattr, reports / "status", "user.x", b"1"),
        functools.partial(reports.rename, shared_disk.mountpoint / "other"),
        functools.partial((reports / "status").chmod, 0o777),
    ):
        assert failing(change) in {errno.EROFS, errno.EXDEV}, change
    assert errno.EEXIST == failing(reports.mkdir)
    assert errno.ENOENT == failing((reports / "nothing").stat)
    subprocess.run(["cp", "-a", f"{shared_disk.mountpoint}/odd", tmp_path / "copy"], check=True)
    assert not (tmp_path / "copy" / ".disfs").exists()


def test_metrics_command_says_what_the_file_says(shared_disk: Product) -> None:
    """`disfs metrics` prints the figures of the mount; of what is no mount it says so."""
    names = [
        line.split()[2]
        for line in shared_disk.run("metrics", str(shared_disk.mountpoint)).stdout.splitlines()
        if line.startswith("# TYPE")
    ]
    text = (shared_disk.mountpoint / ".disfs" / "metrics").read_text()
    assert names == [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    done = shared_disk.run("metrics", "/nowhere", check=False)
    assert (ExitCode.NOT_MOUNTED, 1) == (done.returncode, len(done.stderr.splitlines()))
