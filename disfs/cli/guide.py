"""The steps of the guided set-up of a guild: the bot, the server, the volume, its passphrase.

Each step checks with a request what it was told, says what is wrong and asks again. Nothing is made or kept before
`make` and `bring`; what a step raises is a person who gave up (`click.Abort`, KeyboardInterrupt) or a bug.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from disfs.chunkstore.transport.permissions import invite_url, missing_names
from disfs.cli import dialog
from disfs.cli.connect import discord_access
from disfs.cli.exits import explain
from disfs.cli.init import DEFAULT_NAME
from disfs.cli.making import ask_discord, keep_token, make_volume
from disfs.cli.passphrases import LEAST_CHARACTERS, make_passphrase
from disfs.cli.recover import bring_back, refuse_existing
from disfs.cli.secrets import TOKEN_VARIABLE, clean_token, find_passphrase
from disfs.cli.unlock import unlock
from disfs.config import VolumeConfig, check_volume_name, load_global
from disfs.errors import DisfsError, ExitCode, TokenRejectedError, UserError
from disfs.volume import find_volumes, is_unused, lacking_in_channels

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import Account, Application, Guild
    from disfs.chunkstore.transport.stack import Connection
    from disfs.cli.connect import Access
    from disfs.cli.making import NewVolumeRequest
    from disfs.config import Paths
    from disfs.values import GuildId
    from disfs.volume import PlacedVolume

STEPS = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line said already; what is None is asked for."""

    name: str | None = None
    guild: GuildId | None = None
    channels: int = 4
    token_file: Path | None = None
    passphrase_file: Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Bot:
    """A bot whose token Discord takes."""

    access: Access
    application: Application


def meet_bot(paths: Paths, wishes: Wishes) -> Bot:
    """Step 1: a token that Discord takes, from where one is, else typed in."""
    dialog.title(f"Step 1 of {STEPS}: a bot")
    access = _known_access(paths, wishes)
    if access is None:
        dialog.say(
            "disfs writes to your server as a bot of your own.\n"
            "- Open https://discord.com/developers/applications and choose New Application; any name will do.\n"
            "- Choose Bot at the left, then Reset Token. Discord shows the token once: copy it.\n"
            "- Nothing else is needed there, no privileged intent either."
        )
    while True:
        access = access or _asked_access(paths)
        if access is not None:
            try:
                account, application = ask_discord(access, _who)
            except DisfsError as error:
                if isinstance(error, TokenRejectedError) and (os.environ.get(TOKEN_VARIABLE) or wishes.token_file):
                    raise  # whatever was typed in here, the mount would take that one
                dialog.failed(error)
                if isinstance(error, TokenRejectedError):
                    access = None
                else:
                    dialog.wait_for_enter("to try again.")
            else:
                dialog.passed(f"Discord knows the bot {account.name!r}")
                return Bot(access, application)


async def _who(discord: Connection) -> tuple[Account, Application]:
    return await discord.admin.account(), await discord.admin.application()


def _known_access(paths: Paths, wishes: Wishes) -> Access | None:
    config = load_global(paths)
    if not (os.environ.get(TOKEN_VARIABLE) or wishes.token_file or config.token or config.token_file):
        return None
    return discord_access(config, token_file=wishes.token_file, api_url=None)


def _asked_access(paths: Paths) -> Access | None:
    """None for what cannot be a token."""
    try:
        token = clean_token(dialog.ask_hidden("Bot token"))
    except UserError as error:
        dialog.failed(error)
        return None
    # What stands in config.toml was rejected or is missing; everything else there counts.
    config = dataclasses.replace(load_global(paths), token=token)
    return dataclasses.replace(discord_access(config, token_file=None, api_url=None), token=token, token_asked=True)


def meet_guild(bot: Bot, wishes: Wishes) -> Guild:
    """Step 2: a server that the bot is in, with the permissions that it needs."""
    dialog.title(f"Step 2 of {STEPS}: the bot joins your server")
    link = invite_url(bot.application.application_id)
    told = False
    while True:
        try:
            guilds = ask_discord(bot.access, lambda discord: discord.admin.guilds())
            if wishes.guild is not None:
                guilds = [guild for guild in guilds if guild.guild == wishes.guild]
            if not guilds:
                _say_how_to_invite(link, told=told)
                told = True
            else:
                guild = guilds[0] if len(guilds) == 1 else _chosen_guild(guilds)
                if _has_permissions(bot, guild, link):
                    return guild
        except DisfsError as error:
            dialog.failed(error)
        dialog.wait_for_enter("when it is done.")


def _has_permissions(bot: Bot, guild: Guild, link: str) -> bool:
    granted = ask_discord(bot.access, lambda discord: discord.admin.permissions(guild.guild))
    names = missing_names(granted.guild)
    if not names:
        dialog.passed(f"it is in the server {guild.name!r}, with all permissions that it needs")
        return True
    dialog.failed(_lacking(names, f"in the server {guild.name!r}"))
    dialog.say(
        "Server Settings, Roles, the bot's role, Permissions: switch them on.\n"
        f"Or open the invitation again, which asks for them:\n{link}"
    )
    return False


def _say_how_to_invite(link: str, *, told: bool) -> None:
    if told:
        dialog.failed(UserError("the bot is in no server yet; open this link and confirm", ExitCode.UNKNOWN_GUILD))
        dialog.say(link)
        return
    dialog.say(
        "Open this link, choose your server (+ in Discord makes a new one, which is best), and confirm.\n"
        f"{link}\n"
        "It asks for these permissions and no others: View Channels, Manage Channels, Send Messages,\n"
        "Attach Files, Read Message History, Manage Messages."
    )


def _lacking(names: list[str], where: str) -> UserError:
    word = "permission" if len(names) == 1 else "permissions"
    return UserError(f"{where} the bot lacks the {word} {', '.join(names)}", ExitCode.MISSING_PERMISSION)


def _chosen_guild(guilds: list[Guild]) -> Guild:
    dialog.say("The bot is in several servers.")
    return guilds[dialog.choose("Which one?", [guild.name for guild in guilds]) - 1]


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Which volume it is to be."""

    name: str
    placed: PlacedVolume | None = None
    """One that the server has and this machine has not; None for a new one."""
    is_unused: bool = False
    """An interrupted set-up left it: nothing but its superblock is there."""


def choose_volume(paths: Paths, bot: Bot, guild: Guild, wishes: Wishes) -> Choice:
    """Step 3: a new volume, or one that is in the server already."""
    dialog.title(f"Step 3 of {STEPS}: the volume")
    while True:
        try:
            found = ask_discord(bot.access, lambda discord: _volumes_there(discord, guild))
            break
        except DisfsError as error:
            dialog.failed(error)
            dialog.wait_for_enter("to try again.")
    absent = [each for each in found if not paths.volume_file(each.name).exists()]
    if absent:
        options = [_offer(each) for each in absent]
        dialog.say("The server holds volumes already.")
        chosen = dialog.choose("What shall it be?", [*options, "make a new volume"])
        if chosen <= len(absent):
            return absent[chosen - 1]
    return Choice(_new_name(paths, {each.name for each in found}, wishes))


async def _volumes_there(discord: Connection, guild: Guild) -> list[Choice]:
    found = await find_volumes(discord.admin, discord.transport, guild)
    return [Choice(each.superblock.name, each, await is_unused(discord.transport, each)) for each in found]


def _offer(choice: Choice) -> str:
    assert choice.placed is not None
    if choice.is_unused:
        return f"finish the volume {choice.name!r}, which an interrupted set-up left"
    return f"bring the volume {choice.name!r} (made {choice.placed.superblock.created[:10]}) to this machine"


def _new_name(paths: Paths, taken: set[str], wishes: Wishes) -> str:
    proposed = wishes.name
    while True:
        name = proposed or dialog.ask("Name of the new volume", default=DEFAULT_NAME)
        proposed = None
        try:
            check_volume_name(name)
            if name in taken or paths.volume_file(name).exists():
                raise UserError(f"there is a volume {name!r} already; choose another name", ExitCode.VOLUME_EXISTS)
        except UserError as error:
            dialog.failed(error)
            continue
        last = wishes.channels
        dialog.say(
            f"In the server this makes a category 'disfs {name}' with the channels index and data-1 to data-{last}.\n"
            "Only the bot writes there. You may hide the category from others, but not from the bot."
        )
        if dialog.agree("Shall it be so?"):
            return name


def new_passphrase(wishes: Wishes) -> str:
    """Step 4, for a new volume: a passphrase that whoever chose it has typed twice."""
    dialog.title(f"Step 4 of {STEPS}: the passphrase")
    known = find_passphrase(wishes.passphrase_file)
    if known is not None:
        dialog.passed("it comes from where you said")
        return known
    dialog.say(
        "Everything is encrypted before it leaves this machine. Without the passphrase nobody reads it again:\n"
        "not Discord, not disfs, not you on another machine. Write it down and keep it elsewhere."
    )
    if dialog.choose("Which passphrase?", ["a new one, made up for you", "one of your own"]) == 2:
        return _own_passphrase()
    made = make_passphrase()
    dialog.say(f"\n{made}\n")
    while dialog.ask("Write it down, then type it") != made:
        dialog.failed(UserError("that is not the same; compare it word by word", ExitCode.WRONG_PASSPHRASE))
    return made


def _own_passphrase() -> str:
    while True:
        first = dialog.ask_hidden("Passphrase")
        if len(first) < LEAST_CHARACTERS:
            problem = f"that is easily guessed; take {LEAST_CHARACTERS} characters or more"
        elif dialog.ask_hidden("Once more") != first:
            problem = "the two are not the same; try again"
        else:
            return first
        dialog.failed(UserError(problem, ExitCode.WRONG_PASSPHRASE))


def known_passphrase(placed: PlacedVolume, wishes: Wishes) -> tuple[str, VolumeKey]:
    """Step 4, for a volume that exists: the passphrase that opens it, and the key.

    WRONG_PASSPHRASE when the one of a file or of DISFS_PASSPHRASE does not: the mount would take that one again.
    """
    dialog.title(f"Step 4 of {STEPS}: the passphrase")
    given = find_passphrase(wishes.passphrase_file)
    while True:
        passphrase = given or dialog.ask_hidden(f"Passphrase of volume {placed.superblock.name!r}")
        try:
            key = unlock(placed.superblock, passphrase)
        except UserError as error:
            if given:
                raise
            dialog.failed(error)
        else:
            dialog.passed("it opens the volume")
            return passphrase, key


def where_to_keep(paths: Paths, name: str, wishes: Wishes) -> Path | None:
    """Where the passphrase is found from now on; None when each mount shall ask."""
    if wishes.passphrase_file is not None:
        return wishes.passphrase_file
    dialog.say("Kept on this machine, readable for you alone, it need not be typed at each mount.")
    return paths.passphrase_file(name) if dialog.agree("Keep it?") else None


def make(paths: Paths, bot: Bot, wanted: NewVolumeRequest) -> None:
    """Make the volume; what Discord refuses is said, with the channel, and tried again."""
    placed: PlacedVolume | None = None
    while True:
        # Before as well: in a channel that cannot be read a volume that is there already would not be seen.
        if placed is None and _channels_are_open(bot, wanted):
            try:
                placed = make_volume(paths, load_global(paths), bot.access, wanted)
            except DisfsError as error:
                known = explain(error)
                if known.exit_code in _HOPELESS:
                    raise
                dialog.failed(known)
        if placed is not None and _channels_are_open(bot, wanted):
            dialog.passed(f"volume {wanted.name!r} is ready in the server {placed.guild.name!r}")
            return
        dialog.wait_for_enter("to try again.")


_HOPELESS = {ExitCode.STATE_FULL, ExitCode.STATE_UNUSABLE, ExitCode.VOLUME_EXISTS, ExitCode.VOLUME_BUSY}


def _channels_are_open(bot: Bot, wanted: NewVolumeRequest) -> bool:
    """Whether the bot may do in the volume's channels what it must; says where it may not."""
    guild = wanted.guild
    assert guild is not None
    try:
        lacking = ask_discord(bot.access, lambda discord: lacking_in_channels(discord.admin, guild, wanted.name))
    except DisfsError as error:
        dialog.failed(error)
        return False
    for channel, names in lacking.items():
        dialog.failed(_lacking(names, f"in the channel #{channel}"))
    if lacking:
        dialog.say("The settings of that channel or its category, Permissions: let the bot's role have them there.")
    return not lacking


def bring(
    paths: Paths,
    bot: Bot,
    placed: PlacedVolume,
    key: VolumeKey,
    *,
    token_file: Path | None,
    passphrase_file: Path | None,
) -> None:
    """Rebuild a volume of the server on this machine. Errors as of `disfs recover`."""
    name = placed.superblock.name
    refuse_existing(paths.volume_state(name), name)
    keep_token(paths, load_global(paths), bot.access)
    volume = VolumeConfig(
        name,
        placed.guild.guild,
        placed.category,
        placed.index_channel,
        placed.superblock,
        api_url=bot.access.api_url,
        token_file=token_file,
        passphrase_file=passphrase_file,
    )
    bring_back(paths, bot.access, volume, key)
