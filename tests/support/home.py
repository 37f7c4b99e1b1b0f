"""`disfs` as a subprocess in a home of its own, against an emulator that the test runs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from disfs.cli.commands import disfs
from disfs.cli.exits import run as run_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.emulator import Emulator

PASSPHRASE = "correct horse battery staple"


class Home:
    """A DISFS_HOME, a mountpoint, and what the environment of its commands says."""

    def __init__(self, directory: Path, emulator: Emulator | None) -> None:
        self.root = directory / "home"
        self.mountpoint = directory / "mnt"
        self.mountpoint.mkdir(parents=True)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("DISFS_", "XDG_"))} | {
            "HOME": str(directory),
            "DISFS_HOME": str(self.root),
            "DISFS_PASSPHRASE": PASSPHRASE,
        }
        if emulator is not None:
            self.environment |= {"DISFS_TOKEN": emulator.token, "DISFS_API_URL": emulator.api_url}

    def run(self, *arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        """Run `disfs ARGUMENTS` with changes to the environment; None takes a variable away."""
        merged = {k: v for k, v in (self.environment | environment).items() if v is not None}
        return subprocess.run(
            [sys.executable, "-m", "disfs", *arguments],
            env=merged,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # no terminal to ask at
            check=False,
        )

    def ok(self, *arguments: str, **environment: str | None) -> str:
        """Run a command that must succeed; what it printed."""
        done = self.run(*arguments, **environment)
        assert done.returncode == 0, f"disfs {arguments} exited {done.returncode}: {done.stderr}\n{self.logs()}"
        return done.stdout

    def here(self, *arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        """As `run`, but in this process, which is quicker; nothing that stays running may be started."""
        runner = CliRunner()
        merged: dict[str, str | None] = dict.fromkeys(os.environ) | self.environment | environment
        with runner.isolation(env=merged) as (stdout, stderr, _):
            code = run_command(disfs, list(arguments))
            said = stdout.getvalue().decode(), stderr.getvalue().decode()
        return subprocess.CompletedProcess(arguments, code, *said)

    def done(self, *arguments: str, **environment: str | None) -> str:
        """As `ok`, in this process."""
        done = self.here(*arguments, **environment)
        assert done.returncode == 0, f"disfs {arguments} exited {done.returncode}: {done.stderr}\n{self.logs()}"
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        return subprocess.Popen(
            [sys.executable, "-m", "disfs", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def status(self) -> dict[str, Any]:
        """What `disfs status --json` says of the mountpoint."""
        status: dict[str, Any] = json.loads(self.ok("status", str(self.mountpoint), "--json"))
        return status

    def logs(self) -> str:
        """All log files."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.root.rglob("*.log")))

    def clean(self) -> None:
        """Unmount, whatever state the mount is in."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.run("umount", "--no-wait", str(self.mountpoint))
        subprocess.run(["fusermount3", "-uz", str(self.mountpoint)], capture_output=True, check=False)


@contextlib.contextmanager
def home(directory: Path, emulator: Emulator | None = None) -> Iterator[Home]:
    """A `Home` that is unmounted at the end, whatever happened."""
    made = Home(directory, emulator)
    try:
        yield made
    finally:
        made.clean()
