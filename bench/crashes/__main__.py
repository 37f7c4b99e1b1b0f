"""`python -m bench.crashes`: exits with 0 when everything held, with 1 when something did not."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import click

from bench.crashes.run import Crashes, Plan


@click.command(help="kill -9 on a real mount and simulated power cuts, and whether anything is lost.")
@click.option("--kills", default=1000, show_default=True)
@click.option("--power-cuts", default=200, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--burn-every", default=20, show_default=True, help="Kills between two burnt machines; 0: none burns.")
@click.option("--minutes", type=float, help="Begin nothing further after that; the summary says how far it came.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to work. [default: below /tmp]")
@click.option("--report", "report_file", type=click.Path(path_type=Path), help="Where the JSON report goes.")
def main(
    kills: int,
    power_cuts: int,
    seed: int,
    burn_every: int,
    minutes: float | None,
    directory: Path | None,
    report_file: Path | None,
) -> None:
    """Run, print the summary, and keep the directory of what did not hold."""
    work = directory or Path(tempfile.mkdtemp(prefix="disfs-crashes-"))
    seconds = float("inf") if minutes is None else minutes * 60
    plan = Plan(work, kills, power_cuts, seed, burn_every, seconds)
    found = Crashes(plan, lambda line: click.echo(line, err=True)).run()
    if report_file is not None:
        report_file.write_text(json.dumps(found.as_json(), indent=2))
    click.echo("\n".join(found.lines()))
    if not found.holds:
        click.echo(f"\nkept for whoever looks for the cause: {work}", err=True)
        raise click.exceptions.Exit(1)
    if directory is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
