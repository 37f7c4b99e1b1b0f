"""Every way in which people and machines take a mount away: nothing is lost, nothing is left behind, and the next mount
goes on uploading. And daemons that died, or that hang."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from support.home import home as home_in
from support.processes import is_gone, until

from disfs.cli import daemons
from disfs.cli import umount as umount_command
from disfs.cli.commands import disfs
from disfs.cli.exits import run
from disfs.config import Paths
from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError
from disfs.mountpoint import Mount, is_dead, mount_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.emulator import Emulator
    from support.home import Home

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def shared(discord: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a volume that each test mounts for itself."""
    with home_in(tmp_path_factory.mktemp("unmounted"), discord) as made:
        made.ok("init", f"u{os.getpid()}")
        yield made


@pytest.fixture
def mounted(shared: Home, discord: Emulator) -> Iterator[Home]:
    """The volume, mounted, with uploads that do not get on until `discord` is well again."""
    if mount_at(shared.mountpoint) is None:
        shared.ok("mount", str(shared.mountpoint))
    discord.fault(kind="status", status=503, route="create_message", count=None)
    yield shared
    discord.clear_faults()


def tool(*command: str, home: Home) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    subprocess.run([*command, str(home.mountpoint)], check=True, capture_output=True, env=home.environment)


def as_root(*command: str) -> Callable[[Home, int], None]:
    def unmount(home: Home, _pid: int) -> None:
        if os.geteuid() != 0:
            pytest.skip("umount is for root")
        tool(*command, home=home)

    return unmount


def by_signal(number: signal.Signals) -> Callable[[Home, int], None]:
    """As a logout or a shutdown does that loses its patience: once to ask, once more to end the waiting."""

    def stop(home: Home, pid: int) -> None:
        os.kill(pid, number)
        until(lambda: mount_at(home.mountpoint) is None)
        os.kill(pid, number)

    return stop


WAYS: dict[str, Callable[[Home, int], Any]] = {
    "fusermount3": lambda home, _pid: tool("fusermount3", "-u", home=home),
    "umount": as_root("umount"),
    "forced umount": as_root("umount", "-f"),
    "file manager": lambda home, _pid: tool("gio", "mount", "-u", home=home),
    "logout": by_signal(signal.SIGHUP),
    "shutdown": by_signal(signal.SIGTERM),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_unmount_loses_nothing(mounted: Home, discord: Emulator, way: str) -> None:
    """The daemon ends by itself and leaves neither process nor socket nor mount; what was not sent is there at the next
    mount, which sends it."""
    content = os.urandom(100_000)
    (mounted.mountpoint / way).write_bytes(content)
    pid = mounted.status()["pid"]
    WAYS[way](mounted, pid)
    until(is_gone(pid))
    assert mount_at(mounted.mountpoint) is None
    assert [] == list(mounted.root.rglob("*.sock"))
    assert "Traceback" not in mounted.logs()
    discord.clear_faults()
    mounted.ok("mount", str(mounted.mountpoint))
    assert content == (mounted.mountpoint / way).read_bytes()
    mounted.ok("sync", str(mounted.mountpoint))
    assert 0 == mounted.status()["dirty_bytes"]


def test_unmount_by_another_program_is_logged_and_gives_the_lease_back(mounted: Home, discord: Emulator) -> None:
    """fusermount3 -u is one line in the log, which says what is still to send, and the lease is deleted at once."""
    (mounted.mountpoint / "logged").write_bytes(b"x" * 5000)
    pid = mounted.status()["pid"]
    discord.reset_counters()
    tool("fusermount3", "-u", home=mounted)
    until(is_gone(pid))
    said = [line for line in mounted.logs().splitlines() if "unmounted by another program" in line]
    assert re.search(r"; 5000 bytes that are not in Discord yet are kept", said[-1])
    assert 1 <= discord.counts()["delete_message"]


def test_umount_waits_no_longer_than_it_is_told(mounted: Home, discord: Emulator) -> None:
    """After --timeout the rest is left for the next mount, with the exit code that says so."""
    (mounted.mountpoint / "late").write_bytes(b"x" * 5000)
    pid = mounted.status()["pid"]
    done = mounted.run("umount", "--timeout", "0.5", str(mounted.mountpoint))
    assert ExitCode.UNSENT_DATA == done.returncode
    assert "sent after the next mount" in done.stderr.splitlines()[-1]
    until(is_gone(pid))
    discord.clear_faults()
    mounted.ok("mount", str(mounted.mountpoint))
    assert b"x" * 5000 == (mounted.mountpoint / "late").read_bytes()


# In use, dead, and hanging


def test_forced_umount_of_a_mount_in_use(mounted: Home, discord: Emulator) -> None:
    """--force takes a mount away that is in use; what is open stays usable, and the daemon ends when it is closed."""
    pid = mounted.status()["pid"]
    with (mounted.mountpoint / "open").open("w") as stream:
        assert "detached" in mounted.ok("umount", "--force", str(mounted.mountpoint))
        assert mount_at(mounted.mountpoint) is None
        stream.write("still here")
    until(is_gone(pid))
    discord.clear_faults()
    mounted.ok("mount", str(mounted.mountpoint))
    assert "still here" == (mounted.mountpoint / "open").read_text()


def test_forced_umount_of_a_healthy_mount_waits_as_ever(mounted: Home, discord: Emulator) -> None:
    """--force changes nothing where there is nothing to force."""
    (mounted.mountpoint / "healthy").write_bytes(b"x")
    discord.clear_faults()
    assert "everything is in Discord" in mounted.ok("umount", "--force", str(mounted.mountpoint))


def test_daemon_that_hangs(
    mounted: Home, discord: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """umount says in one line that the daemon does not answer, and how to end it; --force kills it, cleans up, and
    nothing that was synced is lost."""
    for name, value in mounted.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("disfs.mountpoint.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(umount_command, "ANSWER_SECONDS", 0.3)
    connect = ControlClient.connect
    monkeypatch.setattr(ControlClient, "connect", lambda path, **_: connect(path, answer_seconds=0.3))
    with (mounted.mountpoint / "synced").open("w") as stream:
        stream.write("kept")
        stream.flush()
        os.fsync(stream.fileno())
    pid = mounted.status()["pid"]
    os.kill(pid, signal.SIGSTOP)

    assert not is_dead(mounted.mountpoint)
    assert ExitCode.INTERNAL == run(disfs, ["umount", str(mounted.mountpoint)])
    said = capsys.readouterr().err
    assert f"(pid {pid}) does not answer" in said
    assert "--force" in said
    assert 1 == said.count("\n")
    assert ExitCode.OK == run(disfs, ["umount", "--force", str(mounted.mountpoint)])
    assert "did not answer and was killed" in capsys.readouterr().out
    until(is_gone(pid))
    assert mount_at(mounted.mountpoint) is None
    discord.clear_faults()
    mounted.ok("mount", str(mounted.mountpoint))
    assert "kept" == (mounted.mountpoint / "synced").read_text()


def test_mount_of_another_user_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who asks for somebody else's mount is told whose it is."""
    monkeypatch.setenv("DISFS_HOME", str(tmp_path))
    foreign = Mount(tmp_path, "fuse.disfs", "disfs:theirs", 0, 1)
    monkeypatch.setattr(daemons, "mount_at", lambda _path: foreign)
    monkeypatch.setattr(daemons, "is_dead", lambda _path: False)
    with pytest.raises(UserError, match="was mounted by user 'daemon'") as caught:
        daemons.daemon_of(Paths.from_environment(os.environ), str(tmp_path))
    assert ExitCode.NOT_MOUNTED == caught.value.exit_code
