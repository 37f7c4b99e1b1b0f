"""Deletes what no recovery needs any more: the newest two whole copies stay, and every journal since the older one.

Only once the newer copy is acknowledged, and its record durable here, and a look has shown that no other machine has
gone on with the volume. A crash in between deletes some of it once more, or with the next copy.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.transport.base import DELETE_LIMIT
from disfs.errors import DisfsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from disfs.chunkstore.transport.base import Transport
    from disfs.metadata.shipping import ShippedMessage, Shipping
    from disfs.values import ChannelId, MessageId

log = logging.getLogger(__name__)


def superfluous(messages: Sequence[ShippedMessage]) -> list[MessageId]:
    """Which of a machine's messages may go, oldest first. Pure."""
    copies = sorted({each.sequence for each in messages if each.kind == PackKind.CHECKPOINT})
    oldest_kept = copies[-2] if len(copies) > 1 else None
    found = []
    for each in messages:
        if each.kind == PackKind.CHECKPOINT:
            goes = oldest_kept is not None and each.sequence < oldest_kept
        elif each.kind == PackKind.JOURNAL:
            goes = oldest_kept is not None and each.sequence <= oldest_kept
        elif each.kind == PackKind.SNAPSHOT:
            goes = False
        else:
            goes = bool(copies)
        if goes:
            found.append(each.message)
    return sorted(found)


class Retention:
    """Cleans up the index channel."""

    def __init__(
        self,
        shipping: Shipping,
        transport: Transport,
        channel: ChannelId,
        make_durable: Callable[[], Awaitable[None]],
    ) -> None:
        self._shipping = shipping
        self._transport = transport
        self._channel = channel
        self._make_durable = make_durable
        self.deleted_count = 0
        self.failure: str | None = None
        """Why it could not delete the last time; None when all is well."""

    async def clean_up(self) -> None:
        """Delete what is superfluous. What cannot be deleted now goes with the next copy; nothing is raised."""
        try:
            doomed = superfluous(self._shipping.messages())
            if doomed:
                await self._make_durable()
            for position in range(0, len(doomed), DELETE_LIMIT):
                messages = doomed[position : position + DELETE_LIMIT]
                if not await self._shipping.confirm_deletions():
                    return
                await self._transport.delete(self._channel, messages)
                self._shipping.forget_messages(messages)
                self.deleted_count += len(messages)
        except DisfsError as error:
            log.warning("old journals cannot be deleted now: %s", error)
            self.failure = str(error)
        else:
            self.failure = None
