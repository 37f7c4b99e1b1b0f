"""A wrapper that keeps the bot below Discord's limits, so that a 429 stays rare and nobody starves.

Discord's own numbers come with each answer, and discord.py holds requests back by them; they are the last word.
What stands here keeps us from getting there, for three reasons: the global limit is not announced in headers,
listings announce a limit that is not the real one, and a request that waits here waits in order, can be cancelled
at no cost and holds no connection.

Who comes first goes first, in each queue.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.transport.base import Urgency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.transport.base import StoredMessage, Transport, TransportStatistics, Upload
    from disfs.values import ChannelId, Location, MessageId


@dataclass(frozen=True, slots=True)
class Pace:
    """At most `count` starts within any `seconds`."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast we allow ourselves to be; the defaults are what has been observed, with the global one a little
    below it."""

    requests: Pace = Pace(45, 1.0)
    """All API requests of the bot. Discord says 50; logging in and refreshing URLs are not seen here."""
    sends: Pace = Pace(5, 5.0)
    """Per channel."""
    lists: Pace = Pace(5, 5.0)
    """Per channel."""
    deletes: Pace = Pace(1, 1.0)
    """Per channel; one delete takes up to a hundred messages."""
    sends_in_flight: int = 2
    """Per channel: one can travel while the other one waits for its answer."""
    fetches_in_flight: int = 16
    """All together. The CDN publishes no limit; this is what a browser might do."""


class Pacer:
    """Lets callers through in the order in which they came, no faster than its pace.

    A sliding window, so that it is right whether Discord counts in fixed windows or in sliding ones.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._starts: deque[float] = deque()
        self._turn = trio.Lock()

    async def wait(self) -> None:
        """Return when one more may start; a caller that is cancelled while it waits uses nothing up."""
        async with self._turn:
            if len(self._starts) == self._pace.count:
                await trio.sleep_until(self._starts[0] + self._pace.seconds)
                self._starts.popleft()
            self._starts.append(trio.current_time())


@dataclass(slots=True)
class _ChannelLimits:
    """The queues of one channel."""

    sends: Pacer
    lists: Pacer
    deletes: Pacer
    in_flight: trio.Semaphore


class LimitedTransport:
    """Passes every call on to `inner`, as soon as the limits allow it."""

    def __init__(self, inner: Transport, limits: Limits) -> None:
        self._inner = inner
        self._requests = Pacer(limits.requests)
        self._fetches = trio.Semaphore(limits.fetches_in_flight)
        self._channels: defaultdict[ChannelId, _ChannelLimits] = defaultdict(
            lambda: _ChannelLimits(
                Pacer(limits.sends),
                Pacer(limits.lists),
                Pacer(limits.deletes),
                trio.Semaphore(limits.sends_in_flight),
            )
        )

    async def send(
        self,
        channel: ChannelId,
        uploads: Sequence[Upload],
        *,
        nonce: str,
        content: str = "",
        urgency: Urgency = Urgency.WRITEBACK,
    ) -> StoredMessage:
        """See `Transport.send`."""
        queues = self._channels[channel]
        async with queues.in_flight:
            await queues.sends.wait()
            await self._requests.wait()
            return await self._inner.send(channel, uploads, nonce=nonce, content=content, urgency=urgency)

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
        async with self._fetches:
            return await self._inner.fetch(location, start, length, urgency=urgency)

    async def list_messages(
        self,
        channel: ChannelId,
        *,
        before: MessageId | None = None,
        after: MessageId | None = None,
        around: MessageId | None = None,
        urgency: Urgency = Urgency.READER,
    ) -> list[StoredMessage]:
        """See `Transport.list_messages`."""
        await self._channels[channel].lists.wait()
        await self._requests.wait()
        return await self._inner.list_messages(channel, before=before, after=after, around=around, urgency=urgency)

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        """See `Transport.delete`."""
        if messages:
            await self._channels[channel].deletes.wait()
            await self._requests.wait()
        await self._inner.delete(channel, messages, urgency=urgency)

    def send_delay_seconds(self, channel: ChannelId) -> float:
        """See `Transport.send_delay_seconds`."""
        return self._inner.send_delay_seconds(channel)

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return self._inner.statistics()
