"""A small volume on disk, unmounted, with Discord in memory: to be damaged, checked and repaired."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
import stat
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.keys import VolumeKey
from disfs.chunkstore.packer import PackBuilder
from disfs.chunkstore.store import ChunkStore
from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.errors import FilesystemError
from disfs.filesystem import Filesystem
from disfs.local_volume import keep_marks, take_over_cache
from disfs.metadata.settings import VOLUME_ID
from disfs.metadata.store import SqliteMetadataStore
from disfs.recovery.building import Builder, CopyRule
from disfs.recovery.fsck import Check, Scope
from disfs.recovery.fsck_repair import Repair
from disfs.recovery.index_channel import IndexChannel
from disfs.recovery.repair_right import right_to_repair
from disfs.recovery.shipper import Shipper
from disfs.recovery.shipper_values import ShipperSettings, Surroundings
from disfs.recovery.snapshot_shipments import Place, SnapshotShipments
from disfs.snapshot_desk import SnapshotDesk
from disfs.superblock import ATTACHMENT_NAME
from disfs.values import ROOT_INODE, ChunkIndex, ChunkKey, InodeNumber, NewInode, Revision
from support.chunk_worlds import CHUNK, SETTINGS
from support.confirmed_deletions import ConfirmedDeletions
from support.volumes import VOLUME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from disfs.chunkstore.transport.base import StoredMessage
    from disfs.recovery.fsck_data import Subset
    from disfs.recovery.fsck_findings import Finding, Kind
    from disfs.values import Attributes

KEY = VolumeKey(bytes(32))
CONTENTS = {
    b"first": b"1" + os.urandom(4 * CHUNK),
    b"second": b"2" + os.urandom(4 * CHUNK),
    b"tiny": b"small content",
}


class FsckWorld:
    """The volume. `first` and `second` lie in messages of their own, `tiny` is a small content, `unsent` is here alone.

    `directory/inside` is a hard link to `first`, `directory/link` a symbolic link.
    """

    trash_seconds = 0
    """How long what is deleted stays in the trash; counts from the next mount on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cache = directory / "cache"
        self.database = directory / "metadata.db"
        self.memory = MemoryTransport()
        self.index = self.memory.add_channel()
        self.channels = [self.memory.add_channel(), self.memory.add_channel()]
        superblock = dataclasses.replace(VOLUME.superblock, chunk_bytes=CHUNK, data_channels=tuple(self.channels))
        self.volume = dataclasses.replace(VOLUME, index_channel=self.index, superblock=superblock)
        self.inodes: dict[bytes, InodeNumber] = {}
        self.rule = CopyRule(floor_bytes=1 << 30, share=1.0, journal_count=500)

    async def make(self) -> None:
        """Make the volume as the class says."""
        text = self.volume.superblock.to_json().encode()
        await self.memory.send(self.index, [Upload(ATTACHMENT_NAME, (text,))], nonce="superblock")
        SqliteMetadataStore.open(self.database, create=True, chunk_bytes=CHUNK, now_ns=1).close()
        async with self.mounted() as filesystem:
            for name, content in CONTENTS.items():
                await self._write(filesystem, name, content)
                await self.chunks.drain()
            made = await filesystem.make_inode(ROOT_INODE, b"directory", NewInode(stat.S_IFDIR | 0o755, 0, 0))
            await filesystem.link(self.inodes[b"first"], made.inode, b"inside")
            await filesystem.symlink(made.inode, b"link", b"../first", 0, 0)
            self.inodes[b"directory"] = made.inode
            self.chunks.pause()
            await self._write(filesystem, b"unsent", b"u" * (2 * CHUNK))

    async def _write(self, filesystem: Filesystem, name: bytes, content: bytes) -> None:
        new = NewInode(stat.S_IFREG | 0o644, 0, 0)
        handle, made = await filesystem.create(ROOT_INODE, name, new, os.O_RDWR)
        await filesystem.files.write(handle, 0, content)
        await filesystem.release(handle)
        self.inodes[name] = made.inode

    @contextlib.asynccontextmanager
    async def mounted(self) -> AsyncIterator[Filesystem]:
        """Serve it, and stop in order; pause `chunks` to leave things unsent."""
        metadata = self.metadata = SqliteMetadataStore.open(self.database, trash_seconds=self.trash_seconds)
        metadata.settings.set(VOLUME_ID, self.volume.superblock.volume_id.hex())
        metadata.shipping.position()  # the first mount gives the device its id
        self.chunks = ChunkStore(
            ledger=metadata,
            transport=self.memory,
            channels=self.channels,
            volume_key=KEY,
            cache_directory=self.cache,
            settings=SETTINGS,
        )
        try:
            await take_over_cache(metadata, self.chunks)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(metadata.run)
                nursery.start_soon(self.chunks.run)
                filesystem = Filesystem(metadata, self.chunks)
                await filesystem.remove_orphans()
                yield filesystem
                nursery.cancel_scope.cancel()
            keep_marks(metadata, await self.chunks.stop())
        finally:
            self.chunks.close()
            metadata.close()

    async def ship(self, *snapshots: str) -> None:
        """Send the names of the mounted volume, and make and send these snapshots."""
        volume_id = self.volume.superblock.volume_id
        shipper = Shipper(
            self.metadata.shipping,
            self.memory,
            self.index,
            IndexChannel(self.memory, self.index, KEY, volume_id),
            Builder(volume_id, KEY, self.directory, self.rule),
            ShipperSettings(delay_seconds=0, longest_pause_seconds=0),
            Surroundings(self.metadata.make_durable, lambda: False, lambda: 1 << 20),
            volume_name="test",
        )
        place = Place(self.memory, self.index, KEY, volume_id)
        shipments = SnapshotShipments(self.metadata.shipping, place, self.directory, lambda: 1 << 20, 1 << 20, "a test")
        desk = SnapshotDesk(
            self.metadata, self.chunks, shipments, self.metadata.make_durable, _no_kernel, read_only=False
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shipper.run)
            for snapshot in snapshots:
                await desk.create(snapshot)
            await desk.finish()
            await shipper.drain()
            nursery.cancel_scope.cancel()

    def sql(self, *statements: str) -> None:
        """Change the metadata behind everybody's back."""
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    @contextlib.contextmanager
    def opened(self, *, mounted: bool = False) -> Iterator[Check]:
        """A check that was not run yet."""
        with Check(Scope(self.volume, self.directory, self.cache, mounted)) as check:
            yield check

    async def check(self, *, subset: Subset | None = None, online: bool = True, mounted: bool = False) -> list[Finding]:
        """What a check finds."""
        with self.opened(mounted=mounted) as check:
            await check.run(self.memory if online else None, KEY, subset)
            return list(check.findings)

    async def repair(
        self, *, subset: Subset | None = None, online: bool = True, delete_unknown: bool = False
    ) -> list[str]:
        """Check and repair; returns what is left in the metadata."""
        with self.opened() as check:
            transport = self.memory if online else None
            await check.run(transport, KEY, subset)
            repair = Repair(check, online=online, delete_unknown=delete_unknown)
            self.plan = repair.plan()
            if self.plan:
                await self._run(repair, check, transport)
            return repair.errors_left()

    async def _run(self, repair: Repair, check: Check, transport: MemoryTransport | None) -> None:
        self.lines: list[str] = []
        if transport is None:
            await repair.run(None, None, self.lines.append)
            return
        guarded = ConfirmedDeletions(transport)
        async with right_to_repair(self.volume, self.directory, check.rows, guarded, KEY) as right:
            right.confirm = guarded.confirming(right.confirm)  # type: ignore[method-assign,assignment] # so that it is noted
            await repair.run(guarded, right, self.lines.append)

    async def contents(self) -> dict[str, bytes | int]:
        """Every file below the root: what it holds, or the errno of reading it."""
        async with self.mounted() as filesystem:
            found: dict[str, bytes | int] = {}
            await self._walk(filesystem, ROOT_INODE, "", found)
            return found

    async def _walk(self, filesystem: Filesystem, inode: InodeNumber, path: str, found: dict[str, bytes | int]) -> None:
        names: list[tuple[bytes, InodeNumber, int, int]] = []

        def add(name: bytes, attributes: Attributes, _cookie: int) -> bool:
            names.append((name, attributes.inode, attributes.mode, attributes.size_bytes))
            return True

        await filesystem.read_directory(inode, 0, add)
        for name, below, mode, size_bytes in names:
            here = f"{path}/{name.decode()}"
            if name in (b".", b".."):
                continue
            if stat.S_ISDIR(mode):
                await self._walk(filesystem, below, here, found)
            elif stat.S_ISREG(mode):
                found[here] = await self._read(filesystem, below, size_bytes)

    @staticmethod
    async def _read(filesystem: Filesystem, inode: InodeNumber, size_bytes: int) -> bytes | int:
        handle = await filesystem.files.open(inode, os.O_RDONLY)
        try:
            return await filesystem.files.read(handle, 0, size_bytes)
        except FilesystemError as error:
            return error.errno
        finally:
            await filesystem.release(handle)

    def messages(self) -> list[StoredMessage]:
        """All data messages, oldest first."""
        found = (message for channel in self.channels for message in self.memory.messages(channel))
        return sorted(found, key=lambda message: message.message)

    async def send_pack(self) -> None:
        """A pack of this volume that no record refers to."""
        builder = PackBuilder(KEY, limit_bytes=4 * CHUNK, chunk_bytes=CHUNK)
        builder.add(ChunkKey(InodeNumber(1000), ChunkIndex(0)), Revision(1), b"left over")
        finished = builder.finish()
        self.stray_pack = finished.pack
        await self.memory.send(self.channels[0], [finished.upload], nonce="stray")


async def _no_kernel(directory: InodeNumber, name: bytes) -> None:
    await trio.lowlevel.checkpoint()


def kinds(findings: list[Finding]) -> list[Kind]:
    """What was found, in order."""
    return [finding.kind for finding in findings]
