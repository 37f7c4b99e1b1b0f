"""`disfs fsck` on the installed program: what a person, a moderator or a bad disk did is found, named and repaired."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from support.product import Product

pytestmark = pytest.mark.fuse

CLEAN, USAGE, VOLUME_BUSY, REPAIRED, ERRORS_LEFT = 0, 2, 20, 33, 34
VOLUME = "emulator"


def fsck(disk: Product, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Check; never a traceback."""
    done = disk.run("fsck", VOLUME, *arguments, check=False)
    assert "Traceback" not in done.stdout + done.stderr + disk.log()
    return done


def report(disk: Product, *arguments: str) -> dict[str, Any]:
    """What --json prints."""
    found: dict[str, Any] = json.loads(fsck(disk, "--json", *arguments).stdout)
    return found


def paths_of(found: dict[str, Any], kind: str) -> list[str]:
    """The files among the findings of a kind."""
    return [finding["path"] for finding in found["findings"] if finding["kind"] == kind]


def files_in_separate_messages(disk: Product) -> dict[str, bytes]:
    """Two files that went to Discord one after the other; the volume is unmounted."""
    contents = {}
    for name in ("first", "second"):
        contents[name] = os.urandom(300_000)
        (disk.mountpoint / name).write_bytes(contents[name])
        disk.run("sync", str(disk.mountpoint))
    disk.umount()
    return contents


def test_a_sound_volume_is_clean(disk: Product) -> None:
    """Exit code 0, nothing found, whatever is asked; a check changes nothing."""
    (disk.mountpoint / "small").write_bytes(b"x" * 100)
    (disk.mountpoint / "directory").mkdir()
    contents = files_in_separate_messages(disk)
    for arguments in ((), ("--read-data",), ("--local",), ("--read-data-subset", "1/1"), ("--repair", "--yes")):
        done = fsck(disk, *arguments)
        assert CLEAN == done.returncode, done.stdout + done.stderr
        assert "clean" in done.stdout
    found = report(disk, "--read-data")
    assert [] == found["findings"]
    assert found["messages"] == found["packs_read"] >= 2
    disk.mount()
    assert contents["first"] == (disk.mountpoint / "first").read_bytes()


def test_a_message_that_a_moderator_deleted_is_sent_again_from_the_cache(disk: Product) -> None:
    """fsck names the file; --repair has the cache's copy sent by the next mount; the file is whole, without a cache."""
    contents = files_in_separate_messages(disk)
    disk.delete_message(min(disk.data_messages()))
    found = report(disk)
    assert ["/first"] == paths_of(found, "send-again")
    assert [] == paths_of(found, "damaged-file")
    assert ERRORS_LEFT == fsck(disk).returncode
    done = fsck(disk, "--repair", "--yes")
    assert REPAIRED == done.returncode, done.stdout
    disk.mount()
    disk.cold()
    assert contents == {name: (disk.mountpoint / name).read_bytes() for name in contents}
    disk.umount()
    assert CLEAN == fsck(disk, "--read-data").returncode


def test_a_message_that_a_moderator_deleted_damages_its_file_alone(disk: Product) -> None:
    """Without a copy: fsck names the file, reading it is EIO, --repair moves it aside, all else goes on."""
    contents = files_in_separate_messages(disk)
    disk.drop_cache()
    disk.delete_message(min(disk.data_messages()))
    done = fsck(disk)
    assert ERRORS_LEFT == done.returncode
    assert "damaged: /first: 3 of 3 chunks cannot be read" in done.stdout
    assert "/second" not in done.stdout
    assert REPAIRED == fsck(disk, "--repair", "--yes").returncode
    again = report(disk)
    assert CLEAN == again["exit_code"]
    (aside,) = paths_of(again, "set-aside")
    disk.mount("--trash-days", "0")  # else what is removed stays in the trash, and damaged
    assert ["lost+found", "second"] == sorted(path.name for path in disk.mountpoint.iterdir())
    assert contents["second"] == (disk.mountpoint / "second").read_bytes()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        (disk.mountpoint / aside.lstrip("/")).read_bytes()
    (disk.mountpoint / aside.lstrip("/")).unlink()
    disk.umount()
    assert {"note"} >= {finding["kind"] for finding in report(disk)["findings"]}


def test_a_mounted_volume_is_checked_and_not_repaired(disk: Product) -> None:
    """Beside a mount fsck checks, says so, and refuses to repair."""
    (disk.mountpoint / "file").write_bytes(os.urandom(300_000))
    disk.run("sync", str(disk.mountpoint))
    done = disk.run("fsck", str(disk.mountpoint), "--read-data", check=False)
    assert CLEAN == done.returncode, done.stdout + done.stderr
    assert "mounted" in done.stdout
    refused = fsck(disk, "--repair", "--yes")
    assert VOLUME_BUSY == refused.returncode
    assert "then repair it" in refused.stderr


def test_messages_of_others_are_ignored_and_counted(disk: Product) -> None:
    """A message that somebody wrote into a data channel is none of ours."""
    files_in_separate_messages(disk)
    (_, channel) = disk.data_messages()[0]
    disk.say(channel, "hello")
    found = report(disk)
    assert (CLEAN, 1, []) == (found["exit_code"], found["foreign_messages"], found["findings"])


def packs_of(disk: Product) -> list[Path]:
    """The emulator's files that hold the data packs, oldest first."""
    found = [p for p in disk.emulator_directory.rglob("*") if p.is_file() and 300_000 <= p.stat().st_size < 400_000]
    return sorted(found, key=lambda p: p.stat().st_mtime_ns)


@pytest.mark.parametrize("position", [10, 150_000, -20])
def test_a_flipped_bit_in_a_pack_is_found_by_reading(disk: Product, position: int) -> None:
    """Wherever it is: --read-data finds it, and names the file if it is in a chunk."""
    files_in_separate_messages(disk)
    disk.drop_cache()
    with packs_of(disk)[0].open("r+b") as file:
        file.seek(position, os.SEEK_END if position < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    assert CLEAN == fsck(disk).returncode
    found = report(disk, "--read-data")
    assert 1 == found["counts"]["damaged-pack"]
    assert (["/first"] if position >= 0 else []) == paths_of(found, "damaged-file")


def test_a_clean_copy_replaces_what_is_damaged_in_discord(disk: Product) -> None:
    """What fails authentication is sent again from the cache."""
    contents = files_in_separate_messages(disk)
    with packs_of(disk)[0].open("r+b") as file:
        file.seek(1000)
        file.write(b"no longer what it was")
    assert REPAIRED == fsck(disk, "--read-data", "--repair", "--yes").returncode
    disk.mount()
    disk.cold()
    assert contents["first"] == (disk.mountpoint / "first").read_bytes()


def test_the_superblock_is_missed_and_sent_again(disk: Product) -> None:
    """Without the superblock a volume cannot be recovered: fsck says so, and --repair sends it."""
    files_in_separate_messages(disk)
    disk.delete_message(disk.superblock_message())
    assert ERRORS_LEFT == fsck(disk).returncode
    assert REPAIRED == fsck(disk, "--repair", "--yes").returncode
    assert CLEAN == fsck(disk).returncode


def test_what_makes_no_sense_is_refused(disk: Product) -> None:
    """One line, exit code 2 or 25, no traceback."""
    for arguments in (("--yes",), ("--read-data-subset", "6/5"), ("--read-data-subset", "0%"), ("--repair",)):
        assert USAGE == fsck(disk, *arguments).returncode
    assert 25 == disk.run("fsck", "nothing-of-that-name", check=False).returncode


def busy(directory: Path, stop: threading.Event) -> None:
    """Write, overwrite, rename, link, truncate and delete until told to stop."""
    chosen = random.Random(1)
    for number in itertools.count():
        if stop.is_set():
            return
        path = directory / f"file{number % 20}"
        path.write_bytes(os.urandom(chosen.choice([10, 5000, 400_000])))
        if number % 3 == 0:
            path.rename(directory / f"renamed{number % 7}")
        elif number % 3 == 1:
            (directory / f"below{number}").mkdir()
            os.truncate(path, chosen.randrange(500_000))
        elif number % 5 == 0:
            path.unlink()


def test_a_volume_at_work_and_after_a_kill_has_no_findings(disk: Product) -> None:
    """Beside a mount that writes, sends and sweeps a check finds nothing wrong, nor does one after kill -9."""
    stop = threading.Event()
    worker = threading.Thread(target=busy, args=(disk.mountpoint, stop))
    worker.start()
    try:
        for _ in range(4):
            found = report(disk, "--read-data")
            assert [] == [f for f in found["findings"] if f["error"] or f["kind"] in {"missing", "damaged-pack"}]
    finally:
        stop.set()
        worker.join()
    disk.kill()
    found = report(disk, "--read-data")
    assert [] == [f for f in found["findings"] if f["error"] or f["kind"] in {"missing", "damaged-pack", "unknown"}]
