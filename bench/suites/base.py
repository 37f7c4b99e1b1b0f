"""What a suite is, where it runs and what it answers; how suites run commands."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

COMMAND_SECONDS = 900.0
_TIMED_OUT = 124


@dataclass(frozen=True, slots=True)
class Place:
    """Where a suite works."""

    files: Path
    """An empty directory on what is tested."""
    scratch: Path
    """An empty directory on the local disk."""
    downloads: Path
    """A directory on the local disk that is kept from run to run."""
    python: str
    """An interpreter that has the packages that the suite asked for."""


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """What came out of a suite."""

    passed: int
    failures: tuple[str, ...] = ()
    """Names of the tests that failed."""
    skipped: int = 0
    details: str = ""
    """What helps to understand the failures."""

    @property
    def failed(self) -> int:
        """How many tests failed."""
        return len(self.failures)

    @staticmethod
    def of(answers: Mapping[str, str | None], skipped: int = 0) -> SuiteResult:
        """By test: None when it passed, else what was wrong."""
        wrong = {name: answer for name, answer in answers.items() if answer is not None}
        details = "\n".join(f"{name}: {answer}" for name, answer in wrong.items())
        return SuiteResult(len(answers) - len(wrong), tuple(wrong), skipped, details)


@dataclass(frozen=True, slots=True)
class Suite:
    """One test suite."""

    name: str
    about: str
    run: Callable[[Place], SuiteResult]
    debian: tuple[str, ...] = ()
    """Debian packages that it needs."""
    pypi: tuple[str, ...] = ()
    """What it needs of the Python package index."""
    known: Mapping[str, str] = field(default_factory=dict)
    """Failures that do not count, with the reason."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    output: str
    """What it printed, on both streams; its last line says so when it was killed because it took too long."""

    def tail(self, lines: int = 12) -> str:
        """The end of what it printed."""
        return "\n".join([f"exited {self.code}", *self.output.splitlines()[-lines:]])

    def wrong(self) -> str | None:
        """None when it exited with 0, else how it ended."""
        return None if self.code == 0 else self.tail()


def command(
    *words: str | os.PathLike[str],
    cwd: Path | None = None,
    extra: Mapping[str, str] | None = None,
    text: str = "",
    timeout: float = COMMAND_SECONDS,
) -> Finished:
    """Run a program with `text` as its input; it and its children are killed after `timeout` seconds."""
    with tempfile.TemporaryFile("w+", errors="replace") as output, tempfile.TemporaryFile("w+") as typed:
        typed.write(text)
        typed.seek(0)
        # Files, not pipes: a pipe ends only when the last process has closed it that a script has left behind.
        process = subprocess.Popen(
            [os.fspath(word) for word in words],
            cwd=cwd,
            env=os.environ | (extra or {}),
            stdin=typed,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code, note = process.wait(timeout), ""
        except subprocess.TimeoutExpired:
            code, note = _TIMED_OUT, f"\nkilled after {timeout:.0f} s"
        finally:
            _kill_session(process.pid)
            process.wait()
        output.seek(0)
        return Finished(code, output.read() + note)


def _kill_session(session: int) -> None:
    """Kill what is left of a command: its process groups are several, its session is one."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state ppid pgrp session ...
            if int(status.read_text().rpartition(")")[2].split()[3]) == session:
                os.kill(int(status.parent.name), signal.SIGKILL)


def shell(script: str, place: Place, timeout: float = COMMAND_SECONDS) -> Finished:
    """Run a Bash script that stops at the first failure, in the files; $M is that directory, $L the scratch one."""
    extra = {"M": str(place.files), "L": str(place.scratch), "LC_ALL": "C.UTF-8"}
    return command("bash", "-euo", "pipefail", "-c", script, cwd=place.files, extra=extra, timeout=timeout)


def scripts(place: Place, table: Iterable[tuple[str, str]], timeout: float = COMMAND_SECONDS) -> SuiteResult:
    """Run named scripts one after another, each as a test in directories of its own."""
    answers = {}
    for number, (name, script) in enumerate(table):
        # A number, not the name: some programs take no long paths, and scripts need no quotes.
        files, scratch = place.files / str(number), place.scratch / str(number)
        own = Place(files, scratch, place.downloads, place.python)
        own.files.mkdir()
        own.scratch.mkdir()
        answers[name] = shell(script, own, timeout).wrong()
    return SuiteResult.of(answers)
