"""Machines that contend for one volume, over a Discord in memory that is as slow and as late as one likes."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.keys import VolumeKey
from disfs.chunkstore.transport.base import Urgency
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.errors import TransientStorageError
from disfs.recovery.holding import LeaseHolder
from disfs.recovery.lease import Lease, place_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.transport.base import StoredMessage, TransportStatistics, Upload
    from disfs.errors import DisfsError
    from disfs.recovery.lease import Posted
    from disfs.values import ChannelId, Location, MessageId

KEY = VolumeKey(bytes(range(32)))
VOLUME = bytes(range(16))


class LateTransport:
    """Each call takes a while on its way there and back; a message may be seen only some time after it has its id."""

    def __init__(self, memory: MemoryTransport, random: Random, *, late_seconds: float = 0.0) -> None:
        self._memory = memory
        self._random = random
        self._late_seconds = late_seconds
        self.visible_at: dict[MessageId, float] = {}
        """Shared by all who are to see the same: give each the same dict."""
        self.is_up = True
        self.stale_until = float("-inf")
        """Until then listings show nothing that is new."""

    async def send(
        self,
        channel: ChannelId,
        uploads: Sequence[Upload],
        *,
        nonce: str,
        content: str = "",
        urgency: Urgency = Urgency.SYNC,
    ) -> StoredMessage:
        """See `Transport.send`."""
        await self._travel()
        stored = await self._memory.send(channel, uploads, nonce=nonce, content=content, urgency=urgency)
        self.visible_at[stored.message] = trio.current_time() + self._random.uniform(0, self._late_seconds)
        await self._travel()
        return stored

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.SYNC) -> bytes:
        """See `Transport.fetch`."""
        await self._travel()
        return await self._memory.fetch(location, start, length, urgency=urgency)

    async def list_messages(
        self,
        channel: ChannelId,
        *,
        before: MessageId | None = None,
        after: MessageId | None = None,
        around: MessageId | None = None,
        urgency: Urgency = Urgency.SYNC,
    ) -> list[StoredMessage]:
        """See `Transport.list_messages`."""
        await self._travel()
        listed = await self._memory.list_messages(channel, before=before, after=after, around=around, urgency=urgency)
        now = trio.current_time()
        seen = [each for each in listed if self.visible_at.get(each.message, 0.0) <= now and self.stale_until <= now]
        await self._travel()
        return seen

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SYNC
    ) -> None:
        """See `Transport.delete`."""
        await self._travel()
        await self._memory.delete(channel, messages, urgency=urgency)

    def send_delay_seconds(self, channel: ChannelId) -> float:
        """See `Transport.send_delay_seconds`."""
        return 0.0

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return self._memory.statistics()

    async def _travel(self) -> None:
        await trio.sleep(self._random.uniform(0, 0.3))
        if not self.is_up:
            raise TransientStorageError("no network")


class Sender:
    """A shipper that ships nothing."""

    def __init__(self) -> None:
        self.stopped = trio.Event()
        self.reasons: list[str] = []

    def give_way(self, error: DisfsError) -> None:
        """See `ShipperLike`."""
        self.reasons.append(str(error))
        self.stopped.set()


class Discord:
    """One index channel, and the machines that have a connection to it."""

    def __init__(self, seed: int = 0, *, late_seconds: float = 0.0) -> None:
        self.memory = MemoryTransport()
        self.index = self.memory.add_channel()
        self.random = Random(seed)
        self._late_seconds = late_seconds
        self._visible_at: dict[MessageId, float] = {}

    def machine(self, host: str) -> Machine:
        """Another machine."""
        transport = LateTransport(self.memory, self.random, late_seconds=self._late_seconds)
        transport.visible_at = self._visible_at
        return Machine(self, host, transport)

    @property
    def leases(self) -> int:
        """How many messages there are."""
        return len(self.memory.messages(self.index))


class Machine:
    """One machine, which mounts the volume again and again; `holder` is its newest mount's."""

    def __init__(self, discord: Discord, host: str, transport: LateTransport) -> None:
        self.transport = transport
        self.host = host
        self.sender = Sender()
        self._discord = discord
        self._remembered: Posted | None = None
        self.slept_seconds = 0.0
        self.scope = trio.CancelScope()
        self.holder = self.mount()

    def mount(self, *, place: str = "") -> LeaseHolder:
        """A new mount; the one before is dead."""
        lease = Lease(
            volume=VOLUME,
            device=self.host.encode().ljust(16, b"d"),
            place=place_of(place or self.host, "", ""),
            session=self._discord.random.randbytes(16),
            host=self.host,
        )
        self.sender = Sender()
        self.holder = LeaseHolder(
            self.transport,
            self._discord.index,
            KEY,
            lease,
            remember=self._remember,
            remembered=self._remembered,
            text="a lease",
            now=lambda: trio.current_time() + self.slept_seconds,
        )
        return self.holder

    @property
    def has_it(self) -> bool:
        """Whether this machine believes that it has the lease."""
        return self.holder.statistics().held

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the newest mount until it is killed."""
        with trio.CancelScope() as self.scope:
            task_status.started()
            await self.holder.run(self.sender)

    def kill(self) -> None:
        """As kill -9: nothing is given back."""
        self.scope.cancel()

    def _remember(self, posted: Posted | None) -> None:
        self._remembered = posted
