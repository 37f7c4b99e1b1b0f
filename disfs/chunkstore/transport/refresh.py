"""A wrapper that finds out where an attachment can be downloaded, in batches and, where it can, ahead of time.

Addresses are signed and end; a listing brings those of a hundred messages at once, and the neighbours of what a reader
wants are what it wants next. So an address that is missing costs one listing around its message, and all who miss one
in the same channel wait for the same listing. An address that is in use and ends soon is renewed behind everybody's
back by `run`.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.transport.base import Urgency, UrlMissingError
from disfs.chunkstore.transport.forwarding import ForwardingTransport
from disfs.chunkstore.transport.urls import UrlEnding
from disfs.errors import NotFoundError, StorageError, TransientStorageError

if TYPE_CHECKING:
    from disfs.chunkstore.transport.base import MessageSource, TransportStatistics
    from disfs.values import AttachmentId, ChannelId, Location

log = logging.getLogger(__name__)

AHEAD_INTERVAL_SECONDS = 60.0
"""How long after a listing a channel is not listed again ahead of time: the new addresses may be the old ones still."""
_WAITING_LIMIT = 64


@dataclass(eq=False, slots=True)
class _Refresh:
    """A listing under way, which others of the same channel wait for."""

    urgency: Urgency
    done: trio.Event = field(default_factory=trio.Event)
    found: frozenset[AttachmentId] = frozenset()
    error: StorageError | None = None


class RefreshingTransport(ForwardingTransport):
    """A Transport on a MessageSource: its fetches know where."""

    _inner: MessageSource

    def __init__(self, inner: MessageSource) -> None:
        super().__init__(inner)
        self._running: dict[ChannelId, _Refresh] = {}
        self._ended_at: dict[ChannelId, float] = {}
        self._count = 0
        self._ending_send, self._ending = trio.open_memory_channel[UrlEnding](_WAITING_LIMIT)

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
        is_fresh = False
        while True:
            try:
                return await self._inner.fetch(location, start, length, urgency=urgency)
            except UrlMissingError as error:
                if is_fresh and error.was_tried:
                    # The message is there and lists it: the CDN lags behind, or fails.
                    raise TransientStorageError("an address that is new leads nowhere") from None
                if is_fresh:
                    raise
            is_fresh = await self._refresh(location, urgency)

    def note_ending(self, ending: UrlEnding) -> None:
        """An address in use ends soon. Never raises; when too much is noted already, the reader will wait later."""
        try:
            self._ending_send.send_nowait(ending)
        except trio.WouldBlock:
            log.debug("too many addresses to renew at once")

    async def run(self) -> None:
        """Renew addresses ahead of time, until cancelled."""
        async for ending in self._ending:
            channel = ending.location.channel
            if trio.current_time() - self._ended_at.get(channel, -AHEAD_INTERVAL_SECONDS) < AHEAD_INTERVAL_SECONDS:
                continue
            try:
                await self._refresh(ending.location, Urgency.WRITEBACK)
            except StorageError as error:
                log.debug("addresses could not be renewed ahead of time: %s", error)
                # The next fetch that finds its address ended asks again, and is told.
                self._ended_at[channel] = trio.current_time()

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return replace(self._inner.statistics(), refreshes=self._count)

    async def _refresh(self, location: Location, urgency: Urgency) -> bool:
        """Have Discord hand out addresses around a message; whether this one's was among them.

        When somebody no less urgent is at it in this channel already, wait for that: it may bring ours, and a failure
        is ours too. Raises `NotFoundError` when the message has no such attachment.
        """
        running = self._running.get(location.channel)
        if running is None or running.urgency > urgency:
            await self._list(location, urgency)
            return True
        await running.done.wait()
        if running.error is not None:
            raise copy.copy(running.error)
        return location.attachment in running.found

    async def _list(self, location: Location, urgency: Urgency) -> None:
        refresh = self._running[location.channel] = _Refresh(urgency)
        self._count += 1
        try:
            around = await self._inner.list_messages(location.channel, around=location.message, urgency=urgency)
            refresh.found = frozenset(a.attachment for message in around for a in message.attachments)
        except StorageError as error:
            refresh.error = error
            raise
        finally:
            self._ended_at[location.channel] = trio.current_time()
            if self._running.get(location.channel) is refresh:
                del self._running[location.channel]
            refresh.done.set()
        if location.attachment not in refresh.found:
            # A listing may lag behind; asking for the message itself does not.
            message = await self._inner.get_message(location.channel, location.message, urgency=urgency)
            if location.attachment not in {a.attachment for a in message.attachments}:
                raise NotFoundError("the message no longer has this attachment")
