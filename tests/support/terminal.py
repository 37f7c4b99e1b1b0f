"""A program at a terminal of its own: what it shows is waited for, what a person would type is typed."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECONDS = 60.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A running program. `shown` is everything that it has written so far, escape sequences included."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], *, columns: int = 120) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.process = subprocess.Popen(
            arguments,
            env=dict(environment),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # Ctrl-C is a signal to whoever has the terminal.
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call, nothing that a thread could hold
        )
        os.close(slave)
        self.shown = ""
        self._seen = 0

    @property
    def text(self) -> str:
        """What was shown, without colours, with plain line ends."""
        return _ESCAPES.sub("", self.shown).replace("\r\n", "\n")

    def expect(self, text: str) -> None:
        """Return once `text` was shown, after what was expected last."""
        deadline = time.monotonic() + SECONDS
        while (found := self.text.find(text, self._seen)) < 0:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{text!r} was not shown:\n{self.text[self._seen :]}\n--- before:\n{self.text}")
        self._seen = found + len(text)

    def type(self, line: str = "") -> None:
        """Type a line and Enter."""
        os.write(self._master, line.encode() + b"\n")

    def interrupt(self) -> None:
        """Press Ctrl-C, once the program waits for a key: between its prompt and its waiting one can get lost."""
        deadline = time.monotonic() + SECONDS
        while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline, "it does not come to rest"
            time.sleep(0.01)  # only the process table knows
        os.write(self._master, b"\x03")

    def ended(self) -> int:
        """Wait for the end of the program; its exit code."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(timeout=SECONDS)

    def close(self) -> None:
        """End it, if it has not ended by itself."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> bool:
        """Take in more; False at the end of the output, or when nothing comes in time."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, seconds))
        try:
            raw = os.read(self._master, 65536) if ready else b""
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.shown += raw.decode(errors="replace")
        return bool(raw)


@contextlib.contextmanager
def terminal(environment: Mapping[str, str], *arguments: str, columns: int = 120) -> Iterator[Terminal]:
    """`disfs ARGUMENTS` at a terminal."""
    made = Terminal([sys.executable, "-m", "disfs", *arguments], environment, columns=columns)
    try:
        yield made
    finally:
        made.close()
