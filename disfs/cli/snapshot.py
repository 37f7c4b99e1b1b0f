"""`disfs snapshot`."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from disfs.cli import progress
from disfs.cli.daemons import daemon_of, only_daemon
from disfs.cli.exits import INTERRUPTED, complain
from disfs.cli.undelete import printable
from disfs.config import Paths
from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError
from disfs.quantities import human_count

if TYPE_CHECKING:
    from disfs.cli.daemons import RunningDaemon

mountpoint_option = click.option("--mountpoint", type=click.Path(), help="Of which mount. [default: the only one]")


def _daemon(mountpoint: str | None) -> RunningDaemon:
    paths = Paths.from_environment(os.environ)
    return daemon_of(paths, mountpoint) if mountpoint else only_daemon(paths)


@click.group()
def snapshot() -> None:
    """Keep the volume as it is now, to look at or to bring back later.

    A snapshot costs no space until files change: what it shares with the volume lies in Discord once. Snapshots are
    below .snapshots in the root of the mount, which is not listed there, and can only be read.

    \b
    Examples:
        disfs snapshot create monday
        ls ~/discord/.snapshots/monday
        disfs snapshot restore monday:photos/2024 --to ~/discord/photos-of-monday
        disfs snapshot delete monday
    """


@snapshot.command()
@click.argument("name")
@mountpoint_option
def create(name: str, mountpoint: str | None) -> None:
    """Make a snapshot, and return when it is in Discord. What is dirty now is sent first."""
    daemon = _daemon(mountpoint)
    try:
        with ControlClient.connect(daemon.state_directory) as client, progress.shown() as show:
            done = client.create_snapshot(name, show)
    except KeyboardInterrupt as interrupt:
        complain("interrupted; 'disfs snapshot list' shows whether it was made")
        raise click.exceptions.Exit(INTERRUPTED) from interrupt
    click.echo(f"snapshot {name} is made: {daemon.mountpoint}/.snapshots/{name}")
    if done["unsent_files"]:
        files = human_count(done["unsent_files"], "file")
        paths = ", ".join(map(printable, done["unsent_paths"]))
        complain(f"{files} were being written; what was not sent of them cannot be read in it: {paths}")


@snapshot.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@mountpoint_option
def list_snapshots(as_json: bool, mountpoint: str | None) -> None:
    """Show all snapshots, oldest first."""
    with ControlClient.connect(_daemon(mountpoint).state_directory) as client:
        found = client.snapshots()
    for each in found:
        if as_json:
            click.echo(json.dumps(each))
            continue
        when = datetime.datetime.fromtimestamp(each["created_ns"] / 1e9).astimezone()
        unsent = "" if each["in_discord"] else "  (not in Discord yet)"
        click.echo(f"{when:%Y-%m-%d %H:%M:%S}  {printable(each['name'])}{unsent}")


@snapshot.command()
@click.argument("name")
@mountpoint_option
def delete(name: str, mountpoint: str | None) -> None:
    """Delete a snapshot; what nothing else refers to is then deleted from Discord."""
    with ControlClient.connect(_daemon(mountpoint).state_directory) as client:
        client.delete_snapshot(name)
    click.echo(f"snapshot {name} is deleted")


@snapshot.command()
@click.argument("what", metavar="NAME[:PATH]")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="Where to; it must not exist. [default: as below]"
)
@mountpoint_option
def restore(what: str, target: Path | None, mountpoint: str | None) -> None:
    """Copy what a snapshot has back into the volume, with every attribute: all of it, or what is at PATH.

    Nothing is replaced: without --to it goes where it was, and if something is there now, beside it as
    PATH.NAME; all of a snapshot goes into the directory NAME of the root.
    """
    name, _, inside = what.partition(":")
    root = Path(_daemon(mountpoint).mountpoint)
    inside = os.path.normpath(inside).strip("/") if inside else ""
    inside = "" if inside == "." else inside
    if ".." in Path(inside).parts:
        raise UserError(f"{inside} is not below the snapshot", ExitCode.USAGE)
    source = root / ".snapshots" / name / inside
    if not os.path.lexists(source):
        raise UserError(f"there is no {what}; 'disfs snapshot list' shows the snapshots", ExitCode.USAGE)
    if target is None:
        target = root / inside if inside else root / name
        if os.path.lexists(target):
            target = target.with_name(f"{target.name}.{name}")
    if os.path.lexists(target):
        raise UserError(f"{target} exists; choose another place with --to", ExitCode.USAGE)
    target.parent.mkdir(parents=True, exist_ok=True)
    copied = subprocess.run([shutil.which("cp") or "/bin/cp", "-a", "-T", "--", str(source), str(target)], check=False)
    if copied.returncode != 0:
        raise UserError(f"not all of it could be copied to {target}, see above", ExitCode.INTERNAL)
    click.echo(f"restored {target}")
