"""Which channel takes the next message, and how long one rests that did not."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from disfs.chunkstore.channels import DataChannels
from disfs.chunkstore.settings import ChunkStoreSettings
from disfs.errors import PermissionMissingError, TokenRejectedError, TransientStorageError
from disfs.values import ChannelId

if TYPE_CHECKING:
    from disfs.chunkstore.channels import DataChannel

FIRST, SECOND, THIRD = (ChannelId(number) for number in (1, 2, 3))
SETTINGS = ChunkStoreSettings(sends_per_channel=2, backoff_seconds=1.0, backoff_limit_seconds=30.0, rest_seconds=100.0)
FLAKY = TransientStorageError("the network", maybe_done=True)
REFUSED = PermissionMissingError("403", "Attach Files")


def no_delay(channel: ChannelId) -> float:
    """No rate limit holds anything back."""
    return 0.0


def best(channels: DataChannels, now: float = 0.0) -> DataChannel:
    """The channel that takes the next message; there must be one."""
    found = channels.best(now, no_delay)
    assert found is not None
    return found[0]


def used(channels: DataChannels, count: int) -> list[ChannelId]:
    """Where so many messages go that are on their way all at once."""
    chosen = []
    for _ in range(count):
        channel = best(channels)
        channels.began(channel)
        chosen.append(channel.channel)
    return chosen


def test_messages_spread_over_channels() -> None:
    """A second message goes to a channel only when every other one is busy, and a third one never."""
    channels = DataChannels([FIRST, SECOND, THIRD], SETTINGS)
    assert [FIRST, SECOND, THIRD, FIRST, SECOND, THIRD] == used(channels, 6)
    assert channels.best(0.0, no_delay) is None


def test_shortest_rate_limit_wins() -> None:
    """The channel that lets a message through first is chosen, with the time that this takes."""
    channels = DataChannels([FIRST, SECOND, THIRD], SETTINGS)
    delays = {FIRST: 3.0, SECOND: 1.0, THIRD: 2.0}
    found = channels.best(0.0, lambda channel: delays[channel])
    assert found is not None
    assert (SECOND, 1.0) == (found[0].channel, found[1])


def test_failing_channel_rests_ever_longer() -> None:
    """After each failure in a row the pause doubles, up to its limit; a success ends it."""
    channels = DataChannels([FIRST], SETTINGS)
    channel = best(channels)
    pauses = []
    for _ in range(7):
        channels.failed(channel, FLAKY, 10.0)
        pauses.append(channels.retry_at(10.0) - 10.0)
    assert [1, 2, 4, 8, 16, 30, 30] == pauses
    assert channels.best(39.9, no_delay) is None
    assert best(channels, 40.0) is channel
    assert not channels.stopped
    channels.succeeded(channel)
    assert () == channels.failures
    assert best(channels, 10.0) is channel


def test_one_message_finds_out_whether_a_channel_works_again() -> None:
    """A channel that failed gets one message at a time until one arrives."""
    channels = DataChannels([FIRST], SETTINGS)
    channel = best(channels)
    channels.failed(channel, FLAKY, 0.0)
    channels.began(best(channels, 2.0))
    assert channels.best(2.0, no_delay) is None
    channels.ended(channel)
    channels.succeeded(channel)
    assert [FIRST, FIRST] == used(channels, 2)


def test_refusals_of_all_stop() -> None:
    """Only when every channel refuses for good there is no point in waiting; each is tried again after its rest."""
    channels = DataChannels([FIRST, SECOND], SETTINGS)
    seen = []
    for now in (0.0, 50.0):
        channel = best(channels)
        channels.failed(channel, REFUSED, now)
        seen.append((channel.channel, channels.stopped))
    assert [(FIRST, False), (SECOND, True)] == seen
    assert 100.0 == channels.retry_at(50.0)
    assert [True] == ["403" in failure for failure in channels.failures]
    channels.succeeded(best(channels, 100.0))
    assert not channels.stopped


def test_each_reason_is_told_once() -> None:
    """Channels that fail for the same reason share a line that names them; another reason is another line."""
    channels = DataChannels([FIRST, SECOND, THIRD], SETTINGS)
    for error in (REFUSED, FLAKY, REFUSED):
        channel = best(channels)
        channels.began(channel)
        channels.failed(channel, error, 0.0)
    assert ["channels 1, 3: 403", "channel 2: the network"] == list(channels.failures)


def test_settings_bound_the_messages_of_a_channel() -> None:
    """How many messages a channel takes at once is a setting."""
    channels = DataChannels([FIRST], dataclasses.replace(SETTINGS, sends_per_channel=1))
    used(channels, 1)
    assert channels.best(0.0, no_delay) is None


def test_regression_a_token_that_works_again_is_no_longer_complained_about() -> None:
    """One success shows that the token works: no channel is said to be refused for it any more, nor rests for it."""
    channels = DataChannels([FIRST, SECOND, THIRD], SETTINGS)
    first, second = best(channels), None
    channels.began(first)
    second = best(channels)
    channels.failed(first, TokenRejectedError("Discord rejected the bot token"), 0.0)
    channels.failed(second, TokenRejectedError("Discord rejected the bot token"), 0.0)
    assert ["Discord rejected the bot token"] == list(channels.failures)
    channels.succeeded(first)
    assert () == channels.failures
    assert best(channels) is not None


def test_success_says_nothing_about_another_channels_own_failure() -> None:
    """A channel that is read-only stays so when another one takes a message."""
    channels = DataChannels([FIRST, SECOND], SETTINGS)
    first = best(channels)
    channels.began(first)
    second = best(channels)
    channels.failed(second, REFUSED, 0.0)
    channels.succeeded(first)
    assert 1 == len(channels.failures)


def test_somebody_who_waits_has_resting_channels_tried_at_once() -> None:
    """A sync does not sit out the rest of a channel that may work again."""
    channels = DataChannels([FIRST], SETTINGS)
    channels.failed(best(channels), REFUSED, 0.0)
    assert channels.best(1.0, no_delay) is None
    channels.retry_now()
    assert best(channels, 1.0).channel == FIRST
