"""Mounts a real file system for a test, in a process of its own, and takes it away again whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_SECONDS = 30.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Mounted:
    """A mounted file system and the process behind it."""

    root: Path
    process: subprocess.Popen[bytes]
    log_path: Path

    def log(self) -> str:
        """What the daemon has logged so far."""
        return self.log_path.read_text()

    def requests(self) -> Counter[str]:
        """How often the kernel has asked what since the mount; only with `logs_requests`."""
        return Counter(re.findall(r"^DEBUG:disfs\.fuse_ops:(\w+)\(", self.log(), re.MULTILINE))


@contextlib.contextmanager
def mounted(
    directory: Path,
    *,
    loop: str = "polled",
    listings: str = "kernel",
    parts: str = "sqlite",
    options: Sequence[str] = (),
    size_bytes: int | None = None,
    logs_requests: bool = False,
    ends_itself: bool = False,
    logs_errors: bool = False,
) -> Iterator[Mounted]:
    """Mount below `directory`; what is kept lies in `directory/state`.

    Fails if the daemon logged an error, but with `logs_errors`, and if it did not end well, but with `ends_itself`:
    then it is the test that ends it.
    """
    root, state, log_path = directory / "mnt", directory / "state", directory / "daemon.log"
    root.mkdir(exist_ok=True, parents=True)
    state.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "support.mount_daemon", str(root), str(state)]
    command += ["--loop", loop, "--listings", listings, "--parts", parts]
    command += ["--log-requests"] if logs_requests else []
    command += [word for option in options for word in ("--option", option)]
    command += [] if size_bytes is None else ["--size", str(size_bytes)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with log_path.open("ab") as log_file:
        process = subprocess.Popen(command, stdout=log_file, stderr=log_file, env=environment)
    found = Mounted(root, process, log_path)
    try:
        _wait_until_mounted(found)
        yield found
        if not ends_itself:
            _unmount(found)
            assert process.wait(STOP_SECONDS) == 0, found.log()
    finally:
        _take_away(found)
    assert logs_errors or "ERROR" not in found.log(), found.log()


def _wait_until_mounted(found: Mounted) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not os.path.ismount(found.root):
        assert found.process.poll() is None, f"the daemon ended:\n{found.log()}"
        assert time.monotonic() < deadline, f"not mounted in time:\n{found.log()}"
        time.sleep(0.01)


def _unmount(found: Mounted) -> None:
    subprocess.run(["fusermount3", "-u", str(found.root)], check=True)


def _take_away(found: Mounted) -> None:
    if found.process.poll() is None:
        found.process.kill()
        found.process.wait()
    # After a kill the mount point answers ENOTCONN and `ismount` says False, so this is tried in any case.
    subprocess.run(["fusermount3", "-uz", str(found.root)], check=False, capture_output=True)
