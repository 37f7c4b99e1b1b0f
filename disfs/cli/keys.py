"""`disfs passwd` and `disfs key`: other ways into a volume that is there. The volume key itself never changes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from disfs.cli.completion import volumes_and_mountpoints
from disfs.cli.exits import complain
from disfs.cli.fsck import access_of, volume_of
from disfs.cli.making import ask_discord
from disfs.cli.secrets import PASSPHRASE_VARIABLE, ask_passphrase, find_passphrase
from disfs.cli.unlock import read_key_file, unlock, volume_key
from disfs.config import Paths, load_volume, save_volume, volume_names
from disfs.errors import ExitCode, UserError
from disfs.private_files import read_secret, unusable, write_text

if TYPE_CHECKING:
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.stack import Connection
    from disfs.config import VolumeConfig
    from disfs.superblock import Superblock

_TARGET = click.argument(
    "target", metavar="[VOLUME-OR-MOUNTPOINT]", required=False, shell_complete=volumes_and_mountpoints
)
_VOLUME = click.option(
    "--volume",
    "target",
    metavar="VOLUME-OR-MOUNTPOINT",
    shell_complete=volumes_and_mountpoints,
    help="Which volume. [default: the only one]",
)
_PASSPHRASE_FILE = click.option(
    "--passphrase-file", type=click.Path(path_type=Path), help="A file with the passphrase that holds now."
)
_KEY_FILE = click.option("--key-file", type=click.Path(path_type=Path), help="A key file, instead of the passphrase.")


@click.command(short_help="Change the passphrase of a volume.")
@_TARGET
@_PASSPHRASE_FILE
@_KEY_FILE
@click.option("--new-passphrase-file", type=click.Path(path_type=Path), help="A file with the new passphrase.")
@click.option("--fetch", is_flag=True, help="Take over a passphrase that was changed on another machine.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the bot token on its first line.")
def passwd(
    target: str | None,
    fetch: bool,
    passphrase_file: Path | None,
    key_file: Path | None,
    new_passphrase_file: Path | None,
    token_file: Path | None,
) -> None:
    """Change the passphrase of a volume, mounted or not; nothing is encrypted anew.

    The superblock in Discord is replaced by one that opens with the new passphrase: it is sent and read back before the
    old one is deleted. Each machine that knows the volume has a copy of the superblock, which opens with the old
    passphrase until it is replaced there too, by --fetch.

    \b
    Examples:
        disfs passwd
        disfs passwd photos --new-passphrase-file ~/new
    """
    paths = Paths.from_environment(os.environ)
    volume = _chosen(paths, target)
    if fetch:
        _take_over(paths, volume, passphrase_file, token_file)
        return
    key = volume_key(volume, passphrase_file, key_file)
    new = (
        read_secret(new_passphrase_file, "new passphrase", ExitCode.NO_PASSPHRASE)
        if new_passphrase_file
        else ask_passphrase(
            volume.name, confirm=True, what="New passphrase", instead="name a file with --new-passphrase-file"
        )
    )
    superblock = _rewrapped(volume.superblock, key, new)
    _replace_in_discord(paths, volume, superblock, key, token_file)
    save_volume(paths, dataclasses.replace(volume, superblock=superblock))
    kept = volume.passphrase_file
    if kept is not None and kept == paths.passphrase_file(volume.name):
        write_text(kept, new + "\n")
    elif kept is not None:
        complain(f"{kept} still holds the old passphrase; write the new one into it, for the next mount")
    if os.environ.get(PASSPHRASE_VARIABLE):
        complain(f"{PASSPHRASE_VARIABLE} still holds the old passphrase; set the new one, for the next mount")
    click.echo(f"volume {volume.name!r} opens with the new passphrase from now on")


@click.group()
def key() -> None:
    """Keep a volume's key in a file that opens it without the passphrase."""


@key.command("export", short_help="Write the volume's key into a file.")
@click.argument("file", type=click.Path(path_type=Path))
@_VOLUME
@_PASSPHRASE_FILE
def export(file: Path, target: str | None, passphrase_file: Path | None) -> None:
    """Write the key of a volume into FILE, which must not exist; it is text, for a stick or for paper.

    Whoever has the file can read the volume, whatever its passphrase is or becomes. 'disfs mount --key-file' and
    'disfs recover --key-file' take it instead of the passphrase.

    \b
    Example:
        disfs key export /media/stick/photos.key --volume photos
    """
    from disfs.chunkstore.key_file import key_file_text

    paths = Paths.from_environment(os.environ)
    volume = _chosen(paths, target)
    if file.exists() or file.is_symlink():
        raise UserError(f"{file} exists; name a file that does not", ExitCode.USAGE)
    text = key_file_text(volume.superblock.volume_id, volume_key(volume, passphrase_file))
    try:
        # Not write_text, which replaces: between the look and the writing somebody may have made it.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError as error:
        raise UserError(f"{file} exists; name a file that does not", ExitCode.USAGE) from error
    except OSError as error:
        raise unusable(error, file) from error
    click.echo(f"the key of volume {volume.name!r} is in {file}; who has it can read the volume")


@key.command("import", short_help="Let this machine open the volume by a key file.")
@click.argument("file", type=click.Path(path_type=Path))
@_VOLUME
def import_(file: Path, target: str | None) -> None:
    """Keep the key in FILE on this machine, readable for you alone: mounts then need no passphrase.

    It counts from the next mount on, and before a passphrase file that is kept. Removing the copy, 'volumes/NAME.key'
    in the configuration directory, together with the line 'key_file' in 'NAME.toml', undoes it.

    \b
    Example:
        disfs key import /media/stick/photos.key --volume photos
    """
    from disfs.chunkstore.key_file import key_file_text

    paths = Paths.from_environment(os.environ)
    volume = _chosen(paths, target)
    kept = paths.key_file(volume.name)
    if kept.exists() and volume.key_file is not None:
        raise UserError(f"{kept} exists already; remove it first if it is to be replaced", ExitCode.USAGE)
    found = read_key_file(volume.superblock, file)
    write_text(kept, key_file_text(volume.superblock.volume_id, found))
    save_volume(paths, dataclasses.replace(volume, key_file=kept))
    click.echo(f"volume {volume.name!r} opens with the key in {kept} from now on")


def _take_over(paths: Paths, volume: VolumeConfig, passphrase_file: Path | None, token_file: Path | None) -> None:
    """Keep the superblock that is in force, once it opened with its passphrase. WRONG_PASSPHRASE, VOLUME_DAMAGED."""
    from disfs.volume import find_superblock

    found = ask_discord(
        access_of(paths, volume, token_file), lambda discord: find_superblock(discord.transport, volume.index_channel)
    )
    if found is None or found.volume_id != volume.superblock.volume_id:
        raise UserError(
            f"the superblock of volume {volume.name!r} is not in Discord; 'disfs fsck {volume.name}' says more",
            ExitCode.VOLUME_DAMAGED,
        )
    passphrase = find_passphrase(passphrase_file) or ask_passphrase(volume.name, confirm=False)
    unlock(found, passphrase)
    kept = paths.passphrase_file(volume.name)
    save_volume(paths, dataclasses.replace(volume, superblock=found))
    if volume.passphrase_file == kept:
        write_text(kept, passphrase + "\n")
    click.echo(f"volume {volume.name!r} opens here with the passphrase that it was given elsewhere")


def _chosen(paths: Paths, target: str | None) -> VolumeConfig:
    """The volume that is meant. NO_SUCH_VOLUME, USAGE when it is not clear which."""
    if target is not None:
        return volume_of(paths, target)
    names = volume_names(paths)
    if len(names) > 1:
        raise UserError(f"there are several volumes; name one: {', '.join(names)}", ExitCode.USAGE)
    if not names:
        raise UserError("there is no volume on this machine; make one with 'disfs setup'", ExitCode.NO_SUCH_VOLUME)
    return load_volume(paths, names[0])


def _rewrapped(superblock: Superblock, key: VolumeKey, passphrase: str) -> Superblock:
    """The same with another passphrase, which is tried before anything depends on it."""
    from disfs.chunkstore.keys import wrap

    new = dataclasses.replace(superblock, wrapped_key=wrap(key, passphrase).to_bytes())
    assert unlock(new, passphrase) == key
    return new


def _replace_in_discord(
    paths: Paths, volume: VolumeConfig, new: Superblock, key: VolumeKey, token_file: Path | None
) -> None:
    from disfs.new_superblock import replace_superblock
    from disfs.recovery.admission import refusal
    from disfs.recovery.assembly import place_here
    from disfs.recovery.lease_look import held_elsewhere

    place = place_here(paths.volume_state(volume.name))

    async def replace(discord: Connection) -> None:
        holder = await held_elsewhere(discord.transport, volume.index_channel, key, volume.superblock.volume_id, place)
        if holder is not None:
            raise UserError(refusal(volume.name, holder), ExitCode.VOLUME_HELD)
        await replace_superblock(discord.transport, volume.index_channel, new)

    ask_discord(access_of(paths, volume, token_file), replace)
