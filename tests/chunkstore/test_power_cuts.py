"""Power cuts at random moments: what was fsynced is there, whatever of the rest has reached the disk.

After a cut a cache file has the content of its last sync, or is gone if its folder was not synced since it was made.
The metadata are as they were when their log was last synced, which checkpoints do too; or as they were at the last
commit, since the kernel may write the log whenever it likes (nothing is sent then: see the docstring of `Disk`).
More of it: `python -m bench.crashes --power-cuts N`; at each step of the product's paths: `tests/faults`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
from support.power_cuts import SMALL, Disk, cut_at_random
from support.real_stores import real_stores

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


@pytest.mark.parametrize("eager_log", [False, True])
@pytest.mark.parametrize("seed", [*range(3), 30, 66, 70])
async def test_a_power_cut_takes_nothing_that_was_fsynced(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, seed: int, eager_log: bool
) -> None:
    """Whatever was appended, sent, evicted, spilled and synced before: each file begins with what was fsynced of it."""
    assert 1 <= await cut_at_random(tmp_path, monkeypatch, seed, eager_log=eager_log)


async def test_a_power_cut_takes_no_fsynced_overwrite(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written over data that is synced and still unsent is as safe after its fsync as a first write."""
    disk = Disk(tmp_path, monkeypatch, eager_log=False)
    async with real_stores(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        disk.watch(world, monkeypatch)
        world.chunks.pause()
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, b"a" * 20_000)
        await world.filesystem.files.fsync(handle)
        await world.filesystem.files.write(handle, 3000, b"b" * 7000)
        await world.filesystem.files.fsync(handle)
        await world.cut_power(nursery, disk.cut, paused=True)
        handle = await world.filesystem.files.open(inode, os.O_RDONLY)
        assert await world.filesystem.files.read(handle, 0, 30_000) == b"a" * 3000 + b"b" * 7000 + b"a" * 10_000


@pytest.mark.parametrize("size", [5000, 0])
async def test_regression_what_was_cut_stays_cut_where_the_file_grows(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Cut and fsynced, grown, and only another file fsynced: a power cut does not bring the old bytes back."""
    disk = Disk(tmp_path, monkeypatch, eager_log=False)
    async with real_stores(tmp_path, small_content_bytes=SMALL) as (world, nursery):
        disk.watch(world, monkeypatch)
        world.chunks.pause()
        other, _ = await world.create(b"other")
        handle, inode = await world.create(b"file")
        await world.filesystem.files.write(handle, 0, b"a" * 20_000)
        await world.filesystem.files.fsync(handle)
        await world.truncate(inode, size)
        await world.filesystem.files.fsync(handle)
        await trio.sleep(2)
        await world.filesystem.files.write(handle, 12_000, b"b" * 8000)
        await world.filesystem.files.write(other, 0, b"x")
        await world.filesystem.files.fsync(other)
        await world.cut_power(nursery, disk.cut, paused=True)
        handle = await world.filesystem.files.open(inode, os.O_RDONLY)
        kept = await world.filesystem.files.read(handle, 0, size)
        grown = await world.filesystem.files.read(handle, size, 12_000 - size)
        assert (b"a" * size, bytes(12_000 - size)) == (kept, grown)
