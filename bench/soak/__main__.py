"""`python -m bench.soak`: exits with 0 when everything held, with 1 when something did not."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from bench.soak.run import Plan, Soak
from bench.soak.watch import DaemonEndedError
from bench.soak.work import MIB, Scale

SMALL = Scale(kept_bytes=8 * MIB, big_bytes=4 * MIB, crowd=20)


@click.command(help="Mixed load on a real mount while the emulator fails in every way it knows.")
@click.option("--minutes", default=60.0, show_default=True, help="How long the load lasts; looking takes longer.")
@click.option("--seed", default=1, show_default=True)
@click.option("--probability", default=0.01, show_default=True, help="Which share of the requests fails.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to work, and to keep it all. [default: /tmp]")
@click.option("--options", "mount_options", help="Mount options in the place of the usual ones.")
@click.option("--small", is_flag=True, help="Little data, an unshaped emulator, no waiting for the sweep: does it run?")
@click.option("--report", "report_file", type=click.Path(path_type=Path), help="Where the JSON report goes.")
def main(
    minutes: float,
    seed: int,
    probability: float,
    directory: Path | None,
    mount_options: str | None,
    small: bool,
    report_file: Path | None,
) -> None:
    """Run, print the report, keep the directory if something did not hold."""
    work = directory or Path(tempfile.mkdtemp(prefix="disfs-soak-"))
    plan = Plan(directory=work, seconds=minutes * 60, seed=seed, probability=probability)
    if small:
        plan = replace(plan, shape={"fsync": False}, scale=SMALL, quiet_seconds=0.0)
    if mount_options is not None:
        plan = replace(plan, options=mount_options)
    try:
        finished = Soak(plan, lambda line: click.echo(line, err=True)).run()
    except DaemonEndedError as error:
        raise click.ClickException(f"{error}; see the logs below {work}") from error
    found = finished.as_json()
    if report_file is not None:
        report_file.write_text(json.dumps(found, indent=2))
    click.echo("\n".join(finished.lines()))
    if not found["holds"]:
        click.echo(f"\nkept for whoever looks for the cause: {work}", err=True)
        raise click.exceptions.Exit(1)
    if directory is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
