"""The data channels: which one takes the next message, and which ones rest after a failure. No I/O.

A channel that failed for a passing reason is tried again after a pause that doubles; one that refuses us for good (it
was deleted, or made read-only) rests longer, and is tried again all the same: somebody may have put it right. The
others take over meanwhile.

A token that Discord rejects is the account's failure and no channel's: all of them refuse, and with the first one that
takes a message again nothing is wrong with the others either.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.errors import PermanentStorageError, TokenRejectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.errors import DisfsError
    from disfs.values import ChannelId

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class DataChannel:
    """One channel, and how it fares."""

    channel: ChannelId
    in_flight: int = 0
    """How many messages are on their way to it."""
    turn: int = 0
    """Rises with each message: the smallest was used longest ago."""
    failures: int = 0
    """How many sends in a row failed."""
    failure: str | None = None
    resting: bool = False
    """The failure was permanent."""
    of_account: bool = False
    """The failure says nothing about this very channel."""
    retry_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """One channel, for `disfs status`."""

    channel: ChannelId
    in_flight: int
    delay_seconds: float
    """When it could take a message, as far as Discord's rate limit goes."""
    failure: str | None
    retry_seconds: float
    """When it is tried again after the failure; 0 when it may be at once."""


class DataChannels:
    """All data channels of a volume."""

    def __init__(self, channels: Sequence[ChannelId], settings: ChunkStoreSettings) -> None:
        assert channels
        self._channels = [DataChannel(channel) for channel in channels]
        self._settings = settings
        self._turn = 0
        self.failure_count = 0
        """How many sends have failed in all."""

    @property
    def stopped(self) -> bool:
        """Whether every channel refuses us for good."""
        return all(channel.resting for channel in self._channels)

    @property
    def failures(self) -> tuple[str, ...]:
        """Why channels do not take data now, one line for each reason."""
        refusing: dict[str, list[DataChannel]] = {}
        for channel in self._channels:
            if channel.failure is not None:
                refusing.setdefault(channel.failure, []).append(channel)
        return tuple(_explained(reason, channels) for reason, channels in refusing.items())

    def statistics(self, now: float, delay_seconds: Callable[[ChannelId], float]) -> tuple[ChannelStatistics, ...]:
        """How each of them fares."""
        return tuple(
            ChannelStatistics(c.channel, c.in_flight, delay_seconds(c.channel), c.failure, max(0.0, c.retry_at - now))
            for c in self._channels
        )

    def best(self, now: float, delay_seconds: Callable[[ChannelId], float]) -> tuple[DataChannel, float] | None:
        """The channel that can take a message soonest, and in how many seconds; None when none can at all.

        Among equals one to which nothing is on its way, and of those the one that was used longest ago.
        """
        able = [(delay_seconds(c.channel), c.in_flight, c.turn, c) for c in self._channels if self._is_able(c, now)]
        if not able:
            return None
        delay, _, _, channel = min(able, key=lambda found: found[:3])
        return channel, delay

    def _is_able(self, channel: DataChannel, now: float) -> bool:
        # One message at a time finds out whether a channel works again.
        bound = self._settings.sends_per_channel if channel.failure is None else 1
        return channel.in_flight < bound and channel.retry_at <= now

    def retry_at(self, now: float) -> float:
        """When the next channel that rests may be tried again; inf when none does."""
        return min((c.retry_at for c in self._channels if c.retry_at > now), default=float("inf"))

    def began(self, channel: DataChannel) -> None:
        """A message is on its way there."""
        channel.in_flight += 1
        self._turn += 1
        channel.turn = self._turn

    def ended(self, channel: DataChannel) -> None:
        """That message arrived, or did not."""
        channel.in_flight -= 1

    def succeeded(self, channel: DataChannel) -> None:
        """The channel took a message."""
        if channel.failure is not None:
            log.info("channel %d takes data again", channel.channel)
        _recover(channel)
        for other in self._channels:
            if other.of_account:
                _recover(other)

    def retry_now(self) -> None:
        """Somebody wants to know now whether the channels that rest work again."""
        for channel in self._channels:
            channel.retry_at = float("-inf")

    def failed(self, channel: DataChannel, error: DisfsError, now: float) -> None:
        """The channel did not take a message: it rests for a while."""
        if channel.failure is None:
            log.warning("channel %d does not take data, what is unsent is kept: %s", channel.channel, error)
        self.failure_count += 1
        channel.failures += 1
        channel.failure = str(error)
        channel.resting = isinstance(error, PermanentStorageError)
        channel.of_account = isinstance(error, TokenRejectedError)
        pause = self._settings.rest_seconds if channel.resting else backoff_seconds(channel.failures, self._settings)
        channel.retry_at = now + pause


def _explained(reason: str, channels: Sequence[DataChannel]) -> str:
    """A reason, and which channels it holds for; the account's failure is not put down to any of them."""
    if any(channel.of_account for channel in channels):
        return reason
    word = "channel" if len(channels) == 1 else "channels"
    return f"{word} {', '.join(str(channel.channel) for channel in channels)}: {reason}"


def _recover(channel: DataChannel) -> None:
    channel.failures, channel.failure, channel.resting, channel.of_account = 0, None, False, False
    channel.retry_at = float("-inf")


def backoff_seconds(failures: int, settings: ChunkStoreSettings) -> float:
    """How long to wait after that many failures in a row."""
    return float(min(settings.backoff_limit_seconds, settings.backoff_seconds * 2.0 ** min(failures - 1, 20)))
