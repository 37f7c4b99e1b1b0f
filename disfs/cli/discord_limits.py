"""`disfs limits`: what Discord allows this volume, and what is left of it at this moment."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from disfs.cli.completion import mountpoints
from disfs.cli.daemons import daemon_of, of_another_version, only_daemon
from disfs.config import Paths, load_volume
from disfs.quantities import Bandwidth, human_count, human_duration, human_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from disfs.config import VolumeConfig


@click.command(short_help="Show what Discord allows, and what is left of it.")
@click.argument("mountpoint", required=False, type=click.Path(), shell_complete=mountpoints)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def limits(mountpoint: str | None, as_json: bool) -> None:
    """Show what Discord allows a mount, as far as it was learnt, and what is left of it now.

    Each kind of request has a bucket in each channel: so many requests, then a wait. A kind that was not asked for
    lately has none yet.

    \b
    Examples:
        disfs limits
        disfs limits ~/discord --json
    """
    paths = Paths.from_environment(os.environ)
    daemon = daemon_of(paths, mountpoint) if mountpoint else only_daemon(paths)
    try:
        found = limits_of(daemon.status, load_volume(paths, daemon.volume))
    except KeyError as error:
        raise of_another_version(daemon) from error
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for line in limit_lines(found):
        click.echo(line)


def limits_of(report: Mapping[str, Any], volume: VolumeConfig) -> dict[str, Any]:
    """What of a daemon's status is about limits, and which channel is which. Pure."""
    transport, writeback = report["transport"], report["writeback"]
    data = volume.superblock.data_channels
    names = {volume.index_channel: "index"} | {channel: f"data-{n}" for n, channel in enumerate(data, 1)}
    return {
        "attachment_bytes": writeback["attachment_limit_bytes"],
        "message_bytes": writeback["message_limit_bytes"],
        "channels": {name: str(channel) for channel, name in names.items()},
        "buckets": [
            {**bucket, "channel": str(bucket["channel"]), "name": names.get(bucket["channel"])}
            for bucket in transport["buckets"]
        ],
        "rate_limited": {
            "all": transport["rate_limited"],
            **{kind: transport[f"rate_limited_{kind}"] for kind in ("user", "shared", "global")},
        },
        "waited_seconds": transport["limit_wait_seconds"],
        "bandwidth": report["bandwidth"],
    }


def limit_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The same for people. Pure."""
    yield f"attachment  at most {human_size(found['attachment_bytes'])}"
    yield f"message     {human_size(found['message_bytes'])} at this speed"
    yield f"bandwidth   {Bandwidth(**found['bandwidth'])}"
    yield f"channels    {human_count(len(found['channels']), 'channel')}: {', '.join(found['channels'])}"
    yield from _buckets(found["buckets"])
    refused = found["rate_limited"]
    kinds = ", ".join(f"{refused[kind]} {kind}" for kind in ("user", "shared", "global"))
    waited = human_duration(found["waited_seconds"])
    yield f"refused     {human_count(refused['all'], 'time')} (429: {kinds}); requests waited {waited} in all"


def _buckets(buckets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for bucket in sorted(buckets, key=lambda each: (each["name"] or "", each["channel"], each["route"])):
        of = "" if bucket["limit"] is None else f" of {bucket['limit']}"
        wait = f", the next one in {bucket['wait_seconds']:.1f} s" if bucket["wait_seconds"] > 0 else ""
        what = f"{bucket['name'] or bucket['channel']}, {bucket['route']}"
        yield f"bucket      {what}: {bucket['remaining']}{of} left{wait}"
