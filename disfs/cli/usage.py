"""`disfs usage`: what takes the room, directory by directory."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from disfs.cli.daemons import daemon_of_path, only_daemon
from disfs.cli.undelete import printable
from disfs.config import Paths
from disfs.errors import ExitCode, UserError
from disfs.quantities import human_count, human_size
from disfs.values import FIRST_VIEW_INODE
from disfs.volume_state import METADATA_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from disfs.metadata.usage import Usage


@click.command(short_help="Show what takes how much room.")
@click.argument("directory", required=False, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="A JSON list of objects, for programs.")
def usage(directory: str | None, as_json: bool) -> None:
    """Show what each file and directory in DIRECTORY holds, with all below it, the largest in Discord first.

    Size is what 'ls' shows; stored is what it takes in Discord, compressed and sealed; garbage is its share of what was
    deleted and still lies in the same messages. What is not sent yet is not stored. The mount goes on meanwhile.

    \b
    Examples:
        disfs usage ~/discord
        disfs usage ~/discord/photos --json
    """
    paths = Paths.from_environment(os.environ)
    daemon, inode, rest = daemon_of_path(paths, directory or only_daemon(paths).mountpoint)
    if rest:
        raise UserError(f"{directory} is no directory; name one of a mount", ExitCode.USAGE)
    if inode >= FIRST_VIEW_INODE:
        raise UserError(
            f"{directory} is in a snapshot, which shares what it takes; name a directory of the volume", ExitCode.USAGE
        )
    from disfs.metadata.usage import usage_below

    found = usage_below(daemon.state_directory / METADATA_NAME, inode)
    if as_json:
        entries = [asdict(entry) | {"name": os.fsdecode(entry.name)} for entry in found]
        click.echo(json.dumps(entries, indent=2))
        return
    for line in usage_lines(found):
        click.echo(line)


def usage_lines(found: Sequence[Usage]) -> Iterator[str]:
    """A table for people, with the sum. Pure."""
    yield f"{'size':>10}  {'stored':>10}  {'garbage':>10}  name"
    for entry in found:
        name = printable(os.fsdecode(entry.name)) + ("/" if entry.is_directory else "")
        unsent = f", {human_count(entry.unsent_chunks, 'chunk')} to send" if entry.unsent_chunks else ""
        files = f"  ({human_count(entry.file_count, 'file')}{unsent})" if entry.is_directory or unsent else ""
        yield f"{_row(entry.logical_bytes, entry.stored_bytes, entry.garbage_bytes)}  {name}{files}"
    logical, stored, garbage = (
        sum(getattr(entry, field) for entry in found) for field in ("logical_bytes", "stored_bytes", "garbage_bytes")
    )
    yield f"{_row(logical, stored, garbage)}  in all ({human_count(sum(e.file_count for e in found), 'file')})"


def _row(*sizes: int) -> str:
    return "  ".join(f"{human_size(size):>10}" for size in sizes)
