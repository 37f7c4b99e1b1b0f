"""The whole product on a real mount: coming up, going down, and everything in between that is not about files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.emulator import Emulator
from support.home import PASSPHRASE
from support.home import home as home_in
from support.processes import WAIT_SECONDS, is_gone, until

from disfs.errors import ExitCode
from disfs.mountpoint import is_dead, mount_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.home import Home

pytestmark = pytest.mark.fuse

NAME = f"m{os.getpid()}"


@pytest.fixture
def mounted(home: Home) -> Home:
    """A home with a mounted volume."""
    home.ok("init", f"{NAME}-{home.mountpoint.parent.name[-12:]}")
    home.ok("mount", str(home.mountpoint))
    return home


@pytest.fixture
def stalled(mounted: Home, discord: Emulator) -> Iterator[Home]:
    """The same with a Discord that takes no messages, and a file that waits to be sent."""
    discord.fault(kind="status", status=503, route="create_message", count=None)
    (mounted.mountpoint / "file").write_bytes(os.urandom(100_000))
    yield mounted
    discord.clear_faults()


# Up


def test_mount_returns_when_usable(mounted: Home) -> None:
    """When `disfs mount` returns, the mount answers and takes files."""
    (mounted.mountpoint / "hello").write_text("world")
    assert "world" == (mounted.mountpoint / "hello").read_text()
    mount = mount_at(mounted.mountpoint)
    assert mount is not None
    assert mount.volume is not None


def test_daemon_has_left_the_terminal(mounted: Home) -> None:
    """The daemon has its own session, no terminal, and holds no directory of its caller."""
    pid = mounted.status()["pid"]
    assert pid != os.getsid(0)
    assert os.getsid(pid) != os.getsid(0)
    assert "/" == os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 - a link of /proc, not a path
    assert {"/dev/null"} == {os.readlink(f"/proc/{pid}/fd/{stream}") for stream in (0, 1, 2)}  # noqa: PTH115 - links of /proc, not paths


def test_no_secret_is_visible(mounted: Home, discord: Emulator) -> None:
    """Token and passphrase stand in no argument list, no log, no status."""
    mounted.ok("sync", str(mounted.mountpoint))
    status = mounted.ok("status", str(mounted.mountpoint), "--json")
    arguments = Path(f"/proc/{json.loads(status)['pid']}/cmdline").read_text()
    for text in (arguments, status, mounted.logs()):
        assert discord.token not in text
        assert PASSPHRASE not in text


def test_status_has_what_the_issue_asks_for(mounted: Home) -> None:
    """status --json is one object with at least the agreed fields."""
    (mounted.mountpoint / "file").write_bytes(b"x" * 5000)
    status = mounted.status()
    assert str(mounted.mountpoint) == status["mountpoint"]
    assert 5000 == status["dirty_bytes"]
    assert status["cache_bytes"] >= 5000
    for field in ("pid", "requests"):
        assert isinstance(status[field], int)
    assert status["volume"] in json.loads(mounted.ok("volumes", "--json"))[0]["name"]
    assert f"mounted at {mounted.mountpoint}" in mounted.ok("status")


def test_mounted_already(mounted: Home) -> None:
    """A second mount at the same place is refused, and the first one does not notice."""
    done = mounted.run("mount", str(mounted.mountpoint))
    assert ExitCode.ALREADY_MOUNTED == done.returncode
    assert 1 == len(done.stderr.splitlines())
    mounted.status()


def test_volume_mounted_elsewhere(mounted: Home, tmp_path: Path) -> None:
    """The same volume at a second place is refused with the daemon's process number."""
    (tmp_path / "second").mkdir()
    done = mounted.run("mount", str(tmp_path / "second"))
    assert ExitCode.VOLUME_BUSY == done.returncode
    assert str(mounted.status()["pid"]) in done.stderr


def test_unreachable_discord_does_not_stop_a_mount(home: Home, discord: Emulator) -> None:
    """Without Discord the volume mounts from local data, says so in one line and in status, and catches up later.

    A takeover that was asked for is not forgotten meanwhile: that is said too.
    """
    home.ok("init", f"{NAME}-offline")
    with Emulator.start(discord.data_dir.parent / "other", rate_limits=False) as other:
        url = other.api_url
    done = home.run("mount", str(home.mountpoint), "--takeover", DISFS_API_URL=url)
    assert 0 == done.returncode
    unreachable, later = done.stderr.splitlines()
    assert "Discord cannot be reached" in unreachable
    assert "is taken over as soon as Discord answers" in later
    assert home.status()["lease"]["takes_over"]
    assert "is to be taken over as soon as Discord answers" in home.ok("status", str(home.mountpoint))
    (home.mountpoint / "file").write_text("kept")
    assert "cannot be reached" in home.status()["warning"]
    home.ok("umount", "--no-wait", str(home.mountpoint))
    home.ok("mount", str(home.mountpoint))
    assert "kept" == (home.mountpoint / "file").read_text()
    home.ok("umount", str(home.mountpoint))


def test_mount_options_reach_kernel_and_daemon(home: Home) -> None:
    """`-o ro` is the kernel's, `-o cache_size` the daemon's."""
    home.ok("init", f"{NAME}-options")
    home.ok("mount", str(home.mountpoint), "-o", "ro,cache_size=64M")
    with pytest.raises(OSError, match="Read-only file system"):
        (home.mountpoint / "file").write_text("x")
    assert 64 << 20 == home.status()["cache_limit_bytes"]


def test_two_volumes_side_by_side(mounted: Home, tmp_path: Path) -> None:
    """A machine mounts several volumes of a guild at once; status then wants to know which."""
    second = tmp_path / "second"
    second.mkdir()
    mounted.ok("init", f"{NAME}-second")
    mounted.ok("mount", str(second), "--volume", f"{NAME}-second")
    try:
        (second / "here").write_text("only here")
        assert [] == list(mounted.mountpoint.iterdir())
        done = mounted.run("status", "--json")
        assert ExitCode.USAGE == done.returncode
        assert str(second) in done.stderr
        places = {entry["mountpoint"] for entry in json.loads(mounted.ok("volumes", "--json"))}
        assert {str(second), str(mounted.mountpoint)} == places
    finally:
        mounted.ok("umount", str(second))


# Down


def test_umount_returns_when_all_is_in_discord(mounted: Home) -> None:
    """After umount nothing is left to send: the cache can be deleted, and every byte comes back."""
    content = os.urandom(300_000)
    (mounted.mountpoint / "file").write_bytes(content)
    pid = mounted.status()["pid"]
    assert "everything is in Discord" in mounted.ok("umount", str(mounted.mountpoint))
    assert is_gone(pid)()
    assert mount_at(mounted.mountpoint) is None
    shutil.rmtree(mounted.root / "cache")
    mounted.ok("mount", str(mounted.mountpoint))
    assert content == (mounted.mountpoint / "file").read_bytes()
    assert mounted.status()["requests"] > 0


def test_cache_survives_a_clean_stop(mounted: Home) -> None:
    """What was cached at a clean stop is cached after it: reading it again asks Discord for nothing."""
    (mounted.mountpoint / "file").write_bytes(os.urandom(300_000))
    mounted.ok("umount", str(mounted.mountpoint))
    mounted.ok("mount", str(mounted.mountpoint))
    (mounted.mountpoint / "file").read_bytes()
    assert 0 == mounted.status()["transport"]["fetches"]


def test_sync_returns_when_all_is_in_discord(mounted: Home) -> None:
    """After sync nothing is dirty, and the mount is still there."""
    (mounted.mountpoint / "file").write_bytes(b"x" * 100_000)
    mounted.ok("sync", str(mounted.mountpoint))
    assert 0 == mounted.status()["dirty_bytes"]


def test_busy_mount_is_not_taken_away(mounted: Home) -> None:
    """A mount with open files stays, and the message says how to find who uses it."""
    with (mounted.mountpoint / "open").open("w") as stream:
        done = mounted.run("umount", str(mounted.mountpoint))
        assert ExitCode.MOUNT_BUSY == done.returncode
        assert 1 == len(done.stderr.splitlines())
        stream.write("still here")
    assert "still here" == (mounted.mountpoint / "open").read_text()
    mounted.ok("umount", str(mounted.mountpoint))


def test_umount_no_wait_leaves_the_rest_for_later(stalled: Home, discord: Emulator) -> None:
    """--no-wait returns at once; the next mount has everything and sends it."""
    content = (stalled.mountpoint / "file").read_bytes()
    stalled.ok("umount", "--no-wait", str(stalled.mountpoint))
    discord.clear_faults()
    stalled.ok("mount", str(stalled.mountpoint))
    assert content == (stalled.mountpoint / "file").read_bytes()
    stalled.ok("umount", str(stalled.mountpoint))
    shutil.rmtree(stalled.root / "cache")
    stalled.ok("mount", str(stalled.mountpoint))
    assert content == (stalled.mountpoint / "file").read_bytes()


def test_interrupted_umount_says_so(stalled: Home) -> None:
    """Ctrl-C while umount waits ends the daemon too, with UNSENT_DATA; the data is there at the next mount."""
    content = (stalled.mountpoint / "file").read_bytes()
    pid = stalled.status()["pid"]
    waiting = stalled.start("umount", str(stalled.mountpoint))
    until(lambda: mount_at(stalled.mountpoint) is None)
    waiting.send_signal(signal.SIGINT)
    _, stderr = waiting.communicate(timeout=WAIT_SECONDS)
    assert ExitCode.UNSENT_DATA == waiting.returncode, stderr
    assert "next mount" in stderr.splitlines()[-1]
    until(is_gone(pid))
    stalled.ok("mount", str(stalled.mountpoint))
    assert content == (stalled.mountpoint / "file").read_bytes()


def test_interrupted_sync_leaves_the_mount(stalled: Home) -> None:
    """Ctrl-C while sync waits changes nothing but the waiting."""
    waiting = stalled.start("sync", str(stalled.mountpoint))
    assert waiting.stderr is not None
    waiting.stderr.readline()  # it has begun to wait
    waiting.send_signal(signal.SIGINT)
    _, stderr = waiting.communicate(timeout=WAIT_SECONDS)
    assert ExitCode.UNSENT_DATA == waiting.returncode, stderr
    assert 100_000 == stalled.status()["dirty_bytes"]


def test_sigterm_waits_for_discord(stalled: Home, discord: Emulator) -> None:
    """SIGTERM ends the daemon only when everything is in Discord."""
    content = (stalled.mountpoint / "file").read_bytes()
    pid = stalled.status()["pid"]
    os.kill(pid, signal.SIGTERM)
    until(lambda: mount_at(stalled.mountpoint) is None)
    assert not is_gone(pid)()
    discord.clear_faults()
    until(is_gone(pid))
    shutil.rmtree(stalled.root / "cache")
    stalled.ok("mount", str(stalled.mountpoint))
    assert content == (stalled.mountpoint / "file").read_bytes()


def test_second_sigterm_ends_the_waiting(stalled: Home) -> None:
    """A second signal ends the daemon at once; what is unsent is there at the next mount."""
    content = (stalled.mountpoint / "file").read_bytes()
    pid = stalled.status()["pid"]
    os.kill(pid, signal.SIGTERM)
    until(lambda: mount_at(stalled.mountpoint) is None)
    os.kill(pid, signal.SIGTERM)
    until(is_gone(pid))
    stalled.ok("mount", str(stalled.mountpoint))
    assert content == (stalled.mountpoint / "file").read_bytes()


def test_sigterm_with_open_files_still_sends_everything(mounted: Home) -> None:
    """A shutdown does not wait for programs that keep files open, but for their data it does."""
    content = os.urandom(50_000)
    descriptor = os.open(mounted.mountpoint / "open", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, content)
    pid = mounted.status()["pid"]
    os.kill(pid, signal.SIGTERM)
    until(is_gone(pid))
    with contextlib.suppress(OSError):  # close says that the file system has gone
        os.close(descriptor)
    assert mount_at(mounted.mountpoint) is None
    shutil.rmtree(mounted.root / "cache")
    mounted.ok("mount", str(mounted.mountpoint))
    assert content == (mounted.mountpoint / "open").read_bytes()


def test_external_unmount_is_quick_and_loses_nothing(stalled: Home) -> None:
    """fusermount3 -u ends the daemon without waiting for Discord; the next mount goes on."""
    content = (stalled.mountpoint / "file").read_bytes()
    pid = stalled.status()["pid"]
    subprocess.run(["fusermount3", "-u", str(stalled.mountpoint)], check=True)
    until(is_gone(pid))
    stalled.ok("mount", str(stalled.mountpoint))
    assert content == (stalled.mountpoint / "file").read_bytes()
    assert 100_000 == stalled.status()["dirty_bytes"]


# Killed


def test_mount_after_kill_cleans_up_by_itself(mounted: Home) -> None:
    """After kill -9 the same mount command works again, and what was fsynced is there."""
    with (mounted.mountpoint / "file").open("w") as stream:
        stream.write("fsynced")
        stream.flush()
        os.fsync(stream.fileno())
    pid = mounted.status()["pid"]
    os.kill(pid, signal.SIGKILL)
    until(is_gone(pid))
    assert is_dead(mounted.mountpoint)
    done = mounted.run("mount", str(mounted.mountpoint))
    assert 0 == done.returncode, done.stderr
    assert "daemon had died" in done.stderr
    assert "fsynced" == (mounted.mountpoint / "file").read_text()


def test_umount_after_kill_cleans_up(mounted: Home) -> None:
    """umount takes away what a killed daemon left; status says what happened."""
    pid = mounted.status()["pid"]
    os.kill(pid, signal.SIGKILL)
    until(is_gone(pid))
    done = mounted.run("status", str(mounted.mountpoint))
    assert ExitCode.NOT_MOUNTED == done.returncode
    assert "disfs umount" in done.stderr
    mounted.ok("umount", str(mounted.mountpoint))
    assert mount_at(mounted.mountpoint) is None


def test_regression_files_of_a_killed_daemon_are_not_blamed_on_settings(mounted: Home) -> None:
    """A file that the kernel still remembers of a killed daemon cannot be pinned, and the message says why."""
    file = mounted.mountpoint / "file"
    file.write_text("x")
    pid = mounted.status()["pid"]
    os.kill(pid, signal.SIGKILL)
    until(is_gone(pid))
    done = mounted.run("pin", str(file))
    assert ExitCode.NOT_MOUNTED == done.returncode
    assert "is gone; mount the volume again" in done.stderr


BROKEN = """
import trio
from pathlib import Path
from disfs.chunkstore.sweep import Sweeper

async def run(self):
    while not Path({trigger!r}).exists():
        await trio.sleep(0.02)
    raise ZeroDivisionError("a bug in a background task")

Sweeper.run = run
from disfs.cli import main
main(["mount", "--foreground", {mountpoint!r}])
"""


def test_failed_task_ends_the_mount_in_order(home: Home, tmp_path: Path) -> None:
    """A bug in a background task takes the mount away, is logged with its traceback, and loses nothing."""
    home.ok("init", f"{NAME}-broken")
    trigger = tmp_path / "trigger"
    code = BROKEN.format(trigger=str(trigger), mountpoint=str(home.mountpoint))
    daemon = subprocess.Popen(
        [sys.executable, "-c", code], env=home.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert daemon.stdout is not None
    assert "is mounted at" in daemon.stdout.readline()
    (home.mountpoint / "file").write_text("kept")
    trigger.touch()
    _, stderr = daemon.communicate(timeout=WAIT_SECONDS)
    assert ExitCode.INTERNAL == daemon.returncode
    assert "ZeroDivisionError" in stderr
    assert mount_at(home.mountpoint) is None
    home.ok("mount", str(home.mountpoint))
    assert "kept" == (home.mountpoint / "file").read_text()


# In the foreground, and with the emulator of its own


def test_foreground_logs_to_stderr_and_ends_with_sigint(home: Home) -> None:
    """--foreground stays, logs to stderr, with --debug each operation, and Ctrl-C unmounts in order."""
    home.ok("init", f"{NAME}-foreground")
    daemon = home.start("mount", "--foreground", "--debug", str(home.mountpoint))
    assert daemon.stdout is not None
    assert "is mounted at" in daemon.stdout.readline()
    (home.mountpoint / "file").write_text("x")
    daemon.send_signal(signal.SIGINT)
    _, stderr = daemon.communicate(timeout=WAIT_SECONDS)
    assert 0 == daemon.returncode, stderr
    assert "mounting volume" in stderr
    assert "DEBUG" in stderr
    assert "disfs.fuse_ops: create" in stderr
    assert mount_at(home.mountpoint) is None


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Home]:
    """A home on an empty machine: no token, no passphrase, no emulator."""
    with home_in(tmp_path) as made:
        del made.environment["DISFS_PASSPHRASE"]
        yield made
        end_emulator(made)


def end_emulator(home: Home) -> None:
    done = home.run("emulator", "--info")
    if done.returncode == 0:
        pid = int(json.loads(done.stdout)["pid"])
        os.kill(pid, signal.SIGTERM)
        until(is_gone(pid))


def test_emulator_mount_on_an_empty_home(own: Home) -> None:
    """One command gives a working disk; the passphrase is shown once and kept; the next time it finds everything."""
    printed = own.ok("mount", "--emulator", str(own.mountpoint))
    kept = (own.root / "config" / "volumes" / "emulator.passphrase").read_text().strip()
    assert 1 == printed.count(kept)
    (own.mountpoint / "file").write_text("here")
    info = json.loads(own.ok("emulator", "--info"))
    assert {"api_url", "token", "guild_id", "control_url"} <= info.keys()
    own.ok("umount", str(own.mountpoint))
    assert kept not in own.ok("mount", "--emulator", str(own.mountpoint))
    assert "here" == (own.mountpoint / "file").read_text()
    own.ok("umount", str(own.mountpoint))


def test_emulator_is_started_again_on_its_port(own: Home) -> None:
    """A mount starts the emulator that is gone, at the same address, and does not need --emulator for that."""
    own.ok("mount", "--emulator", str(own.mountpoint))
    (own.mountpoint / "file").write_text("here")
    before = json.loads(own.ok("emulator", "--info"))
    own.ok("umount", str(own.mountpoint))
    end_emulator(own)
    shutil.rmtree(own.root / "cache")
    own.ok("mount", str(own.mountpoint))
    assert before["api_url"] == json.loads(own.ok("emulator", "--info"))["api_url"]
    assert "here" == (own.mountpoint / "file").read_text()
    own.ok("umount", str(own.mountpoint))
