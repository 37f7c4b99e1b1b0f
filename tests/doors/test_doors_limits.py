"""Pause, bandwidth limits, pins and warm-ups as a person uses them, on a real mount."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from disfs.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.emulator import Emulator
    from support.home import Home

pytestmark = pytest.mark.fuse

NAME = f"l{os.getpid()}"
WAIT_SECONDS = 30.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for other processes: there is nothing to wait on but the thing itself."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def mounted(home: Home) -> Home:
    """A home with a mounted volume."""
    home.ok("init", f"{NAME}-{home.mountpoint.parent.name[-12:]}")
    home.ok("mount", str(home.mountpoint))
    return home


@pytest.fixture
def restored(discord: Emulator) -> Iterator[Emulator]:
    """The emulator, whose settings are as before when the test ends."""
    before = discord.settings()
    yield discord
    discord.settings(**before)


def cold(home: Home, *options: str) -> None:
    """Mount again with nothing cached."""
    home.ok("umount", str(home.mountpoint))
    shutil.rmtree(home.root / "cache")
    home.ok("mount", str(home.mountpoint), *options)


# Pause


def test_paused_uploads_wait_and_say_so(mounted: Home) -> None:
    """While paused nothing is sent and status and sync say why; resume sends it, also for a sync that waits.

    Whatever keeps data from being sent (a pause, a rate limit, a refused token) stands in `disfs status`, and nothing
    is lost by it.
    """
    assert "paused" in mounted.ok("pause")
    (mounted.mountpoint / "file").write_bytes(os.urandom(50_000))
    waiting = mounted.start("sync", str(mounted.mountpoint))
    assert waiting.stderr is not None
    assert "uploads are paused: 'disfs resume' goes on" in waiting.stderr.readline()
    status = mounted.status()
    assert ("paused", 50_000, 0) == (status["uploads"], status["dirty_bytes"], status["writeback"]["sent_messages"])
    assert "paused: 'disfs resume' goes on; 48.8 KiB to send" in mounted.ok("status")
    mounted.ok("resume", str(mounted.mountpoint))
    waiting.communicate(timeout=WAIT_SECONDS)
    assert 0 == waiting.returncode
    assert ("idle", 0) == (mounted.status()["uploads"], mounted.status()["dirty_bytes"])


def test_paused_volume_can_be_unmounted_and_wakes_up_sending(mounted: Home) -> None:
    """A pause ends with the mount: umount --no-wait keeps what is unsent, and the next mount sends it."""
    mounted.ok("pause")
    content = os.urandom(50_000)
    (mounted.mountpoint / "file").write_bytes(content)
    mounted.ok("umount", "--no-wait", str(mounted.mountpoint))
    mounted.ok("mount", str(mounted.mountpoint))
    assert not mounted.status()["writeback"]["paused"]
    cold(mounted)
    assert content == (mounted.mountpoint / "file").read_bytes()


def test_umount_of_a_paused_volume_can_be_resumed(mounted: Home) -> None:
    """An umount that waits while uploads are paused says so, and ends well when somebody resumes them."""
    mounted.ok("pause")
    (mounted.mountpoint / "file").write_bytes(os.urandom(50_000))
    waiting = mounted.start("umount", str(mounted.mountpoint))
    assert waiting.stderr is not None
    assert "uploads are paused" in waiting.stderr.readline()
    mounted.ok("resume", str(mounted.mountpoint))
    stdout, _ = waiting.communicate(timeout=WAIT_SECONDS)
    assert "everything is in Discord" in stdout


def test_shutdown_does_not_wait_for_a_paused_volume(mounted: Home) -> None:
    """SIGTERM ends a paused daemon at once, since nobody may be there to resume; the data is kept."""
    content = os.urandom(50_000)
    mounted.ok("pause")
    (mounted.mountpoint / "file").write_bytes(content)
    os.kill(mounted.status()["pid"], signal.SIGTERM)
    until(lambda: mounted.run("status", str(mounted.mountpoint)).returncode == ExitCode.NOT_MOUNTED)
    until(lambda: mounted.run("mount", str(mounted.mountpoint)).returncode == 0)
    assert content == (mounted.mountpoint / "file").read_bytes()


# Bandwidth


def test_bandwidth_limit_of_the_mount_and_of_later(home: Home) -> None:
    """--bwlimit holds from the start, `disfs bwlimit` changes it while mounted, and status shows it."""
    home.ok("init", f"{NAME}-bandwidth")
    home.ok("mount", str(home.mountpoint), "--bwlimit", "512K:4M")
    assert f"bandwidth of {home.mountpoint}: up 512.0 KiB/s, down 4.0 MiB/s\n" == home.ok("bwlimit")
    assert "bandwidth limited to up 512.0 KiB/s, down 4.0 MiB/s" in home.ok("status")
    assert "up 2.0 MiB/s, down no limit" in home.ok("bwlimit", str(home.mountpoint), "2M:off")
    status = home.status()
    assert {"up_bytes_per_second": 2 << 20, "down_bytes_per_second": None} == status["bandwidth"]
    assert 2 << 20 == status["transport"]["up_limit_bytes_per_second"]
    assert "no limit" in home.ok("bwlimit", "off")
    assert home.status()["transport"]["up_limit_bytes_per_second"] is None


def test_bandwidth_limit_is_kept_to(home: Home) -> None:
    """A limited upload takes as long as the limit says."""
    home.ok("init", f"{NAME}-slow")
    home.ok("mount", str(home.mountpoint), "-o", "bwlimit=1M:off,writeback_delay=0")
    (home.mountpoint / "file").write_bytes(os.urandom(2 << 20))
    began = time.monotonic()
    home.ok("sync", str(home.mountpoint))
    assert time.monotonic() - began > 1


@pytest.mark.parametrize("words", [["fast"], ["10"], ["1M", "2M", "3M"], ["1M:2M:3M"]])
def test_bandwidth_limit_that_is_none(mounted: Home, words: list[str]) -> None:
    """What is no limit is one line with exit code 2, and nothing changes."""
    done = mounted.run("bwlimit", *words)
    assert ExitCode.USAGE == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert "no limit" in mounted.ok("bwlimit")


# Pins


def test_pinned_files_are_read_without_discord(mounted: Home, restored: Emulator) -> None:
    """What is pinned can be read while Discord cannot be reached. If the cache was deleted, it comes back by itself."""
    content = os.urandom(300_000)
    music = mounted.mountpoint / "music" / "album"
    music.mkdir(parents=True)
    (music / "song").write_bytes(content)
    mounted.ok("sync", str(mounted.mountpoint))
    assert "1 file, 293.0 KiB in the cache" in mounted.ok("pin", str(mounted.mountpoint / "music"))
    (music / "later").write_bytes(b"later")
    assert 4 == mounted.status()["pinned_inodes"]
    assert "4 files and directories" in mounted.ok("status")
    cold(mounted)
    until(lambda: mounted.status()["pinned_bytes"] >= 300_000 and not mounted.status()["warmups"])
    restored.settings(token_revoked=True)
    restored.fault(kind="status", status=503, route="cdn", count=None)
    assert content == (music / "song").read_bytes()
    assert b"later" == (music / "later").read_bytes()
    mounted.ok("unpin", str(mounted.mountpoint / "music"))
    assert 0 == mounted.status()["pinned_inodes"]


def test_warmup_brings_files_and_pins_nothing(mounted: Home) -> None:
    """After a warm-up a cold file is read without asking Discord; several paths at once are fine."""
    paths = [mounted.mountpoint / f"file{n}" for n in range(3)]
    for path in paths:
        path.write_bytes(os.urandom(200_000))
    cold(mounted)
    done = mounted.run("warmup", *map(str, paths))
    assert (0, "") == (done.returncode, done.stderr)
    assert "3 files" in done.stdout
    before = mounted.status()["transport"]["fetches"]
    for path in paths:
        path.read_bytes()
    status = mounted.status()
    assert (before, 0) == (status["transport"]["fetches"], status["pinned_inodes"])


def test_warmup_in_the_background(mounted: Home) -> None:
    """--no-wait returns at once, and the file comes all the same."""
    (mounted.mountpoint / "file").write_bytes(os.urandom(200_000))
    cold(mounted)
    assert "'disfs status' shows" in mounted.ok("warmup", "--no-wait", str(mounted.mountpoint / "file"))
    until(lambda: mounted.status()["cache_bytes"] >= 200_000)


def test_what_does_not_fit_is_one_line(home: Home) -> None:
    """More than the cache takes is refused with the sizes and the option; nothing is pinned by it."""
    home.ok("init", f"{NAME}-small")
    home.ok("mount", str(home.mountpoint), "--cache-size", "16M")
    for n in range(2):
        (home.mountpoint / f"file{n}").write_bytes(os.urandom(9 << 20))
    home.ok("sync", str(home.mountpoint))
    done = home.run("pin", str(home.mountpoint))
    assert ExitCode.STATE_FULL == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert "18.0 MiB cannot be pinned: pins may take" in done.stderr
    assert "of the cache of 16.0 MiB" in done.stderr
    assert "cache_size=" in done.stderr
    assert 0 == home.status()["pinned_inodes"]
    home.ok("pin", str(home.mountpoint / "file0"))
    done = home.run("pin", str(home.mountpoint / "file1"))
    assert ExitCode.STATE_FULL == done.returncode
    assert "9.0 MiB are taken" in done.stderr
    assert 1 == len(done.stderr.splitlines())
    assert 1 == home.status()["pinned_inodes"]
    (home.mountpoint / "file2").write_bytes(os.urandom(9 << 20))  # writing goes on beside what is pinned


def test_interrupted_warmup_says_what_is_kept(mounted: Home, restored: Emulator) -> None:
    """Ctrl-C ends a pin cleanly: one line, exit code 130, the mark stays and the daemon fetches no more."""
    (mounted.mountpoint / "file").write_bytes(os.urandom(20 << 20))
    cold(mounted)
    restored.settings(download_bytes_per_second=500_000)
    waiting = mounted.start("pin", str(mounted.mountpoint / "file"))
    assert waiting.stderr is not None
    assert "of 20.0 MiB, 0/1 file /file" in waiting.stderr.readline()
    assert "0 of 1 file" in mounted.ok("status")
    waiting.send_signal(signal.SIGINT)
    _, stderr = waiting.communicate(timeout=WAIT_SECONDS)
    assert 130 == waiting.returncode
    assert "disfs: interrupted; what has come is kept" in stderr.splitlines()[-1]
    until(lambda: not mounted.status()["warmups"])
    assert 1 == mounted.status()["pinned_inodes"]


@pytest.mark.parametrize("command", ["pin", "unpin", "warmup"])
def test_paths_that_are_on_no_mount(mounted: Home, command: str) -> None:
    """A path elsewhere is NOT_MOUNTED, one that does not exist a wrong command line, each in one line."""
    elsewhere = mounted.run(command, str(mounted.mountpoint), str(mounted.root))
    missing = mounted.run(command, str(mounted.mountpoint / "nothing"))
    assert (ExitCode.NOT_MOUNTED, ExitCode.USAGE) == (elsewhere.returncode, missing.returncode)
    for done in (elsewhere, missing):
        assert 1 == len(done.stderr.splitlines())
        assert "; " in done.stderr
    assert 0 == mounted.status()["pinned_inodes"]


# Discord refuses


def test_revoked_token_is_explained_and_nothing_is_lost(mounted: Home, restored: Emulator) -> None:
    """A token that is revoked while mounted stops uploads, status says what to do, and a remount with a good one goes
    on."""
    content = os.urandom(50_000)
    restored.settings(token_revoked=True)
    (mounted.mountpoint / "file").write_bytes(content)
    until(lambda: mounted.status()["uploads"] == "refused")
    until(lambda: "put a new one" in (mounted.status()["warning"] or ""))
    shown = mounted.ok("status")
    assert "stopped: every channel refuses, see below; 48.8 KiB to send, kept on this machine" in shown
    assert "problem   Discord rejects the bot token" in shown
    assert content == (mounted.mountpoint / "file").read_bytes()
    mounted.ok("umount", "--no-wait", str(mounted.mountpoint))
    done = mounted.run("mount", str(mounted.mountpoint))
    assert ExitCode.TOKEN_REJECTED == done.returncode
    restored.settings(token_revoked=False)
    mounted.ok("mount", str(mounted.mountpoint))
    cold(mounted)
    assert content == (mounted.mountpoint / "file").read_bytes()
    assert "idle" == json.loads(mounted.ok("status", "--json"))["uploads"]
