"""`disfs umount` and `disfs sync`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from disfs.cli import progress
from disfs.cli.daemons import daemon_of
from disfs.config import Paths
from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError
from disfs.mountpoint import is_dead, mount_at, resolve
from disfs.mountpoint import unmount as unmount_here

if TYPE_CHECKING:
    from disfs.control.protocol import Progress


@click.command()
@click.argument("mountpoint", type=click.Path())
@click.option("--no-wait", is_flag=True, help="Do not wait for uploads; the next mount goes on with them.")
def umount(mountpoint: str, no_wait: bool) -> None:
    """Unmount, and return when everything is in Discord.

    While it waits it shows how far it is, or what holds it up, such as 'disfs pause'. Ctrl-C ends the waiting: nothing
    is lost, what is left is sent after the next mount.

    \b
    Examples:
        disfs umount ~/discord
        disfs umount --no-wait ~/discord
    """
    paths = Paths.from_environment(os.environ)
    if _cleaned_dead(mountpoint):
        return
    daemon = daemon_of(paths, mountpoint)
    with ControlClient.connect(daemon.state_directory) as client, client.daemon_ends():
        try:
            with progress.shown() as show:
                client.unmount(show, wait=not no_wait)
        except KeyboardInterrupt as interrupt:
            raise UserError(
                "unmounted before everything was in Discord; the rest is kept here and sent after the next mount",
                ExitCode.UNSENT_DATA,
            ) from interrupt
    click.echo("unmounted" if no_wait else "unmounted; everything is in Discord")


def _cleaned_dead(mountpoint: str) -> bool:
    """Take away what a daemon that was killed left at the mountpoint."""
    path = resolve(mountpoint)
    mount = mount_at(path)
    if mount is None or mount.volume is None or not is_dead(path):
        return False
    unmount_here(path, lazy=True)
    click.echo(f"cleaned up {path}: its daemon had died; the next mount of {mount.volume} goes on where it stopped")
    return True


@click.command()
@click.argument("mountpoint", type=click.Path())
def sync(mountpoint: str) -> None:
    """Return when everything written so far is in Discord.

    \b
    Example:
        cp -a ~/photos ~/discord/ && disfs sync ~/discord
    """
    daemon = daemon_of(Paths.from_environment(os.environ), mountpoint)
    last: Progress | None = None
    with ControlClient.connect(daemon.state_directory) as client:
        try:
            with progress.shown() as show:

                def noted(now: Progress) -> None:
                    nonlocal last
                    last = now
                    show(now)

                client.sync(noted)
        except KeyboardInterrupt as interrupt:
            then = "sent after 'disfs resume'" if last and last.paused else "sent in the background"
            raise UserError(
                f"stopped waiting before everything was in Discord; the rest is kept here and {then}",
                ExitCode.UNSENT_DATA,
            ) from interrupt
    click.echo("everything is in Discord")
