"""Who holds what: open handles, the kernel's lookup counts, and the orphans that live as long as somebody does.

Plain bookkeeping in memory, without I/O and without awaits. Rules:

- A handle number is never used twice, so a late request for a closed handle gets EBADF, not another file.
- All handles of one inode share one `OpenInode`. What it remembers of the inode is exact because every change
  of an open file passes through this process; `file_io` says which step keeps it so.
- The kernel sends release and forget in any order, so an orphan goes when the later of the two has come.
- There are as many lookup counts as inodes that the kernel has in memory: its own cache bounds ours.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from disfs.chunkstore.readahead import Readahead
    from disfs.values import Attributes, InodeNumber

log = logging.getLogger(__name__)


class OpenInode:
    """What the handles of one regular file share."""

    __slots__ = ("atime_noted_ns", "handle_count", "inode", "lacks_capability", "size_bytes")

    def __init__(self, attributes: Attributes, *, lacks_capability: bool = False) -> None:
        self.inode = attributes.inode
        self.size_bytes = attributes.size_bytes
        self.handle_count = 0
        self.atime_noted_ns = 0
        """When a read last moved the atime, 0 when the contents or times have changed since."""
        self.lacks_capability = lacks_capability
        """Known to have no `security.capability`: the kernel asks for it at every write."""


class FileHandle:
    """One open(2) of a regular file."""

    __slots__ = ("keeps_atime", "opened", "readahead", "report", "syncs_writes", "wants_reads")

    def __init__(self, opened: OpenInode, flags: int) -> None:
        self.opened = opened
        self.readahead: Readahead | None = None
        """Made at the first read."""
        self.report: bytes | None = None
        """What a file below `.disfs` said when it was opened; None for every other file."""
        # O_SYNC contains O_DSYNC.
        self.syncs_writes = bool(flags & os.O_DSYNC)
        self.keeps_atime = bool(flags & os.O_NOATIME)
        self.wants_reads = False
        """The first read moves the atime: it must come here and not be answered by the kernel's page cache."""


class HandleTable:
    """All open files, by number and by inode. Directories need none: what the kernel has open it has looked up."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._files: dict[int, FileHandle] = {}
        self._open_inodes: dict[InodeNumber, OpenInode] = {}

    def __len__(self) -> int:
        return len(self._files)

    def open_file(self, attributes: Attributes, flags: int, *, is_new: bool = False) -> int:
        """A new handle of a file whose attributes were read, or which was made, in this very step."""
        opened = self._open_inodes.get(attributes.inode)
        if opened is None:
            opened = self._open_inodes[attributes.inode] = OpenInode(attributes, lacks_capability=is_new)
        assert opened.size_bytes == attributes.size_bytes
        opened.handle_count += 1
        number = next(self._numbers)
        self._files[number] = FileHandle(opened, flags)
        return number

    def file(self, number: int) -> FileHandle:
        """The file handle with this number. EBADF."""
        try:
            return self._files[number]
        except KeyError:
            raise FilesystemError(errno.EBADF) from None

    def close_file(self, number: int) -> InodeNumber:
        """Close a file handle, with its readahead, and say whose it was. EBADF."""
        handle = self.file(number)
        opened = handle.opened
        del self._files[number]
        if handle.readahead is not None:
            handle.readahead.close()
        opened.handle_count -= 1
        if opened.handle_count == 0:
            del self._open_inodes[opened.inode]
        return opened.inode

    def opened(self, inode: InodeNumber) -> OpenInode | None:
        """What the handles of a file share, None when it is not open."""
        return self._open_inodes.get(inode)

    def is_open(self, inode: InodeNumber) -> bool:
        """Whether any handle is open on the inode."""
        return inode in self._open_inodes

    def clear(self) -> None:
        """Close everything; for after the last request."""
        for handle in self._files.values():
            if handle.readahead is not None:
                handle.readahead.close()
        self._files.clear()
        self._open_inodes.clear()


class References:
    """The kernel's lookup counts, and the orphans that wait until neither a count nor a handle holds them.

    Methods that can let the last holder go answer whether the inode is now an unheld orphan; it is then no
    longer known here, and the caller removes it in the same step.
    """

    def __init__(self, handles: HandleTable) -> None:
        self._handles = handles
        self._lookups: dict[InodeNumber, int] = {}
        self._orphans: set[InodeNumber] = set()

    def __len__(self) -> int:
        return len(self._lookups)

    def add_lookup(self, inode: InodeNumber) -> None:
        """The kernel is about to be told of the inode."""
        self._lookups[inode] = self._lookups.get(inode, 0) + 1

    def forget(self, inode: InodeNumber, count: int) -> bool:
        """The kernel gives `count` lookups back. True when the inode is an orphan that nobody holds any more."""
        left = self._lookups.get(inode, 0) - count
        if left > 0:
            self._lookups[inode] = left
            return False
        if left < 0:
            log.debug("the kernel forgot inode %d %d times more than it was told of it", inode, -left)
        self._lookups.pop(inode, None)
        return self._take_orphan(inode)

    def released(self, inode: InodeNumber) -> bool:
        """A handle of the inode was closed. True as for `forget`."""
        return self._take_orphan(inode)

    def orphaned(self, inode: InodeNumber) -> bool:
        """The inode lost its last name. True as for `forget`."""
        self._orphans.add(inode)
        return self._take_orphan(inode)

    def orphans(self) -> Iterable[InodeNumber]:
        """The orphans that are still held."""
        return tuple(self._orphans)

    def clear(self) -> None:
        """Drop every count and every orphan; for after the last request."""
        self._lookups.clear()
        self._orphans.clear()

    def _take_orphan(self, inode: InodeNumber) -> bool:
        if inode not in self._orphans or inode in self._lookups or self._handles.is_open(inode):
            return False
        self._orphans.remove(inode)
        return True
