"""`disfs pin`, `disfs unpin` and `disfs warmup`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from disfs.cli import progress
from disfs.cli.daemons import daemons_of_files
from disfs.cli.exits import INTERRUPTED, complain
from disfs.config import Paths
from disfs.control.client import ControlClient
from disfs.control.protocol import MAX_INODES
from disfs.errors import ExitCode
from disfs.quantities import human_count, human_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from disfs.cli.daemons import RunningDaemon
    from disfs.control.protocol import WarmProgress
    from disfs.values import InodeNumber

paths_argument = click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
no_wait_option = click.option(
    "--no-wait", is_flag=True, help="Let it go on in the background; 'disfs status' shows it."
)


@click.command(short_help="Keep files in the cache.")
@paths_argument
@no_wait_option
def pin(paths: tuple[str, ...], no_wait: bool) -> None:
    """Bring files, and everything below directories, into the cache and keep them there.

    They can then be read without Discord. What is made in a pinned directory later is pinned too; what is moved
    there is not. Pins survive a remount. Ctrl-C stops the fetching, not the pins: repeat it to go on.

    \b
    Examples:
        disfs pin ~/discord/music
        disfs pin --no-wait ~/discord/photos/2024 ~/discord/notes.txt
    """
    _bring(paths, pin=True, wait=not no_wait)


@click.command(short_help="Bring files into the cache once.")
@paths_argument
@no_wait_option
def warmup(paths: tuple[str, ...], no_wait: bool) -> None:
    """Bring files, and everything below directories, into the cache, where they stay as long as there is room.

    Ctrl-C stops it: what has come is kept, and a repetition goes on from there.

    \b
    Example:
        disfs warmup ~/discord/films/metropolis.mkv
    """
    _bring(paths, pin=False, wait=not no_wait)


@click.command(short_help="Let files be evicted from the cache again.")
@paths_argument
def unpin(paths: tuple[str, ...]) -> None:
    """Let files, and everything below directories, be evicted from the cache again when room is needed.

    What was not pinned is left as it is.

    \b
    Example:
        disfs unpin ~/discord/music
    """
    for daemon, inodes in _requests(paths):
        with ControlClient.connect(daemon.state_directory) as client:
            client.unpin(inodes)
    click.echo(f"unpinned {_named(paths)}")


def _bring(paths: tuple[str, ...], *, pin: bool, wait: bool) -> None:
    done: list[WarmProgress] = []
    try:
        for daemon, inodes in _requests(paths):
            with ControlClient.connect(daemon.state_directory) as client, progress.warming_shown() as show:
                done.append(client.warm(inodes, show, pin=pin, wait=wait))
    except KeyboardInterrupt as interrupt:
        kept = "what has come is kept, and what was marked stays pinned" if pin else "what has come is kept"
        complain(f"interrupted; {kept}: repeat the command to go on")
        raise click.exceptions.Exit(INTERRUPTED) from interrupt
    _say(paths, done, pin=pin, wait=wait)


def _say(paths: tuple[str, ...], done: Sequence[WarmProgress], *, pin: bool, wait: bool) -> None:
    verb = "pinned" if pin else "warmed" if wait else "warming"
    files = human_count(sum(part.total_files for part in done), "file")
    size = human_size(sum(part.total_bytes for part in done))
    if wait:
        click.echo(f"{verb} {_named(paths)}: {files}, {size} in the cache")
    else:
        click.echo(f"{verb} {_named(paths)}: {files}, {size}; 'disfs status' shows how much is there")
    unreadable = sum(part.unreadable_files for part in done)
    if unreadable:
        complain(f"{human_count(unreadable, 'file')} could not be read; the log names them: try again later")
        raise click.exceptions.Exit(ExitCode.INTERNAL)


def _requests(paths: tuple[str, ...]) -> Iterator[tuple[RunningDaemon, Sequence[InodeNumber]]]:
    """What to ask of whom, in pieces that a request may have."""
    for daemon, inodes in daemons_of_files(Paths.from_environment(os.environ), paths):
        for first in range(0, len(inodes), MAX_INODES):
            yield daemon, inodes[first : first + MAX_INODES]


def _named(paths: tuple[str, ...]) -> str:
    return paths[0] if len(paths) == 1 else human_count(len(paths), "path")
