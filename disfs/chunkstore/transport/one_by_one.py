"""A wrapper that deletes messages one by one where Discord refuses to delete them together.

That is so for messages older than 14 days, and in channels where the bot lacks Manage Messages: deleting its own one
by one needs no permission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.transport.base import BulkRefusedError, Urgency
from disfs.chunkstore.transport.forwarding import ForwardingTransport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.transport.base import Transport
    from disfs.values import ChannelId, MessageId


ASK_AGAIN_SECONDS = 3600.0
"""How long a channel's missing permission is taken for granted: somebody may give it."""


class OneByOneTransport(ForwardingTransport):
    """A Transport on one whose `delete` may raise `BulkRefusedError`."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self._refused_until: dict[ChannelId, float] = {}
        """Channels without the permission: too many 403 get a bot blocked, so it is asked for again only later."""

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        """See `Transport.delete`. When it fails half-way the rest can be deleted by the same call again."""
        if trio.current_time() >= self._refused_until.get(channel, float("-inf")):
            try:
                await self._inner.delete(channel, messages, urgency=urgency)
            except BulkRefusedError as error:
                if error.lacks_permission:
                    self._refused_until[channel] = trio.current_time() + ASK_AGAIN_SECONDS
            else:
                return
        for message in dict.fromkeys(messages):
            await self._inner.delete(channel, [message], urgency=urgency)
