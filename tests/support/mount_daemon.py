"""A small daemon for tests: one mounted file system in a process of its own, without Discord and command line.

`python -m support.mount_daemon MOUNTPOINT STATE [--loop stock] [--listings stock] [--parts memory|sqlite|real|kept]
[--size BYTES] [--option NAME]... [--log-requests]`

It ends when the file system is unmounted, or on SIGTERM. After SIGUSR1 reads and writes fail with an exception that
nobody expects (parts memory and sqlite), until SIGUSR2. On SIGHUP it makes a file in the root that the kernel did not
ask for, tells the kernel, and then logs that. A process that uses a mount that it serves
itself waits for itself, hence the second process.

What parts `kept` hold outlives the daemon, however it ends; its chunks are 4 KiB and its cache holds few of them, so
that small files are many chunks and travel.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import stat
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyfuse3
import trio

from disfs.chunkstore.keys import VolumeKey
from disfs.chunkstore.settings import ChunkStoreSettings
from disfs.chunkstore.store import ChunkStore
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.config import VolumeSettings
from disfs.filesystem import Filesystem
from disfs.fuse_ops import FuseOperations
from disfs.fuse_variants import vary_answers
from disfs.local_volume import keep_marks, take_over_cache
from disfs.metadata.base import DEFAULT_CAPACITY_BYTES
from disfs.metadata.store import SqliteMetadataStore
from disfs.mount_options import parse_options
from disfs.polled_loop import polled_loop
from disfs.session_hook import SessionHook
from disfs.spans import DEFAULT_CHUNK_BYTES
from disfs.values import ROOT_INODE, NewInode
from support.kept_transport import KeptTransport
from support.memory_chunks import MemoryChunks
from support.memory_metadata import MemoryMetadataStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from disfs.file_io import FileChunks
    from disfs.mount_options import Behaviour
    from disfs.values import InodeNumber
    from support.memory_chunks import ChunkCounter

log = logging.getLogger(__name__)

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
async def open_filesystem(parts: str, state: Path, size: int, behaviour: Behaviour) -> AsyncIterator[Filesystem]:
    """The file system over the parts that were asked for, `size` bytes large."""
    make = partial(Filesystem, capacity_bytes=size, atime=behaviour.atime, directory_atime=behaviour.directory_atime)
    async with contextlib.AsyncExitStack() as stack:
        if parts == "memory":
            memory = MemoryMetadataStore(capacity_bytes=size)
            yield make(memory, await stack.enter_async_context(failing_chunks(memory)))
            return
        path = state / "metadata.db"
        chunk_bytes = KEPT_CHUNK_BYTES if parts == "kept" else DEFAULT_CHUNK_BYTES
        metadata = SqliteMetadataStore.open(
            path, create=not path.exists(), chunk_bytes=chunk_bytes, capacity_bytes=size
        )
        stack.callback(metadata.close)
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(metadata.run)
        yield make(metadata, await stack.enter_async_context(chunks_of(parts, metadata, state)))


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


async def change_on_signal(filesystem: Filesystem) -> None:
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            new = NewInode(mode=stat.S_IFREG | 0o600, uid=0, gid=0)
            made = await filesystem.make_inode(ROOT_INODE, b"behind the kernel", new)
            await filesystem.forget([(made.inode, 1)])
            await trio.to_thread.run_sync(pyfuse3.invalidate_inode, ROOT_INODE)
            log.info("changed behind the kernel")


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
    options = parse_options(tuple(arguments.option))
    opened = open_filesystem(arguments.parts, arguments.state, arguments.size, options.behaviour)
    async with opened as filesystem, trio.open_nursery() as nursery:
        if not options.behaviour.read_only:
            await filesystem.remove_orphans()
        filesystem.has_acls = options.apply(VolumeSettings()).has_acls
        hook = SessionHook(keeps_listings=options.behaviour.keeps_listings)
        chunk_bytes = KEPT_CHUNK_BYTES if arguments.parts == "kept" else DEFAULT_CHUNK_BYTES
        shown = options.behaviour.shown
        operations = FuseOperations(filesystem, chunk_bytes=chunk_bytes, hook=hook, shown=shown)
        vary_answers(operations, options.behaviour, filesystem)
        flags = {"fsname=disfs-test", "default_permissions", *options.kernel_flags}
        with hook.offered() if arguments.listings == "kernel" else contextlib.nullcontext():
            pyfuse3.init(operations, str(arguments.mountpoint), flags)
        try:
            nursery.start_soon(terminate_on_signal)
            nursery.start_soon(change_on_signal, filesystem)
            with polled_loop() if arguments.loop == "polled" else contextlib.nullcontext():
                await pyfuse3.main()
        finally:
            pyfuse3.close(unmount=True)
        await filesystem.close(removes_orphans=not options.behaviour.read_only)
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("state", type=Path)
    parser.add_argument("--loop", choices=("polled", "stock"), default="polled")
    parser.add_argument("--listings", choices=("kernel", "stock"), default="kernel")
    parser.add_argument("--parts", choices=("memory", "sqlite", "real", "kept"), default="sqlite")
    parser.add_argument("--size", type=int, default=DEFAULT_CAPACITY_BYTES)
    parser.add_argument("--option", action="append", default=[])
    parser.add_argument("--log-requests", action="store_true")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    arguments = parser.parse_args()
    if arguments.log_requests:
        logging.getLogger("disfs.fuse_ops").setLevel(logging.DEBUG)
    trio.run(serve, arguments)


if __name__ == "__main__":
    main()
