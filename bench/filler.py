"""`python -m bench.filler VOLUME COUNT`: fill the metadata of an unmounted volume with COUNT empty files.

Through the metadata store's own methods, without kernel and contents: a million files in minutes. The files lie in
directories of `FILES_PER_DIRECTORY`, and each has a second name in one directory that so has as many entries as there
are files.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from typing import TYPE_CHECKING

import trio

from disfs.config import Paths, load_volume
from disfs.local_volume import open_metadata
from disfs.values import ROOT_INODE, NewInode

if TYPE_CHECKING:
    from disfs.metadata.store import SqliteMetadataStore
    from disfs.values import InodeNumber

FILES_PER_DIRECTORY = 1000
FLAT = "flat"
"""The directory that has a name for every file."""
_TURN = 500
"""After so many files the store may commit."""


def directory_name(number: int) -> str:
    """The directory of this number."""
    return f"d{number}"


def file_name(number: int) -> str:
    """The file of this number, of the same length for all; it is in directory `number // FILES_PER_DIRECTORY`."""
    return f"f{number:07d}"


async def fill(metadata: SqliteMetadataStore, count: int) -> dict[str, int]:
    """Make everything; how much, and the first and the last cookie of the directory of all."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metadata.run)
        files = await _fill_directories(metadata, count)
        flat = await _make(metadata, ROOT_INODE, FLAT, stat.S_IFDIR | 0o755)
        for number, inode in enumerate(files):
            await metadata.link(inode, flat, file_name(number).encode(), time.time_ns())
            if number % _TURN == 0:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    first = (await metadata.list_directory(flat, 0, 1))[0].cookie
    # Names were given one after another, and with them the cookies.
    return {"files": count, "first_cookie": first, "last_cookie": first + count - 1}


async def _fill_directories(metadata: SqliteMetadataStore, count: int) -> list[InodeNumber]:
    files = []
    directory = ROOT_INODE
    for number in range(count):
        if number % FILES_PER_DIRECTORY == 0:
            name = directory_name(number // FILES_PER_DIRECTORY)
            directory = await _make(metadata, ROOT_INODE, name, stat.S_IFDIR | 0o755)
        files.append(await _make(metadata, directory, file_name(number), stat.S_IFREG | 0o644))
        if number % _TURN == 0:
            await trio.lowlevel.checkpoint()
    return files


async def _make(metadata: SqliteMetadataStore, parent: InodeNumber, name: str, mode: int) -> InodeNumber:
    new = NewInode(mode=mode, uid=os.getuid(), gid=os.getgid())
    return (await metadata.make_inode(parent, name.encode(), new, time.time_ns())).inode


def main() -> None:
    """Fill the volume that is named."""
    name, count = sys.argv[1], int(sys.argv[2])
    paths = Paths.from_environment(os.environ)
    paths.make_volume_directories(name)
    metadata = open_metadata(paths.volume_state(name), load_volume(paths, name).superblock)
    try:
        json.dump(trio.run(fill, metadata, count), sys.stdout)
    finally:
        metadata.close()


if __name__ == "__main__":
    main()
