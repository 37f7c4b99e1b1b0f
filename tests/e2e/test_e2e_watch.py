"""`disfs status --watch` on a real mount, as a person sees it on a terminal, and as a program reads it in a pipe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.screens import terminal
from support.trouble import MIB, settings, write

from disfs.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.product import Product
    from support.screens import Terminal

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

INTERRUPTED = 130


@pytest.fixture(scope="module")
def busy(shared_disk: Product) -> Iterator[Product]:
    """A volume with two files on a slow line: each has far to go."""
    settings(shared_disk, upload_bytes_per_second=MIB // 4)
    write(shared_disk, "a holiday.mkv", 40 * MIB)
    write(shared_disk, "notes\x1b[31m.txt", 5000)
    waiting = command("sync", str(shared_disk.mountpoint))
    with subprocess.Popen(waiting, env=shared_disk.environment, stderr=subprocess.DEVNULL) as sync:
        shared_disk.wait_for(lambda: bool(shared_disk.status()["transfers"]["messages"]))
        yield shared_disk
        sync.kill()
    settings(shared_disk, upload_bytes_per_second=0)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "disfs", *arguments]


def percent(lines: list[str]) -> int | None:
    """How far the film is."""
    found = [re.match(r" *(\d+) %.*holiday\.mkv$", line) for line in lines]
    return next((int(match[1]) for match in found if match), None)


def moves(program: Terminal) -> None:
    """The film's figure rises while one looks on."""
    first = percent(program.wait_for(lambda lines: percent(lines) is not None, "a file with its percent"))
    assert first is not None
    program.wait_for(lambda lines: (percent(lines) or 0) > first, "progress")


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 15)])
def test_watch_shows_each_file_move(busy: Product, columns: int, rows: int) -> None:
    """On a large and on a small terminal a file's percent rises, and what is left, its speed and the cache are shown;
    Ctrl-C gives the screen back."""
    with terminal(*command("status", "--watch"), environment=busy.environment, columns=columns, rows=rows) as program:
        moves(program)
        lines = program.lines
        assert lines[0].startswith("emulator at ")
        assert any(re.match(r"to send .* MiB, .*/s", line) for line in lines)
        assert any(line.startswith("cache ") for line in lines)
        assert any(line.startswith("channels ") for line in lines)
        assert "notes?[31m.txt" in "\n".join(lines)
        assert "\x1b[3" in program.raw.decode(), "no colours"
        assert INTERRUPTED == program.interrupt()
        assert b"\x1b[?1049l" in program.raw, "the screen before is not given back"
        assert b"Traceback" not in program.raw


def test_watch_follows_the_size_of_the_window(busy: Product) -> None:
    """A window that is made smaller while it is watched is filled anew, and nothing runs over."""
    with terminal(*command("status", "--watch"), environment=busy.environment) as program:
        program.wait_for(lambda lines: percent(lines) is not None)
        program.resize(40, 15)
        program.wait_for(
            lambda lines: percent(lines) is not None and max(map(len, lines)) <= 40 and len(lines) == 15,
            "a small screen",
        )
        assert INTERRUPTED == program.interrupt()


def test_watch_without_colours(busy: Product) -> None:
    """With NO_COLOR the same is shown, and no colour is set."""
    environment = {**busy.environment}
    with terminal("/usr/bin/env", "NO_COLOR=1", *command("status", "--watch"), environment=environment) as program:
        moves(program)
        assert not re.search(rb"\x1b\[[0-9;]*[34][0-9]", program.raw)
        assert INTERRUPTED == program.interrupt()


def test_watch_on_a_terminal_that_can_nothing(busy: Product) -> None:
    """With TERM=dumb there are plain lines, without any control code."""
    with terminal(*command("status", "--watch"), environment=busy.environment, term="dumb") as program:
        program.wait_for(lambda lines: any("to send" in line for line in lines))
        assert b"\x1b" not in program.raw
        assert INTERRUPTED == program.interrupt()


def test_watch_in_a_pipe(busy: Product) -> None:
    """In a pipe come lines, and with --json objects, none with a control code; a reader that has enough ends it."""
    for options, is_right in (((), "to send"), (("--json",), '"transfers"')):
        arguments = command("status", "--watch", *options)
        with subprocess.Popen(arguments, env=busy.environment, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            lines = [program.stdout.readline().decode()]
            program.stdout.close()
            assert all("\x1b" not in line for line in lines)
            assert is_right in lines[0]
            if options:
                assert all(json.loads(line)["volume"] == "emulator" for line in lines)
            assert 0 == program.wait(timeout=30)


def test_watch_ends_with_the_mount(busy: Product) -> None:
    """When the volume is unmounted meanwhile, the screen is given back and one line says so."""
    with terminal(*command("status", "--watch"), environment=busy.environment) as program:
        program.wait_for(lambda lines: percent(lines) is not None)
        busy.umount("--no-wait")
        assert ExitCode.NOT_MOUNTED == program.end()
        assert "is not mounted any more" in "".join(program.lines)  # a line may be folded anywhere
    busy.mount()
