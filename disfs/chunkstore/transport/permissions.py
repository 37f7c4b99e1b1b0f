"""Discord's permissions: which of them disfs needs, what they are called, and what a bot has in a channel. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from disfs.values import ChannelId


class Permission(enum.IntFlag):
    """The bits that matter here, as Discord numbers them."""

    ADMINISTRATOR = 1 << 3
    MANAGE_CHANNELS = 1 << 4
    VIEW_CHANNEL = 1 << 10
    SEND_MESSAGES = 1 << 11
    MANAGE_MESSAGES = 1 << 13
    ATTACH_FILES = 1 << 15
    READ_MESSAGE_HISTORY = 1 << 16


NAMES = {
    Permission.VIEW_CHANNEL: "View Channels",
    Permission.MANAGE_CHANNELS: "Manage Channels",
    Permission.SEND_MESSAGES: "Send Messages",
    Permission.ATTACH_FILES: "Attach Files",
    Permission.READ_MESSAGE_HISTORY: "Read Message History",
    Permission.MANAGE_MESSAGES: "Manage Messages",
}
"""As Discord's own settings call them."""
IN_CHANNELS = (
    Permission.VIEW_CHANNEL | Permission.SEND_MESSAGES | Permission.ATTACH_FILES | Permission.READ_MESSAGE_HISTORY
)
"""Without these nothing works in a channel; without Manage Messages deleting is slow."""
NEEDED = IN_CHANNELS | Permission.MANAGE_CHANNELS | Permission.MANAGE_MESSAGES
"""What the invitation asks for."""


@dataclass(frozen=True, slots=True)
class Overwrite:
    """What a channel allows and denies to a role or a member, over what they have in the guild."""

    subject: int
    allow: int
    deny: int


@dataclass(frozen=True, slots=True)
class Granted:
    """What the bot may do, as bits: in the guild as a whole, and in each of its channels."""

    guild: int
    channels: Mapping[ChannelId, int] = field(default_factory=dict)


def missing_names(granted: int, wanted: int = NEEDED) -> list[str]:
    """The names of those of `wanted` that are not granted, in the order of Discord's settings."""
    return [name for permission, name in NAMES.items() if permission & wanted & ~granted]


def in_guild(roles: Mapping[int, int], everyone: int, own_roles: Iterable[int]) -> int:
    """What a member has in a guild: `roles` are bits by role id, `everyone` the id of the role that all have."""
    bits = roles.get(everyone, 0)
    for role in own_roles:
        bits |= roles.get(role, 0)
    return ~0 if bits & Permission.ADMINISTRATOR else bits


def in_channel(bits: int, everyone: int, own_roles: Iterable[int], user: int, overwrites: Iterable[Overwrite]) -> int:
    """What a member with `bits` in the guild has in a channel: its overwrites for all, for roles, for the member."""
    if bits & Permission.ADMINISTRATOR:
        return ~0
    by_subject = {overwrite.subject: overwrite for overwrite in overwrites}
    for group in ([everyone], [role for role in own_roles if role != everyone], [user]):
        found = [by_subject[subject] for subject in group if subject in by_subject]
        for overwrite in found:
            bits &= ~overwrite.deny
        for overwrite in found:
            bits |= overwrite.allow
    return bits


def invite_url(application: int) -> str:
    """Where somebody who may manage a server adds the bot to it, with exactly the permissions that are needed."""
    return f"https://discord.com/oauth2/authorize?client_id={application}&scope=bot&permissions={int(NEEDED)}"
