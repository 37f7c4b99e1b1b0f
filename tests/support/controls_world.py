"""The controls of a volume over real stores, without a mount."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from disfs.chunkstore.transport.stack import Connection
from disfs.config import VolumeSettings
from disfs.controls import Controls, minute_of_this_week
from disfs.discord_watch import DiscordWatch
from disfs.mount_options import Behaviour
from disfs.mount_plan import MountPlan
from disfs.volume import Look
from support.real_stores import real_stores
from support.volumes import VOLUME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from disfs.values import InodeNumber
    from support.real_stores import RealStores


class Served:
    """A mount that is up."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def facts(self) -> Mapping[str, object]:
        return {"volume": "photos", "mountpoint": "/mnt", "state": "mounted"}

    async def sync(self) -> None:
        self.asked.append("sync")

    async def unmount(self, *, wait: bool) -> None:
        self.asked.append(wait)


def plan_of(directory: Path) -> MountPlan:
    """What such a volume was mounted with, as far as it matters here."""
    nobody: Any = None
    return MountPlan(
        volume=VOLUME,
        mountpoint=directory,
        kernel_options=frozenset(),
        behaviour=Behaviour(),
        settings=VolumeSettings(),
        state_directory=directory,
        cache_directory=directory,
        key=nobody,
        token="",
        api_url=None,
        lock=nobody,
    )


@asynccontextmanager
async def controls(
    directory: Path, minute_of_week: Callable[[], int] = minute_of_this_week
) -> AsyncIterator[tuple[Controls, RealStores, list[object]]]:
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
            plan_of(directory),
            minute_of_week,
        )
        nursery.start_soon(made.run)
        yield made, world, limits


async def write(world: RealStores, name: bytes, content: bytes) -> InodeNumber:
    handle, inode = await world.create(name)
    await world.filesystem.files.write(handle, 0, content)
    await world.filesystem.release(handle)
    return inode
