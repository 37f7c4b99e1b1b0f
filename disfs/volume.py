"""A volume's half in Discord: make its category, channels and superblock, and look whether it can be reached.

Making can be repeated after a crash at any point: what an earlier attempt made in the guild is
found by name and adopted. A guild that already holds a volume of this name *with data* is refused: adopting it
with empty metadata would make its contents garbage.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.transport.base import LIST_LIMIT, Upload
from disfs.chunkstore.transport.permissions import IN_CHANNELS, missing_names
from disfs.errors import ExitCode, NotFoundError, PermissionMissingError, StorageError, TokenRejectedError, UserError
from disfs.message_texts import data_topic, index_topic, superblock_text
from disfs.spans import DEFAULT_CHUNK_BYTES
from disfs.superblock import (
    ATTACHMENT_NAME,
    DEFAULT_DATA_CHANNELS,
    MAX_BYTES,
    NewerSuperblockError,
    Superblock,
    SuperblockError,
)
from disfs.values import Location, MessageId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disfs.chunkstore.transport.base import (
        ChannelInfo,
        Guild,
        GuildAdmin,
        StoredAttachment,
        StoredMessage,
        Transport,
    )
    from disfs.config import VolumeConfig
    from disfs.values import ChannelId, GuildId

log = logging.getLogger(__name__)

INDEX_NAME = "index"
CATEGORY_PREFIX = "disfs "
LOOK_SECONDS = 5.0
"""How long mounting waits for a first answer of Discord."""


@dataclass(frozen=True, slots=True)
class NewVolume:
    """What a volume is to be like."""

    name: str
    wrapped_key: bytes = field(repr=False)
    guild: GuildId | None = None
    """None: the only guild that the bot is in."""
    data_channel_count: int = DEFAULT_DATA_CHANNELS
    chunk_bytes: int = DEFAULT_CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class PlacedVolume:
    """A volume that exists in a guild."""

    guild: Guild
    category: ChannelId
    index_channel: ChannelId
    superblock: Superblock
    adopted: bool
    """An earlier attempt had sent the superblock already."""


@dataclass(frozen=True, slots=True)
class _Channels:
    category: ChannelInfo
    index: ChannelInfo
    data: tuple[ChannelInfo, ...]


async def place_volume(admin: GuildAdmin, transport: Transport, new: NewVolume) -> PlacedVolume:
    """Make the volume in the guild, or finish what an earlier attempt began.

    An earlier attempt's superblock, and so its wrapped key, wins over `new`. The superblock is read back before this
    returns: what it says is in Discord. UNKNOWN_GUILD, VOLUME_EXISTS, VOLUME_DAMAGED, MISSING_PERMISSION; storage
    errors as of `GuildAdmin` and `Transport`.
    """
    guild = await find_guild(admin, new.guild)
    channels = await _make_channels(admin, guild.guild, new)
    found = await find_superblock(transport, channels.index.channel)
    if found is not None:
        await _refuse_volume_in_use(transport, channels, found, new.name)
        superblock = found
    else:
        superblock = Superblock(
            volume_id=os.urandom(16),
            name=new.name,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            chunk_bytes=new.chunk_bytes,
            data_channels=tuple(info.channel for info in channels.data),
            wrapped_key=new.wrapped_key,
        )
        await send_superblock(transport, channels.index.channel, superblock)
    return PlacedVolume(guild, channels.category.channel, channels.index.channel, superblock, found is not None)


async def find_guild(admin: GuildAdmin, wanted: GuildId | None) -> Guild:
    """The guild that was named, or the only one that the bot is in. UNKNOWN_GUILD."""
    if wanted is not None:
        try:
            return await admin.guild(wanted)
        except NotFoundError as error:
            raise UserError(
                f"the bot is in no guild {wanted}; check the number (Copy Server ID in its menu) and invite the bot",
                ExitCode.UNKNOWN_GUILD,
            ) from error
    guilds = await admin.guilds()
    if not guilds:
        raise UserError("the bot is in no guild; invite it to your server first", ExitCode.UNKNOWN_GUILD)
    if len(guilds) > 1:
        listed = ", ".join(f"{guild.guild} ({guild.name})" for guild in guilds[:10])
        raise UserError(f"the bot is in several guilds; choose one with --guild: {listed}", ExitCode.UNKNOWN_GUILD)
    return guilds[0]


async def _make_channels(admin: GuildAdmin, guild: GuildId, new: NewVolume) -> _Channels:
    """The volume's category and channels; those that exist under their names are taken as they are."""
    present = await admin.channels(guild)
    names = names_of_category(new.name)
    categories = sorted(
        (info for info in present if info.is_category and info.name in names), key=lambda info: info.channel
    )
    category = categories[0] if categories else await admin.create_category(guild, names[0])
    inside = {info.name: info for info in present if info.parent == category.channel and not info.is_category}

    async def channel(name: str, topic: str) -> ChannelInfo:
        found = inside.get(name)
        if found is None:
            return await admin.create_channel(guild, name, parent=category.channel, topic=topic)
        if not found.topic:
            await _say_above(admin, found, topic)
        return found

    index = await channel(INDEX_NAME, index_topic(new.name))
    topic = data_topic(new.name)
    data = [await channel(f"data-{number}", topic) for number in range(1, new.data_channel_count + 1)]
    return _Channels(category, index, tuple(data))


async def _say_above(admin: GuildAdmin, channel: ChannelInfo, topic: str) -> None:
    """Give a channel that somebody else made its topic; without Manage Channels it stays as it is."""
    try:
        await admin.set_topic(channel.channel, topic)
    except PermissionMissingError as error:
        log.info("the channel %s has no topic: %s", channel.name, error)


async def find_superblock(transport: Transport, index_channel: ChannelId) -> Superblock | None:
    """The superblock in an index channel: the oldest one, as nothing comes before it. VOLUME_DAMAGED if unreadable."""
    position = MessageId(0)
    while True:
        listed = await transport.list_messages(index_channel, after=position)
        for message in reversed(listed):
            for attachment in message.attachments:
                if attachment.name == ATTACHMENT_NAME:
                    return await _fetch_superblock(transport, message, attachment)
        if len(listed) < LIST_LIMIT:
            return None
        # Somebody deleted the first one: a check may have sent it again, behind journals.
        position = listed[0].message


async def _fetch_superblock(transport: Transport, message: StoredMessage, attachment: StoredAttachment) -> Superblock:
    if attachment.size_bytes > MAX_BYTES:
        raise _damaged(f"it is {attachment.size_bytes} bytes long")
    location = Location(message.channel, message.message, attachment.attachment)
    return _parse(await transport.fetch(location, 0, attachment.size_bytes))


def _parse(raw: bytes) -> Superblock:
    try:
        return Superblock.from_json(raw)
    except NewerSuperblockError as error:
        raise UserError(
            f"the volume's superblock in Discord cannot be used: {error}; use a newer disfs", ExitCode.VOLUME_DAMAGED
        ) from error
    except SuperblockError as error:
        raise _damaged(str(error)) from error


def _damaged(problem: str) -> UserError:
    return UserError(
        f"the volume's superblock in Discord cannot be used: {problem}; delete that message and run "
        "'disfs fsck --repair' on a machine that knows the volume, or choose another name for a new one",
        ExitCode.VOLUME_DAMAGED,
    )


async def _refuse_volume_in_use(transport: Transport, channels: _Channels, found: Superblock, name: str) -> None:
    """Raise VOLUME_EXISTS unless what was found is what an interrupted init leaves: a superblock and no data."""
    if await _holds_data(transport, channels.index.channel, found):
        raise UserError(
            f"the guild already holds a volume {name!r} with data; 'disfs recover {name}' brings it to this "
            "machine, or choose another name for the new one",
            ExitCode.VOLUME_EXISTS,
        )


async def _holds_data(transport: Transport, index_channel: ChannelId, superblock: Superblock) -> bool:
    """Whether anything of a volume is in Discord beside its superblock. What people wrote there is not."""
    index_messages = await transport.list_messages(index_channel)
    if any(message.attachments and not _holds_superblock(message) for message in index_messages):
        return True
    for channel in superblock.data_channels:
        if any(message.attachments for message in await _list_if_there(transport, channel)):
            return True
    return False


async def _list_if_there(transport: Transport, channel: ChannelId) -> list[StoredMessage]:
    try:
        return await transport.list_messages(channel)
    except NotFoundError as error:
        raise _damaged(f"its data channel {channel} is gone") from error


def _holds_superblock(message: StoredMessage) -> bool:
    return any(attachment.name == ATTACHMENT_NAME for attachment in message.attachments)


async def send_superblock(transport: Transport, index_channel: ChannelId, superblock: Superblock) -> None:
    """Send it and read it back: a bot may send without being allowed to read, and would notice at recovery only."""
    upload = Upload(ATTACHMENT_NAME, (superblock.to_json().encode("utf-8"),))
    await transport.send(
        index_channel,
        [upload],
        nonce=f"sb{superblock.volume_id.hex()[:20]}",
        content=superblock_text(superblock.name),
    )
    stored = await find_superblock(transport, index_channel)
    if stored is None:
        raise UserError(
            "the bot lacks the permission Read Message History; give it to the bot's role in the server settings",
            ExitCode.MISSING_PERMISSION,
        )
    if stored != superblock:
        raise UserError(
            "somebody else made a volume of this name at the same time; repeat with another name",
            ExitCode.VOLUME_EXISTS,
        )


async def find_volume(
    admin: GuildAdmin, transport: Transport, name: str, guild: GuildId | None, category: ChannelId | None
) -> PlacedVolume:
    """The volume of that name in a guild, or in any that the bot is in; `category` chooses among several.

    NO_SUCH_VOLUME, UNKNOWN_GUILD, USAGE when there are several, VOLUME_DAMAGED when its superblock is unreadable or
    another volume's.
    """
    guilds = await admin.guilds() if guild is None else [await find_guild(admin, guild)]
    places = [
        (place, info, index)
        for place in guilds
        for info, index in _index_channels(await admin.channels(place.guild), name, category)
    ]
    found = []
    for place, info, index in places:
        superblock = await find_superblock(transport, index.channel)
        if superblock is not None:
            found.append(PlacedVolume(place, info.channel, index.channel, superblock, adopted=True))
    if not found:
        raise UserError(
            f"there is no volume {name!r} in {_named(guilds)}; a category 'disfs {name}' with a channel "
            f"'{INDEX_NAME}' and a superblock in it was looked for (--category names one that was renamed)",
            ExitCode.NO_SUCH_VOLUME,
        )
    if len(found) > 1:
        listed = ", ".join(
            f"{each.category} (server {each.guild.name!r}, made {each.superblock.created})" for each in found
        )
        raise UserError(
            f"there are {len(found)} volumes {name!r}; choose one with --category: {listed}", ExitCode.USAGE
        )
    if found[0].superblock.name != name:
        raise UserError(
            f"the superblock there is that of volume {found[0].superblock.name!r}, not of {name!r}; "
            f"recover it by its own name",
            ExitCode.VOLUME_DAMAGED,
        )
    return found[0]


async def find_volumes(admin: GuildAdmin, transport: Transport, guild: Guild) -> list[PlacedVolume]:
    """All volumes of a guild whose categories have the names that they were given; unreadable ones are left out."""
    present = await admin.channels(guild.guild)
    found = []
    for info in present:
        if info.is_category and info.name.startswith(CATEGORY_PREFIX):
            name = info.name.removeprefix(CATEGORY_PREFIX)
            for _, index in _index_channels(present, name, info.channel):
                with contextlib.suppress(UserError, StorageError):
                    superblock = await find_superblock(transport, index.channel)
                    if superblock is not None and superblock.name == name:
                        found.append(PlacedVolume(guild, info.channel, index.channel, superblock, adopted=True))
    return found


async def is_unused(transport: Transport, placed: PlacedVolume) -> bool:
    """Whether a volume is what an interrupted init leaves: a superblock and no data. VOLUME_DAMAGED."""
    return not await _holds_data(transport, placed.index_channel, placed.superblock)


async def lacking_in_channels(admin: GuildAdmin, guild: GuildId, name: str) -> dict[str, list[str]]:
    """What permissions the bot lacks in the channels of the volume `name`, by the names of these."""
    granted = await admin.permissions(guild)
    present = await admin.channels(guild)
    categories = {info.channel for info in present if info.is_category and info.name in names_of_category(name)}
    lacking = {
        info.name: missing_names(granted.channels.get(info.channel, 0), IN_CHANNELS)
        for info in present
        if info.parent in categories and not info.is_category
    }
    return {channel: names for channel, names in lacking.items() if names}


def names_of_category(name: str) -> tuple[str, str]:
    """What the category of a volume may be called; the first one is what a new one is called."""
    return CATEGORY_PREFIX + name, name


def _index_channels(
    present: list[ChannelInfo], name: str, category: ChannelId | None
) -> Iterator[tuple[ChannelInfo, ChannelInfo]]:
    """Categories that may be the volume's, each with its index channel."""
    for info in present:
        fits = info.channel == category if category is not None else info.name in names_of_category(name)
        if not info.is_category or not fits:
            continue
        for inside in present:
            if inside.parent == info.channel and inside.name == INDEX_NAME and not inside.is_category:
                yield info, inside


def _named(guilds: list[Guild]) -> str:
    return ", ".join(f"the server {guild.name!r}" for guild in guilds) or "any server: the bot is in none"


@dataclass(frozen=True, slots=True)
class Look:
    """What a first look at Discord showed."""

    attachment_bytes: int | None = None
    warning: str | None = None


async def look_at_discord(admin: GuildAdmin, volume: VolumeConfig) -> Look:
    """Ask Discord for the volume's guild. No answer is a warning: the volume works from what is here, and catches up.

    A token or a bot that Discord refuses is an error instead (TOKEN_REJECTED, MISSING_PERMISSION, UNKNOWN_GUILD): it
    cannot mend itself, and a mount would take in what can never be sent.
    """
    try:
        with trio.fail_after(LOOK_SECONDS):
            guild = await admin.guild(volume.guild)
    except TokenRejectedError as error:
        raise UserError(
            "Discord rejects the bot token; copy it again from the Developer Portal, what is unsent is kept meanwhile",
            ExitCode.TOKEN_REJECTED,
        ) from error
    except PermissionMissingError as error:
        raise UserError(
            f"the bot lacks the permission {error.permission}; give it to the bot's role in the server settings",
            ExitCode.MISSING_PERMISSION,
        ) from error
    except NotFoundError as error:
        raise UserError(
            f"the bot is not in the guild {volume.guild} of volume {volume.name!r} any more; invite it again",
            ExitCode.UNKNOWN_GUILD,
        ) from error
    except (trio.TooSlowError, StorageError) as error:
        reason = str(error) or "no answer in time"
        log.warning("Discord cannot be reached: %s", reason)
        return Look(warning=f"Discord cannot be reached ({reason}); mounted from local data, uploads follow later")
    return Look(attachment_bytes=guild.attachment_limit_bytes)
