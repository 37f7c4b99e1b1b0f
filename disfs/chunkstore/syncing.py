"""fdatasync of cache files in worker threads, shared by concurrent callers.

A file counts as synced only after a sync that began after its last write: the mark is taken off before
the sync starts, and is put back if the sync fails, so that nobody is told of durability that is not there.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import trio

from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.values import InodeNumber

_BATCH = 32


class CacheSync:
    """Syncs what the cache has written."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._running: dict[InodeNumber, trio.Event] = {}
        self._limiter = trio.CapacityLimiter(4)

    async def sync(self, inode: InodeNumber) -> None:
        """Return when everything written to the inode before the call would survive a power loss."""
        await self._sync_batch([inode])

    async def sync_all(self) -> None:
        """`sync` for every inode that has been written."""
        wanted = sorted(self._cache.unsynced | self._running.keys())
        for position in range(0, len(wanted), _BATCH):
            await self._sync_batch(wanted[position : position + _BATCH])

    async def _sync_batch(self, inodes: Sequence[InodeNumber]) -> None:
        for inode in inodes:
            # A sync that runs already may have begun before our caller's last write: wait, then look again.
            while (running := self._running.get(inode)) is not None:
                await running.wait()
        mine = [inode for inode in inodes if inode in self._cache.unsynced and inode not in self._running]
        if mine:
            await self._run(mine)
        if any(inode in self._running for inode in inodes):
            await self._sync_batch(inodes)  # somebody else began one while we waited for another

    async def _run(self, inodes: Sequence[InodeNumber]) -> None:
        done = trio.Event()
        descriptors: list[int] = []
        self._running.update(dict.fromkeys(inodes, done))
        self._cache.unsynced.difference_update(inodes)
        try:
            for inode in inodes:
                descriptors.append(self._cache.files.duplicate(inode))
                descriptors.append(self._cache.files.open_folder(inode))
            await trio.to_thread.run_sync(_sync_descriptors, descriptors, limiter=self._limiter)
        except BaseException:
            self._cache.unsynced.update(inode for inode in inodes if inode in self._cache.map.inodes)
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            for inode in inodes:
                del self._running[inode]
            done.set()


def _sync_descriptors(descriptors: Sequence[int]) -> None:
    try:
        for descriptor in descriptors:
            os.fdatasync(descriptor)
    except OSError as error:
        raise FilesystemError(error.errno or errno.EIO, f"syncing the cache: {error.strerror}") from error
