"""A small daemon for tests: one mounted file system in a process of its own, without Discord and command line.

`python -m support.mount_daemon MOUNTPOINT STATE [--loop stock] [--parts memory] [--option allow_other]...`

It ends when the file system is unmounted, or on SIGTERM. A process that uses a mount that it serves itself
waits for itself, hence the second process.
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

from disfs.filesystem import Filesystem
from disfs.fuse_ops import FuseOperations
from disfs.polled_loop import polled_loop
from support.memory_chunks import MemoryChunks
from support.memory_metadata import MemoryMetadataStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def open_filesystem(parts: str, state: Path) -> AsyncIterator[Filesystem]:
    """The file system over the parts that were asked for."""
    assert parts == "memory"
    assert state.is_dir()
    yield Filesystem(MemoryMetadataStore(), MemoryChunks())


async def terminate_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            pyfuse3.terminate()


async def serve(arguments: argparse.Namespace) -> None:
    async with open_filesystem(arguments.parts, arguments.state) as filesystem, trio.open_nursery() as nursery:
        operations = FuseOperations(filesystem)
        options = {"fsname=disfs-test", "default_permissions", *arguments.option}
        pyfuse3.init(operations, str(arguments.mountpoint), options)
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
    parser.add_argument("--parts", choices=("memory", "real"), default="memory")
    parser.add_argument("--option", action="append", default=[])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    trio.run(serve, parser.parse_args())


if __name__ == "__main__":
    main()
