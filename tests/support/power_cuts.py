"""A disk of which a power cut leaves what was synced, under real stores."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.files import CacheFiles
from support.real_stores import real_stores

if TYPE_CHECKING:
    import pytest

    from disfs.values import InodeNumber
    from support.real_stores import RealStores

SMALL = 1000
"""Contents up to here are small ones."""
LENGTHS = (1, 100, 400, 900, 2000, 5000)
OPERATIONS = ("append",) * 8 + ("fsync",) * 3 + ("wait",) * 2 + ("names", "everything", "cut", "commit", "checkpoint")
ONLINE = ("drain", "evict")
LOG_FILES = ("volume.db", "volume.db-wal")


class Disk:
    """What a power cut leaves of the directory of a volume.

    With `eager_log` every commit is on the disk at once. What lies over a content that Discord has may be lost then,
    with that content: so such a world sends nothing.
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, *, eager_log: bool) -> None:
        self._directory = directory
        self._synced_log = directory / "synced"
        self._synced_log.mkdir()
        self._eager_log = eager_log
        self._contents: dict[int, bytes] = {}
        self._names: dict[str, dict[str, int]] = {}
        self._held: dict[int, int] = {}
        """A descriptor of each file that was synced: its number is not given to another one."""
        monkeypatch.setattr(os, "fdatasync", self._fdatasync)
        monkeypatch.setattr(CacheFiles, "sync_disk", self._syncfs)

    def __del__(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)

    def watch(self, world: RealStores, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever makes the log durable is noted from now on; to be called after each start."""
        checkpointer = world.metadata._checkpointer
        run_pass = checkpointer._pass

        def noted_pass() -> bool:
            self._keep_log()
            return run_pass()

        monkeypatch.setattr(checkpointer, "_pass", noted_pass)
        monkeypatch.setattr(world.metadata._sync, "_sync", self._keep_log)

    def cut(self) -> None:
        """Everything goes that was not synced. Nobody has the files open."""
        if self._eager_log:
            self._keep_log()
        for name in (*LOG_FILES, "volume.db-shm"):
            (self._directory / name).unlink(missing_ok=True)
        shutil.copytree(self._synced_log, self._directory, dirs_exist_ok=True)
        for path in (self._directory / "cache").rglob("files/*/*"):
            number = path.stat().st_ino
            if self._names.get(str(path.parent), {}).get(path.name) == number:
                path.write_bytes(self._contents.get(number, b""))
            else:
                path.unlink()

    def _keep_log(self) -> None:
        for name in LOG_FILES:
            (self._synced_log / name).unlink(missing_ok=True)
            if (self._directory / name).exists():
                shutil.copy(self._directory / name, self._synced_log / name)

    def _fdatasync(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            with os.scandir(descriptor) as entries:
                names = {entry.name: entry.inode() for entry in entries}
            self._names[str(Path(f"/proc/self/fd/{descriptor}").readlink())] = names
        else:
            self._contents[found.st_ino] = os.pread(descriptor, found.st_size, 0)
            if found.st_ino not in self._held:
                self._held[found.st_ino] = os.dup(descriptor)

    def _syncfs(self, files: CacheFiles | None = None) -> None:
        """Everything in the cache, files and names."""
        for path in [*(self._directory / "cache").rglob("files/*"), *(self._directory / "cache").rglob("files/*/*")]:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                self._fdatasync(descriptor)
            finally:
                os.close(descriptor)


def pattern(inode: InodeNumber, start: int, end: int) -> bytes:
    """What a file has there: no zeros, and each position unlike its neighbours."""
    return bytes((i * 31 + i // 253 + inode * 7) % 255 + 1 for i in range(start, end))


class Appender:
    """Appends to a few files, and knows how much of each is promised."""

    def __init__(self, world: RealStores, random: Random) -> None:
        self._world = world
        self._random = random
        self._handles: dict[InodeNumber, int] = {}
        self._written: dict[InodeNumber, int] = {}
        self._promised: dict[InodeNumber, int] = {}

    async def begin(self) -> None:
        """Three files, with durable names."""
        for name in (b"a", b"b", b"c"):
            handle, inode = await self._world.create(name)
            self._handles[inode] = handle
            self._written[inode] = self._promised[inode] = 0
        await self._world.filesystem.files.sync_everything()

    async def step(self, operation: str) -> None:
        """One operation other than a cut."""
        inode = self._random.choice(list(self._handles))
        files, metadata, chunks = self._world.filesystem.files, self._world.metadata, self._world.chunks
        if operation == "append":
            await self._append(inode)
        elif operation == "fsync":
            await files.fsync(self._handles[inode])
            self._promised[inode] = self._written[inode]
        elif operation == "wait":
            await trio.sleep(self._random.choice((0.05, 0.3, 2, 40)))
        elif operation == "names":
            await self._world.filesystem.sync_names()
        elif operation == "commit":
            await metadata.commit()
        elif operation == "checkpoint":
            await metadata.commit()
            await metadata._checkpointer.checkpoint()
        elif operation == "evict":
            chunks.evict_all()
        else:
            await (chunks.drain() if operation == "drain" else files.sync_everything())
            self._promised = dict(self._written)

    async def _append(self, inode: InodeNumber) -> None:
        start = self._written[inode]
        end = start + self._random.choice(LENGTHS)
        if end < 20_000:
            await self._world.filesystem.files.write(self._handles[inode], start, pattern(inode, start, end))
            self._written[inode] = end

    async def check(self) -> None:
        """After a cut: what was promised is there; the rest is taken away, to go on from what is known."""
        files = self._world.filesystem.files
        for inode, length in self._promised.items():
            handle = self._handles[inode] = await files.open(inode, os.O_RDWR)
            assert pattern(inode, 0, length) == await files.read(handle, 0, length)
            await self._world.truncate(inode, length)
        self._written = dict(self._promised)
        await files.sync_everything()


async def cut_at_random(directory: Path, patch: pytest.MonkeyPatch, seed: int, *, eager_log: bool) -> int:
    """Sixty random operations, power cuts among them and one at the end; returns how many cuts there were.

    AssertionError when something was lost that was fsynced. Under a jumping clock.
    """
    random = Random(seed)
    disk = Disk(directory, patch, eager_log=eager_log)
    cuts = 0
    async with real_stores(directory, small_content_bytes=SMALL, writeback_delay_seconds=0.2) as (world, nursery):
        disk.watch(world, patch)
        if eager_log:
            world.chunks.pause()
        appender = Appender(world, random)
        await appender.begin()
        for operation in [*random.choices(OPERATIONS if eager_log else OPERATIONS + ONLINE, k=60), "cut"]:
            if operation != "cut":
                await appender.step(operation)
                continue
            await world.cut_power(nursery, disk.cut, paused=eager_log)
            disk.watch(world, patch)
            await appender.check()
            cuts += 1
    return cuts
