"""Both real stores and the file system on top, with Discord in memory: what the daemon runs, without a kernel."""

from __future__ import annotations

import dataclasses
import os
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

from disfs.chunkstore.keys import VolumeKey
from disfs.chunkstore.store import ChunkStore
from disfs.chunkstore.transport.faults import FaultyTransport
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.filesystem import Filesystem
from disfs.local_volume import RecordedCopies, keep_marks, take_over_cache
from disfs.metadata.store import SqliteMetadataStore
from disfs.recovery.building import Builder, CopyRule
from disfs.recovery.holding import LeaseHolder
from disfs.recovery.index_channel import IndexChannel
from disfs.recovery.lease import Lease
from disfs.recovery.shipper import Shipper
from disfs.recovery.shipper_values import ShipperSettings, Surroundings
from disfs.recovery.snapshot_shipments import Place, SnapshotShipments
from disfs.snapshot_desk import SnapshotDesk
from disfs.trash_desk import TrashDesk
from disfs.values import ROOT_INODE, AttributeChanges, NewInode
from support.chunk_worlds import CHUNK, SETTINGS
from support.confirmed_deletions import ConfirmedDeletions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from disfs.values import InodeNumber


VOLUME_ID = bytes(range(16))


class SnapshotsAlone(RecordedCopies):
    """Where nothing is shipped, nobody else can have gone on."""

    may_delete = True

    @property
    def shipped_revision(self) -> int:
        """What no snapshot has."""
        return self._snapshots.protected_revision

    async def confirm_deletions(self) -> bool:
        """Nobody needs to be asked."""
        await trio.lowlevel.checkpoint()
        return True


class RealStores:
    """A volume that can be killed and opened again. `free_bytes` is the room on the disk of the metadata."""

    def __init__(
        self,
        directory: Path,
        channels: int,
        *,
        ships: bool = False,
        trash_seconds: float = 0,
        **changes: object,
    ) -> None:
        self._directory = directory
        self.ships = ships
        """Whether its metadata go to the index channel too; nothing is swept before they are there."""
        self._settings = dataclasses.replace(SETTINGS, **changes)  # type: ignore[arg-type] # the caller names settings
        self.free_bytes = 1 << 40
        self.capacity_bytes = 1 << 50
        """How much the volume may hold; counts from the next start on."""
        self.trash_seconds = trash_seconds
        self.attachment_bytes = 1 << 20
        """How large an attachment of the index channel may be."""
        self.memory = MemoryTransport()
        self.transport = FaultyTransport(self.memory)
        self.confirmed = ConfirmedDeletions(self.transport)
        self.confirmed.active = ships
        self.channels = [self.memory.add_channel() for _ in range(channels)]
        self.index = self.memory.add_channel()
        self.key = VolumeKey(bytes(32))
        self.shipper_settings = ShipperSettings()
        self.copy_rule = CopyRule(floor_bytes=256 * 1024, share=0.5, journal_count=500)
        self._scope = trio.CancelScope()
        self._open(create=True)

    def _open(self, *, create: bool) -> None:
        self.metadata = SqliteMetadataStore.open(
            self._directory / "volume.db",
            create=create,
            chunk_bytes=CHUNK,
            reserve_bytes=1 << 20,
            free_bytes=lambda: self.free_bytes,
            capacity_bytes=self.capacity_bytes,
            trash_seconds=self.trash_seconds,
        )
        self.chunks = ChunkStore(
            ledger=self.metadata,
            transport=self.confirmed,
            channels=self.channels,
            volume_key=self.key,
            cache_directory=self._directory / "cache",
            settings=self._settings,
            copies=RecordedCopies(self.metadata) if self.ships else SnapshotsAlone(self.metadata),
        )
        self.shipper = self.make_shipper()
        self.filesystem = Filesystem(self.metadata, self.chunks, capacity_bytes=self.capacity_bytes)

    def make_shipper(self, other: SqliteMetadataStore | None = None) -> Shipper:
        """What brings the metadata, or those of another machine, to the index channel."""
        metadata = other or self.metadata
        transport = self.memory if other else self.confirmed
        shipper = Shipper(
            metadata.shipping,
            transport,
            self.index,
            IndexChannel(transport, self.index, self.key, VOLUME_ID),
            Builder(VOLUME_ID, self.key, self._directory, self.copy_rule),
            self.shipper_settings,
            Surroundings(
                make_durable=metadata.make_durable if other else self.chunks.make_ledger_durable,
                has_unsent=lambda: self.chunks.statistics().dirty_chunks > 0,
                attachment_bytes=lambda: self.attachment_bytes,
            ),
            volume_name="test",
        )
        if other is None:
            # Whoever deletes must have asked whether it may, immediately before.
            metadata.shipping.look = self.confirmed.confirming(shipper.confirm)
        return shipper

    def make_trash_desk(self) -> TrashDesk:
        """What restores from the trash; there is no kernel to be told."""
        return TrashDesk(self.metadata, self.chunks, self.trash_seconds, self._no_kernel)

    def make_snapshot_desk(self) -> SnapshotDesk:
        """What makes snapshots; there is no kernel to be told."""
        shipments = SnapshotShipments(
            self.metadata.shipping,
            Place(self.confirmed, self.index, self.key, VOLUME_ID),
            self._directory,
            lambda: self.attachment_bytes,
            1 << 20,
            "a test",
        )
        durable = self.chunks.make_ledger_durable
        return SnapshotDesk(self.metadata, self.chunks, shipments, durable, self._no_kernel, read_only=False)

    @staticmethod
    async def _no_kernel(directory: InodeNumber, name: bytes) -> None:
        await trio.lowlevel.checkpoint()

    def make_holder(self) -> LeaseHolder:
        """The claim of this volume to its lease."""
        device = self.metadata.shipping.position().device
        lease = Lease(volume=VOLUME_ID, device=device, place=bytes(16), session=os.urandom(16), host="here")
        return LeaseHolder(self.transport, self.index, self.key, lease, remember=lambda posted: None, text="a test")

    async def start(self, nursery: trio.Nursery) -> None:
        """Bring both stores together and run them in a nursery of their own."""
        self.reclaimed = await self.chunks.reclaim(10)
        await take_over_cache(self.metadata, self.chunks)
        await nursery.start(self._run)
        await self.filesystem.remove_orphans()

    async def _run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.metadata.run)
                nursery.start_soon(self.chunks.run)
                if self.ships:
                    nursery.start_soon(self.shipper.run)
                task_status.started()

    async def halt(self) -> None:
        """End the background work."""
        self._scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    async def crash(self, nursery: trio.Nursery) -> None:
        """As after kill -9: what was not committed never happened."""
        await self.cut_power(nursery, lambda: None)

    async def cut_power(self, nursery: trio.Nursery, cut: Callable[[], None], *, paused: bool = False) -> None:
        """As `crash`; `cut` takes away what a disk would lose. If `paused`, nothing is sent from then on."""
        await self.halt()
        self.chunks.close()
        self.metadata._database._undo()
        self.metadata._checkpointer.close()
        self.metadata._snapshot.close()
        self.metadata._wal.close()
        self.metadata._database.close()
        cut()
        self._open(create=False)
        if paused:
            self.chunks.pause()
        await self.start(nursery)

    async def restart(self, nursery: trio.Nursery) -> None:
        """A stop in order, and start again."""
        await self.halt()
        await self.filesystem.close()
        keep_marks(self.metadata, await self.chunks.stop())
        self.metadata.close()
        self._open(create=False)
        await self.start(nursery)

    def close(self) -> None:
        """Close both, whatever state they are in."""
        self.chunks.close()
        self.metadata.close()

    async def create(self, name: bytes) -> tuple[int, InodeNumber]:
        """A new file in the root: its handle and inode."""
        new = NewInode(mode=stat.S_IFREG | 0o644, uid=0, gid=0)
        handle, made = await self.filesystem.create(ROOT_INODE, name, new, os.O_RDWR)
        return handle, made.inode

    async def truncate(self, inode: InodeNumber, size_bytes: int) -> None:
        """As truncate(2)."""
        await self.filesystem.change_attributes(inode, AttributeChanges(size_bytes=size_bytes))


@asynccontextmanager
async def real_stores(
    directory: Path, channels: int = 1, *, ships: bool = False, trash_seconds: float = 0, **changes: object
) -> AsyncIterator[tuple[RealStores, trio.Nursery]]:
    """A started volume, closed at the end."""
    world = RealStores(directory, channels, ships=ships, trash_seconds=trash_seconds, **changes)
    try:
        async with trio.open_nursery() as nursery:
            await world.start(nursery)
            yield world, nursery
            nursery.cancel_scope.cancel()
    finally:
        world.close()
