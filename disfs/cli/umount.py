"""`disfs umount` and `disfs sync`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from disfs.cli import progress
from disfs.cli.completion import mountpoints
from disfs.cli.daemons import daemon_of
from disfs.config import Paths, volume_names
from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError
from disfs.mountpoint import ANSWER_SECONDS, is_dead, mount_at, resolve
from disfs.mountpoint import unmount as unmount_here

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.cli.daemons import RunningDaemon
    from disfs.control.protocol import Progress
    from disfs.mountpoint import Mount


@click.command()
@click.argument("mountpoint", type=click.Path(), shell_complete=mountpoints)
@click.option("--no-wait", is_flag=True, help="Do not wait for uploads; the next mount goes on with them.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer than this for uploads."
)
@click.option("--force", is_flag=True, help="Also if it is in use, or if its daemon does not answer, which is killed.")
def umount(mountpoint: str, no_wait: bool, timeout: float | None, force: bool) -> None:
    """Unmount, and return when everything is in Discord.

    While it waits it shows how far it is, or what holds it up, such as 'disfs pause'. Ctrl-C ends the waiting: nothing
    is lost, what is left is sent after the next mount. fusermount3 -u, umount and a file manager's eject do not wait.

    With --force a mount in use goes away at once; programs that have files open can still use these, and the daemon
    ends when the last one is closed. A daemon that does not answer is killed: what was synced is kept.

    \b
    Examples:
        disfs umount ~/discord
        disfs umount --no-wait ~/discord
    """
    paths = Paths.from_environment(os.environ)
    if _cleaned_dead(mountpoint):
        return
    if force and _forced(paths, resolve(mountpoint)):
        return
    try:
        _unmount(daemon_of(paths, mountpoint), wait=not no_wait, timeout_seconds=timeout)
    except UserError as error:
        if not (force and error.exit_code == ExitCode.MOUNT_BUSY):
            raise
        _detach(resolve(mountpoint))
        return
    click.echo("unmounted" if no_wait else "unmounted; everything is in Discord")


class _EnoughError(Exception):
    """It has been waited for long enough."""


def _unmount(daemon: RunningDaemon, *, wait: bool, timeout_seconds: float | None) -> None:
    """Ask the daemon to go, and return when it has. MOUNT_BUSY, UNSENT_DATA."""
    ends = float("inf") if timeout_seconds is None else time.monotonic() + timeout_seconds
    with ControlClient.connect(daemon.state_directory) as client, client.daemon_ends():
        try:
            with progress.shown() as show:

                def noted(now: Progress) -> None:
                    show(now)
                    if time.monotonic() >= ends:
                        raise _EnoughError

                client.unmount(noted, wait=wait)
        except (KeyboardInterrupt, _EnoughError) as interrupt:
            raise UserError(
                "unmounted before everything was in Discord; the rest is kept here and sent after the next mount",
                ExitCode.UNSENT_DATA,
            ) from interrupt


def _detach(path: Path) -> None:
    """Take away a mount that is in use."""
    unmount_here(path, lazy=True)
    click.echo(
        f"{path} is detached; what is open can be used until it is closed, then the daemon ends; "
        "what is not in Discord then is sent after the next mount"
    )


def _forced(paths: Paths, path: Path) -> bool:
    """Take away a mount whose daemon does not answer, or cannot be asked; False: it answers."""
    mount = mount_at(path)
    if mount is None or mount.volume is None:
        return False
    if mount.volume not in volume_names(paths):
        _detach(path)
        return True
    try:
        with ControlClient.connect(paths.volume_state(mount.volume), answer_seconds=ANSWER_SECONDS) as client:
            return _killed(client, path, mount)
    except UserError as error:
        if error.exit_code != ExitCode.NOT_MOUNTED:
            raise
    _detach(path)
    return True


def _killed(client: ControlClient, path: Path, mount: Mount) -> bool:
    """Kill a daemon that does not answer, and take its mount away; False: it answers."""
    try:
        client.ping()
    except UserError:
        client.kill()
        if mount_at(path) == mount:
            unmount_here(path, lazy=True)
        click.echo(
            f"the daemon of {path} did not answer and was killed; what was synced is kept, "
            f"the next mount of {mount.volume} goes on where it stopped"
        )
        return True
    return False


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
@click.argument("mountpoint", type=click.Path(), shell_complete=mountpoints)
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
