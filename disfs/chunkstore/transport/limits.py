"""A wrapper that holds requests back so that Discord never has to refuse one, and lets the most urgent go first.

Discord's own numbers come with each answer and are told to `observe`; `buckets.py` says what follows from them and
`pacer.py` who goes first. What is set here is what Discord does not announce: the limit for everything together,
which its documentation gives, and the true one of listings, whose headers are known to lie.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from disfs.chunkstore.transport.base import Urgency
from disfs.chunkstore.transport.buckets import Pace
from disfs.chunkstore.transport.forwarding import ForwardingTransport
from disfs.chunkstore.transport.pacer import Pacer, Slots
from disfs.chunkstore.transport.routes import ApiRoute, Scope, delete_route

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from disfs.chunkstore.transport.base import (
        MessageSource,
        StoredMessage,
        TransportStatistics,
        Upload,
    )
    from disfs.chunkstore.transport.routes import Observation
    from disfs.values import ChannelId, Location, MessageId


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast we allow ourselves to be where Discord's headers do not say."""

    requests: Pace = field(default_factory=lambda: Pace(45, 1.0))
    """All API requests about messages. Discord's limit for a bot is 50; the rest is for looking at guilds and for
    requests that arrive closer together than they left."""
    lists: Pace = field(default_factory=lambda: Pace(5, 5.0))
    """Per channel, at most; observed. The headers of listings announce a thousand."""
    sends_in_flight: int = 2
    """Per channel: one can travel while the other one waits for its answer."""
    fetches_in_flight: int = 16
    """All together. The CDN publishes no limit; this is what a browser might do."""
    fetches_for_readers: int = 2
    """So many of these are kept free of work in advance."""


class LimitedTransport(ForwardingTransport):
    """Passes every call on to `inner`, as soon as the limits allow it."""

    _inner: MessageSource

    def __init__(self, inner: MessageSource, limits: Limits, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(inner)
        self._pacer = Pacer(limits.requests, limits.lists, limits.sends_in_flight)
        self._fetches = Slots(limits.fetches_in_flight, limits.fetches_for_readers)
        self._now = now

    def observe(self, seen: Observation) -> None:
        """Learn from an answer of Discord; to be called before the call that it belongs to returns."""
        self._pacer.observe(seen)

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
        async with self._pacer.turn(ApiRoute.SEND, channel, urgency):
            return await self._inner.send(channel, uploads, nonce=nonce, content=content, urgency=urgency)

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
        async with self._fetches.hold(urgency):
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
        async with self._pacer.turn(ApiRoute.LIST, channel, urgency):
            return await self._inner.list_messages(channel, before=before, after=after, around=around, urgency=urgency)

    async def get_message(
        self, channel: ChannelId, message: MessageId, *, urgency: Urgency = Urgency.READER
    ) -> StoredMessage:
        """See `MessageSource.get_message`."""
        async with self._pacer.turn(ApiRoute.GET, channel, urgency):
            return await self._inner.get_message(channel, message, urgency=urgency)

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        """See `Transport.delete`; raises `BulkRefusedError` as `inner` does."""
        wanted = list(dict.fromkeys(messages))
        if not wanted:
            return
        route = delete_route(wanted[0], self._now()) if len(wanted) == 1 else ApiRoute.BULK_DELETE
        async with self._pacer.turn(route, channel, urgency):
            await self._inner.delete(channel, wanted, urgency=urgency)

    def send_delay_seconds(self, channel: ChannelId) -> float:
        """See `Transport.send_delay_seconds`."""
        return self._pacer.send_delay_seconds(channel)

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        refusals = self._pacer.refusals
        return replace(
            self._inner.statistics(),
            rate_limited_user=refusals[Scope.USER],
            rate_limited_shared=refusals[Scope.SHARED],
            rate_limited_global=refusals[Scope.GLOBAL],
            limit_wait_seconds=self._pacer.waited_seconds,
            buckets=self._pacer.views(),
        )
