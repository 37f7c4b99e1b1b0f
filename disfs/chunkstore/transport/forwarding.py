"""What every wrapper of a Transport begins with: each call passed on to the next one unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.chunkstore.transport.base import Urgency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.transport.base import StoredMessage, Transport, TransportStatistics, Upload
    from disfs.values import ChannelId, Location, MessageId


class ForwardingTransport:
    """Passes every call on to `inner`. A wrapper overrides those that it changes."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

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
        return await self._inner.send(channel, uploads, nonce=nonce, content=content, urgency=urgency)

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
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
        return await self._inner.list_messages(channel, before=before, after=after, around=around, urgency=urgency)

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        """See `Transport.delete`."""
        await self._inner.delete(channel, messages, urgency=urgency)

    def send_delay_seconds(self, channel: ChannelId) -> float:
        """See `Transport.send_delay_seconds`."""
        return self._inner.send_delay_seconds(channel)

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return self._inner.statistics()
