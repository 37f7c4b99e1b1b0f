"""Contents from packs alone: the newest revision of each chunk, whatever else is in the channels."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import trio
from support.real_stores import VOLUME_ID, real_stores

from disfs.chunkstore.transport.base import Upload
from disfs.errors import ExitCode, UserError
from disfs.metadata.store import SqliteMetadataStore
from disfs.recovery.index_channel import IndexChannel
from disfs.recovery.salvage import PackSearch, salvage
from disfs.values import ROOT_INODE, ChunkIndex

if TYPE_CHECKING:
    from pathlib import Path

    from support.real_stores import RealStores

    from disfs.recovery.rebuild import Report

CHUNK = 4096


async def salvaged(world: RealStores, path: Path) -> Report:
    """From what the memory holds."""
    return await salvage(
        PackSearch(world.memory, world.channels, world.key),
        IndexChannel(world.memory, world.index, world.key, VOLUME_ID),
        path,
        volume=VOLUME_ID,
        chunk_bytes=CHUNK,
        settings={},
        on_progress=lambda progress: None,
    )


async def test_newest_revision_of_each_chunk_is_found(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A file that was overwritten in part is as long as it was, and each chunk lies where its newest content does."""
    async with real_stores(tmp_path, 2) as (world, _):
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, b"1" * (2 * CHUNK + 100))
        await world.chunks.drain()
        await world.filesystem.files.write(handle, CHUNK, b"2" * CHUNK)
        await world.chunks.drain()
        await world.memory.send(world.channels[0], [Upload("cat.png", (b"meow" * 100,))], nonce="cat")
        report = await salvaged(world, tmp_path / "salvaged.db")
        assert 2 == len(report.missing)
        expected = list(await world.metadata.extents(inode, ChunkIndex(0), ChunkIndex(9)))
        with contextlib.closing(SqliteMetadataStore.open(tmp_path / "salvaged.db")) as store:
            directory = (await store.lookup(ROOT_INODE, b"lost+found")).inode
            file = await store.lookup(directory, b"inode-%d" % inode)
            assert (inode, 2 * CHUNK + 100, 3) == (file.inode, file.size_bytes, file.chunk_count)
            found = await store.extents(inode, ChunkIndex(0), ChunkIndex(9))
            places = [
                (run.pack, run.slot_of(ChunkIndex(run.first_chunk + n))) for run in expected for n in range(run.count)
            ]
            assert places == [(run.pack, run.first_slot) for run in found]
            for run in found:
                assert await world.metadata.pack(run.pack) == await store.pack(run.pack)
        await world.filesystem.release(handle)


async def test_what_is_left_of_names_is_left_behind(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Whoever went on from packs alone is no second branch of what he could not use."""
    async with real_stores(tmp_path, ships=True) as (world, _):
        handle, _ = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, b"1" * CHUNK)
        await world.filesystem.release(handle)
        await world.chunks.drain()
        await world.shipper.drain()
        await salvaged(world, tmp_path / "salvaged.db")
        with contextlib.closing(SqliteMetadataStore.open(tmp_path / "salvaged.db")) as store:
            assert (world.metadata.shipping.position().state,) == store.shipping.position().superseded
            shipper = world.make_shipper(store)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(shipper.run)
                await shipper.drain()
                nursery.cancel_scope.cancel()
            assert (1, None) == (shipper.statistics().sequence, shipper.statistics().conflict)


async def test_nothing_to_salvage_is_said(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """One line."""
    async with real_stores(tmp_path) as (world, _):
        with pytest.raises(UserError, match="no pack of this volume") as caught:
            await salvaged(world, tmp_path / "salvaged.db")
        assert ExitCode.VOLUME_DAMAGED == caught.value.exit_code
