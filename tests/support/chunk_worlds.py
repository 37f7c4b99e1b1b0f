"""A chunk store on a fake ledger and a Discord in memory, to be killed and opened again."""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from disfs.chunkstore.keys import VolumeKey
from disfs.chunkstore.reclaim import Reclaimed
from disfs.chunkstore.settings import ChunkStoreSettings
from disfs.chunkstore.store import ChunkStore
from disfs.chunkstore.transport.faults import FaultyTransport
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.values import InodeNumber
from support.fake_ledger import FakeLedger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from disfs.chunkstore.recovery import CacheMarks
    from disfs.chunkstore.transport.base import Transport

CHUNK = 4096
SETTINGS = ChunkStoreSettings(
    chunk_bytes=CHUNK,
    cache_bytes=64 * CHUNK,
    min_free_bytes=0,
    open_files=3,
    attachment_bytes=8 * CHUNK,
    attachment_margin_bytes=0,
    message_bytes=16 * CHUNK,
    readahead_bytes=0,
    rest_seconds=30,
)
FILE = InodeNumber(7)
OTHER = InodeNumber(0x1008)


async def in_this_thread(call: Any, *args: Any, limiter: Any = None) -> Any:
    """Stands for trio.to_thread.run_sync: under a jumping clock a real thread would make the timing random."""
    await trio.lowlevel.checkpoint()
    result = call(*args)
    await trio.lowlevel.checkpoint()
    return result


class ChunkWorld:
    """What outlives the process: the ledger, the cache directory, Discord; and the store of the process that runs."""

    def __init__(self, directory: Path, settings: ChunkStoreSettings = SETTINGS, channels: int = 2) -> None:
        self.directory = directory
        self.settings = settings
        self.ledger = FakeLedger(settings.chunk_bytes)
        self.memory = MemoryTransport()
        self.transport = FaultyTransport(self.memory)
        self.channels = [self.memory.add_channel() for _ in range(channels)]
        self.key = VolumeKey(bytes(range(32)))
        self.marks: CacheMarks | None = None
        self.nursery: trio.Nursery | None = None
        self.reclaims = False
        """Whether a start looks first for what had arrived in Discord before a crash."""
        self.reclaimed = Reclaimed()
        self.store: ChunkStore = self.new_store()

    def new_store(self, transport: Transport | None = None) -> ChunkStore:
        """A store on what there is."""
        return ChunkStore(
            ledger=self.ledger,
            transport=transport or self.transport,
            channels=self.channels,
            volume_key=self.key,
            cache_directory=self.directory,
            settings=self.settings,
        )

    async def start(self, nursery: trio.Nursery) -> None:
        """Start the store, its background work in a nursery of its own beneath `nursery`."""
        if self.reclaims:
            self.reclaimed = await self.store.reclaim(10)
        self.marks = await self.store.start(self.ledger.size_of, self.marks)
        await nursery.start(self._run)

    async def _run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self.store.run)
            task_status.started()

    async def halt(self) -> None:
        """End the background work."""
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            self.nursery = None

    async def crash(self, nursery: trio.Nursery) -> None:
        """kill -9 and start again."""
        await self.halt()
        self.store.close()
        self.ledger.crash()
        self.store = self.new_store()
        await self.start(nursery)

    async def stop(self) -> None:
        """A clean stop."""
        await self.halt()
        self.marks = await self.store.stop()

    async def restart(self, nursery: trio.Nursery) -> None:
        """A clean stop, and start again."""
        await self.stop()
        self.store = self.new_store()
        await self.start(nursery)

    async def write(self, inode: InodeNumber, offset: int, data: bytes) -> None:
        """Write as the filesystem does: contents, then size, in one step."""
        await self.store.write(inode, offset, data)
        sizes = self.ledger.state.sizes
        sizes[inode] = max(sizes.get(inode, 0), offset + len(data))

    async def cut(self, inode: InodeNumber, size: int) -> None:
        """Set the size as the filesystem does."""
        await self.store.cut(inode, size)
        self.ledger.state.sizes[inode] = size

    def discard(self, inode: InodeNumber) -> None:
        """Delete the inode."""
        self.store.discard(inode)
        self.ledger.state.sizes.pop(inode, None)

    async def contents(self, inode: InodeNumber) -> bytes:
        """The whole file."""
        return await self.store.read(inode, 0, self.ledger.state.sizes.get(inode, 0))


@asynccontextmanager
async def chunk_world(
    directory: Path, channels: int = 2, **changes: object
) -> AsyncIterator[tuple[ChunkWorld, trio.Nursery]]:
    """A started world, stopped and closed at the end."""
    world = ChunkWorld(directory, dataclasses.replace(SETTINGS, **changes), channels)  # type: ignore[arg-type] # the caller names settings
    try:
        async with trio.open_nursery() as nursery:
            await world.start(nursery)
            yield world, nursery
            nursery.cancel_scope.cancel()
    finally:
        world.store.close()
