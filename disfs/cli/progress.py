"""How far uploading or warming is, for a person: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import click

from disfs.cli.exits import complain
from disfs.quantities import human_count, human_duration, human_rate, human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress as Bars
    from rich.progress import Task

    from disfs.control.protocol import Progress, WarmProgress
    from disfs.recovery.rebuild import Progress as RebuildProgress

LINE_SECONDS = 2.0
NAME_CHARACTERS = 40


@contextlib.contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """Give a function that shows each `Progress` it is called with, until the block is left."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines().show


@contextlib.contextmanager
def warming_shown() -> Iterator[Callable[[WarmProgress], None]]:
    """The same for each `WarmProgress`."""
    if sys.stderr.isatty():
        with _bars() as bars:
            task = bars.add_task("counting", total=None)

            def show(progress: WarmProgress) -> None:
                total = progress.total_bytes or None
                bars.update(task, total=total, completed=progress.done_bytes, description=_warming_text(progress))

            yield show
    else:
        yield _WarmingLines().show


@contextlib.contextmanager
def rebuilding_shown() -> Iterator[Callable[[RebuildProgress], None]]:
    """The same for each step of rebuilding a volume; nothing where nobody watches: it takes minutes at most."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    with _bars(sizes=False) as bars:
        task = bars.add_task("listing", total=None)

        def show(progress: RebuildProgress) -> None:
            bars.update(task, total=progress.total or None, completed=progress.done, description=progress.step)

        yield show


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    with _bars() as bars:
        task = bars.add_task("uploading", total=None)
        most = 0
        told: str | None = None

        def show(progress: Progress) -> None:
            nonlocal most, told
            most = max(most, progress.left_bytes)
            held_up = _held_up(progress)
            if held_up and held_up != told:
                # Above the bar, where the whole of it has room: it says what to do.
                bars.console.print(held_up, markup=False, highlight=False, soft_wrap=True)
            told = held_up
            text = "paused" if progress.paused else "held up" if held_up else "uploading"
            bars.update(task, total=most or None, completed=most - progress.left_bytes, description=text)

        yield show


def _bars(*, sizes: bool = True) -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Speed(ProgressColumn):
        """Rich's own speaks of kB and MB, and everything else here of KiB and MiB."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(human_rate(speed) if speed else "", style="progress.data.speed")

    # No markup: what is shown holds file names, with square brackets of their own.
    text = TextColumn("{task.description}", markup=False)
    amount = (DownloadColumn(binary_units=True), Speed()) if sizes else ()
    return Bars(text, BarColumn(), *amount, TimeRemainingColumn(), console=Console(stderr=True), transient=True)


@contextlib.contextmanager
def checking_shown() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows how much of a part of a check is done: its name, how much, of how much."""
    if not sys.stderr.isatty():
        yield _CheckingLines().show
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("checking", total=None)
        shown: str | None = None

        def show(what: str, done: int, total: int) -> None:
            nonlocal shown
            if what != shown:  # another part: what the last one took says nothing about it
                bars.reset(task, total=total or None)
                shown = what
            bars.update(task, total=total or None, completed=done, description=_checking_text(what, done, total))

        yield show


def _checking_text(what: str, done: int, total: int) -> str:
    if what == "data":
        return f"reading data: {human_size(done)} of {human_size(total)}"
    return f"checking {what}: {done} of {total}" if total > 1 else f"checking {what}"


class _CheckingLines:
    """The same as plain lines."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def show(self, what: str, done: int, total: int) -> None:
        """Print a line when enough time has passed."""
        now = time.monotonic()
        if now - self._last >= LINE_SECONDS:
            self._last = now
            click.echo(_checking_text(what, done, total), err=True)


def _held_up(progress: Progress) -> str | None:
    """Why uploads do not get on; None while they do."""
    if progress.paused:
        return "uploads are paused: 'disfs resume' goes on"
    return f"uploads are held up: {progress.failure}; still trying" if progress.failure else None


def _warming_text(progress: WarmProgress) -> str:
    """How many files are there, and which one is coming."""
    if not progress.total_files:
        return "counting"
    # A name may hold any bytes; what a terminal would obey is not shown.
    name = "".join(char if char.isprintable() else "?" for char in progress.path)
    short = name if len(name) <= NAME_CHARACTERS else f"...{name[3 - NAME_CHARACTERS :]}"
    return f"{progress.done_files}/{human_count(progress.total_files, 'file')} {short}"


class _Lines:
    """Progress as plain lines, not more often than people read them."""

    def __init__(self) -> None:
        self._last = -LINE_SECONDS
        self._left_bytes: int | None = None
        self._told: str | None = None

    def show(self, progress: Progress) -> None:
        """Print a line when enough time has passed, and each reason for a delay once."""
        held_up = _held_up(progress)
        if held_up and held_up != self._told:
            complain(f"{held_up} (Ctrl-C leaves the rest for later)")
        self._told = held_up
        now = time.monotonic()
        if progress.dirty_bytes and now - self._last >= LINE_SECONDS:
            click.echo(f"{human_size(progress.left_bytes)} still to send{self._speed(progress, now)}", err=True)
            self._last, self._left_bytes = now, progress.left_bytes

    def _speed(self, progress: Progress, now: float) -> str:
        """Since the last line, and how long the rest will take at that; empty where nothing got on."""
        if self._left_bytes is None or (gone := self._left_bytes - progress.left_bytes) <= 0:
            return ""
        rate = gone / (now - self._last)
        return f", {human_rate(rate)}, about {human_duration(progress.left_bytes / rate)} left"


class _WarmingLines:
    """The same for warming."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def show(self, progress: WarmProgress) -> None:
        """Print a line when enough time has passed."""
        now = time.monotonic()
        if progress.total_files and now - self._last >= LINE_SECONDS:
            self._last = now
            sizes = f"{human_size(progress.done_bytes)} of {human_size(progress.total_bytes)}"
            click.echo(f"{sizes}, {_warming_text(progress)}", err=True)
