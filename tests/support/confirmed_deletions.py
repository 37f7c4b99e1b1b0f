"""A transport that refuses to delete what nobody has just confirmed may be deleted."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

import trio

from disfs.chunkstore.transport.base import Urgency
from disfs.chunkstore.transport.forwarding import ForwardingTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from disfs.chunkstore.transport.base import StoredMessage, Upload
    from disfs.values import ChannelId, MessageId

T = TypeVar("T")


class ConfirmedDeletions(ForwardingTransport):
    """Every deletion takes a confirmation that came since the last one, in the same task. Leases need none."""

    active = True
    """Whether deletions are looked at."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type] # as those of the wrapper
        self._confirmed: set[trio.lowlevel.Task] = set()
        self._leases: set[MessageId] = set()
        self.deleted: list[MessageId] = []
        """What was deleted with a confirmation."""

    def confirming(self, confirm: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """`confirm`, which is noted when it returns anything but False."""

        @functools.wraps(confirm)
        async def noted() -> T:
            result = await confirm()
            if result is not False:
                self._confirmed.add(trio.lowlevel.current_task())
            return result

        return noted

    async def send(
        self,
        channel: ChannelId,
        uploads: Sequence[Upload],
        *,
        nonce: str,
        content: str = "",
        urgency: Urgency = Urgency.WRITEBACK,
    ) -> StoredMessage:
        """See `Transport.send`; notes which messages are leases."""
        stored = await super().send(channel, uploads, nonce=nonce, content=content, urgency=urgency)
        if nonce.startswith("le"):
            self._leases.add(stored.message)
        return stored

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        """See `Transport.delete`. AssertionError without a confirmation, and nothing is deleted."""
        if self.active and not self._leases.issuperset(messages):
            task = trio.lowlevel.current_task()
            assert task in self._confirmed, "a deletion that nobody has confirmed"
            self._confirmed.remove(task)
            self.deleted += messages
        await super().delete(channel, messages, urgency=urgency)
