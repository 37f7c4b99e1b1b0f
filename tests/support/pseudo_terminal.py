"""Programs that want a terminal, driven as a person drives them: keys in, screen out."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_SECONDS = 30.0


class Terminal:
    """A program on a terminal of its own, 80 columns wide."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self._shown = b""

    def keys(self, typed: str) -> None:
        """Press these keys."""
        os.write(self._descriptor, typed.encode())

    def wait_for(self, text: str) -> None:
        """Return when the program has written `text` since the last time; fail when it ends or takes too long."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text.encode() not in self._shown:
            assert self._read(deadline - time.monotonic()), f"no {text!r} in {self._shown!r}"
        self._shown = self._shown.partition(text.encode())[2]

    def ends(self) -> int:
        """Wait until the program ends; its exit code."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _read(self, seconds: float) -> bool:
        """Take in what is written next; False at the end."""
        if not select.select([self._descriptor], [], [], max(seconds, 0))[0]:
            raise AssertionError(f"nothing more comes after {self._shown!r}")
        try:
            piece = os.read(self._descriptor, 65536)
        except OSError:  # Linux answers EIO when nobody has the other end open any more
            return False
        self._shown += piece
        return bool(piece)


@contextlib.contextmanager
def terminal(*command: str | os.PathLike[str], **options: Any) -> Iterator[Terminal]:
    """Run a program; it is killed at the end if it still runs."""
    ours, theirs = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "vt100", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True, **options
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
