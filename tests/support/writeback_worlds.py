"""A chunk store on a Discord in memory behind a link that takes its time, scaled down by 32: a chunk is 4 KiB, a
message 768 KiB, the link 3.1 Mbit/s; counts and seconds are those of the real sizes."""

from __future__ import annotations

import dataclasses
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from disfs.chunkstore.packer import PackReader
from disfs.chunkstore.settings import ChunkStoreSettings
from support.chunk_worlds import ChunkWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from disfs.chunkstore.packer import DirectoryEntry
    from disfs.values import ChannelId

SCALE = 32
CHUNK = 4096
MIB = 1024 * 1024 // SCALE
"""What stands for a MiB."""
MESSAGE = 24 * MIB
SCALED = ChunkStoreSettings(
    chunk_bytes=CHUNK,
    cache_bytes=4096 * MIB,
    min_free_bytes=0,
    attachment_bytes=10 * MIB,
    attachment_margin_bytes=4096 // SCALE,
    message_bytes=MESSAGE,
    in_flight_bytes=48 * MIB,
    readahead_bytes=0,
)


class Link:
    """A line that all sends share fairly. `busy_seconds` is how long it carried something."""

    def __init__(self, bytes_per_second: float, latency_seconds: float) -> None:
        self.bytes_per_second = bytes_per_second
        self.latency_seconds = latency_seconds
        self.busy_seconds = 0.0
        self._slice_bytes = CHUNK
        self._turn = trio.Lock()

    async def carry(self, size_bytes: int) -> None:
        """Return when so many bytes are through, and a latency later."""
        for start in range(0, size_bytes, self._slice_bytes):
            seconds = min(self._slice_bytes, size_bytes - start) / self.bytes_per_second
            async with self._turn:  # a lock lets those who wait through in turn
                await trio.sleep(seconds)
                self.busy_seconds += seconds
        await trio.sleep(self.latency_seconds)


@dataclasses.dataclass(frozen=True)
class Sent:
    """One send as the link saw it."""

    channel: ChannelId
    began: float
    size_bytes: int
    chunk_count: int
    urgent: bool


class LinkedTransport:
    """Sends through the link, at most `rate` per channel and second after a burst, and notes every message."""

    def __init__(self, inner: Any, link: Link | None = None) -> None:
        self._inner = inner
        self.link = link
        self.delays: dict[ChannelId, float] = {}
        """When each channel lets the next send through; none is held back."""
        self.sent: list[Sent] = []
        self.in_flight_bytes = self.most_in_flight_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def send_delay_seconds(self, channel: ChannelId) -> float:
        """See `Transport`."""
        return max(0.0, self.delays.get(channel, 0.0) - trio.current_time())

    async def send(self, channel: ChannelId, uploads: Any, **named: Any) -> Any:
        """See `Transport`."""
        size = sum(upload.size_bytes for upload in uploads)
        count = sum(len(upload.parts) - 2 for upload in uploads)
        self.sent.append(Sent(channel, trio.current_time(), size, count, named["urgency"].name == "SYNC"))
        self.in_flight_bytes += size
        self.most_in_flight_bytes = max(self.most_in_flight_bytes, self.in_flight_bytes)
        try:
            if self.link is not None:
                await self.link.carry(size)
            return await self._inner.send(channel, uploads, **named)
        finally:
            self.in_flight_bytes -= size


class WritebackWorld(ChunkWorld):
    """Every store of it sends through `linked`."""

    linked: LinkedTransport

    def new_store(self, transport: Any = None) -> Any:
        """A store on what there is."""
        if not hasattr(self, "linked"):
            self.linked = LinkedTransport(self.transport)
        return super().new_store(self.linked)

    def packs(self) -> list[tuple[DirectoryEntry, ...]]:
        """What the slots of each pack in Discord hold, in the order in which they were stored."""
        stored = sorted(
            (message.message, attachment.attachment)
            for channel in self.channels
            for message in self.memory.messages(channel)
            for attachment in message.attachments
        )
        return [PackReader(self.key, self.memory.stored_bytes(attachment)).entries for _, attachment in stored]


@asynccontextmanager
async def writeback_world(
    directory: Path, channels: int = 4, link: Link | None = None, **changes: object
) -> AsyncIterator[WritebackWorld]:
    """A started world, stopped and closed at the end."""
    settings = dataclasses.replace(SCALED, **changes)  # type: ignore[arg-type] # the caller names settings
    world = WritebackWorld(directory, settings, channels)
    world.linked.link = link
    try:
        async with trio.open_nursery() as nursery:
            await world.start(nursery)
            yield world
            nursery.cancel_scope.cancel()
    finally:
        world.store.close()


def incompressible(size_bytes: int, seed: int = 1) -> bytes:
    """The same bytes each time, that no compression shortens."""
    return random.Random(seed).randbytes(size_bytes)
