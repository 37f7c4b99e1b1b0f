"""A volume in an emulator of its own, all below one directory, driven as a person drives it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from disfs.cli.init import EMULATOR_NAME
from disfs.config import Paths
from disfs.control.client import ControlClient
from disfs.errors import UserError
from disfs.local_emulator import ensure_running, last_known
from disfs.volume_state import METADATA_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.local_emulator import EmulatorInfo

COMMAND_SECONDS = 600.0
END_SECONDS = 60.0

# A proxy from the environment must not come between us and the loopback interface.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Disk:
    """`disfs` with a home, a mount point and an emulator below `directory`. `close` takes all of it down."""

    def __init__(self, directory: Path, options: str) -> None:
        self.home = directory / "home"
        self.mountpoint = directory / "mnt"
        self.mountpoint.mkdir(parents=True)
        self._options = options
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("DISFS_", "XDG_"))} | {
            "HOME": str(directory),
            "DISFS_HOME": str(self.home),
        }
        self._paths = Paths.from_environment(self._environment)
        self._settings: dict[str, Any] = {}

    def run(self, *arguments: str) -> str:
        """Run `disfs ARGUMENTS`; what it printed. RuntimeError with that when it fails."""
        done = self.start(*arguments)
        printed = done.communicate(timeout=COMMAND_SECONDS)[0]
        if done.returncode != 0:
            raise RuntimeError(f"disfs {' '.join(arguments)} exited with {done.returncode}: {printed.strip()}")
        return printed

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `disfs ARGUMENTS` and leave it running."""
        return subprocess.Popen(
            [sys.executable, "-m", "disfs", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def mount(self) -> None:
        """Mount the volume, which is made at the first time."""
        self.run("mount", "--emulator", str(self.mountpoint), "-o", self._options)

    def sync(self) -> None:
        """Return when everything is in Discord."""
        self.run("sync", str(self.mountpoint))

    def umount(self) -> None:
        """Unmount when everything is in Discord, and return when the daemon has ended."""
        pid = self.status()["pid"]
        self.run("umount", str(self.mountpoint))
        _wait_until_gone(pid)

    def drop_cache(self) -> None:
        """Delete the cache; nothing may be mounted."""
        shutil.rmtree(self.home / "cache")

    def status(self) -> dict[str, Any]:
        """What the daemon says of itself, asked without starting a program. UserError when it does not answer."""
        with ControlClient.connect(self.state) as client:
            return client.status()

    @property
    def state(self) -> Path:
        """The volume's metadata, lock and log."""
        return self._paths.volume_state(EMULATOR_NAME)

    @property
    def metadata(self) -> Path:
        """The volume's database; to be looked at while nothing is mounted."""
        return self.state / METADATA_NAME

    def log(self) -> str:
        """What the daemons have logged."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.state.glob("*.log*")))

    # -- the emulator ----------------------------------------------------------------------------------------------

    @property
    def emulator(self) -> EmulatorInfo:
        """Where the emulator listens, or did before it died."""
        info = last_known(self._paths.emulator_state)
        if info is None:
            raise RuntimeError("the emulator is not running")
        return info

    def control(self, method: str, path: str, body: object = None) -> Any:
        """One request to the emulator's control API; the decoded answer. OSError when nobody answers."""
        request = urllib.request.Request(
            self.emulator.control_url.rstrip("/") + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
        )
        with _OPENER.open(request, timeout=30) as answer:
            return json.load(answer)

    def api(self, path: str) -> Any:
        """GET of the emulator's Discord API, as the bot would do it; the decoded answer."""
        info = self.emulator
        request = urllib.request.Request(
            info.api_url + path,
            headers={"Authorization": f"Bot {info.token}", "User-Agent": "DiscordBot (soak, 1)"},
        )
        with _OPENER.open(request, timeout=30) as answer:
            return json.load(answer)

    def shape(self, settings: dict[str, Any]) -> None:
        """Change the emulator's settings, and remember them for when it has to be started again."""
        self._settings |= settings
        self.control("PATCH", "/settings", settings)

    def revive(self) -> bool:
        """Start the emulator again if it has died; whether it had. Its faults and counters are gone then."""
        if _alive(self.emulator.pid):
            return False
        while True:
            ensure_running(self._paths.emulator_state)
            try:
                self.control("PATCH", "/settings", self._settings)
            except (ConnectionError, urllib.error.URLError):
                time.sleep(0.1)  # the one that died is still being taken down, or the new one died as well
            else:
                return True

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take down mount, daemon and emulator, whatever state they are in."""
        pid = None
        with contextlib.suppress(UserError):
            pid = self.status()["pid"]
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            self.run("umount", "--no-wait", str(self.mountpoint))
        subprocess.run(["fusermount3", "-uz", str(self.mountpoint)], capture_output=True, check=False)
        if pid is not None:
            _end(pid, signal.SIGKILL)
        info = last_known(self._paths.emulator_state)
        if info is not None and _serves(info.pid, self.home):
            _end(info.pid, signal.SIGTERM)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return _state(pid) != "Z"


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def _serves(pid: int, home: Path) -> bool:
    """Whether the process still is the one that was started for `home`: its number may be another's by now."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return str(home).encode() in file.read()
    except OSError:
        return False


def _end(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    _wait_until_gone(pid)


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + END_SECONDS
    while _alive(pid):
        if time.monotonic() > deadline:
            raise RuntimeError(f"process {pid} does not end")
        time.sleep(0.02)
