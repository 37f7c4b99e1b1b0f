"""The emulator as a process beside us: find the running one, or start it. It shares no code with disfs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from disfs.errors import ExitCode, UserError
from disfs.private_files import explained, make_directory, write_text
from disfs.values import GuildId

if TYPE_CHECKING:
    from pathlib import Path

INFO_NAME = "info.json"
LOG_NAME = "emulator.log"
PORT_NAME = "last-port"
PORT_TAKEN = int(ExitCode.EMULATOR_PORT_TAKEN)
START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_SECRET_VARIABLES = frozenset({"DISFS_TOKEN", "DISFS_PASSPHRASE"})


@dataclass(frozen=True, slots=True)
class EmulatorInfo:
    """What the running emulator says of itself in its info.json."""

    pid: int
    api_url: str
    token: str = field(repr=False)
    guild: GuildId
    control_url: str

    @property
    def port(self) -> int | None:
        """The port that it listens on."""
        return urlsplit(self.api_url).port

    def public(self) -> dict[str, object]:
        """What `disfs emulator --info` prints; the token is part of it, it opens nothing but the emulator."""
        return {
            "api_url": self.api_url,
            "token": self.token,
            "guild_id": str(self.guild),
            "control_url": self.control_url,
            "pid": self.pid,
        }


def last_known(directory: Path) -> EmulatorInfo | None:
    """What the emulator of `directory` last wrote about itself, running or not; None when there is nothing sound."""
    try:
        raw = json.loads((directory / INFO_NAME).read_text("utf-8"))
        return EmulatorInfo(
            pid=int(raw["pid"]),
            api_url=str(raw["api_url"]),
            token=str(raw["token"]),
            guild=GuildId(int(raw["guild_id"])),
            control_url=str(raw["control_url"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def running(directory: Path) -> EmulatorInfo | None:
    """The emulator that runs on `directory`; None when none does."""
    info = last_known(directory)
    return info if info is not None and _answers(info) else None


def _answers(info: EmulatorInfo) -> bool:
    parts = urlsplit(info.api_url)
    try:
        os.kill(info.pid, 0)
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 80), timeout=2.0):
            return True
    except PermissionError:
        return False  # the number belongs to a process of somebody else by now
    except OSError:
        return False


def ensure_running(directory: Path) -> EmulatorInfo:
    """The emulator of `directory`, started in the background if need be; it outlives this process.

    It is asked to take the port that it had last, so that mounts that were waiting for it find it again.
    """
    found = running(directory)
    if found is not None:
        return found
    make_directory(directory)
    port = _last_port(directory)
    info = _start(directory, ["--port", str(port)]) if port else None
    info = info or _start(directory, [])
    if info is not None:
        write_text(directory / PORT_NAME, f"{info.port}\n")
        return info
    raise UserError(f"the emulator found no free port; {directory / LOG_NAME} says more", ExitCode.EMULATOR_PORT_TAKEN)


def _last_port(directory: Path) -> int | None:
    """Where it listened when it was started from here the last time; its own info.json goes when it stops."""
    try:
        port = int((directory / PORT_NAME).read_text("ascii"))
    except (OSError, ValueError):
        return None
    return port if 0 < port < 65536 else None


def _start(directory: Path, arguments: list[str]) -> EmulatorInfo | None:
    """Start it and wait until it answers; None when its port is taken and nobody else started it."""
    log_file = directory / LOG_NAME
    with explained(log_file):
        descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "disfs.emulator", "--data", str(directory), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            cwd="/",
            env={name: value for name, value in os.environ.items() if name not in _SECRET_VARIABLES},
        )
    finally:
        os.close(descriptor)
    return _wait_until_answering(process, directory)


def _wait_until_answering(process: subprocess.Popen[bytes], directory: Path) -> EmulatorInfo | None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        info = running(directory)
        if info is not None and info.pid == process.pid:
            process.returncode = 0  # it stays; Popen must not complain that nobody waits for it
            return info
        code = process.poll()
        if code == PORT_TAKEN:
            return running(directory)
        if code is not None:
            break
        time.sleep(_POLL_SECONDS)
    raise UserError(f"the emulator did not start; {directory / LOG_NAME} says why", ExitCode.EMULATOR_NOT_RUNNING)
