"""From Discord's JSON to our values. Pure; an answer that lacks what its own documentation promises is an error."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from disfs.chunkstore.transport.base import (
    Account,
    Application,
    ChannelInfo,
    Guild,
    StoredAttachment,
    StoredMessage,
)
from disfs.chunkstore.transport.permissions import Granted, Overwrite, in_channel, in_guild
from disfs.errors import TransientStorageError
from disfs.values import AttachmentId, ChannelId, GuildId, MessageId

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT_CHANNEL = 0
_CATEGORY = 4
_MIB = 1024 * 1024
_LIMIT_OF_TIER = {0: 10 * _MIB, 1: 10 * _MIB, 2: 50 * _MIB, 3: 100 * _MIB}


@contextmanager
def _understood(what: str) -> Iterator[None]:
    """Something between Discord and us may answer in its stead; that passes."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TransientStorageError(f"Discord's answer is not {what}", maybe_done=True) from error


def list_of(raw: Any) -> list[Any]:
    """A listing, its members not yet looked at."""
    if not isinstance(raw, list):
        raise TransientStorageError("Discord's answer is not a list")
    return raw


def account_of(raw: Any) -> Account:
    """A user object."""
    with _understood("a user"):
        return Account(int(raw["id"]), str(raw["username"]))


def application_of(raw: Any) -> Application:
    """An application object."""
    with _understood("an application"):
        return Application(int(raw["id"]), str(raw["name"]))


def granted_of(guild: Any, member: Any, channels: Any) -> Granted:
    """What a member may do: the guild with its roles, the member, the guild's channels with their overwrites."""
    with _understood("a guild with its members and channels"):
        everyone, user = int(guild["id"]), int(member["user"]["id"])
        roles = {int(role["id"]): int(role["permissions"]) for role in guild["roles"]}
        own = [int(role) for role in member["roles"]]
        bits = in_guild(roles, everyone, own)
        inside = {
            ChannelId(int(channel["id"])): in_channel(bits, everyone, own, user, _overwrites_of(channel))
            for channel in channels
        }
        return Granted(bits, inside)


def _overwrites_of(channel: Any) -> list[Overwrite]:
    return [
        Overwrite(int(each["id"]), int(each["allow"]), int(each["deny"]))
        for each in channel.get("permission_overwrites") or ()
    ]


def message_of(raw: Any) -> StoredMessage:
    """A message object."""
    with _understood("a message"):
        return StoredMessage(
            ChannelId(int(raw["channel_id"])),
            MessageId(int(raw["id"])),
            str(raw["content"]),
            tuple(
                StoredAttachment(AttachmentId(int(a["id"])), str(a["filename"]), int(a["size"]))
                for a in raw["attachments"]
            ),
        )


def urls_of(raw: Any) -> list[tuple[AttachmentId, str, int]]:
    """The download addresses in a message object, with the attachments' sizes in bytes."""
    with _understood("a message"):
        return [(AttachmentId(int(a["id"])), str(a["url"]), int(a["size"])) for a in raw["attachments"]]


def guild_of(raw: Any) -> Guild:
    """A guild object. A listing of guilds leaves the boost tier out: then it counts as none."""
    with _understood("a guild"):
        tier = int(raw.get("premium_tier", 0))
        return Guild(GuildId(int(raw["id"])), str(raw["name"]), _LIMIT_OF_TIER.get(tier, _LIMIT_OF_TIER[0]))


def channel_of(raw: Any) -> ChannelInfo | None:
    """A channel object; None for what is neither a category nor a text channel."""
    with _understood("a channel"):
        if raw["type"] not in (_TEXT_CHANNEL, _CATEGORY):
            return None
        parent = raw.get("parent_id")
        return ChannelInfo(
            ChannelId(int(raw["id"])),
            str(raw["name"]),
            raw["type"] == _CATEGORY,
            ChannelId(int(parent)) if parent is not None else None,
            str(raw.get("topic") or ""),
        )
