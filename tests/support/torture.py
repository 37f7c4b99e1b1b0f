"""Writers on a real mount, and what happens to them: the daemon is killed, the emulator is killed, Discord has faults,
the cache is deleted. After each of these the tree is held against the model of `torture_model`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from random import Random
from typing import TYPE_CHECKING, Any

from disfs.control.client import ControlClient
from disfs.volume_state import METADATA_NAME
from support.metadata_invariants import faults_of
from support.torture_model import History, exact_difference
from support.torture_writer import Writer, scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.product import Product

log = logging.getLogger(__name__)

# A proxy from the environment must not come between a test and the loopback interface.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PATIENCE_SECONDS = 90.0
"""How long a writer may wait for an operation to end, with faults and rate limits."""
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "reset", "route": "create_message", "when": "after"},
    {"kind": "close", "route": "create_message", "when": "after"},
    {"kind": "reset", "route": "create_message", "when": "during", "bytes": 3000},
    {"kind": "stall", "route": "create_message", "when": "after", "seconds": 0.7},
    {"kind": "delay", "route": "create_message", "seconds": 0.5},
    {"kind": "rate_limit", "route": "create_message", "scope": "user", "retry_after": 0.3},
    {"kind": "rate_limit", "route": "api", "scope": "shared", "retry_after": 0.2, "headers": False},
    {"kind": "status", "route": "api", "status": 503},
    {"kind": "status", "route": "api", "status": 520},
    {"kind": "server_error", "route": "create_message", "when": "after"},
    {"kind": "truncate", "route": "cdn_get", "bytes": 500},
    {"kind": "reset", "route": "cdn_get", "when": "during", "bytes": 100},
    {"kind": "status", "route": "cdn_get", "status": 503},
    {"kind": "ignore_range", "route": "cdn_get"},
    {"kind": "stale", "route": "list_messages", "seconds": 2},
)
"""What Discord does to us at random, now and then; all of it goes by."""


class Torture:
    """One run: a product, its writers, and the seed that makes it repeatable as far as timing allows."""

    def __init__(
        self, disk: Product, seed: int, *, mount_options: tuple[str, ...], faults: bool, writers: int, bulk: int = 1
    ) -> None:
        self._disk = disk
        self._random = Random(seed)
        self._options = mount_options
        self._faults = faults
        self._plan: list[str] = []
        self._writers = [Writer(disk.mountpoint / f"w{number}", f"{seed}.{number}", bulk) for number in range(writers)]
        self.recoveries: list[dict[str, Any]] = []
        """What each mount after a crash said of it."""
        self.headline = f"seed {seed}, options {mount_options}, faults {faults}, writers {writers}, bulk {bulk}"

    def begin(self) -> None:
        """Mount, and give each writer its directory."""
        self._disk.mount(*self._options)
        for writer in self._writers:
            writer.top.mkdir()
        self._fsync_root()

    def round(self, action: str) -> None:
        """Let the writers work for a while, then do `action` to them and look at what is left."""
        self._plan.append(action)
        began = time.monotonic()
        self._set_faults()
        try:
            getattr(self, f"_{action}")()
        except Exception as error:
            raise AssertionError(self._report(f"{type(error).__name__}: {error}")) from error
        counts = [writer.count for writer in self._writers]
        log.info("round %d, %s: %.1f s, %s operations", len(self._plan), action, time.monotonic() - began, counts)

    def _end(self) -> None:
        """Everything goes to Discord and comes back from there; nothing is lost or damaged on the way."""
        self._control("DELETE", "/faults")
        self._look_live()
        self._expect_healthy()
        self._cold()
        self._expect_healthy()

    # -- what happens ------------------------------------------------------------------------------------------------

    def _kill(self) -> None:
        """kill -9 of the daemon while everybody writes."""
        with self._working() as stop:
            self._kill_daemon(stop)
        self._mount_and_compare()

    def _kill_at_once(self) -> None:
        """kill -9 of the daemon right after a mount has begun, while it takes over the cache; then another mount."""
        with self._working() as stop:
            self._kill_daemon(stop)
        starting = self._start("mount", "--emulator", str(self._disk.mountpoint), *self._options)
        self._nap(0.3, 1.3)
        self._kill_all_daemons()
        starting.communicate(timeout=PATIENCE_SECONDS)
        self._kill_all_daemons()  # it may have been about to begin
        self._disk.clear_mount()
        self._mount_and_compare()

    def _kill_unmounting(self) -> None:
        """kill -9 of the daemon while it unmounts and sends the rest."""
        with self._working():
            self._nap(0.2, 0.8)
        leaving = self._start("umount", str(self._disk.mountpoint))
        self._nap(0.3, 1.5)
        self._kill_all_daemons()
        leaving.communicate(timeout=PATIENCE_SECONDS)
        self._disk.clear_mount()
        self._mount_and_compare()

    def _terminate(self) -> None:
        """SIGTERM while everybody writes: all that was answered is kept, though nobody called fsync."""
        with self._working():
            self._nap(0.1, 0.5)
            for pid in self._disk.daemons():
                os.kill(pid, signal.SIGTERM)
                self._disk._wait_gone(pid)
        self._disk.clear_mount()
        for writer in self._writers:
            writer.history.answered()
        self._mount_and_compare()

    def _kill_emulator(self) -> None:
        """kill -9 of the emulator while everybody writes; it comes back, and the mount never noticed."""
        with self._working():
            self._nap(0.2, 0.8)
            self._stop_emulator()
            self._nap(0.1, 1.0)
            self._start_emulator()
            self._nap(0.1, 0.5)
        self._look_live()

    def _kill_both(self) -> None:
        """kill -9 of the emulator and, a moment later, of the daemon."""
        with self._working() as stop:
            self._nap(0.2, 0.5)
            self._stop_emulator()
            self._kill_daemon(stop)
        self._start_emulator()
        self._mount_and_compare()

    def _quiet(self) -> None:
        """Nothing at all: what is there is what was written."""
        with self._working():
            self._nap(0.2, 0.8)
        self._look_live()

    def _remount(self) -> None:
        """umount without waiting, mount: nothing is missing, sent or not."""
        with self._working():
            self._nap(0.2, 0.8)
        self._disk.umount("--no-wait")
        self._disk.mount(*self._options)
        self._look_live()

    def _cold(self) -> None:
        """umount, delete the cache, mount: everything comes from Discord."""
        with self._working():
            self._nap(0.2, 0.8)
        self._disk.umount()
        self._disk.drop_cache()
        self._disk.mount(*self._options)
        with self._working():
            self._nap(0.1, 0.6)  # before anybody looks: what looks brings everything into the cache
        self._look_live()

    def _burn(self) -> None:
        """Everything is sent, the daemon is killed, and all that this machine knew of the volume is destroyed: what
        `disfs recover` brings back is what was there, to the last byte."""
        with self._working():
            self._nap(0.2, 0.8)
        self._disk.run("sync", str(self._disk.mountpoint))
        self._kill_all_daemons()
        self._disk.clear_mount()
        self._expect_no_traceback()
        shutil.rmtree(self._disk.home / "state" / "volumes")
        shutil.rmtree(self._disk.home / "cache")
        self._disk.run("recover", "emulator", "--emulator")
        self._disk.mount(*self._options)
        self._look_live()

    # -- looking ---------------------------------------------------------------------------------------------------

    def _mount_and_compare(self) -> None:
        self._disk.mount(*self._options)
        for writer in self._writers:
            seen = scan(writer.top)
            reason = writer.history.verdict(seen)
            assert reason is None, f"after a crash {writer.top.name} is in no legal state:\n{reason}"
            writer.history = History(seen)
        with ControlClient.connect(self._disk.home / "state" / "volumes" / "emulator") as client:
            self.recoveries.append(client.status()["recovery"])

    @property
    def operation_count(self) -> int:
        """How much the writers have done."""
        return sum(writer.count for writer in self._writers)

    @property
    def fsync_count(self) -> int:
        """How often they were promised that something is safe."""
        return sum(writer.fsync_count for writer in self._writers)

    def look_closely(self) -> None:
        """The metadata are whole, and no daemon has met anything that it did not expect. Nobody may be writing."""
        self._expect_no_traceback()
        self._fsync_root()
        faults = faults_of(self._disk.home / "state" / "volumes" / "emulator" / METADATA_NAME)
        assert not faults, self._report(f"the metadata do not agree: {faults}")

    def _expect_no_traceback(self) -> None:
        for path in self._disk.home.rglob("disfs.log*"):
            text = path.read_text(errors="replace")
            place = text.find("Traceback")
            assert place < 0, self._report(f"{path.name}: {text[max(0, place - 500) : place + 3000]}")

    def _look_live(self) -> None:
        for writer in self._writers:
            reason = exact_difference(writer.history.now, scan(writer.top))
            assert reason is None, f"{writer.top.name} is not what was written: {reason}"

    def _expect_healthy(self) -> None:
        """Everything can be sent, and nothing was lost or found damaged on the way."""
        self._disk.run("sync", str(self._disk.mountpoint))
        status = self._disk.status()
        log.info("status: %s", status)
        damaged = status["fetch"]["damaged_chunks"]
        assert (0, 0, 0) == (status["dirty_bytes"], status["lost_chunks"], damaged), f"status: {status}"

    # -- doing it --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _working(self) -> Iterator[threading.Event]:
        """All writers work until the end of the block, or until they are told before."""
        stop = threading.Event()
        threads = [threading.Thread(target=writer.run, args=(stop,), daemon=True) for writer in self._writers]
        for thread in threads:
            thread.start()
        try:
            yield stop
        finally:
            stop.set()
            deadline = time.monotonic() + PATIENCE_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        stuck = [writer.top.name for writer, thread in zip(self._writers, threads, strict=True) if thread.is_alive()]
        assert not stuck, f"{stuck} hang; trouble: {self._disk.status()}"
        failures = [f"{writer.top.name}: {writer.failure}" for writer in self._writers if writer.failure]
        assert not failures, "\n".join(failures)

    def _kill_daemon(self, stop: threading.Event) -> None:
        if self._random.randrange(3):
            self._kill_by_tripwire()
        else:
            self._nap(0.05, 1.0)
        self._kill_all_daemons()
        # Whoever goes on now finds a dead mount; the mount point below it is not ours to write to.
        stop.set()

    def _kill_by_tripwire(self) -> None:
        """kill -9 within the millisecond after somebody destroyed something, before that can have been committed."""
        self._nap(0.05, 0.5)
        killed = threading.Event()
        pids = self._disk.daemons()

        def kill() -> None:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed.set()

        writer = self._random.choice(self._writers)
        writer.tripwire = kill
        killed.wait(5)  # a writer that waits for room destroys nothing for a while
        writer.tripwire = None

    def _kill_all_daemons(self) -> None:
        for pid in self._disk.daemons():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._disk._wait_gone(pid)

    def _nap(self, least: float, most: float) -> None:
        time.sleep(self._random.uniform(least, most))  # other processes work meanwhile: that is what it is for

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "disfs", *arguments],
            env=self._disk.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _fsync_root(self) -> None:
        root = os.open(self._disk.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(root)
        finally:
            os.close(root)

    # -- the emulator ----------------------------------------------------------------------------------------------

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = json.loads((self._disk.emulator_directory / "info.json").read_text())
        return info

    def _control(self, method: str, path: str, body: object = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        url = self._info()["control_url"].rstrip("/") + path
        with _OPENER.open(urllib.request.Request(url, data=data, method=method), timeout=30) as answer:
            answer.read()

    def _stop_emulator(self) -> None:
        pid = int(self._info()["pid"])
        os.kill(pid, signal.SIGKILL)
        self._disk._wait_gone(pid)

    def _start_emulator(self) -> None:
        """As `disfs mount` does it, in a process that ends, so that the emulator is nobody's child."""
        code = (
            "import sys, pathlib; from disfs.local_emulator import ensure_running;"
            " ensure_running(pathlib.Path(sys.argv[1]))"
        )
        subprocess.run(
            [sys.executable, "-c", code, str(self._disk.emulator_directory)], env=self._disk.environment, check=True
        )
        self._set_faults()

    def _set_faults(self) -> None:
        """Other faults, at random; none at all now and then."""
        if not self._faults:
            return
        self._control("DELETE", "/faults")
        for fault in self._random.sample(FAULTS, self._random.randint(0, 4)):
            probability = self._random.choice([0.1, 0.3, 0.6])
            seed, count = self._random.randrange(1000), self._random.randint(1, 8)
            self._control("POST", "/faults", {**fault, "probability": probability, "seed": seed, "count": count})

    # -- telling ---------------------------------------------------------------------------------------------------

    def _report(self, problem: str) -> str:
        lines = [problem, f"repeat with: {self.headline}", f"rounds: {' '.join(self._plan)}"]
        for writer in self._writers:
            lines.append(f"--- {writer.top.name}, {writer.count} operations, the last of them:")
            lines.extend(writer.trace)
        return "\n".join([*lines, self._disk.log()])
