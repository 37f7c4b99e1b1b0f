"""Commands that tell of a mount: what they do when it is absent, not theirs, stopped or gone; and `disfs events`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.screens import terminal
from support.trouble import write

from disfs.cli.commands import disfs
from disfs.cli.exits import run
from disfs.control.client import ControlClient
from disfs.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from support.product import Product

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

COMMANDS = (["status"], ["status", "--watch"], ["metrics"], ["events"], ["ls"], ["history"])
NEEDS_PATH = ("ls", "history")
INTERRUPTED = 130


def answers(disk: Product, path: Path, **environment: str) -> dict[str, tuple[int, str]]:
    """What each command says of a path, all asked side by side: exit code and what is on stderr."""
    started = {
        " ".join(command): subprocess.Popen(
            [sys.executable, "-m", "disfs", *command, str(path)],
            env={**disk.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in COMMANDS
    }
    return {name: (process.wait(60), process.communicate()[1]) for name, process in started.items()}


def assert_refused(found: dict[str, tuple[int, str]], code: ExitCode, words: str) -> None:
    """Every one in one line, with the code and the words."""
    for name, (got, said) in found.items():
        assert code == got, (name, said)
        assert 1 == len(said.splitlines()), (name, said)
        assert words in said, (name, said)
        assert "; " in said, (name, "does not say what to do", said)


def test_what_is_no_mount_of_ours_is_refused(shared_disk: Product, tmp_path: Path) -> None:
    """A directory, and a path that does not exist, get one line with a code that tells them apart."""
    assert_refused(answers(shared_disk, tmp_path), ExitCode.NOT_MOUNTED, str(tmp_path))
    missing = answers(shared_disk, tmp_path / "missing")
    paths = {name: missing.pop(name) for name in NEEDS_PATH}
    assert_refused(missing, ExitCode.NOT_MOUNTED, "missing")
    assert_refused(paths, ExitCode.USAGE, "missing")


def test_mount_of_somebody_else_is_refused(shared_disk: Product, tmp_path: Path) -> None:
    """Who has other settings, as another user has, is told that they were others."""
    found = answers(shared_disk, shared_disk.mountpoint, DISFS_HOME=str(tmp_path))
    assert_refused(found, ExitCode.NOT_MOUNTED, "set DISFS_HOME as it was then")


def test_daemon_that_is_stopped_is_told_of(
    shared_disk: Product, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a daemon that hangs every command says after a while that it does not answer, and ends."""
    monkeypatch.setenv("DISFS_HOME", str(shared_disk.home))
    # In this process, as it cannot be said from outside.
    monkeypatch.setitem(ControlClient.connect.__func__.__kwdefaults__, "answer_seconds", 0.3)  # type: ignore[attr-defined]  # a bound method has it
    pid = shared_disk.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        found = {}
        for command in COMMANDS:
            code = run(disfs, [*command, str(shared_disk.mountpoint)])
            found[" ".join(command)] = (code, capsys.readouterr().err)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert_refused(found, ExitCode.INTERNAL, f"(pid {pid}) does not answer")


def events(disk: Product) -> subprocess.Popen[str]:
    """The command, which listens already."""
    return subprocess.Popen(
        [sys.executable, "-m", "disfs", "events", str(disk.mountpoint)],
        env=disk.environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def until(program: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """The next one of that kind."""
    assert program.stdout is not None
    for line in program.stdout:
        assert "\x1b" not in line
        told: dict[str, Any] = json.loads(line)
        if told["event"] == event:
            return told
    raise AssertionError(f"it ended before {event}")


def listening(disk: Product, program: subprocess.Popen[str]) -> None:
    """Return when it hears what happens: nobody knows when it has begun to."""
    assert program.stdout is not None
    os.set_blocking(program.stdout.fileno(), False)

    def has_heard() -> bool:
        disk.run("pause", str(disk.mountpoint))
        disk.run("resume", str(disk.mountpoint))
        return bool(program.stdout and program.stdout.readline())

    disk.wait_for(has_heard)
    os.set_blocking(program.stdout.fileno(), True)


def test_events_are_lines_of_json(shared_disk: Product) -> None:
    """A file that was sent, with its path and size, and a pause are told as they happen; a reader that goes ends it."""
    with events(shared_disk) as program:
        listening(shared_disk, program)
        write(shared_disk, "told", 3000)
        shared_disk.run("sync", str(shared_disk.mountpoint))
        told = until(program, "file_sent")
        assert ("/told", 3000) == (told["path"], told["size_bytes"])
        shared_disk.run("pause", str(shared_disk.mountpoint))
        assert until(program, "paused")["at"] >= told["at"]
        shared_disk.run("resume", str(shared_disk.mountpoint))
        assert program.stdout is not None
        program.stdout.close()
        assert 0 == program.wait(timeout=30)


def test_interrupted_events_end_quietly(shared_disk: Product) -> None:
    """Ctrl-C is how it is meant to end: code 130, and nothing said."""
    command = [sys.executable, "-m", "disfs", "events", str(shared_disk.mountpoint)]
    with terminal(*command, environment=shared_disk.environment) as program:

        def has_heard(lines: list[str]) -> bool:
            shared_disk.run("pause", str(shared_disk.mountpoint))
            shared_disk.run("resume", str(shared_disk.mountpoint))
            return any("resumed" in line for line in lines)

        program.wait_for(has_heard)
        assert INTERRUPTED == program.interrupt()
        assert "disfs:" not in program.raw.decode()


def test_daemon_that_was_killed_is_told_of(shared_disk: Product) -> None:
    """Who listens to a daemon that is killed is told, and so is who asks for it afterwards."""
    with events(shared_disk) as program:
        listening(shared_disk, program)
        os.kill(shared_disk.pid(), signal.SIGKILL)
        assert ExitCode.NOT_MOUNTED == program.wait(timeout=30)
    assert_refused(answers(shared_disk, shared_disk.mountpoint), ExitCode.NOT_MOUNTED, "gone")
    shared_disk.clear_mount()
    shared_disk.mount()
