"""What `disfs sync` and `disfs umount` show while they wait, on a terminal and in a pipe, and what Ctrl-C does."""

from __future__ import annotations

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

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

BAR = re.compile(
    r"uploading +[━╸╺ ]+ (?P<done>[\d.]+)/(?P<total>[\d.]+) MiB (?P<speed>[\d.]+ [KM]iB/s) (?P<left>[\d:]+)"
)
SIZE = 12 * MIB


@pytest.fixture
def slow(shared_disk: Product) -> Iterator[Product]:
    """A volume with a file that takes a good while to send."""
    settings(shared_disk, upload_bytes_per_second=MIB)
    write(shared_disk, "film.mkv", SIZE)
    yield shared_disk
    settings(shared_disk, upload_bytes_per_second=0)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "disfs", *arguments]


def done_mib(lines: list[str]) -> float:
    """How far the bar is; -1 as long as there is none with speed and time."""
    found = [match for line in lines if (match := BAR.match(line))]
    return float(found[0]["done"]) if found else -1.0


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("sync", "stopped waiting before everything was in Discord; the rest is kept here and sent in the background"),
        ("umount", "unmounted before everything was in Discord; the rest is kept here and sent after the next mount"),
    ],
)
def test_bar_moves_and_interrupting_leaves_the_rest_for_later(slow: Product, verb: str, said: str) -> None:
    """The bar has amount, speed and time left and moves while one message is under way; Ctrl-C ends the waiting with
    what becomes of the rest, which is sent later."""
    with terminal(*command(verb, str(slow.mountpoint)), environment=slow.environment, columns=120) as program:
        program.wait_for(lambda lines: done_mib(lines) > 0, "a bar")
        first = done_mib(program.lines)
        program.wait_for(lambda lines: done_mib(lines) > first, "progress")
        assert ExitCode.UNSENT_DATA == program.interrupt()
        assert said in " ".join(program.lines)
    settings(slow, upload_bytes_per_second=0)
    if verb == "umount":
        slow.wait_for(lambda: not slow.daemons())
        slow.mount()
    slow.run("sync", str(slow.mountpoint))
    assert 0 == slow.status()["dirty_bytes"]


def test_lines_in_a_pipe_say_how_long_it_takes(slow: Product) -> None:
    """Without a terminal there are lines with what is left, and from the second on the speed and the time left."""
    program = subprocess.run(
        command("sync", str(slow.mountpoint)), env=slow.environment, capture_output=True, text=True, check=True
    )
    lines = program.stderr.splitlines()
    assert re.fullmatch(r"12\.0 MiB still to send", lines[0])
    assert re.fullmatch(r"[\d.]+ MiB still to send, [\d.]+ [KM]iB/s, about \d+ s left", lines[1])
    assert "everything is in Discord\n" == program.stdout
    assert "\x1b" not in program.stderr
