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
    from collections.abc import Iterator, Mapping


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
    """A daemon's status for people. `--json` has everything; here stands what one wants to know first."""
    transport, metadata, sweep = report["transport"], report["metadata"], report["sweep"]
    unsent = (
        f"{human_size(report['dirty_bytes'])} in {report['dirty_chunks']} chunks" if report["dirty_chunks"] else "-"
    )
    rows = {
        "volume": f"{report['volume']}, {report['state']} at {report['mountpoint']}, process {report['pid']}",
        "holds": f"{human_size(metadata['logical_bytes'])} in {metadata['inode_count']} inodes",
        "to send": unsent,
        "cached": f"{human_size(report['cache_bytes'])} of at most {human_size(report['cache_limit_bytes'])}",
        "sent": f"{human_size(transport['sent_bytes'])} in {transport['sends']} requests since it was mounted",
        "fetched": f"{human_size(transport['fetched_bytes'])} in {transport['fetches']} requests",
        "deleted": f"{sweep['swept_messages']} messages, {sweep['waiting_messages']} waiting",
        "requests": (
            f"{report['requests']}, {transport['retries']} repeated, {transport['rate_limited']} rate limited (429)"
        ),
    }
    lines = [f"{name:<9} {text}" for name, text in rows.items()]
    return lines + [f"{'problem':<9} {text}" for text in _problems(report)]


def _problems(report: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong, in sentences; nothing when all is well."""
    told = (
        report["warning"],
        report["transport"]["trouble"],
        report["sweep"]["failure"],
        report["metadata"]["failure"],
    )
    yield from dict.fromkeys(text for text in (*told, *report["writeback"]["failures"]) if text)
    if report["metadata"]["low_space"]:
        yield "the disk that holds the metadata is nearly full: nothing new is taken in"
    if report["lost_chunks"]:
        yield f"{report['lost_chunks']} chunks were lost with the cache before they were sent; the log names the files"
    if report["fetch"]["damaged_chunks"]:
        yield f"{report['fetch']['damaged_chunks']} chunks in Discord are gone or damaged; the log names the files"


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
