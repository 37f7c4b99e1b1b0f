"""What the bot may do, as the settings say: in the guild, and less in single channels."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from disfs.emulator.errors import missing_access, missing_permissions

if TYPE_CHECKING:
    from disfs.emulator.settings import Settings


class Permission(enum.IntFlag):
    """The bits that the emulator asks for, as Discord numbers them."""

    ADMINISTRATOR = 1 << 3
    """Everything, whatever a channel denies."""
    MANAGE_CHANNELS = 1 << 4
    VIEW_CHANNEL = 1 << 10
    SEND_MESSAGES = 1 << 11
    MANAGE_MESSAGES = 1 << 13
    ATTACH_FILES = 1 << 15
    READ_MESSAGE_HISTORY = 1 << 16


def may(settings: Settings, channel: int | None, wanted: Permission) -> bool:
    """Whether the bot has all of `wanted` in the channel of that id, or in the guild."""
    if settings.permissions & Permission.ADMINISTRATOR:
        return True
    denied = settings.denied.get(str(channel), 0)
    return settings.permissions & ~denied & wanted == wanted


def require(settings: Settings, channel: int | None, wanted: Permission) -> None:
    """Raise `ApiError` unless the bot has `wanted`: 50001 for what it does not even see, 50013 for the rest."""
    if channel is not None and not may(settings, channel, Permission.VIEW_CHANNEL):
        raise missing_access()
    if not may(settings, channel, wanted):
        raise missing_permissions()
