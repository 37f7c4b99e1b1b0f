"""fdatasync of cache files in worker threads, shared by concurrent callers.

A file counts as synced only after a sync that began after its last write: the mark is taken off before
the sync starts, and is put back if the sync does not happen, so that nobody is told of durability that is not there.

A sync that failed cannot be repeated: the kernel reports an error once, calls the pages clean, and the next fdatasync
succeeds without them (lwn.net/Articles/752063). Such a file stays doubtful, and its sync an error, until Discord has
all of it, or it is gone. One file's error keeps no other from being synced.

Small contents have no file and are never here: the sync of the ledger is theirs.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

import trio

from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.values import InodeNumber

log = logging.getLogger(__name__)

_BATCH = 32


class CacheSync:
    """Syncs what the cache has written."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._running: dict[InodeNumber, trio.Event] = {}
        self._doubtful: set[InodeNumber] = set()
        self._limiter = trio.CapacityLimiter(4)

    async def sync(self, inode: InodeNumber) -> None:
        """Return when everything written to the inode before the call would survive a power loss."""
        await self._sync_batch([inode])
        self._raise_doubts([inode])

    async def sync_all(self) -> None:
        """`sync` for every inode that has been written; an error is raised when all others are synced."""
        await self._sync_batches(sorted(self._cache.unsynced | self._running.keys()))
        self._raise_doubts(sorted(self._doubtful))

    async def sync_overlaid(self) -> None:
        """`sync` for every inode with new content over what Discord has. Errors are left to its own `sync`."""
        if self._cache.overlaid:
            await self._sync_batches(sorted(self._cache.overlaid))

    async def _sync_batches(self, wanted: Sequence[InodeNumber]) -> None:
        for position in range(0, len(wanted), _BATCH):
            await self._sync_batch(wanted[position : position + _BATCH])

    def _raise_doubts(self, inodes: Iterable[InodeNumber]) -> None:
        for inode in inodes:
            if inode in self._doubtful and not (self._has_file(inode) and self._cache.map.irreplaceable(inode, 0)):
                self._doubtful.discard(inode)
            if inode in self._doubtful:
                raise FilesystemError(
                    errno.EIO, f"unsent data of inode {inode} could not be synced to the cache's disk"
                )

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
        descriptors: dict[InodeNumber, list[int]] = {inode: [] for inode in inodes}
        overlaid = self._cache.overlaid.intersection(inodes)
        vanished = self._cache.vanished.intersection(inodes)
        self._running.update(dict.fromkeys(inodes, done))
        self._cache.unsynced.difference_update(inodes)
        self._cache.overlaid.difference_update(inodes)
        self._cache.vanished.difference_update(inodes)
        try:
            failed = self._open(descriptors)
            failed |= await trio.to_thread.run_sync(_sync_descriptors, descriptors, limiter=self._limiter)
        except BaseException:
            again = {inode for inode in inodes if self._has_file(inode)} | vanished
            self._cache.unsynced.update(again)
            self._cache.overlaid.update(again & overlaid)
            self._cache.vanished.update(vanished)
            raise
        finally:
            for opened in descriptors.values():
                for descriptor in opened:
                    os.close(descriptor)
            for inode in inodes:
                del self._running[inode]
            done.set()
        for inode, error in failed.items():
            log.error("the cache file of inode %d could not be synced: %s", inode, error)
        self._doubtful.update(failed)

    def _has_file(self, inode: InodeNumber) -> bool:
        record = self._cache.map.inodes.get(inode)
        return record is not None and record.disk_end > 0

    def _open(self, descriptors: Mapping[InodeNumber, list[int]]) -> dict[InodeNumber, Exception]:
        """Open each file, if there is one, and its folder; what somebody else has taken away is returned."""
        failed: dict[InodeNumber, Exception] = {}
        for inode, opened in descriptors.items():
            try:
                if self._has_file(inode):
                    opened.append(self._cache.files.duplicate(inode))
                opened.append(self._cache.files.open_folder(inode))
            except FilesystemError as error:
                if error.errno != errno.EIO:
                    raise  # no descriptor left: nothing is known about the file
                failed[inode] = error
        return failed


def _sync_descriptors(descriptors: Mapping[InodeNumber, Sequence[int]]) -> dict[InodeNumber, Exception]:
    """In a worker thread; returns the inodes whose sync failed."""
    failed: dict[InodeNumber, Exception] = {}
    for inode, opened in descriptors.items():
        try:
            for descriptor in opened:
                os.fdatasync(descriptor)
        except OSError as error:
            failed[inode] = error
    return failed
