"""What the write-back scheduler says of itself."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from disfs.chunkstore.channels import ChannelStatistics
    from disfs.values import ChannelId


class Waiting(enum.StrEnum):
    """Why no further message is being packed at this moment."""

    NOTHING_DIRTY = "everything is in Discord, or on its way there"
    NOT_DUE = "what is unsent waits to be quiet, or for company"
    PAUSED = "uploads are paused"
    ENOUGH_IN_FLIGHT = "enough is on its way"
    NO_CHANNEL = "every channel is busy or rests after a failure"
    RATE_LIMIT = "Discord's rate limit"
    FAILURE = "unsent data cannot be read at the moment"


@dataclass(frozen=True, slots=True)
class MessageInFlight:
    """A message on its way."""

    channel: ChannelId
    size_bytes: int
    seconds: float
    """Since when it is being sent."""


@dataclass(frozen=True, slots=True)
class WritebackStatistics:
    """For `disfs status`."""

    sending_bytes: int
    """Of the dirty bytes, those whose copy is on its way."""
    sent_bytes: int
    """Sealed bytes that Discord acknowledged."""
    sent_packs: int
    sent_messages: int
    attachment_limit_bytes: int
    """As far as it is known."""
    message_limit_bytes: int
    """How much a message carries now."""
    bytes_per_second: float | None
    """How fast uploads were lately; None before the first one."""
    in_flight: tuple[MessageInFlight, ...]
    paused: bool
    """Uploads were paused by somebody; writers wait at the dirty limit until they are resumed."""
    waiting_for: Waiting | None
    """Why nothing further is being packed; None while something is."""
    waiting_writers: int
    """How many writers wait for room."""
    failures: tuple[str, ...]
    """Why channels do not take data now, one line for each reason; empty when all is well."""
    channels: tuple[ChannelStatistics, ...]
    stopped: bool
    """No channel takes data, and trying again will not help until somebody changes something."""
