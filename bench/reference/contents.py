"""A file system of one file that preads and pwrites another one."""

# ruff: noqa: D102 - pyfuse3.Operations documents what each handler is for

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pyfuse3
from pyfuse3 import ROOT_INODE, EntryAttributes, FileInfo, FUSEError

if TYPE_CHECKING:
    from pathlib import Path

    from pyfuse3 import RequestContext, SetattrFields

TIMEOUT_SECONDS = 3600.0
NAME = b"data"
"""The only name there is."""
_INODE = pyfuse3.InodeT(ROOT_INODE + 1)
_HANDLE = pyfuse3.FileHandleT(1)


class ContentsReference(pyfuse3.Operations):
    """The root directory and the file `data`, which is the file that is given."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT)

    def _entry(self, inode: int) -> EntryAttributes:
        found = os.fstat(self._descriptor)
        is_root = inode == ROOT_INODE
        entry = EntryAttributes()
        entry.entry_timeout = entry.attr_timeout = TIMEOUT_SECONDS
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o755 if is_root else stat.S_IFREG | 0o644)
        entry.st_nlink = 2 if is_root else 1
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.st_size = 0 if is_root else found.st_size
        entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns = (
            found.st_atime_ns,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )
        return entry

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if name != NAME:
            raise FUSEError(errno.ENOENT)
        return self._entry(_INODE)

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._entry(inode)

    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        if fields.update_size:
            os.ftruncate(self._descriptor, attr.st_size)
        return self._entry(inode)

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        # As in the names: the kernel asks at each write.
        raise FUSEError(errno.ENODATA)

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        return FileInfo(fh=_HANDLE, keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, off)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return os.pwrite(self._descriptor, buf, off)

    async def flush(self, fh: int) -> None:
        pass

    async def release(self, fh: int) -> None:
        pass
