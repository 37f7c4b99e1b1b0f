"""Copies of small contents on the disk, made before they spill, where a power cut must find the one or the other.

The removal of a row becomes durable whenever the ledger's log does: with somebody else's fsync, with a checkpoint, or
because the kernel felt like it. If somebody was promised that the content is durable, the file that replaces the row
has to be on the disk by then. A content of which nothing was promised yet spills without this: so do most files that
are written piece by piece, and a sync of each would cost more than all the rest.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import trio

from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.files import CacheFiles
    from disfs.values import InodeNumber

log = logging.getLogger(__name__)


class SpillCopies:
    """Which small contents are in a cache file as well, durably. As long as there is a row, the row counts."""

    def __init__(self, files: CacheFiles) -> None:
        self._files = files
        self._copied: set[InodeNumber] = set()
        self._copying: dict[InodeNumber, trio.Event] = {}
        self._limiter = trio.CapacityLimiter(4)

    def has(self, inode: InodeNumber) -> bool:
        """Whether the file has what the row has."""
        return inode in self._copied

    async def make(self, inode: InodeNumber, content: bytes) -> None:
        """Copy the row, which holds `content`, into a file and sync that. Ask `has` afterwards: rows change.

        FilesystemError, with nothing changed.
        """
        if (running := self._copying.get(inode)) is not None:
            await running.wait()
            return
        done = self._copying[inode] = trio.Event()
        descriptors: list[int] = []
        try:
            self._files.write(inode, 0, content, create=True)
            descriptors.append(self._files.duplicate(inode))
            descriptors.append(self._files.open_folder(inode))
            await trio.to_thread.run_sync(_sync, descriptors, limiter=self._limiter)
            if self._copying.get(inode) is done:
                self._copied.add(inode)
        except BaseException:
            if self._copying.get(inode) is done:
                self.drop(inode)
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            if self._copying.get(inode) is done:
                del self._copying[inode]
            done.set()

    def drop(self, inode: InodeNumber) -> None:
        """The row changes, or goes: no file has its content any more."""
        if self.take(inode):
            try:
                self._files.remove(inode)
            except FilesystemError as error:
                log.warning("a copy of the small content of inode %d stays: %s", inode, error)

    def take(self, inode: InodeNumber) -> bool:
        """The file counts from now on, or is removed by the caller; whether there may be one."""
        copied, copying = inode in self._copied, self._copying.pop(inode, None)
        self._copied.discard(inode)
        return copied or copying is not None


def _sync(descriptors: Sequence[int]) -> None:
    """In a worker thread."""
    try:
        for descriptor in descriptors:
            os.fdatasync(descriptor)
    except OSError as error:
        raise FilesystemError(error.errno or 0, f"syncing the cache: {error.strerror}") from error
