"""`python -m bench`: run rows, print each figure beside its limit, exit 1 when a target is missed."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench import ceiling, meters
from bench.contents import Contents
from bench.lab import Lab
from bench.placing import mark_top
from bench.report import RowReport, markdown
from bench.rows import ROWS
from bench.shape import Shape

if TYPE_CHECKING:
    from bench.report import Noise
    from bench.rows.base import Row

NAMES = [row.name for row in ROWS]


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Run this row; repeatable. [default: all]")
@click.option("--scale", type=click.FloatRange(0.001, 4), default=1.0, help="How much of the work to do.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write everything here.")
@click.option("--markdown", "table_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a table here.")
@click.option("--profile", type=click.Path(file_okay=False, path_type=Path), help="Write the daemon's profiles here.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Work below this directory.")
@click.option("--no-ceiling", is_flag=True, help="Leave out the emulator's own speed.")
def main(
    only: tuple[str, ...],
    scale: float,
    json_file: Path | None,
    table_file: Path | None,
    profile: Path | None,
    directory: Path | None,
    no_ceiling: bool,
) -> None:
    """Measure disfs on an emulator with 80 ms per request, 100 Mbit/s up, 400 Mbit/s down and Discord's rate limits.

    Everything happens in a temporary directory with a mount and an emulator of its own; nothing is left of it.

    \b
    Examples:
        python -m bench
        python -m bench --only write-1g --only read-1g --scale 0.1
        python -m bench --only stat-p99 --profile /tmp/profiles
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runner = Runner(Shape(), Contents(), directory, profile)
    if not no_ceiling:
        runner.show_ceiling()
    rows = [row for row in ROWS if not only or row.name in only]
    reports = []
    for row in rows:
        reports.append(runner.report(row, scale))
        # After each one: the rows together take an hour, and what was measured shall survive a Ctrl-C.
        if json_file is not None:
            json_file.write_text(json.dumps([report.as_json() for report in reports], indent=1) + "\n")
        if table_file is not None:
            table_file.write_text(markdown(reports))
    missed = [report.name for report in reports if report.outcome is None or not report.outcome.passed]
    click.echo(f"missed: {', '.join(missed)}" if missed else "all targets met")
    sys.exit(1 if missed else 0)


class Runner:
    """Runs rows one after another, each in a lab of its own, and shows what came out."""

    def __init__(self, shape: Shape, contents: Contents, directory: Path | None, profile: Path | None) -> None:
        self._shape = shape
        self._contents = contents
        self._directory = directory
        self._profile = profile
        self._fastest_ms = float("inf")

    def show_ceiling(self) -> None:
        """Print how fast the emulator is for a plain client."""
        with self._temporary() as temporary, self._lab("ceiling", temporary) as lab:
            found = ceiling.measure(lab)
        click.echo("emulator alone: " + ", ".join(f"{name} {rate:.1f} MB/s" for name, rate in found.items()))

    def report(self, row: Row, scale: float) -> RowReport:
        """Run one row and print its report. A row that fails is a report with a failure; only Ctrl-C gets through."""
        noise = self._noise()
        outcome, failure = None, None
        try:
            with self._temporary() as temporary, self._lab(row.name, temporary) as lab:
                outcome = row.run(lab, scale)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        made = RowReport(row.name, row.work, scale, noise, outcome, failure)
        for line in made.lines(self._fastest_ms):
            click.echo(line)
        return made

    def _temporary(self) -> tempfile.TemporaryDirectory[str]:
        made = tempfile.TemporaryDirectory(prefix="disfs-bench-", dir=self._directory)
        mark_top(Path(made.name))
        return made

    def _noise(self) -> Noise:
        noise = meters.noise()
        self._fastest_ms = min(self._fastest_ms, noise.calibration_ms)
        return noise

    def _lab(self, name: str, temporary: str) -> Lab:
        profile = None
        if self._profile is not None:
            self._profile.mkdir(parents=True, exist_ok=True)
            profile = self._profile.absolute() / f"{name}.txt"
        return Lab(Path(temporary) / "lab", self._shape, self._contents, profile=profile)


if __name__ == "__main__":
    main()
