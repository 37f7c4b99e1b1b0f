"""A wrapper that fails or holds chosen calls, before or after they take effect: for tests of everything above.

    faulty = FaultyTransport(MemoryTransport())
    faulty.plan("send", 2, Fault(after=TransientStorageError("lost answer", maybe_done=True)))

lets the second send from now on take effect and then raises, as a lost answer does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import trio

from disfs.chunkstore.transport.base import Urgency

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from disfs.chunkstore.transport.base import MessageSource, StoredMessage, TransportStatistics, Upload
    from disfs.values import ChannelId, Location, MessageId

Method: TypeAlias = Literal["send", "fetch", "list_messages", "get_message", "delete"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call. Everything that is given happens, in the order of the fields."""

    hold: trio.Event | None = None
    """The call waits for it before it begins."""
    before: Exception | None = None
    """Raised instead of making the call."""
    hold_after: trio.Event | None = None
    """The call has taken effect and waits for it before it returns."""
    after: Exception | None = None
    """Raised although the call has taken effect."""
    reached: trio.Event = field(default_factory=trio.Event)
    """Set when the call arrives."""


class FaultyTransport:
    """Passes every call on to `inner`, except as planned."""

    def __init__(self, inner: MessageSource) -> None:
        self._inner = inner
        self._plans: dict[tuple[str, int], Fault] = {}
        self.calls: Counter[str] = Counter()
        """How often each method was called."""

    def plan(self, method: Method, number: int, fault: Fault) -> Fault:
        """Let `fault` happen to the `number`th call of `method` from now on (1 is the next); return it."""
        assert number >= 1
        self._plans[method, self.calls[method] + number] = fault
        return fault

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
        return await self._call(
            "send", lambda: self._inner.send(channel, uploads, nonce=nonce, content=content, urgency=urgency)
        )

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
        return await self._call("fetch", lambda: self._inner.fetch(location, start, length, urgency=urgency))

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
        return await self._call(
            "list_messages",
            lambda: self._inner.list_messages(channel, before=before, after=after, around=around, urgency=urgency),
        )

    async def get_message(
        self, channel: ChannelId, message: MessageId, *, urgency: Urgency = Urgency.READER
    ) -> StoredMessage:
        """See `MessageSource.get_message`."""
        return await self._call("get_message", lambda: self._inner.get_message(channel, message, urgency=urgency))

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        """See `Transport.delete`."""
        await self._call("delete", lambda: self._inner.delete(channel, messages, urgency=urgency))

    def send_delay_seconds(self, channel: ChannelId) -> float:
        """See `Transport.send_delay_seconds`."""
        return self._inner.send_delay_seconds(channel)

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return self._inner.statistics()

    async def _call(self, method: Method, make: Callable[[], Awaitable[T]]) -> T:
        self.calls[method] += 1
        fault = self._plans.pop((method, self.calls[method]), None)
        if fault is None:
            return await make()
        fault.reached.set()
        if fault.hold is not None:
            await fault.hold.wait()
        if fault.before is not None:
            await trio.lowlevel.checkpoint()
            raise fault.before
        result = await make()
        if fault.hold_after is not None:
            await fault.hold_after.wait()
        if fault.after is not None:
            raise fault.after
        return result
