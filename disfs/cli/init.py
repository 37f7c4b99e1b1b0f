"""`disfs init`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from disfs.cli.connect import discord_access, emulator_access
from disfs.cli.making import NewVolumeRequest, ask_discord, make_volume
from disfs.cli.passphrases import make_passphrase
from disfs.cli.secrets import ask_passphrase, find_passphrase
from disfs.config import Paths, check_volume_name, load_global
from disfs.errors import ExitCode, UserError
from disfs.private_files import write_text
from disfs.superblock import DEFAULT_DATA_CHANNELS, MAX_DATA_CHANNELS
from disfs.values import GuildId

if TYPE_CHECKING:
    from disfs.cli.connect import Access

DEFAULT_NAME = "discord"
EMULATOR_NAME = "emulator"


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
    token_file, passphrase_file = absolute(token_file), absolute(passphrase_file)
    config = load_global(paths)
    access = emulator_access(paths) if emulator else discord_access(config, token_file=token_file, api_url=None)
    wanted_guild = GuildId(guild) if guild else access.guild
    _check_access(access, wanted_guild)
    passphrase, passphrase_file = _passphrase(paths, name, passphrase_file, generate=emulator)
    wanted = NewVolumeRequest(
        name,
        wanted_guild,
        channels,
        passphrase,
        emulator=emulator,
        token_file=token_file,
        passphrase_file=passphrase_file,
    )
    placed = make_volume(paths, config, access, wanted)
    click.echo(f"volume {name!r} is ready in the server {placed.guild.name!r}; 'disfs mount MOUNTPOINT' mounts it")


def _check_access(access: Access, guild: GuildId | None) -> None:
    """Find out about a wrong token or guild before a passphrase is thought up and typed twice."""
    from disfs.volume import find_guild

    ask_discord(access, lambda discord: find_guild(discord.admin, guild))


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
    made = make_passphrase()
    write_text(kept, made + "\n")
    click.echo(f"passphrase of volume {name!r}: {made}  (kept in {kept}; shown only now)")
    return made, kept


def absolute(path: Path | None) -> Path | None:
    """As it is to be remembered, whatever directory a later command runs in."""
    return path.expanduser().absolute() if path is not None else None
