"""What the control socket is served by: the controls of a volume of real stores, with a mount that is made up."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from disfs.chunkstore.transport.stack import Connection
from disfs.controls import Controls
from disfs.discord_watch import DiscordWatch
from disfs.volume import Look
from support.real_stores import real_stores
from support.volumes import VOLUME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from disfs.values import InodeNumber
    from support.real_stores import RealStores


class Served:
    """A mount that is up."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def facts(self) -> Mapping[str, object]:
        """See `Served` of disfs.controls."""
        return {"volume": "photos", "mountpoint": "/mnt", "state": "mounted"}

    async def sync(self) -> None:
        self.asked.append("sync")

    async def unmount(self, *, wait: bool) -> None:
        self.asked.append(wait)


@asynccontextmanager
async def controls(directory: Path) -> AsyncIterator[tuple[Controls, RealStores, list[object]]]:
    """The controls of a running volume, and the bandwidth limits that its connection was told."""
    limits: list[object] = []
    async with real_stores(directory, 2) as (world, nursery):
        watch = DiscordWatch(world.memory, VOLUME, Look(), is_refused=lambda: False, on_attachment_bytes=print)
        connection = Connection(
            world.transport, world.memory, lambda up, down: limits.append((up, down)), world.transport
        )
        holder = world.make_holder()
        made = Controls(
            Served(),
            world.metadata,
            connection,
            world.chunks,
            world.shipper,
            holder,
            world.filesystem,
            watch,
            world.make_trash_desk(),
            world.make_snapshot_desk(),
        )
        nursery.start_soon(made.run)
        yield made, world, limits


async def write(world: RealStores, name: bytes, content: bytes) -> InodeNumber:
    handle, inode = await world.create(name)
    await world.filesystem.files.write(handle, 0, content)
    await world.filesystem.release(handle)
    return inode
