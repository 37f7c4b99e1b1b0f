"""How long a mount takes to go on after a crash that left many chunks unsent: `python -m bench.remount`.

What is measured is what the daemon does before the kernel is asked to mount, without requests to Discord: open the
metadata, bring cache and metadata together, look for orphans. The crash is a process that ends and closes nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import stat
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from disfs.chunkstore.keys import VolumeKey
from disfs.chunkstore.settings import ChunkStoreSettings
from disfs.chunkstore.store import ChunkStore
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.filesystem import Filesystem
from disfs.local_volume import take_over_cache
from disfs.metadata.store import SqliteMetadataStore
from disfs.values import ROOT_INODE, NewInode

if TYPE_CHECKING:
    from disfs.values import InodeNumber

CHUNK_BYTES = 128 * 1024
SHAPES = ("one file", "files", "small files")
"""A 4 KiB write into each chunk of one file; files of 20 KiB, with a cache file each; files of 100 bytes."""
_FILE_BYTES = 20 * 1024
_SMALL_BYTES = 100
_PER_DIRECTORY = 1000


class Volume:
    """Both stores over a directory, with a Discord in memory that nothing is sent to."""

    def __init__(self, directory: Path, *, create: bool = False) -> None:
        memory = MemoryTransport()
        self.metadata = SqliteMetadataStore.open(directory / "volume.db", create=create, chunk_bytes=CHUNK_BYTES)
        self.chunks = ChunkStore(
            ledger=self.metadata,
            transport=memory,
            channels=[memory.add_channel()],
            volume_key=VolumeKey(bytes(32)),
            cache_directory=directory / "cache",
            settings=ChunkStoreSettings(chunk_bytes=CHUNK_BYTES, cache_bytes=1 << 40, dirty_limit_bytes=1 << 40),
        )
        self.filesystem = Filesystem(self.metadata, self.chunks)

    async def start(self) -> int:
        """As the daemon does it; returns how many chunks are dirty."""
        await take_over_cache(self.metadata, self.chunks)
        await self.filesystem.remove_orphans()
        return self.chunks.statistics().dirty_chunks


def crash(directory: Path, shape: str, chunks: int) -> None:
    """Make a volume with so many dirty chunks, and end without a word. In a process of its own."""
    trio.run(_fill, directory, shape, chunks)
    os._exit(0)


async def _fill(directory: Path, shape: str, chunks: int) -> None:
    volume = Volume(directory, create=True)
    volume.chunks.pause()
    await volume.start()
    if shape == "one file":
        await _write(volume, ROOT_INODE, b"file", [(index * CHUNK_BYTES, b"x" * 4096) for index in range(chunks)])
    else:
        content = b"x" * (_FILE_BYTES if shape == "files" else _SMALL_BYTES)
        for number in range(chunks):
            if number % _PER_DIRECTORY == 0:
                made = await volume.filesystem.make_inode(ROOT_INODE, b"%d" % number, _new(stat.S_IFDIR | 0o755))
            await _write(volume, made.inode, b"%d" % number, [(0, content)])
    await volume.metadata.commit()


def _new(mode: int) -> NewInode:
    return NewInode(mode=mode, uid=0, gid=0)


async def _write(volume: Volume, parent: InodeNumber, name: bytes, pieces: list[tuple[int, bytes]]) -> None:
    handle, _ = await volume.filesystem.create(parent, name, _new(stat.S_IFREG | 0o644), os.O_RDWR)
    for offset, piece in pieces:
        await volume.filesystem.files.write(handle, offset, piece)
    await volume.filesystem.release(handle)


def measure(directory: Path) -> tuple[float, float, int]:
    """Seconds until the volume could be used again, how much of it was CPU, and how many dirty chunks were found."""
    began, cpu = time.perf_counter(), time.process_time()
    volume = Volume(directory)
    found = trio.run(volume.start)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    volume.chunks.close()
    volume.metadata.close()
    return seconds, cpu_seconds, found


@click.command(help="How long it takes to go on after a crash that left many chunks unsent.")
@click.option("--chunks", default=100_000, show_default=True)
@click.option("--directory", type=click.Path(path_type=Path), help="Where to work. [default: below /tmp]")
def main(chunks: int, directory: Path | None) -> None:
    """One line for each shape."""
    for shape in SHAPES:
        work = Path(tempfile.mkdtemp(prefix="disfs-remount-", dir=directory))
        try:
            process = multiprocessing.get_context("spawn").Process(target=partial(crash, work, shape, chunks))
            process.start()
            process.join()
            seconds, cpu_seconds, found = measure(work)
            click.echo(f"{found} dirty chunks, {shape}: {seconds:.2f} s, of these {cpu_seconds:.2f} s CPU")
        finally:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
