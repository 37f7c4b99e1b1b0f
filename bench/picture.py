"""`python -m bench.picture FILE.svg`: the picture of `disfs status --watch` in the README, from a real run.

A volume on the emulator, behind a slow line, sends some files while one is read back; the command runs on a terminal
of 80 columns, and what that terminal shows after some seconds is drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

from bench.contents import Contents
from bench.lab import Lab, LabError
from bench.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS, ROWS = 80, 16
SECONDS = 9.0
MIB = 1 << 20
_FILES = {"Iceland 2024/glacier.mkv": 60, "Iceland 2024/geysir.jpg": 7, "Iceland 2024/puffins.jpg": 5, "thesis.pdf": 3}
_COLOURS = {"brown": "yellow", "brightblack": "bright_black"}
"""What pyte calls otherwise than rich."""


def main() -> None:
    """Run, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    output: Path = parser.parse_args().output
    with tempfile.TemporaryDirectory() as directory, Lab(Path(directory) / "lab", Shape(), Contents()) as lab:
        lab.mount()
        lab.write_file("talk.mp4", 200 * MIB, seed=9)
        lab.sync()
        lab.cold()
        lab.shape_network()
        lab.control("PATCH", "/settings", {"upload_bytes_per_second": 2 * MIB, "download_bytes_per_second": 9 * MIB})
        for number, (name, size) in enumerate(_FILES.items()):
            (lab.files / name).parent.mkdir(exist_ok=True)
            lab.write_file(name, size * MIB, seed=number)
        for work in (lab.sync, (lab.files / "talk.mp4").read_bytes):
            threading.Thread(target=_until_it_ends, args=(work,), daemon=True).start()
        output.write_text(_svg(_watched(lab), lab.files))


def _until_it_ends(work: Callable[[], object]) -> None:
    """The volume goes before the work is done."""
    with contextlib.suppress(LabError, OSError):
        work()


def _watched(lab: Lab) -> pyte.Screen:
    """What the terminal shows after some seconds."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "DISFS_HOME": str(lab.home), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    arguments = [sys.executable, "-m", "disfs", "status", "--watch", str(lab.files)]
    with subprocess.Popen(arguments, stdin=theirs, stdout=theirs, env=environment) as program:
        os.close(theirs)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            stream.feed(os.read(ours, 65536))
        program.terminate()
    os.close(ours)
    return screen


def _svg(screen: pyte.Screen, mountpoint: Path) -> str:
    """As rich draws a terminal."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115 - until the end
    for row in range(ROWS):
        text = Text()
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]
            colour = None if cell.fg == "default" else _COLOURS.get(cell.fg, cell.fg)
            text.append(cell.data, Style(color=colour, bold=cell.bold))
        text.rstrip()
        if str(mountpoint) in text.plain:
            text = Text(text.plain.replace(str(mountpoint), "~/discord"), "bold")
        console.print(text)
    drawn = console.export_svg(title="disfs status --watch", unique_id="disfs")
    # Fonts of the reader's machine: a picture fetches nothing.
    start, end = drawn.index("@font-face"), drawn.rindex("@font-face")
    end = drawn.index("}", end) + 1
    return drawn[:start] + drawn[end:]


if __name__ == "__main__":
    main()
