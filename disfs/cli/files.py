"""`disfs ls` and `disfs history`."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import click

from disfs.cli.daemons import daemon_of_path, daemons_of_files
from disfs.cli.undelete import line_of, printable
from disfs.config import Paths, load_volume
from disfs.control.client import ControlClient
from disfs.control.protocol import MAX_INODES
from disfs.errors import ExitCode, UserError
from disfs.quantities import human_count, human_size
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from disfs.cli.daemons import RunningDaemon

_DISCORD_EPOCH_MS = 1_420_070_400_000
_SHOWN_MESSAGES = 10
_WORDS = {"local": "not sent", "uploading": "uploading", "discord": "in Discord", "damaged": "damaged"}
_KEYS = ("state", "sent_percent", "cached_percent", "pinned")


@click.command(short_help="List files, and where the contents of each are.")
@click.argument("path", default=".", type=click.Path())
@click.option("-l", "long", is_flag=True, help="With mode, size and time.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def ls(path: str, long: bool, as_json: bool) -> None:
    """List a directory, or one file, with the state of each: not sent, uploading and how far, in Discord, or damaged;
    how much of it can be read without Discord; and whether it is pinned.

    \b
    Examples:
        disfs ls ~/discord/photos
        disfs ls -l ~/discord | grep -v 'in Discord'
    """
    ((daemon, _),) = daemons_of_files(Paths.from_environment(os.environ), [path])
    entries = _entries(path)
    for first in range(0, len(entries), MAX_INODES):
        page = entries[first : first + MAX_INODES]
        with ControlClient.connect(daemon.state_directory) as client:
            states = client.states([InodeNumber(inode) for _, inode, _ in page])
        for (name, _, where), state in zip(page, states, strict=True):
            if as_json:
                click.echo(json.dumps({"name": name, **dict(zip(_KEYS, state or [None] * 4, strict=True))}))
            else:
                click.echo(line(name, state, _long(where) if long else ""))


def _entries(path: str) -> list[tuple[str, int, str]]:
    """(name, inode, path) of each name in a directory, in order; of what is none, its own."""
    try:
        with os.scandir(path) as found:
            return sorted((entry.name, entry.inode(), entry.path) for entry in found)
    except NotADirectoryError:
        return [(path, os.stat(path).st_ino, path)]  # noqa: PTH116 - the argument as it was written
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file or directory of a mount", ExitCode.USAGE) from error


def _long(path: str) -> str:
    try:
        found = os.lstat(path)
    except OSError:  # it went meanwhile
        return f"{'?':<10} {'?':>10} {'?':<16} "
    when = datetime.datetime.fromtimestamp(found.st_mtime).astimezone()
    return f"{stat.filemode(found.st_mode)} {human_size(found.st_size):>10} {when:%Y-%m-%d %H:%M} "


def line(name: str, state: Sequence[Any] | None, before: str = "") -> str:
    """One entry, for people. Pure."""
    where, sent, cached, pinned = state or (None, None, None, False)
    text = "-" if where is None else _WORDS.get(where, where)
    if sent:
        text += f" {sent} %"
    kept = "" if cached is None else "cached" if cached == 100 else f"{cached} %" if cached else "-"
    return f"{text:<14} {kept:<6} {'pinned' if pinned else '':<6} {before}{printable(name)}"


@click.command(short_help="Show what happened to a file.")
@click.argument("path", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def history(path: str, as_json: bool) -> None:
    """Show what is known of a file: when it was written, when its contents were sent, in which messages they lie, and
    which other versions there are in the trash and in snapshots.

    \b
    Example:
        disfs history ~/discord/notes.txt
    """
    ((daemon, (inode, *_)),) = daemons_of_files(Paths.from_environment(os.environ), [path])
    with ControlClient.connect(daemon.state_directory) as client:
        found = client.history(inode)
    told = {
        **found,
        "messages": [_message(daemon, *place) for place in found.pop("places")],
        "trash": [*_trashed(path, found["path"])],
        "snapshots": [*_in_snapshots(daemon, found["path"])],
    }
    told["state"] = dict(zip(_KEYS, found["state"] or [None] * 4, strict=True))
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for text in history_lines(told, os.stat(path)):  # noqa: PTH116 - the argument as it was written
        click.echo(text)


def history_lines(told: Mapping[str, Any], found: os.stat_result) -> Iterator[str]:
    """It for people. Pure."""
    yield f"{'file':<9} {printable(told['path'])}, {human_size(found.st_size)}"
    yield f"{'written':<9} {_time(found.st_mtime)}"
    yield f"{'changed':<9} {_time(found.st_ctime)} (name, owner, mode or attributes; contents too)"
    yield f"{'state':<9} {' '.join(line('', [told['state'][key] for key in _KEYS]).split())}"
    messages = told["messages"][-_SHOWN_MESSAGES:]
    for message in messages:
        yield f"{'sent':<9} {message['sent']}  {human_count(message['chunks'], 'chunk')}  {message['place']}"
    if told["message_count"] > len(messages):
        yield f"{'':<9} and {told['message_count'] - len(messages)} older messages; --json lists up to a thousand"
    for entry in told["trash"]:
        yield f"{'trash':<9} {line_of(entry).strip()}"
    for snapshot in told["snapshots"]:
        yield (
            f"{'snapshot':<9} {snapshot['name']}: {human_size(snapshot['size_bytes'])}, "
            f"written {_time(snapshot['mtime_ns'] / 1e9)}"
        )


def _time(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"


def _message(daemon: RunningDaemon, channel: int, message: int, chunks: int) -> dict[str, object]:
    """When a message was sent, which its number says, and where it is."""
    volume = load_volume(Paths.from_environment(os.environ), daemon.volume)
    link = f"https://discord.com/channels/{volume.guild}/{channel}/{message}"
    return {
        "channel_id": str(channel),
        "message_id": str(message),
        "chunks": chunks,
        "sent": _time(((message >> 22) + _DISCORD_EPOCH_MS) / 1000),
        # The emulator has no pages to look at.
        "place": f"message {message} in channel {channel} of the emulator" if volume.emulator else link,
    }


def _trashed(path: str, inside: str) -> Iterator[Mapping[str, Any]]:
    """Older versions of what has this path, from the trash."""
    daemon, directory, rest = daemon_of_path(Paths.from_environment(os.environ), path)
    after = None
    while True:
        with ControlClient.connect(daemon.state_directory) as client:
            page = client.trash(directory, rest, after)
        yield from (entry for entry in page["entries"] if entry["path"] == inside)
        after = page["after"]
        if after is None:
            return


def _in_snapshots(daemon: RunningDaemon, inside: str) -> Iterator[Mapping[str, Any]]:
    """What has this path in snapshots."""
    with ControlClient.connect(daemon.state_directory) as client:
        names = [str(snapshot["name"]) for snapshot in client.snapshots()]
    for name in names:
        with contextlib.suppress(OSError):
            found = os.lstat(f"{daemon.mountpoint}/.snapshots/{name}{inside}")
            yield {"name": name, "size_bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
