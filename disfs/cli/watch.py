"""`disfs status --watch`: a screen that is drawn again every second; plain lines where there is no terminal."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import TYPE_CHECKING

import click

from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError
from disfs.status_report import problems, uploads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from disfs.cli.daemons import RunningDaemon

WATCH_SECONDS = 1.0
"""How often it is asked and drawn."""


def watch(daemon: RunningDaemon, *, as_json: bool) -> None:
    """Show what the daemon does until Ctrl-C, which is KeyboardInterrupt. NOT_MOUNTED when the mount goes away."""
    if as_json:
        for report in _reports(daemon):
            click.echo(json.dumps(report))
    elif sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}:
        _draw(daemon)
    else:
        told = None
        for report in _reports(daemon):
            lines = [uploads(report), *(f"problem: {text}" for text in problems(report))]
            check_reader()
            if lines != told:
                for line in lines:
                    click.echo(f"{time.strftime('%H:%M:%S')} {line}")
            told = lines


def check_reader() -> None:
    """BrokenPipeError when whoever read our output is gone: who has nothing to write would never hear of it."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if any(state & select.POLLERR for _, state in poll.poll(0)):
        raise BrokenPipeError


def _reports(daemon: RunningDaemon) -> Iterator[Mapping[str, Any]]:
    """What the daemon says, once a second."""
    due = time.monotonic()
    while True:
        try:
            with ControlClient.connect(daemon.state_directory) as client:
                report = client.status()
        except UserError as error:
            if error.exit_code != ExitCode.NOT_MOUNTED:
                raise
            raise UserError(f"{daemon.mountpoint} is not mounted any more", ExitCode.NOT_MOUNTED) from error
        if report.get("mountpoint") != daemon.mountpoint:
            raise UserError(f"{daemon.mountpoint} is not mounted any more", ExitCode.NOT_MOUNTED)
        yield report
        due = max(due + WATCH_SECONDS, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def _draw(daemon: RunningDaemon) -> None:
    # Here and not above: drawing is the only thing that needs it, and it takes longer to load than all the rest.
    from rich.console import Console
    from rich.live import Live

    from disfs.cli.screen import Canvas, Motion, screen

    console = Console(highlight=False)
    motion, before, at = Motion(), None, time.monotonic()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for report in _reports(daemon):
            now = time.monotonic()
            motion, before, at = motion.after(before, report, now - at), report, now
            canvas = Canvas(console.width, console.height, console.options.ascii_only)
            live.update(screen(report, motion, canvas), refresh=True)
