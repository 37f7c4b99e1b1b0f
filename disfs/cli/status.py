"""`disfs status` and `disfs volumes`."""

from __future__ import annotations

import json
import os

import click

from disfs.cli.completion import mountpoints
from disfs.cli.daemons import daemon_of, of_another_version, only_daemon, running_daemons
from disfs.cli.report import status_lines
from disfs.config import Paths, load_volume, volume_names


@click.command(short_help="Show what a mount is doing.")
@click.argument("mountpoint", required=False, type=click.Path(), shell_complete=mountpoints)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def status(mountpoint: str | None, as_json: bool) -> None:
    """Show what a mount is doing: what is still to send and why it waits, what is cached, what goes wrong.

    \b
    Examples:
        disfs status
        disfs status ~/discord --json
    """
    paths = Paths.from_environment(os.environ)
    daemon = daemon_of(paths, mountpoint) if mountpoint else only_daemon(paths)
    if as_json:
        click.echo(json.dumps(daemon.status, indent=2))
        return
    try:
        lines = list(status_lines(daemon.status))
    except KeyError as error:  # an upgrade while it was mounted
        raise of_another_version(daemon) from error
    for line in lines:
        click.echo(line)


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
