"""What `disfs doctor` asks Discord: is it there, does it take the token, and may the bot do what each volume needs."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from disfs import local_emulator
from disfs.chunkstore.transport.permissions import IN_CHANNELS, Permission, invite_url, missing_names
from disfs.cli.checks import fail, ok, warn
from disfs.cli.connect import API_URL_VARIABLE, Access, check_url
from disfs.cli.exits import explain
from disfs.cli.making import ask_discord
from disfs.cli.secrets import find_token
from disfs.errors import DisfsError, NotFoundError, UserError
from disfs.logs import redact
from disfs.quantities import human_duration, human_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disfs.chunkstore.transport.base import GuildAdmin
    from disfs.chunkstore.transport.stack import Connection
    from disfs.cli.checks import Check
    from disfs.config import GlobalConfig, Paths, VolumeConfig

GOOD_CLOCK_SECONDS = 30.0
"""A clock that is further off makes download addresses seem valid that are not, and ends seem other than they are."""
TOPIC = "discord"


def discord_checks(paths: Paths, config: GlobalConfig, volumes: list[VolumeConfig]) -> Iterator[Check]:
    """Once for each Discord and bot that a volume lives with, then for each volume."""
    by_access: dict[tuple[str, str | None], tuple[Access, list[VolumeConfig]]] = {}
    for volume in volumes:
        try:
            access = _access(paths, config, volume)
        except UserError as error:
            yield fail(TOPIC, str(error))
            continue
        if access is None:
            yield _without_access(volume)
        else:
            by_access.setdefault((access.token, access.api_url), (access, []))[1].append(volume)
    if not volumes and (token := find_token(config, None)):
        url = check_url(os.environ.get(API_URL_VARIABLE) or config.api_url)
        by_access[token, url] = Access(token, url), []
    for access, concerned in by_access.values():
        try:
            yield from ask_discord(access, functools.partial(_ask, volumes=concerned))
        except DisfsError as error:
            yield fail(TOPIC, redact(str(explain(error))))


def _access(paths: Paths, config: GlobalConfig, volume: VolumeConfig) -> Access | None:
    """As a mount would find it, but nobody is asked and nothing is started."""
    if volume.emulator:
        info = local_emulator.running(paths.emulator_state)
        return None if info is None else Access(info.token, info.api_url, info.guild)
    token = find_token(config, volume.token_file)
    url = check_url(os.environ.get(API_URL_VARIABLE) or volume.api_url or config.api_url)
    return None if token is None else Access(token, url)


def _without_access(volume: VolumeConfig) -> Check:
    if volume.emulator:
        return ok(TOPIC, f"volume {volume.name!r} is in the emulator, which runs when it is mounted")
    return warn(TOPIC, f"no token for volume {volume.name!r} is kept here; set DISFS_TOKEN to have it checked")


async def _ask(discord: Connection, volumes: list[VolumeConfig]) -> list[Check]:
    admin = discord.admin
    account, application = await admin.account(), await admin.application()
    found = [ok(TOPIC, f"it answers, and knows the bot {account.name!r}"), await _clock(admin)]
    for volume in volumes:
        try:
            found += await _volume(admin, volume)
        except NotFoundError:
            link = invite_url(application.application_id)
            found.append(
                fail(
                    "guild", f"the bot is not in the guild {volume.guild} of volume {volume.name!r}; invite it: {link}"
                )
            )
    return found


async def _clock(admin: GuildAdmin) -> Check:
    ahead = await admin.clock_ahead_seconds()
    if abs(ahead) <= GOOD_CLOCK_SECONDS:
        return ok("clock", "it agrees with Discord's")
    direction = "ahead of" if ahead > 0 else "behind"
    return warn(
        "clock",
        f"it is {human_duration(abs(ahead))} {direction} Discord's; 'timedatectl set-ntp true' lets it be set",
    )


async def _volume(admin: GuildAdmin, volume: VolumeConfig) -> list[Check]:
    guild = await admin.guild(volume.guild)
    granted = await admin.permissions(volume.guild)
    names = {info.channel: info.name for info in await admin.channels(volume.guild)}
    limit = human_size(guild.attachment_limit_bytes)
    found = [ok("guild", f"volume {volume.name!r} is in the server {guild.name!r}, which takes attachments of {limit}")]
    lacking: list[Check] = []
    for channel in (volume.index_channel, *volume.superblock.data_channels):
        if channel not in names:
            lacking.append(
                fail("channels", f"a channel of volume {volume.name!r} is gone ({channel}); 'disfs fsck {volume.name}'")
            )
            continue
        where = f"in the channel #{names[channel]} of volume {volume.name!r} the bot lacks"
        missing = missing_names(granted.channels.get(channel, 0), int(IN_CHANNELS))
        if missing:
            hint = "give them to the bot's role in the settings of the channel, Permissions"
            lacking.append(fail("channels", f"{where} {', '.join(missing)}; {hint}"))
        elif missing_names(granted.channels.get(channel, 0), int(Permission.MANAGE_MESSAGES)):
            lacking.append(warn("channels", f"{where} Manage Messages; without it deleting is slow"))
    return [*found, *(lacking or [ok("channels", f"the bot may do all it must in those of volume {volume.name!r}")])]
