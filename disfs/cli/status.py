"""`disfs status`, `disfs metrics` and `disfs volumes`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from disfs.cli.completion import mountpoints
from disfs.cli.daemons import daemon_of, of_another_version, only_daemon, running_daemons
from disfs.cli.exits import INTERRUPTED
from disfs.config import Paths, load_volume, volume_names
from disfs.status_report import status_lines

if TYPE_CHECKING:
    from disfs.cli.daemons import RunningDaemon


@click.command(short_help="Show what a mount is doing.")
@click.argument("mountpoint", required=False, type=click.Path(), shell_complete=mountpoints)
@click.option("--watch", is_flag=True, help="Go on showing it, file by file, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs; with --watch one a second.")
def status(mountpoint: str | None, watch: bool, as_json: bool) -> None:
    """Show what a mount is doing: what is still to send and why it waits, what is cached, what goes wrong.

    With --watch it is a screen that is drawn again every second; where the output is no terminal, a line whenever
    something has changed.

    \b
    Examples:
        disfs status
        disfs status --watch
        disfs status ~/discord --json
    """
    paths = Paths.from_environment(os.environ)
    daemon = daemon_of(paths, mountpoint) if mountpoint else only_daemon(paths)
    try:
        if watch:
            _watch(daemon, as_json=as_json)
        elif as_json:
            click.echo(json.dumps(daemon.status, indent=2))
        else:
            for line in status_lines(daemon.status):
                click.echo(line)
    except KeyError as error:
        raise of_another_version(daemon) from error


@click.command(short_help="Print a mount's figures for Prometheus.")
@click.argument("mountpoint", required=False, type=click.Path(), shell_complete=mountpoints)
def metrics(mountpoint: str | None) -> None:
    """Print the figures of a mount in the text format that Prometheus and its relatives read; docs/metrics.md says what
    each of them is. The file .disfs/metrics in the mount says the same.

    \b
    Example:
        disfs metrics ~/discord > /var/lib/node_exporter/disfs.prom
    """
    from disfs.metrics import metrics_text

    paths = Paths.from_environment(os.environ)
    daemon = daemon_of(paths, mountpoint) if mountpoint else only_daemon(paths)
    try:
        text = metrics_text(daemon.status)
    except KeyError as error:
        raise of_another_version(daemon) from error
    click.echo(text, nl=False)


def _watch(daemon: RunningDaemon, *, as_json: bool) -> None:
    from disfs.cli import watch

    try:
        watch.watch(daemon, as_json=as_json)
    except KeyboardInterrupt:
        # How it is meant to end: nothing to say.
        raise click.exceptions.Exit(INTERRUPTED) from None


@click.command(short_help="List the volumes of this machine.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list of objects, for programs.")
def volumes(as_json: bool) -> None:
    """List the volumes that this machine knows, and where they are mounted.

    \b
    Example:
        disfs volumes --json
    """
    paths = Paths.from_environment(os.environ)
    mounted = {daemon.volume: daemon for daemon in running_daemons(paths)}
    listed = []
    for name in volume_names(paths):
        volume = load_volume(paths, name)
        daemon = mounted.get(name)
        listed.append(
            {
                "name": name,
                "guild_id": str(volume.guild),
                "emulator": volume.emulator,
                "mounted": daemon is not None,
                "mountpoint": daemon.mountpoint if daemon else None,
                "pid": daemon.status.get("pid") if daemon else None,
            }
        )
    if as_json:
        click.echo(json.dumps(listed, indent=2))
        return
    for entry in listed:
        where = f"mounted at {entry['mountpoint']}" if entry["mounted"] else "not mounted"
        click.echo(f"{entry['name']}  guild {entry['guild_id']}{' (emulator)' if entry['emulator'] else ''}  {where}")
    if not listed:
        click.echo("no volumes; make one with 'disfs setup', or try 'disfs mount --emulator MOUNTPOINT'", err=True)
