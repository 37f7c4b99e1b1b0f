"""A small daemon for tests: one mounted file system in a process of its own, without Discord and command line.

`python -m support.mount_daemon MOUNTPOINT STATE [--loop stock] [--parts memory|sqlite|real|kept] [--option NAME]...`

It ends when the file system is unmounted, or on SIGTERM. After SIGUSR1 reads and writes fail with an exception that
nobody expects (parts memory and sqlite), until SIGUSR2. A process that uses a mount that it serves
itself waits for itself, hence the second process.

What parts `kept` hold outlives the daemon, however it ends; its chunks are 4 KiB and its cache holds few of them, so
that small files are many chunks and travel.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyfuse3
import trio

from disfs.chunkstore.keys import VolumeKey
from disfs.chunkstore.settings import ChunkStoreSettings
from disfs.chunkstore.store import ChunkStore
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.daemon import KEEP_ATIME
from disfs.filesystem import Filesystem
from disfs.fuse_ops import FuseOperations
from disfs.local_volume import keep_marks, take_over_cache
from disfs.metadata.store import SqliteMetadataStore
from disfs.polled_loop import polled_loop
from disfs.spans import DEFAULT_CHUNK_BYTES
from support.kept_transport import KeptTransport
from support.memory_chunks import MemoryChunks
from support.memory_metadata import MemoryMetadataStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from disfs.file_io import FileChunks
    from disfs.values import InodeNumber
    from support.memory_chunks import ChunkCounter

KEPT_CHUNK_BYTES = 4096
KEPT_SETTINGS = ChunkStoreSettings(
    chunk_bytes=KEPT_CHUNK_BYTES,
    cache_bytes=48 * KEPT_CHUNK_BYTES,
    dirty_limit_bytes=32 * KEPT_CHUNK_BYTES,
    min_free_bytes=0,
    attachment_bytes=8 * KEPT_CHUNK_BYTES,
    message_bytes=16 * KEPT_CHUNK_BYTES,
    writeback_delay_seconds=0.02,
    sweep_grace_seconds=0.1,
    sweep_interval_seconds=0.5,
)


@contextlib.asynccontextmanager
async def open_filesystem(parts: str, state: Path, *, keeps_atime: bool) -> AsyncIterator[Filesystem]:
    """The file system over the parts that were asked for."""
    async with contextlib.AsyncExitStack() as stack:
        if parts == "memory":
            memory = MemoryMetadataStore()
            yield Filesystem(memory, await stack.enter_async_context(failing_chunks(memory)), keeps_atime=keeps_atime)
            return
        path = state / "metadata.db"
        chunk_bytes = KEPT_CHUNK_BYTES if parts == "kept" else DEFAULT_CHUNK_BYTES
        metadata = SqliteMetadataStore.open(path, create=not path.exists(), chunk_bytes=chunk_bytes)
        stack.callback(metadata.close)
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(metadata.run)
        chunks = await stack.enter_async_context(chunks_of(parts, metadata, state))
        yield Filesystem(metadata, chunks, keeps_atime=keeps_atime)


def chunks_of(parts: str, metadata: SqliteMetadataStore, state: Path) -> AbstractAsyncContextManager[FileChunks]:
    if parts == "kept":
        return kept_chunks(metadata, state)
    return failing_chunks(metadata) if parts == "sqlite" else real_chunks(metadata, state)


@contextlib.asynccontextmanager
async def failing_chunks(ledger: ChunkCounter) -> AsyncIterator[MemoryChunks]:
    """Chunks in memory, with SIGUSR1 and SIGUSR2 listened to."""
    chunks = MemoryChunks(ledger)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_on_signal, chunks)
        yield chunks
        nursery.cancel_scope.cancel()


async def fail_on_signal(chunks: MemoryChunks) -> None:
    with trio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
        async for number in signals:
            chunks.fails_with = ZeroDivisionError("asked for") if number == signal.SIGUSR1 else None


@contextlib.asynccontextmanager
async def real_chunks(metadata: SqliteMetadataStore, state: Path) -> AsyncIterator[ChunkStore]:
    """A chunk store with a small cache, over a Discord in memory."""
    transport = MemoryTransport()
    category = await transport.create_category(transport.GUILD.guild, "test")
    channel = await transport.create_channel(transport.GUILD.guild, "data", parent=category.channel, topic="")
    chunks = ChunkStore(
        ledger=metadata,
        transport=transport,
        channels=[channel.channel],
        volume_key=VolumeKey(bytes(range(32))),
        cache_directory=state / "cache",
        settings=ChunkStoreSettings(cache_bytes=32 << 20, writeback_delay_seconds=0.05, min_free_bytes=1 << 20),
    )

    async def size_of(inode: InodeNumber) -> int | None:
        return (await metadata.attributes(inode)).size_bytes

    await chunks.start(size_of)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(chunks.run)
        yield chunks
        nursery.cancel_scope.cancel()
    await chunks.stop()


@contextlib.asynccontextmanager
async def kept_chunks(metadata: SqliteMetadataStore, state: Path) -> AsyncIterator[ChunkStore]:
    """A chunk store that takes over what an earlier one left, in order or not, as the daemon of the product does."""
    transport = KeptTransport(state / "discord")
    chunks = ChunkStore(
        ledger=metadata,
        transport=transport,
        channels=transport.data_channels,
        volume_key=VolumeKey(bytes(range(32))),
        cache_directory=state / "cache",
        settings=KEPT_SETTINGS,
    )
    await take_over_cache(metadata, chunks)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(chunks.run)
        yield chunks
        nursery.cancel_scope.cancel()
    keep_marks(metadata, await chunks.stop())


async def terminate_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            pyfuse3.terminate()


async def serve(arguments: argparse.Namespace) -> None:
    opening = open_filesystem(arguments.parts, arguments.state, keeps_atime=bool(KEEP_ATIME & set(arguments.option)))
    async with opening as filesystem, trio.open_nursery() as nursery:
        await filesystem.remove_orphans()
        options = {"fsname=disfs-test", "default_permissions", *arguments.option}
        chunk_bytes = KEPT_CHUNK_BYTES if arguments.parts == "kept" else DEFAULT_CHUNK_BYTES
        pyfuse3.init(FuseOperations(filesystem, chunk_bytes=chunk_bytes), str(arguments.mountpoint), options)
        try:
            nursery.start_soon(terminate_on_signal)
            with polled_loop() if arguments.loop == "polled" else contextlib.nullcontext():
                await pyfuse3.main()
        finally:
            pyfuse3.close(unmount=True)
        await filesystem.close()
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("state", type=Path)
    parser.add_argument("--loop", choices=("polled", "stock"), default="polled")
    parser.add_argument("--parts", choices=("memory", "sqlite", "real", "kept"), default="sqlite")
    parser.add_argument("--option", action="append", default=[])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    trio.run(serve, parser.parse_args())


if __name__ == "__main__":
    main()
