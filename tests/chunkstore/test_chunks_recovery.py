"""What is believed of a cache directory at the start, and what of cut bytes and new names before."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest
from support.chunk_worlds import CHUNK, FILE, SETTINGS, ChunkWorld, chunk_world

from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

IN_FILES = dataclasses.replace(SETTINGS, small_content_bytes=0)


async def test_an_uncommitted_write_into_a_hole(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Bytes of a write that a crash undid do not come back when a later write makes their chunk present."""
    async with chunk_world(tmp_path) as (world, nursery):
        await world.write(FILE, 0, b"kept")
        await world.write(FILE, 3 * CHUNK, b"kept")
        world.ledger.commit()
        await world.write(FILE, CHUNK, b"undone" * 100)
        await world.crash(nursery)
        assert bytes(CHUNK) == await world.store.read(FILE, CHUNK, CHUNK)
        await world.write(FILE, CHUNK, b"new")
        assert b"new".ljust(2 * CHUNK, b"\0") == await world.store.read(FILE, CHUNK, 2 * CHUNK)


async def test_growing_over_bytes_that_were_cut(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Unsent bytes that were cut, and wait in the cache file until that is durable, are not content when it grows."""
    async with chunk_world(tmp_path) as (world, _):
        await world.write(FILE, 0, b"x" * 3 * CHUNK)
        world.ledger.commit()
        await world.cut(FILE, 5)
        await world.write(FILE, 2 * CHUNK + 10, b"end")
        await world.write(FILE, CHUNK + 10, b"middle")
        expected = b"xxxxx".ljust(CHUNK + 10, b"\0") + b"middle".ljust(CHUNK, b"\0") + b"end"
        assert expected == await world.contents(FILE)


async def test_a_note_of_another_stop(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is noted as present counts only together with the ledger of the same stop; else it is fetched."""
    async with chunk_world(tmp_path, small_content_bytes=0) as (world, nursery):
        await world.write(FILE, 0, b"content")
        await world.store.drain()
        await world.stop()
        assert world.marks is not None
        world.marks = dataclasses.replace(world.marks, clean_stop="of another time")
        world.store = world.new_store()
        await world.start(nursery)
        assert b"content" == await world.contents(FILE)
        assert 1 == world.transport.calls["fetch"]


async def test_another_cache_directory(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Unsent data is not looked for in another volume's cache: EIO, never foreign bytes; what lies there is kept."""
    other = ChunkWorld(tmp_path / "other", IN_FILES)
    async with chunk_world(tmp_path / "cache", small_content_bytes=0) as (world, nursery):
        await world.write(FILE, 0, b"ours")
        world.ledger.commit()
        await other.start(nursery)
        await other.write(FILE, 0, b"theirs")
        await other.halt()
        other.store.close()
        (tmp_path / "cache").rename(tmp_path / "mislaid")
        (tmp_path / "other").rename(tmp_path / "cache")
        await world.crash(nursery)
        assert "lost" in caplog.text
        with pytest.raises(FilesystemError, match="EIO"):
            await world.contents(FILE)
        assert b"theirs" in [path.read_bytes() for path in (tmp_path / "cache").rglob("7")]


async def test_a_sync_includes_the_name_of_the_cache_file(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a cache file is synced with it: after a power cut a file without a name is lost."""
    synced: set[int] = set()
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    async with chunk_world(tmp_path, small_content_bytes=0) as (world, _):
        await world.write(FILE, 0, b"content")
        await world.store.sync(FILE)
        file = tmp_path / "files" / "07" / "7"
        assert {file.stat().st_ino, file.parent.stat().st_ino} == synced


async def test_regression_a_new_cache_directory_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every directory above the cache files that was made is synced into its parent, up to one that was there."""
    synced: set[int] = set()
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    world = ChunkWorld(tmp_path / "a" / "b")
    world.store.close()
    above = [tmp_path, tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "files"]
    assert {path.stat().st_ino for path in above} <= synced
