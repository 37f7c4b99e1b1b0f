"""Everything that a process asks of Discord and of its disk, as numbered steps at which a fault can happen.

A step is a remote call, a commit of the metadata, or a sync. It has two moments: before it takes effect, and after it
did, when the answer can still be lost. The same work makes the same steps, so a step can be named by its number.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

import trio

from disfs.chunkstore.transport.base import Urgency
from disfs.chunkstore.transport.memory import MemoryTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeVar

    from disfs.chunkstore.transport.base import StoredMessage, TransportStatistics, Upload
    from disfs.values import ChannelId, Location, MessageId

    T = TypeVar("T")

REMOTE = frozenset({"send", "fetch", "list", "get", "delete"})


class Moment(enum.Enum):
    """Where in a step."""

    BEFORE = "before"
    AFTER = "after"


class Point(NamedTuple):
    """One moment of one step."""

    number: int
    moment: Moment
    what: str
    """The first word is the kind: one of `REMOTE`, commit, fsync."""

    @property
    def kind(self) -> str:
        """What kind of step it is."""
        return self.what.split()[0]

    def __str__(self) -> str:
        return f"{self.moment.value} step {self.number} ({self.what})"


class Tape:
    """Numbers the steps of one life, and tells `on_point` of each moment; what that raises comes of the step."""

    def __init__(self, on_point: Callable[[Point], None] = lambda _point: None) -> None:
        self.on_point = on_point
        self.points: list[Point] = []
        self._count = 0
        self.is_running = True
        """Whether the life goes on."""

    def stop(self) -> None:
        """The life is over: what still comes of its tasks counts no more."""
        self.is_running = False

    def begin(self, what: str) -> int | None:
        """A step begins; its number, to be given to `end`."""
        if not self.is_running:
            return None
        self._count += 1
        number = self._count
        self._tell(Point(number, Moment.BEFORE, what))
        return number

    def end(self, number: int | None, what: str) -> None:
        """The step has taken effect."""
        if number is not None and self.is_running:
            self._tell(Point(number, Moment.AFTER, what))

    def _tell(self, point: Point) -> None:
        self.points.append(point)
        self.on_point(point)


class Discord(MemoryTransport):
    """A Discord in memory that can be copied as it is at a moment."""

    def copy(self) -> Discord:
        """Another one with the same messages and the same time; what happens to one does not happen to the other."""
        twin = Discord()
        for name, value in vars(self).items():
            setattr(twin, name, dict(value) if isinstance(value, dict) else value)
        twin._channels = {channel: dict(messages) for channel, messages in self._channels.items()}
        return twin


class TapedTransport:
    """Passes every call on to a Discord, as a step of the tape. A moment that cancels is met at once."""

    def __init__(self, discord: Discord, tape: Tape) -> None:
        self._discord = discord
        self._tape = tape

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
        return await self._step(
            f"send to {self._name(channel)}",
            lambda: self._discord.send(channel, uploads, nonce=nonce, content=content, urgency=urgency),
        )

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
        what = f"fetch from {self._name(location.channel)}"
        return await self._step(what, lambda: self._discord.fetch(location, start, length, urgency=urgency))

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
        return await self._step(
            f"list {self._name(channel)}",
            lambda: self._discord.list_messages(channel, before=before, after=after, around=around, urgency=urgency),
        )

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        """See `Transport.delete`. To delete nothing is no request."""
        if messages:
            await self._step(
                f"delete from {self._name(channel)}",
                lambda: self._discord.delete(channel, messages, urgency=urgency),
            )

    def send_delay_seconds(self, channel: ChannelId) -> float:
        """See `Transport.send_delay_seconds`."""
        return self._discord.send_delay_seconds(channel)

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return self._discord.statistics()

    def _name(self, channel: ChannelId) -> str:
        info = self._discord._infos.get(channel)
        return info.name if info else "a channel that is gone"

    async def _step(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        number = self._tape.begin(what)
        await trio.lowlevel.checkpoint()
        result = await call()
        self._tape.end(number, what)
        await trio.lowlevel.checkpoint()
        return result
