"""disfs as a service of systemd: what it tells its service manager, the unit that starts it, and the journal."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from support.processes import WAIT_SECONDS
from support.volumes import VOLUME

from disfs import logs
from disfs.cli.commands import disfs
from disfs.cli.exits import run
from disfs.cli.service import unit_text
from disfs.config import GlobalConfig, Paths, save_global, save_volume
from disfs.errors import ExitCode, UserError
from disfs.mountpoint import mount_at
from disfs.service_manager import ServiceManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.home import Home

ADDRESSES: dict[str, Callable[[Path], str]] = {
    "path": lambda directory: f"{directory}/notify",
    "abstract": lambda _: f"@disfs-test-{os.getpid()}",
}


@contextlib.contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """A service manager's end of the protocol."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        listener.settimeout(WAIT_SECONDS)
        yield listener


def heard(listener: socket.socket) -> list[str]:
    """All lines that have come so far."""
    lines: list[str] = []
    listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            lines += listener.recv(4096).decode().splitlines()
    return lines


@pytest.mark.parametrize("kind", ADDRESSES)
async def test_manager_is_told_how_we_are(kind: str, tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """It hears that the mount is ready, the watchdog thrice in its time, a status line when it is a new one, and that
    we go; through a socket with a path and through an abstract one."""
    address = ADDRESSES[kind](tmp_path)
    status, stopping = ["idle"], trio.Event()
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    with manager(address) as listener:
        service = ServiceManager.from_environment(environment)
        assert {"HOME": "/"} == environment
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.run, lambda: status[0], stopping)
            await trio.sleep(1)
            service.ready()
            assert ["WATCHDOG=1", "STATUS=idle", "READY=1"] == heard(listener)
            await trio.sleep(9)
            assert ["WATCHDOG=1"] * 3 == heard(listener)
            status[0] = "sending\nREADY=0"
            await trio.sleep(3)
            assert ["WATCHDOG=1", "STATUS=sending READY=0"] == heard(listener)
            stopping.set()
            await trio.sleep(1)
            assert ["STOPPING=1"] == heard(listener)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "environment", [{}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"WATCHDOG_USEC": "100"}, {"NOTIFY_SOCKET": ""}]
)
async def test_nobody_to_tell(environment: dict[str, str]) -> None:
    """Without a service manager, or with one out of reach, nothing happens, and it ends at once."""
    service = ServiceManager.from_environment(environment)
    service.ready()
    await service.run(lambda: pytest.fail("nobody wants to know"), trio.Event())


async def test_watchdog_of_another_process_is_not_ours(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """WATCHDOG_PID says whom the watchdog is about."""
    environment = {"NOTIFY_SOCKET": f"{tmp_path}/notify", "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "1"}
    with manager(f"{tmp_path}/notify") as listener:
        with trio.move_on_after(20):
            await ServiceManager.from_environment(environment).run(lambda: "idle", trio.Event())
        assert ["STATUS=idle"] == heard(listener)


async def test_manager_that_is_gone_is_one_warning(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A socket on which nobody listens disturbs nothing, and is logged once."""
    service = ServiceManager(str(tmp_path / "nothing"), 1)
    with trio.move_on_after(10):
        await service.run(lambda: "idle", trio.Event())
    assert 1 == len([record for record in caplog.records if record.levelno == logging.WARNING])


# The unit


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A home with a volume and what a service needs to know of it."""
    monkeypatch.setenv("DISFS_HOME", str(tmp_path / "disfs home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DISFS_TOKEN", "of this terminal alone")
    paths = Paths.from_environment(os.environ)
    save_volume(paths, VOLUME)
    save_global(paths, GlobalConfig(token="kept"))
    (tmp_path / "pass").write_text("word")
    (tmp_path / "my mnt %h $x").mkdir()
    return paths


def install(tmp_path: Path, *arguments: str) -> int:
    place = str(tmp_path / "my mnt %h $x")
    return run(disfs, ["install-service", place, "--passphrase-file", str(tmp_path / "pass"), *arguments])


def test_unit_is_installed_and_taken_away(paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is written is what --print shows; it holds no secret; --uninstall deletes it and what enabled it."""
    file = tmp_path / "config" / "systemd" / "user" / "disfs-photos.service"
    assert ExitCode.OK == install(tmp_path, "-o", "cache_size=1G")
    assert "systemctl --user" in capsys.readouterr().out
    assert ExitCode.OK == install(tmp_path, "-o", "cache_size=1G", "--print")
    text = capsys.readouterr().out
    assert text == file.read_text()
    assert "--volume photos -o cache_size=1G" in text
    assert "of this terminal alone" not in text
    assert "kept" not in text
    link = file.parent / "default.target.wants" / file.name
    link.parent.mkdir()
    link.symlink_to(file)
    assert ExitCode.OK == run(disfs, ["install-service", "--uninstall"])
    assert (False, False) == (file.exists(), link.is_symlink())
    assert ExitCode.USAGE == run(disfs, ["install-service", "--uninstall"])


def test_unit_is_one_that_systemd_accepts(paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """systemd-analyze finds nothing to say about it, whatever the names of directories."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    assert ExitCode.OK == install(tmp_path)
    file = tmp_path / "config" / "systemd" / "user" / "disfs-photos.service"
    file.write_text(file.read_text().replace("Documentation=man:disfs(1)\n", ""))  # it looks whether that is installed
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert (0, "") == (done.returncode, done.stderr)


def test_words_are_quoted_for_systemd(tmp_path: Path) -> None:
    """Spaces, quotes, percent and dollar signs of a path reach disfs as they are."""
    text = unit_text(
        "v", ["/opt/my disfs"], ["mount", "--volume", "v"], tmp_path / 'a "b" %h $c', {"DISFS_HOME": "/a b"}
    )
    assert f'ExecStart="/opt/my disfs" mount --volume v -- "{tmp_path}/a \\"b\\" %%h $$c"\n' in text
    assert 'Environment="DISFS_HOME=/a b"\n' in text


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda paths: save_global(paths, GlobalConfig()), ExitCode.NO_TOKEN),
        (lambda paths: paths.volume_file("photos").unlink(), ExitCode.NO_SUCH_VOLUME),
    ],
)
def test_service_that_would_have_to_ask_is_refused(
    paths: Paths, tmp_path: Path, change: Callable[[Paths], None], code: ExitCode
) -> None:
    """A token in the environment alone is none for a service; nor is a volume that does not exist."""
    change(paths)
    assert code == install(tmp_path)


def test_service_needs_a_passphrase_and_a_directory(paths: Paths, tmp_path: Path) -> None:
    """Each missing thing has its own exit code, and nothing is written."""
    assert ExitCode.NO_PASSPHRASE == run(disfs, ["install-service", str(tmp_path)])
    absent = ["install-service", str(tmp_path / "absent"), "--passphrase-file", str(tmp_path / "pass")]
    assert ExitCode.MOUNTPOINT_MISSING == run(disfs, absent)
    assert ExitCode.USAGE == install(tmp_path, "-o", "nonsense")
    assert not (tmp_path / "config" / "systemd").exists()


def test_line_break_in_a_unit_is_refused(tmp_path: Path) -> None:
    """A name that would end a line of the unit is not written into one."""
    with pytest.raises(UserError, match="cannot stand in a unit"):
        unit_text("v", ["disfs"], ["mount"], tmp_path / "a\nExecStartPre=b", {})


# The journal


def test_journal_gets_priorities(tmp_path: Path) -> None:
    """Lines for the journal have a priority each, traceback included, no time, and no secrets."""
    record = logging.makeLogRecord({"name": "disfs", "levelno": logging.ERROR, "msg": "s3cr3t\nmore"})
    assert "<3>disfs: [redacted]\n<3>more" == logs.JournalFormatter(["s3cr3t"]).format(record)
    with (tmp_path / "journal").open("w") as stream:
        found = os.fstat(stream.fileno())
        mine = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert (True, False) == (logs.is_journal(stream.fileno(), mine), logs.is_journal(stream.fileno(), {}))


# All of it


@pytest.mark.fuse
def test_service_starts_without_discord_and_says_so(home: Home, tmp_path: Path) -> None:
    """As systemd would start it while Discord cannot be reached: READY when the mount can be used, what is wrong in the
    status, priorities in the journal, STOPPING at SIGTERM, and a clean end."""
    home.ok("init", f"s{os.getpid()}")
    home.environment |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "DISFS_API_URL": "http://127.0.0.1:1"}
    with manager(str(tmp_path / "notify")) as listener:
        daemon = home.start("mount", "--foreground", str(home.mountpoint))
        lines: list[str] = []
        while "READY=1" not in lines:
            lines += listener.recv(4096).decode().splitlines()
        (home.mountpoint / "file").write_text("x")
        status = [line for line in lines if line.startswith("STATUS=")]
        assert "Discord cannot be reached" in status[-1]
        daemon.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in lines:
            lines += listener.recv(4096).decode().splitlines()
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=WAIT_SECONDS)
    assert (ExitCode.UNSENT_DATA, None) == (daemon.returncode, mount_at(home.mountpoint))
