"""A huge file that nobody can reach goes in steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from support.chunk_worlds import CHUNK, FILE, OTHER, chunk_world

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from disfs.values import ChunkIndex, InodeNumber


async def test_shrinking_goes_in_steps(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dirty, recorded and cached chunks go from the end, some hundred at a time, and others run in between."""
    size = 1000 * CHUNK
    async with chunk_world(tmp_path, cache_bytes=2 * size, dirty_limit_bytes=2 * size) as (world, nursery):
        await world.write(OTHER, 0, b"stays")
        await world.write(FILE, 0, bytes(range(1, 251)) * (size // 250))
        await world.store.drain()
        await world.write(FILE, 300 * CHUNK, b"new" * CHUNK)
        cuts: list[int] = []
        turns = 0
        counting = trio.CancelScope()
        cut_chunks = world.ledger.cut_chunks

        def noting(inode: InodeNumber, first: ChunkIndex) -> None:
            cuts.append(first)
            cut_chunks(inode, first)

        async def count_turns() -> None:
            nonlocal turns
            with counting:
                while True:
                    turns += 1
                    await trio.lowlevel.checkpoint()

        monkeypatch.setattr(world.ledger, "cut_chunks", noting)
        nursery.start_soon(count_turns)
        await trio.lowlevel.checkpoint()
        before = turns
        await world.store.shrink(FILE)
        assert turns - before >= 2
        world.discard(FILE)
        counting.cancel()
        await trio.sleep(5)
        assert [744, 488, 232, 0] == cuts
        assert {OTHER} == {key.inode for key in world.ledger.state.where}
        assert [OTHER] == [*world.store._map.inodes]


async def test_shrinking_a_small_file_does_nothing(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What goes in one step is left to `discard`."""
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, b"data")
        await world.store.shrink(FILE)
        assert b"data" == await world.contents(FILE)
