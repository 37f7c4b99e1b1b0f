"""`disfs delete-volume`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from disfs.cli.completion import volumes
from disfs.cli.exits import complain
from disfs.cli.fsck import access_of
from disfs.cli.making import ask_discord
from disfs.cli.secrets import interactive
from disfs.cli.unlock import volume_key
from disfs.config import Paths, load_global, load_volume, save_global
from disfs.errors import ExitCode, NotFoundError, PermissionMissingError, UserError
from disfs.private_files import explained
from disfs.volume_state import VolumeLock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import ChannelInfo
    from disfs.chunkstore.transport.stack import Connection
    from disfs.cli.connect import Access
    from disfs.config import VolumeConfig


@click.command("delete-volume", short_help="Delete a volume for good, in Discord and here.")
@click.argument("name", shell_complete=volumes)
@click.option("--yes", "confirmed", metavar="NAME", help="The name once more: deletes without a question.")
@click.option(
    "--without-key", is_flag=True, help="The passphrase is lost: do not look whether it is mounted elsewhere."
)
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="A file with the passphrase.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the bot token on its first line.")
def delete_volume(
    name: str,
    confirmed: str | None,
    without_key: bool,
    passphrase_file: Path | None,
    token_file: Path | None,
) -> None:
    """Delete the volume NAME: its channels with all messages, then what this machine has of it. Nothing brings it back.

    It is refused while the volume is mounted, here or elsewhere; to see the latter takes the passphrase. What was
    interrupted is finished by the same command.

    \b
    Examples:
        disfs delete-volume photos
        disfs delete-volume photos --yes photos
    """
    paths = Paths.from_environment(os.environ)
    volume = load_volume(paths, name)
    if confirmed is None and not interactive():
        raise UserError(
            f"nobody is there to be asked; add --yes {name} to delete it without a question", ExitCode.USAGE
        )
    if confirmed is not None and confirmed != name:
        raise UserError(f"--yes says {confirmed!r}, and the volume is {name!r}; give its name twice", ExitCode.USAGE)
    paths.make_volume_directories(name)
    lock = VolumeLock.acquire(paths.volume_state(name), name)
    try:
        access = access_of(paths, volume, token_file)
        key = None if without_key else volume_key(volume, passphrase_file)
        channels = ask_discord(access, lambda discord: _channels_to_delete(discord, paths, volume, key))
        for line in _plan(paths, volume, channels):
            click.echo(line, err=True)
        if confirmed is None and click.prompt("Type the volume's name to delete it", err=True) != name:
            raise UserError("that is another name; nothing was deleted", ExitCode.USAGE)
        _delete_in_discord(access, channels)
        _delete_here(paths, volume)
    finally:
        lock.release()
    click.echo(f"volume {name!r} is deleted")


def _plan(paths: Paths, volume: VolumeConfig, channels: list[ChannelInfo]) -> Iterator[str]:
    """What is about to go, for people. Pure."""
    names = [f"#{info.name}" for info in channels if not info.is_category]
    yield f"volume {volume.name!r} is deleted, and nothing brings it back:"
    yield f"  in Discord: {', '.join(names) or 'nothing, its channels are gone'}, with all messages"
    state, cache = paths.volume_state(volume.name), paths.volume_cache(volume.name)
    yield f"  on this machine: {state} and {cache}, with what is not sent"
    yield f"  and {paths.volume_file(volume.name)}, with the passphrase and the key if they are kept beside it"


async def _channels_to_delete(
    discord: Connection, paths: Paths, volume: VolumeConfig, key: VolumeKey | None
) -> list[ChannelInfo]:
    """Data channels, the index, and the category if nothing else is in it: in this order, so that it can be repeated.

    VOLUME_HELD.
    """
    try:
        present = {info.channel: info for info in await discord.admin.channels(volume.guild)}
    except NotFoundError:
        complain(f"the bot is not in the guild {volume.guild} any more; what is there of the volume stays there")
        return []
    if key is not None and volume.index_channel in present:
        await _refuse_if_mounted_elsewhere(discord, paths, volume, key)
    wanted = (*volume.superblock.data_channels, volume.index_channel)
    others = [info for info in present.values() if info.parent == volume.category and info.channel not in wanted]
    doomed = [present[channel] for channel in wanted if channel in present]
    if volume.category in present and not others:
        doomed.append(present[volume.category])
    return doomed


async def _refuse_if_mounted_elsewhere(discord: Connection, paths: Paths, volume: VolumeConfig, key: VolumeKey) -> None:
    from disfs.recovery.admission import refusal
    from disfs.recovery.assembly import place_here
    from disfs.recovery.lease_look import held_elsewhere

    place = place_here(paths.volume_state(volume.name))
    holder = await held_elsewhere(discord.transport, volume.index_channel, key, volume.superblock.volume_id, place)
    if holder is not None:
        raise UserError(refusal(volume.name, holder), ExitCode.VOLUME_HELD)


def _delete_in_discord(access: Access, channels: list[ChannelInfo]) -> None:
    async def delete(discord: Connection) -> None:
        for info in channels:
            await discord.admin.delete_channel(info.channel)

    try:
        ask_discord(access, delete)
    except PermissionMissingError as error:
        raise UserError(
            "the bot may not delete channels (Manage Channels); give it to the bot's role, or delete the volume's "
            "channels yourself, then repeat",
            ExitCode.MISSING_PERMISSION,
        ) from error


def _delete_here(paths: Paths, volume: VolumeConfig) -> None:
    """The volume's own file goes last: while it is there, the same command goes on."""
    for directory in (paths.volume_cache(volume.name), paths.volume_state(volume.name)):
        with explained(directory), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)
    config = load_global(paths)
    if config.default_volume == volume.name:
        save_global(paths, dataclasses.replace(config, default_volume=None))
    for file in (paths.passphrase_file(volume.name), paths.key_file(volume.name), paths.volume_file(volume.name)):
        with explained(file):
            file.unlink(missing_ok=True)
