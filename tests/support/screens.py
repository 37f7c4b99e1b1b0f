"""A program on a terminal of a given size, and what a person would see there."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import pexpect
import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PATIENCE_SECONDS = 60.0


class Terminal:
    """The program and its screen; `raw` is everything that it has written."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], columns: int, rows: int, term: str
    ) -> None:
        variables = {k: v for k, v in environment.items() if k not in {"COLUMNS", "LINES", "NO_COLOR"}}
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._child = pexpect.spawn(
            arguments[0],
            list(arguments[1:]),
            env={**variables, "TERM": term, "LC_ALL": "C.UTF-8"},
            dimensions=(rows, columns),
        )
        self.raw = b""

    @property
    def lines(self) -> list[str]:
        """What is on the screen, spaces at the ends left out."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def buffer(self) -> pyte.Screen:
        """The screen with its colours."""
        return self._screen

    def wait_for(self, condition: Callable[[list[str]], bool], what: str = "it") -> list[str]:
        """Read what the program writes until the screen is as wanted; its lines."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition(self.lines):
            left = deadline - time.monotonic()
            assert left > 0, f"{what} did not show:\n" + "\n".join(self.lines)
            try:
                piece = self._child.read_nonblocking(65536, timeout=left)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                raise AssertionError(f"it ended before {what} showed:\n" + "\n".join(self.lines)) from None
            self.raw += piece
            self._stream.feed(piece)
        return self.lines

    def resize(self, columns: int, rows: int) -> None:
        """As a person who pulls at the window."""
        self._screen.resize(rows, columns)
        self._child.setwinsize(rows, columns)

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self._child.sendintr()
        return self.end()

    def end(self) -> int:
        """Read what is left; the exit code, or minus the number of the signal that ended it."""
        with contextlib.suppress(pexpect.EOF):
            while True:
                piece = self._child.read_nonblocking(65536, timeout=PATIENCE_SECONDS)
                self.raw += piece
                self._stream.feed(piece)
        self._child.close()
        return int(-self._child.signalstatus if self._child.exitstatus is None else self._child.exitstatus)


@contextlib.contextmanager
def terminal(
    *arguments: str,
    environment: Mapping[str, str] = os.environ,
    columns: int = 80,
    rows: int = 24,
    term: str = "xterm-256color",
) -> Iterator[Terminal]:
    """A `Terminal` whose program is ended with the block."""
    made = Terminal(arguments, environment, columns, rows, term)
    try:
        yield made
    finally:
        made._child.close(force=True)
