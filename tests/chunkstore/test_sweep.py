"""Dead messages are deleted in bulk, the oldest first, and what cannot be deleted keeps nobody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.chunk_worlds import CHUNK, FILE, OTHER, chunk_world

from disfs.chunkstore.transport.faults import Fault
from disfs.errors import TransientStorageError
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from pathlib import Path

    from support.chunk_worlds import ChunkWorld

SETTINGS: dict[str, Any] = {"sweep_interval_seconds": 1e9, "compaction_share": 0.0, "sweep_grace_seconds": 0.0}


async def some_messages(world: ChunkWorld, count: int) -> list[InodeNumber]:
    """So many messages, one file in each."""
    inodes = [InodeNumber(100 + number) for number in range(count)]
    for inode in inodes:
        await world.write(inode, 0, b"content")
        await world.store.drain()
    return inodes


async def test_bulk_oldest_first(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred messages go by one request, by age and not by the order of their deaths."""
    async with chunk_world(tmp_path, channels=1, **SETTINGS) as (world, _):
        inodes = await some_messages(world, 150)
        for inode in reversed(inodes):
            world.discard(inode)
        batches: list[list[int]] = []
        delete = world.memory.delete

        async def noting(channel: Any, messages: Any, **named: Any) -> None:
            batches.append([*messages])
            await delete(channel, messages, **named)

        monkeypatch.setattr(world.memory, "delete", noting)
        await world.store.sweep()
        assert [100, 50] == [len(batch) for batch in batches]
        order = [message for batch in batches for message in batch]
        assert sorted(order) == order
        assert [] == await world.ledger.dead_messages(10)


async def test_messages_of_a_channel_that_is_gone_are_forgotten(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """When a channel was deleted, so were its messages: the dead ones among them are forgotten."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        inodes = await some_messages(world, 4)
        world.memory.remove_channel(world.channels[0])
        for inode in inodes:
            world.discard(inode)
        await world.store.sweep()
        assert ([], {}) == (await world.ledger.dead_messages(10), world.ledger.state.packs)


async def test_message_that_somebody_deleted_counts(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A dead message that is not in Discord any more is forgotten."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        (inode,) = await some_messages(world, 1)
        (record,) = world.ledger.state.packs.values()
        await world.memory.delete(record.location.channel, [record.location.message])
        world.discard(inode)
        await world.store.sweep()
        assert {} == world.ledger.state.packs


async def test_failed_deletion_does_not_keep_strays(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A sweep whose deletion fails still looks for strays, and says why it failed."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        (inode,) = await some_messages(world, 1)
        world.discard(inode)
        world.transport.plan("delete", 1, Fault(before=TransientStorageError("the network")))
        lists = world.transport.calls["list_messages"]
        with pytest.raises(TransientStorageError, match="network"):
            await world.store.sweep()
        assert len(world.channels) == world.transport.calls["list_messages"] - lists


async def test_rewritten_garbage_is_swept_by_itself(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Left to itself the store rewrites what is mostly dead and deletes it: Discord holds little more than is live."""
    async with chunk_world(tmp_path, compaction_interval_seconds=10, cache_bytes=256 * CHUNK) as (world, _):
        for seed in range(12):
            for inode in (FILE, OTHER):
                data = bytes((seed * 37 + inode * 11 + n * n) % 251 for n in range(14 * CHUNK))
                await world.write(inode, (seed % 3) * CHUNK, data)
            await world.store.drain()
            await trio.sleep(300)
        contents = {inode: await world.contents(inode) for inode in (FILE, OTHER)}
        await trio.sleep(20_000)
        held = sum(a.size_bytes for c in world.channels for m in world.memory.messages(c) for a in m.attachments)
        live = sum(
            world.ledger.state.packs[pack].slots.stored_length(slot) for pack, slot in world.ledger.state.where.values()
        )
        assert held < 2.2 * live + 2000
        world.store.evict_all()
        assert contents == {inode: await world.contents(inode) for inode in (FILE, OTHER)}
