"""A place to measure in: disfs as a user runs it, its own home, its own emulator, one mount; nothing is left of it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bench import meters
from bench.contents import PIECE_BYTES
from bench.report import Costs
from bench.shape import OPEN_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.contents import Contents
    from bench.shape import Shape

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, where `python -m bench.something` works."""
PASSPHRASE = "benchmarks keep no secrets"  # noqa: S105 - it opens random bytes in a directory that is deleted
END_SECONDS = 60.0
UMOUNT_SECONDS = 120.0
COMMAND_SECONDS = 3600.0


class LabError(Exception):
    """A command failed; the text has what it printed."""


class Stretch:
    """Work that is being measured; `costs` is there when the `with` block of `Lab.measured` has ended."""

    def __init__(self) -> None:
        self.costs: Costs

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.costs.seconds


class Lab:
    """One volume on one emulator below one directory; use it as a context manager."""

    def __init__(self, directory: Path, shape: Shape, contents: Contents, *, profile: Path | None = None) -> None:
        self.shape = shape
        self.contents = contents
        self.home = directory / "home"
        self.files = directory / "mnt"
        """The mount point."""
        self._directory = directory
        self._profile = profile
        self._profiled: subprocess.Popen[str] | None = None
        self._emulator: dict[str, Any] | None = None
        self._daemon_pid: int | None = None
        unwanted = ("DISFS_", "XDG_")
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)} | {
            "DISFS_HOME": str(self.home),
            "DISFS_PASSPHRASE": PASSPHRASE,
            "HOME": str(directory),
            "PYTHONPATH": str(ROOT),
        }

    def __enter__(self) -> Lab:
        self.files.mkdir(parents=True)
        try:
            self.run("init", "--emulator", "--channels", str(self.shape.channels), "emulator")
            self._emulator = json.loads(self.run("emulator", "--info"))
            # The shape has no disk in it: the emulator's own fsyncs would be measured as if Discord were slow.
            self.control("PATCH", "/settings", {"fsync": False})
            self.open_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # -- disfs --------------------------------------------------------------------------------------------------

    def run(self, *arguments: str, timeout: float = COMMAND_SECONDS) -> str:
        """Run `disfs ARGUMENTS`; what it printed. Raises `LabError`."""
        done = subprocess.run(
            [sys.executable, "-m", "disfs", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"disfs {' '.join(arguments)} exited {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def python(self, *arguments: str, quiet: bool = False) -> subprocess.Popen[str]:
        """Start a Python program of this package beside us; what it prints is captured."""
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
        )

    def mount(self, *options: str) -> None:
        """Mount; the daemon's process is known afterwards."""
        arguments = ["mount", "--emulator", str(self.files), *options]
        if self._profile is None:
            self.run(*arguments)
        else:
            self._mount_profiled(self._profile, [*arguments, "--foreground"])
        self._daemon_pid = int(self.status()["pid"])

    def _mount_profiled(self, output: Path, arguments: list[str]) -> None:
        self._profiled = self.python("bench.profiled", str(output), *arguments, quiet=True)
        assert self._profiled.stdout is not None
        for line in self._profiled.stdout:
            if "is mounted at" in line:
                return
        raise LabError(f"the profiled daemon exited {self._profiled.wait()}")

    def umount(self) -> None:
        """Unmount, which waits until everything is in Discord."""
        pid = self._daemon_pid
        self.run("umount", str(self.files))
        self._daemon_pid = None
        if pid is not None:
            _wait_gone(pid)
        self._end_profiled()

    def remount(self, *options: str) -> None:
        """A fresh daemon and a kernel that has cached nothing; what disfs had cached it still has."""
        self.umount()
        self.mount(*options)

    def cold(self, *options: str) -> None:
        """Unmount, delete the cache, mount: every byte now comes from Discord."""
        self.umount()
        shutil.rmtree(self.cache)
        self.mount(*options)

    def sync(self) -> None:
        """Return when everything is in Discord."""
        self.run("sync", str(self.files))

    def status(self) -> dict[str, Any]:
        """What `disfs status --json` prints."""
        return cast("dict[str, Any]", json.loads(self.run("status", str(self.files), "--json")))

    def kernel_requests(self) -> Counter[str]:
        """How many requests the kernel has made of the daemon since it was mounted, by kind."""
        return Counter(self.status()["kernel_requests"])

    @property
    def daemon_pid(self) -> int:
        """The process that serves the mount."""
        assert self._daemon_pid is not None, "nothing is mounted"
        return self._daemon_pid

    @property
    def cache(self) -> Path:
        """Where the cached contents lie."""
        return self.home / "cache"

    # -- files --------------------------------------------------------------------------------------------------

    def write_file(self, name: str, size_bytes: int, seed: int) -> Path:
        """Write a file of random bytes in pieces, and close it."""
        path = self.files / name
        with path.open("wb", buffering=0) as file:
            for index in range(-(-size_bytes // PIECE_BYTES)):
                file.write(self.contents.piece(seed, index)[: size_bytes - index * PIECE_BYTES])
        return path

    # -- the emulator -------------------------------------------------------------------------------------------

    @property
    def emulator(self) -> dict[str, Any]:
        """What `disfs emulator --info` printed."""
        assert self._emulator is not None, "the emulator does not run"
        return self._emulator

    def control(self, method: str, path: str, body: object = None) -> Any:
        """A request to the emulator's control API; the decoded answer."""
        request = urllib.request.Request(
            self.emulator["control_url"].rstrip("/") + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            raw = answer.read()
        return json.loads(raw) if raw else None

    def shape_network(self) -> None:
        """From now on the network and the limits are those of the shape."""
        self.control("DELETE", "/limits")
        self.control("PATCH", "/settings", self.shape.settings())

    def open_up(self) -> None:
        """From now on the emulator is as fast as it can be: for preparing."""
        self.control("PATCH", "/settings", OPEN_SETTINGS)

    # -- measuring ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def measured(self, label: str, operations: int, operation: str, *, written_bytes: int = 0) -> Iterator[Stretch]:
        """Count what the block costs. The emulator's counters begin at zero."""
        stretch = Stretch()
        self._signal_profile(signal.SIGUSR1)
        self.control("DELETE", "/counters")
        before, machine_before = self._cpu_seconds(), meters.machine_cpu_seconds()
        began = time.perf_counter()
        yield stretch
        seconds = time.perf_counter() - began
        machine = meters.machine_cpu_seconds() - machine_before
        used = {name: spent - before[name] for name, spent in self._cpu_seconds().items()}
        used["others"] = max(0.0, machine - sum(used.values()))
        counted = self.control("GET", "/counters")
        self._signal_profile(signal.SIGUSR2)
        stretch.costs = Costs(
            label=label,
            operations=operations,
            operation=operation,
            written_bytes=written_bytes,
            seconds=seconds,
            requests=counted["requests"],
            rate_limited=sum(statuses.get("429", 0) for statuses in counted["statuses"].values()),
            sent_bytes=counted["received_bytes"],
            fetched_bytes=counted["sent_bytes"],
            cpu_seconds=used,
        )

    def _signal_profile(self, number: signal.Signals) -> None:
        """Tell a profiled daemon where a stretch begins and ends."""
        if self._profiled is not None:
            os.kill(self.daemon_pid, number)

    def _cpu_seconds(self) -> dict[str, float]:
        return {
            "daemon": meters.cpu_seconds(self.daemon_pid),
            "emulator": meters.cpu_seconds(int(self.emulator["pid"])),
            "driver": meters.own_cpu_seconds(),
        }

    # -- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take away mount, daemon, emulator and files, whatever state they are in."""
        with contextlib.suppress(Exception):
            self.open_up()
        if self._daemon_pid is not None:
            with contextlib.suppress(LabError, subprocess.TimeoutExpired):
                self.run("umount", "--no-wait", str(self.files), timeout=UMOUNT_SECONDS)
        for flags in ("-u", "-uz"):
            if str(self.files) in Path("/proc/mounts").read_text():
                subprocess.run(["fusermount3", flags, str(self.files)], capture_output=True, check=False)
        self._end_profiled()
        for pid, number in ((self._daemon_pid, signal.SIGKILL), (self._emulator_pid(), signal.SIGTERM)):
            if pid is not None and _is_of(pid, self.home):
                os.kill(pid, number)
                _wait_gone(pid)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _emulator_pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return int(json.loads((self.home / "state" / "emulator" / "info.json").read_text())["pid"])
        return None

    def _end_profiled(self) -> None:
        if self._profiled is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._profiled.wait(timeout=END_SECONDS)
            self._profiled = None


def _is_of(pid: int, home: Path) -> bool:
    """Whether the process is still one of this lab: a number may be used again."""
    try:
        return str(home).encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _wait_gone(pid: int) -> None:
    """Return when the process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [], END_SECONDS)
    finally:
        os.close(descriptor)
