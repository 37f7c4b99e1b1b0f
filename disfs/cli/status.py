"""`disfs status` and `disfs volumes`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from disfs.cli.daemons import daemon_of, only_daemon, running_daemons
from disfs.cli.progress import human_size
from disfs.config import Paths, load_volume, volume_names

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command()
@click.argument("mountpoint", required=False, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def status(mountpoint: str | None, as_json: bool) -> None:
    """Show what a mount is doing: what is cached, what is still to send, how many requests were made.

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
    for line in status_lines(daemon.status):
        click.echo(line)


def status_lines(report: Mapping[str, Any]) -> list[str]:
    """A daemon's status for people: the size of things in words, everything else as it is."""
    width = max(len(name) for name in report)
    return [f"{name.replace('_', ' '):<{width}}  {_shown(name, value)}" for name, value in report.items()]


def _shown(name: str, value: object) -> str:
    if value is None:
        return "-"
    if name.endswith("_bytes") and isinstance(value, int):
        return human_size(value)
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_shown(key, item)}" for key, item in value.items())
    return str(value)


@click.command()
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
        click.echo("no volumes; make one with 'disfs init', or try 'disfs mount --emulator MOUNTPOINT'", err=True)
