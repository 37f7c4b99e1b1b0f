"""`python -m bench.suites`: run independent test suites on a mount, exit 1 when one fails unexpectedly."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.suites import disk, packages
from bench.suites.base import Place, SuiteResult
from bench.suites.catalogue import SUITES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.suites.base import Suite

NAMES = [suite.name for suite in SUITES]
DIRECTORY = click.Path(file_okay=False, exists=True, path_type=Path)


@dataclass(frozen=True, slots=True)
class Report:
    """One suite's line of the summary."""

    name: str
    result: SuiteResult
    unexpected: tuple[str, ...]
    seconds: float
    peak_bytes: int | None


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Run this suite; repeatable. [default: all full]")
@click.option("--list", "lists", is_flag=True, help="Show the suites, and the failures that do not count.")
@click.option("--local", "local_directory", type=DIRECTORY, help="Run them in this directory, not on a mount.")
@click.option("--directory", type=DIRECTORY, help="Work below this directory.")
@click.option("-o", "options", multiple=True, help="A further option for `disfs mount -o`; repeatable.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write everything here.")
def main(
    only: tuple[str, ...],
    lists: bool,
    local_directory: Path | None,
    directory: Path | None,
    options: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Run test suites that others wrote on a disfs volume of its own, as root; install what they need.

    \b
    Examples:
        python -m bench.suites
        python -m bench.suites --only cpython --only fio
        python -m bench.suites --only gnulib --local /tmp
        python -m bench.suites --only exerciser -o cache_size=16M,dirty_limit=4M
    """
    if lists:
        _list()
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The `quick` ones are parts of others, for the everyday tests.
    chosen = [s for s in SUITES if s.name in only or (not only and not s.name.endswith("-quick"))]
    reports: list[Report] = []
    for suite in chosen:
        # Each on a volume of its own: one that breaks the file system shall not fail the next.
        with _disk(local_directory, directory, options) as place:
            reports.append(_report(suite, place))
        _show(reports[-1])
        if json_file is not None:
            json_file.write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n")
    failed = [report.name for report in reports if report.unexpected]
    for line in _table(reports):
        click.echo(line)
    click.echo(f"failed: {', '.join(failed)}" if failed else "no unexpected failure")
    sys.exit(1 if failed else 0)


def _list() -> None:
    for suite in SUITES:
        click.echo(f"{suite.name:18} {suite.about}")
        for name, reason in suite.known.items():
            click.echo(f"{'':20} {name}: {reason}")


@contextlib.contextmanager
def _disk(local_directory: Path | None, directory: Path | None, options: tuple[str, ...]) -> Iterator[disk.Disk]:
    made = disk.mounted(directory, options) if local_directory is None else disk.local(local_directory)
    with made as found:
        yield found


def _report(suite: Suite, where: disk.Disk) -> Report:
    """Run one suite. Whatever goes wrong is a failure of it; only Ctrl-C gets through."""
    kept = packages.kept_directory()
    began = time.monotonic()
    try:
        packages.install_debian(suite.debian)
        python = packages.python_with(suite.pypi, kept)
        where.peak_bytes()
        began = time.monotonic()
        result = suite.run(Place(where.files, where.scratch, kept, python))
    except Exception as error:
        result = SuiteResult(0, ("the suite itself",), details=f"{type(error).__name__}: {error}")
    seconds = time.monotonic() - began
    trouble = where.trouble()
    if trouble is not None:
        result = SuiteResult(result.passed, (*result.failures, trouble), result.skipped, result.details)
    unexpected = tuple(name for name in result.failures if not _is_known(name, suite))
    return Report(suite.name, result, unexpected, seconds, None if trouble else where.peak_bytes())


def _is_known(name: str, suite: Suite) -> bool:
    """Whether a failure is expected; names of methods stand for the methods of all classes."""
    return name in suite.known or name.rpartition(".")[2] in suite.known


def _show(report: Report) -> None:
    if report.unexpected:
        click.echo(f"-- {report.name}\n{report.result.details}")


def _table(reports: list[Report]) -> list[str]:
    lines = ["| suite | passed | failed | of these known | skipped | seconds | daemon's peak |", "|---|" + "---|" * 6]
    for report in reports:
        result = report.result
        known = result.failed - len(report.unexpected)
        memory = "" if report.peak_bytes is None else f"{report.peak_bytes / 2**20:.0f} MiB"
        cells = (report.name, result.passed, result.failed, known, result.skipped, f"{report.seconds:.0f}", memory)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


if __name__ == "__main__":
    main()
