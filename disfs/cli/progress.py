"""How far uploading is, for a person: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import click

from disfs.cli.exits import complain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from disfs.control.protocol import Progress

LINE_SECONDS = 2.0


@contextlib.contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """Give a function that shows each `Progress` it is called with, until the block is left."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines().show


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("uploading", total=None)
        most = 0

        def show(progress: Progress) -> None:
            nonlocal most
            most = max(most, progress.dirty_bytes)
            text = f"waiting: {progress.failure}" if progress.failure else "uploading"
            bars.update(task, total=most or None, completed=most - progress.dirty_bytes, description=text)

        yield show


class _Lines:
    """Progress as plain lines, not more often than people read them."""

    def __init__(self) -> None:
        self._last = -LINE_SECONDS
        self._failure: str | None = None

    def show(self, progress: Progress) -> None:
        """Print a line when enough time has passed, and each failure once."""
        if progress.failure and progress.failure != self._failure:
            complain(f"uploads are held up: {progress.failure}; still trying (Ctrl-C leaves the rest for later)")
        self._failure = progress.failure
        now = time.monotonic()
        if progress.dirty_bytes and now - self._last >= LINE_SECONDS:
            self._last = now
            click.echo(f"{human_size(progress.dirty_bytes)} still to send", err=True)


def human_size(size_bytes: int) -> str:
    """`1536` as `1.5 KiB`."""
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
