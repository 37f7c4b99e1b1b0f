"""`disfs events`."""

from __future__ import annotations

import json
import os

import click

from disfs.cli.completion import mountpoints
from disfs.cli.daemons import daemon_of, only_daemon
from disfs.cli.exits import INTERRUPTED
from disfs.cli.watch import check_reader
from disfs.config import Paths
from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError


@click.command(short_help="Print what happens to a mount, as it happens.")
@click.argument("mountpoint", required=False, type=click.Path(), shell_complete=mountpoints)
def events(mountpoint: str | None) -> None:
    """Print a JSON object a line for each thing that happens to a mount from now on, until Ctrl-C.

    Each has "event" and "at", in seconds since 1970. The events: file_sent and damage_found (with "path"),
    upload_failed (with "reason") and uploads_recovered, paused and resumed, dirty_limit_reached and dirty_limit_left,
    lease_lost (with "reason"), connection_lost (with "reason") and connection_back. Whoever reads too slowly loses the
    oldest ones, and is told how many by events_lost (with "count").

    \b
    Example:
        disfs events ~/discord | jq -r 'select(.event == "file_sent").path'
    """
    paths = Paths.from_environment(os.environ)
    daemon = daemon_of(paths, mountpoint) if mountpoint else only_daemon(paths)
    try:
        with ControlClient.connect(daemon.state_directory) as client:
            for told in client.events():
                if told is None:
                    check_reader()
                else:
                    click.echo(json.dumps(told))
    except KeyboardInterrupt:
        # How it is meant to end: nothing to say.
        raise click.exceptions.Exit(INTERRUPTED) from None
    raise UserError(f"{daemon.mountpoint} is not mounted any more", ExitCode.NOT_MOUNTED)
