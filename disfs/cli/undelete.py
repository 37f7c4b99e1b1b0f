"""`disfs undelete`."""

from __future__ import annotations

import datetime
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import click

from disfs.cli.daemons import daemon_of_path
from disfs.cli.exits import INTERRUPTED, complain
from disfs.config import Paths
from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError
from disfs.quantities import human_count, human_size, parse_moment
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


@click.command(short_help="Restore deleted and replaced files.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@click.option("--list", "lists", is_flag=True, help="Show what can be restored of it, and restore nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --list: one JSON object a line.")
@click.option(
    "--since",
    metavar="TIME",
    help="Only what was deleted since then: 2h ago (s, m, h, d, w), or since '2026-11-25 10:00'.",
)
@click.option("--version", type=click.IntRange(1), help="The number that --list shows: this one and not the newest.")
def undelete(paths: tuple[str, ...], lists: bool, as_json: bool, since: str | None, version: int | None) -> None:
    """Restore files that were deleted, replaced by a rename, or emptied, as they were just before.

    A file comes back where it was, or beside that if something is there now; a directory comes back with all that was
    deleted below it, save what is there. How long that is possible 'disfs mount --trash-days' says. What had not been
    sent to Discord when it was deleted cannot be restored.

    \b
    Examples:
        disfs undelete --list ~/discord/photos
        disfs undelete ~/discord/photos/2024
        disfs undelete --since 2h ~/discord/photos
        disfs undelete --version 1234 ~/discord/notes.txt
    """
    if version is not None and (len(paths) > 1 or lists):
        raise UserError("--version goes with one path, and not with --list", ExitCode.USAGE)
    if as_json and not lists:
        raise UserError("--json goes with --list", ExitCode.USAGE)
    since_ns = _since(since)
    if lists:
        for path in paths:
            for entry in _entries(path, since_ns):
                click.echo(json.dumps(entry) if as_json else line_of(entry))
        return
    for path in paths:
        _restore(path, version, since_ns)


def _since(text: str | None) -> int | None:
    """In nanoseconds since 1970. USAGE."""
    if text is None:
        return None
    try:
        moment = parse_moment(text, datetime.datetime.now().astimezone())
    except ValueError as error:
        raise UserError(f"--since: {error}", ExitCode.USAGE) from error
    return int(moment.timestamp() * 1e9)


def _restore(path: str, version: int | None, since_ns: int | None) -> None:
    daemon, directory, rest = daemon_of_path(Paths.from_environment(os.environ), path)
    chosen = None if version is None else InodeNumber(version)
    try:
        with ControlClient.connect(daemon.state_directory) as client:
            done = client.undelete(directory, rest, chosen, since_ns, lambda progress: None)
    except KeyboardInterrupt as interrupt:
        complain("interrupted; what is restored stays so: repeat the command to go on")
        raise click.exceptions.Exit(INTERRUPTED) from interrupt
    if done.restored == 1:
        click.echo(f"restored {printable(daemon.mountpoint + done.path)}")
    elif done.restored or not done.taken:
        click.echo(f"restored {human_count(done.restored, 'file and directory', 'files and directories')} of {path}")
    if done.taken:
        is_there = human_count(done.taken, "path that is", "paths that are")
        click.echo(f"left alone {is_there} there now; name one to have the old version beside it")


def _entries(path: str, since_ns: int | None) -> Iterator[Mapping[str, Any]]:
    daemon, directory, rest = daemon_of_path(Paths.from_environment(os.environ), path)
    after = None
    while True:
        with ControlClient.connect(daemon.state_directory) as client:
            page = client.trash(directory, rest, after)
        yield from (each for each in page["entries"] if since_ns is None or each["trashed_ns"] >= since_ns)
        after = page["after"]
        if after is None:
            return


def line_of(entry: Mapping[str, Any]) -> str:
    """What can be restored, for people. Pure."""
    when = datetime.datetime.fromtimestamp(entry["trashed_ns"] / 1e9).astimezone()
    kind = _KINDS.get(stat.S_IFMT(entry["mode"])) or human_size(entry["size_bytes"])
    return (
        f"{entry['version']:>8}  {when:%Y-%m-%d %H:%M:%S}  {entry['reason']:8}  {kind:>10}  {printable(entry['path'])}"
    )


def printable(path: str) -> str:
    """A path without what a terminal would obey. Pure."""
    shown = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in shown)
