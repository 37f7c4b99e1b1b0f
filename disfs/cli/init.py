"""`disfs init`."""

from __future__ import annotations

import dataclasses
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

from disfs.cli.connect import discord_access, emulator_access
from disfs.cli.secrets import ask_passphrase, find_passphrase
from disfs.config import Paths, VolumeConfig, check_volume_name, load_global, save_global, save_volume
from disfs.errors import ExitCode, UserError
from disfs.private_files import write_text
from disfs.superblock import DEFAULT_DATA_CHANNELS, MAX_DATA_CHANNELS
from disfs.values import GuildId
from disfs.volume_state import VolumeLock

if TYPE_CHECKING:
    from disfs.cli.connect import Access
    from disfs.config import GlobalConfig
    from disfs.volume import NewVolume, PlacedVolume

DEFAULT_NAME = "discord"
EMULATOR_NAME = "emulator"
_WORD_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without characters that look alike, so that a passphrase can be copied from paper: 31 of them, 24 make 118 bits."""


@click.command(short_help="Make a volume in a Discord server.")
@click.argument("name", required=False)
@click.option("--guild", type=click.IntRange(1), help="The server's id. [default: the only one the bot is in]")
@click.option(
    "--channels",
    type=click.IntRange(1, MAX_DATA_CHANNELS),
    default=DEFAULT_DATA_CHANNELS,
    show_default=True,
    help="How many data channels.",
)
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the bot token on its first line.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="A file with the passphrase.")
@click.option("--emulator", is_flag=True, help="In the emulator of this machine instead of Discord.")
def init(
    name: str | None,
    guild: int | None,
    channels: int,
    token_file: Path | None,
    passphrase_file: Path | None,
    emulator: bool,
) -> None:
    """Make a volume called NAME: a category with its channels in a server, and its state on this machine.

    It can be repeated when it was interrupted. The token comes from DISFS_TOKEN, --token-file, the configuration, or a
    prompt; the passphrase from DISFS_PASSPHRASE, --passphrase-file, or a prompt. Without the passphrase nobody reads
    the volume again: keep it.

    \b
    Examples:
        disfs init photos
        disfs init work --guild 123456789012345678 --channels 8
    """
    paths = Paths.from_environment(os.environ)
    name = check_volume_name(name or (EMULATOR_NAME if emulator else DEFAULT_NAME))
    if paths.volume_file(name).exists():
        raise UserError(
            f"there is a volume {name!r} on this machine already; mount it, or choose another name",
            ExitCode.VOLUME_EXISTS,
        )
    from disfs.local_volume import check_room

    token_file, passphrase_file = _absolute(token_file), _absolute(passphrase_file)
    config = load_global(paths)
    access = emulator_access(paths) if emulator else discord_access(config, token_file=token_file, api_url=None)
    wanted_guild = GuildId(guild) if guild else access.guild
    _check_access(access, wanted_guild)
    passphrase, passphrase_file = _passphrase(paths, name, passphrase_file, generate=emulator)
    paths.make_volume_directories(name)
    check_room(paths.volume_state(name))
    lock = VolumeLock.acquire(paths.volume_state(name), name)
    try:
        wanted = _NewVolumeRequest(name, wanted_guild, channels, passphrase)
        placed = _place(wanted, access)
        _keep(paths, config, access, placed, emulator=emulator, token_file=token_file, passphrase_file=passphrase_file)
    finally:
        lock.release()
    click.echo(f"volume {name!r} is ready in the server {placed.guild.name!r}; 'disfs mount MOUNTPOINT' mounts it")


@dataclasses.dataclass(frozen=True, slots=True)
class _NewVolumeRequest:
    """What was asked for on the command line."""

    name: str
    guild: GuildId | None
    channels: int
    passphrase: str = dataclasses.field(repr=False)

    def new_volume(self) -> NewVolume:
        """The same with a fresh volume key, wrapped."""
        from disfs.chunkstore.keys import VolumeKey, wrap
        from disfs.volume import NewVolume

        wrapped = wrap(VolumeKey.generate(), self.passphrase).to_bytes()
        return NewVolume(self.name, wrapped, self.guild, self.channels)


def _check_access(access: Access, guild: GuildId | None) -> None:
    """Find out about a wrong token or guild before a passphrase is thought up and typed twice."""
    import trio

    from disfs.chunkstore.transport.stack import open_connection
    from disfs.volume import find_guild

    async def check() -> None:
        async with open_connection(access.token, api_url=access.api_url) as connection:
            await find_guild(connection.admin, guild)

    trio.run(check)


def _place(wanted: _NewVolumeRequest, access: Access) -> PlacedVolume:
    """Make the volume in Discord; an adopted one must open with the passphrase that was given now."""
    import trio

    from disfs.chunkstore.transport.stack import open_connection
    from disfs.cli.unlock import unlock
    from disfs.volume import place_volume

    new = wanted.new_volume()

    async def place() -> PlacedVolume:
        async with open_connection(access.token, api_url=access.api_url) as connection:
            return await place_volume(connection.admin, connection.transport, new)

    placed = trio.run(place)
    if placed.adopted:
        unlock(placed.superblock, wanted.passphrase)
    return placed


def _keep(
    paths: Paths,
    config: GlobalConfig,
    access: Access,
    placed: PlacedVolume,
    *,
    emulator: bool,
    token_file: Path | None,
    passphrase_file: Path | None,
) -> None:
    """Write down what this machine must know. The volume's own file comes last: with it the volume exists."""
    from disfs.local_volume import make_metadata

    name = placed.superblock.name
    make_metadata(paths.volume_state(name), placed.superblock)
    if access.token_asked:
        save_global(paths, dataclasses.replace(config, token=access.token))
    volume = VolumeConfig(
        name=name,
        guild=placed.guild.guild,
        category=placed.category,
        index_channel=placed.index_channel,
        superblock=placed.superblock,
        emulator=emulator,
        api_url=None if emulator else access.api_url,
        token_file=token_file,
        passphrase_file=passphrase_file,
    )
    save_volume(paths, volume)


def _passphrase(paths: Paths, name: str, given: Path | None, *, generate: bool) -> tuple[str, Path | None]:
    """The passphrase, and the file to find it in at the next mount, if it lies in one."""
    kept = paths.passphrase_file(name)
    file = given or (kept if kept.exists() else None)
    known = find_passphrase(file)
    if known is not None:
        return known, None if os.environ.get("DISFS_PASSPHRASE") else file
    if not generate:
        return ask_passphrase(name, confirm=True), None
    # Kept before anything is made with it: after a crash in between, the next attempt finds the same one.
    made = "-".join("".join(secrets.choice(_WORD_ALPHABET) for _ in range(6)) for _ in range(4))
    write_text(kept, made + "\n")
    click.echo(f"passphrase of volume {name!r}: {made}  (kept in {kept}; shown only now)")
    return made, kept


def _absolute(path: Path | None) -> Path | None:
    return path.expanduser().absolute() if path is not None else None
