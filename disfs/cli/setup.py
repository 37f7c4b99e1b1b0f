"""`disfs setup`, and what `disfs mount` does at a terminal where nothing is set up: from nothing to a mounted volume.

With a terminal it leads through the steps of `guide`; without one it takes all from options and variables, and says
in one line which is missing. The mount itself is always the command `disfs mount`, in a process that takes the place
of this one: making a volume uses threads, and a daemon has to fork.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from disfs.cli import dialog
from disfs.cli.completion import directories
from disfs.cli.connect import discord_access
from disfs.cli.exits import INTERRUPTED, complain
from disfs.cli.init import DEFAULT_NAME, EMULATOR_NAME, absolute
from disfs.cli.secrets import PASSPHRASE_VARIABLE, find_passphrase, interactive
from disfs.config import Paths, check_volume_name, load_global
from disfs.errors import ExitCode, UserError
from disfs.mountpoint import check_fuse, check_mountpoint, resolve
from disfs.private_files import write_text
from disfs.superblock import DEFAULT_DATA_CHANNELS, MAX_DATA_CHANNELS
from disfs.values import GuildId

if TYPE_CHECKING:
    from disfs.cli.guide import Wishes

DEFAULT_MOUNTPOINT = "~/discord"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What is set up, and what the mount needs to find it."""

    mountpoint: Path
    volume: str
    emulator: bool = False
    passphrase: str | None = dataclasses.field(default=None, repr=False)
    """None where the mount finds it by itself."""


@click.command(short_help="From nothing to a mounted disk, step by step.")
@click.argument("mountpoint", required=False, type=click.Path(), shell_complete=directories)
@click.option("--emulator", is_flag=True, help="In the emulator of this machine instead of Discord.")
@click.option("--name", help="What the volume is called.  [default: discord]")
@click.option("--guild", type=click.IntRange(1), help="The server's id.  [default: the only one the bot is in]")
@click.option(
    "--channels",
    type=click.IntRange(1, MAX_DATA_CHANNELS),
    default=DEFAULT_DATA_CHANNELS,
    show_default=True,
    help="How many data channels.",
)
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the bot token on its first line.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="A file with the passphrase.")
def setup(
    mountpoint: str | None,
    emulator: bool,
    name: str | None,
    guild: int | None,
    channels: int,
    token_file: Path | None,
    passphrase_file: Path | None,
) -> None:
    """Set up a volume and mount it at MOUNTPOINT: bot, invitation, permissions, passphrase, each checked at once.

    It asks for what is not said, and makes nothing before it has asked. 'disfs mount' begins it by itself where nothing
    is set up. Without a terminal nothing is asked: MOUNTPOINT, and DISFS_TOKEN or --token-file, DISFS_PASSPHRASE or
    --passphrase-file are needed, or --emulator.

    \b
    Examples:
        disfs setup
        disfs setup ~/discord --name photos --token-file ~/token --passphrase-file ~/passphrase
    """
    from disfs.cli.guide import Wishes

    paths = Paths.from_environment(os.environ)
    wishes = Wishes(
        check_volume_name(name) if name else None,
        GuildId(guild) if guild else None,
        channels,
        absolute(token_file),
        absolute(passphrase_file),
    )
    if interactive():
        outcome = guided(paths, mountpoint, wishes, emulator=emulator)
    else:
        outcome = _unguided(paths, mountpoint, wishes, emulator=emulator)
    mount_it(outcome, [])


def guided(paths: Paths, mountpoint: str | None, wishes: Wishes, *, emulator: bool = False) -> Outcome:
    """Lead a person through the set-up. An interruption says what is left, and exits with 130."""
    setting_up = _SettingUp(paths)
    try:
        return setting_up.run(mountpoint, wishes, emulator=emulator)
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)
        complain(f"interrupted; {setting_up.left_behind()}")
        raise click.exceptions.Exit(INTERRUPTED) from None
    except BaseException:
        setting_up.left_behind()
        raise


class _SettingUp:
    """One run of the guided set-up, and what it has left behind so far."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._making: str | None = None
        self._made_directory: Path | None = None

    def left_behind(self) -> str:
        """Take away what is of no use without the rest, and say how to go on."""
        name = self._making
        is_ready = name is not None and self._paths.volume_file(name).exists()
        if self._made_directory is not None and not is_ready:
            with contextlib.suppress(OSError):
                self._made_directory.rmdir()
        if name is None:
            return "nothing was made or kept; 'disfs setup' begins again"
        if is_ready:
            return f"volume {name!r} is ready, 'disfs mount MOUNTPOINT --volume {name}' mounts it"
        with contextlib.suppress(OSError):
            self._paths.passphrase_file(name).unlink()
        return f"the server may hold a part of volume {name!r}; 'disfs setup' finds it and goes on with it"

    def run(self, mountpoint: str | None, wishes: Wishes, *, emulator: bool) -> Outcome:
        """All steps."""
        check_fuse(frozenset())
        click.secho("disfs: a Discord server as a disk", bold=True, err=True)
        if not emulator and wishes.token_file is None and wishes.guild is None:
            dialog.title("Where shall your files live?")
            places = [
                "in a Discord server of yours (some five minutes)",
                "in the emulator, a stand-in for Discord on this machine, to try it out (no account, a minute)",
            ]
            emulator = dialog.choose("Which?", places) == 2
        if emulator:
            dialog.title("The mount")
            return Outcome(self._mountpoint(mountpoint), wishes.name or EMULATOR_NAME, emulator=True)
        return self._guild(mountpoint, wishes)

    def _guild(self, mountpoint: str | None, wishes: Wishes) -> Outcome:
        from disfs.cli import guide
        from disfs.cli.making import NewVolumeRequest

        _show_terms()
        bot = guide.meet_bot(self._paths, wishes)
        guild = guide.meet_guild(bot, wishes)
        choice = guide.choose_volume(self._paths, bot, guild, wishes)
        name = choice.name
        if choice.placed is None:
            passphrase, key = guide.new_passphrase(wishes), None
        else:
            passphrase, key = guide.known_passphrase(choice.placed, wishes)
        dialog.title(f"Step 5 of {guide.STEPS}: the mount")
        path = self._mountpoint(mountpoint)
        kept = guide.where_to_keep(self._paths, name, wishes)
        self._making = name
        if kept == self._paths.passphrase_file(name):
            write_text(kept, passphrase + "\n")
        if choice.placed is None or choice.is_unused or key is None:
            placed = choice.placed
            wanted = NewVolumeRequest(
                name,
                guild.guild,
                len(placed.superblock.data_channels) if placed is not None else wishes.channels,
                passphrase,
                token_file=wishes.token_file,
                passphrase_file=kept,
            )
            guide.make(self._paths, bot, wanted)
        else:
            guide.bring(self._paths, bot, choice.placed, key, token_file=wishes.token_file, passphrase_file=kept)
        return Outcome(path, name, passphrase=None if kept else passphrase)

    def _mountpoint(self, given: str | None) -> Path:
        """An empty directory, made if need be and agreed."""
        while True:
            path = resolve(given or dialog.ask("Where shall it appear?", default=DEFAULT_MOUNTPOINT))
            given = None
            try:
                if offer_directory(path):
                    self._made_directory = path
                check_mountpoint(path)
            except UserError as error:
                dialog.failed(error)
            else:
                return path


def offer_directory(path: Path) -> bool:
    """Make a directory that is missing, if whoever is asked agrees; whether it was made. MOUNTPOINT_MISSING."""
    if os.path.lexists(path) or not dialog.agree(f"{path} does not exist. Make it?"):
        return False
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"cannot make {path}: {error.strerror}; choose another directory", ExitCode.MOUNTPOINT_MISSING
        ) from error
    return True


def _show_terms() -> None:
    dialog.say(
        "\nDiscord is not made for this, and may delete messages, the server or the bot at any time.\n"
        "Keep another copy of everything. The bot keeps to Discord's documented limits.\n"
        "Ctrl-C ends this at any time; nothing is made before you have been asked everything."
    )


def _unguided(paths: Paths, mountpoint: str | None, wishes: Wishes, *, emulator: bool) -> Outcome:
    """The same without a terminal. NO_TOKEN, NO_PASSPHRASE, UNKNOWN_GUILD and the like, with the option to use."""
    from disfs.cli.making import NewVolumeRequest, make_volume

    if mountpoint is None:
        raise UserError("there is no terminal to ask at; name the MOUNTPOINT", ExitCode.USAGE)
    path = resolve(mountpoint)
    check_mountpoint(path)
    check_fuse(frozenset())
    name = wishes.name or (EMULATOR_NAME if emulator else DEFAULT_NAME)
    if emulator:
        return Outcome(path, name, emulator=True)
    if paths.volume_file(name).exists():
        raise UserError(
            f"there is a volume {name!r} on this machine already; mount it, or choose another --name",
            ExitCode.VOLUME_EXISTS,
        )
    config = load_global(paths)
    access = discord_access(config, token_file=wishes.token_file, api_url=None)
    passphrase = find_passphrase(wishes.passphrase_file)
    if passphrase is None:
        raise UserError(
            f"no passphrase for volume {name!r}; set {PASSPHRASE_VARIABLE}, or name a file with --passphrase-file",
            ExitCode.NO_PASSPHRASE,
        )
    wanted = NewVolumeRequest(
        name,
        wishes.guild,
        wishes.channels,
        passphrase,
        token_file=wishes.token_file,
        passphrase_file=wishes.passphrase_file,
    )
    make_volume(paths, config, access, wanted)
    return Outcome(path, name, passphrase=passphrase)


def mount_it(outcome: Outcome, options: list[str]) -> NoReturn:
    """Become `disfs mount` of what was set up, with its `options`."""
    dialog.say(
        f"Next: copy files to {outcome.mountpoint}; 'disfs status' shows what is on its way;\n"
        f"'disfs umount {outcome.mountpoint}' returns when everything is in Discord."
    )
    arguments = ["mount", str(outcome.mountpoint), "--volume", outcome.volume, *options]
    if outcome.emulator:
        arguments.append("--emulator")
    if outcome.passphrase is not None:
        arguments += ["--passphrase-file", f"/dev/fd/{_readable(outcome.passphrase)}"]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "disfs", *arguments])  # noqa: S606 - ourselves, no shell


def _readable(secret: str) -> int:
    """A descriptor from which the next program reads it: it stands in no argument list, no environment and no file."""
    reader, writer = os.pipe()
    os.write(writer, secret.encode() + b"\n")
    os.close(writer)
    os.set_inheritable(reader, True)
    return reader
