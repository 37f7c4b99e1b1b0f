"""`disfs pause`, `disfs resume` and `disfs bwlimit`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from disfs.cli.completion import mountpoints
from disfs.cli.daemons import daemon_of, only_daemon
from disfs.config import Paths
from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError
from disfs.quantities import Bandwidth, Timetable, parse_limits

if TYPE_CHECKING:
    from disfs.cli.daemons import RunningDaemon


def _daemon(mountpoint: str | None) -> RunningDaemon:
    paths = Paths.from_environment(os.environ)
    return daemon_of(paths, mountpoint) if mountpoint else only_daemon(paths)


@click.command(short_help="Begin no more uploads for a while.")
@click.argument("mountpoint", required=False, type=click.Path(), shell_complete=mountpoints)
def pause(mountpoint: str | None) -> None:
    """Begin no more uploads until 'disfs resume', or until the volume is mounted again.

    Messages that are on their way arrive. Reading goes on; so does writing, up to the dirty limit, where it waits.
    What is not sent is kept on this machine only.

    \b
    Example:
        disfs pause ~/discord
    """
    daemon = _daemon(mountpoint)
    with ControlClient.connect(daemon.state_directory) as client:
        client.pause()
    click.echo(f"uploads of {daemon.mountpoint} are paused; 'disfs resume' goes on")


@click.command()
@click.argument("mountpoint", required=False, type=click.Path(), shell_complete=mountpoints)
def resume(mountpoint: str | None) -> None:
    """Go on uploading after 'disfs pause'.

    \b
    Example:
        disfs resume ~/discord
    """
    daemon = _daemon(mountpoint)
    with ControlClient.connect(daemon.state_directory) as client:
        client.resume()
    click.echo(f"uploads of {daemon.mountpoint} go on")


@click.command(short_help="Show or change the bandwidth limit.")
@click.argument("words", nargs=-1, metavar="[MOUNTPOINT] [LIMIT]", shell_complete=mountpoints)
def bwlimit(words: tuple[str, ...]) -> None:
    """Show or change how fast a mount may send and fetch, in bytes a second.

    LIMIT is UP:DOWN, such as 512K:4M or 2M:off; one number is the limit each way; 'off' takes it away. It holds for
    transfers under way too, and until the volume is mounted again; 'disfs mount --bwlimit' sets it from the start.

    LIMIT can be a timetable, as of rclone: each entry holds from its time on, on every day or on the one it names.
    Where spaces or commas are in the way, as in fstab, ; and = stand for them: 08:00=512K:4M;18:00=off

    \b
    Examples:
        disfs bwlimit
        disfs bwlimit 1M:off
        disfs bwlimit ~/discord off
        disfs bwlimit "08:00,512K:4M 18:00,off Sat-08:00,off"
    """
    mountpoint, limit = _understood(words)
    daemon = _daemon(mountpoint)
    with ControlClient.connect(daemon.state_directory) as client:
        if isinstance(limit, Timetable):
            client.change_setting("bwlimit", limit.to_option())
        elif limit is not None:
            client.limit_bandwidth(limit)
    if not isinstance(limit, Bandwidth):
        with ControlClient.connect(daemon.state_directory) as client:
            limit = client.bandwidth()
    click.echo(f"bandwidth of {daemon.mountpoint}: {limit}")


def _understood(words: tuple[str, ...]) -> tuple[str | None, Bandwidth | Timetable | None]:
    """Which mountpoint, and which limit. A single word that reads as a limit is one; ./10M is a directory. USAGE."""
    if len(words) > 2:
        raise UserError("too many arguments; see 'disfs bwlimit --help'", ExitCode.USAGE)
    if not words:
        return None, None
    try:
        limit = parse_limits(words[-1])
    except ValueError as error:
        if len(words) == 1 and os.path.lexists(words[0]):
            return words[0], None
        raise UserError(f"{error}; see 'disfs bwlimit --help'", ExitCode.USAGE) from error
    return (words[0] if len(words) == 2 else None), limit
