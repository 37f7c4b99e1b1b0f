"""A file system of names and small files that answers from a dict."""

# ruff: noqa: D102 - pyfuse3.Operations documents what each handler is for

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING

import pyfuse3
from pyfuse3 import ROOT_INODE, EntryAttributes, FileInfo, FUSEError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyfuse3 import RequestContext, SetattrFields

BLOCK_BYTES = 4096


class Node:
    """An inode: what stat shows, and the contents of a file or the names of a directory."""

    __slots__ = (
        "atime_ns",
        "contents",
        "ctime_ns",
        "gid",
        "inode",
        "lookups",
        "mode",
        "mtime_ns",
        "names",
        "nlink",
        "uid",
    )

    def __init__(self, inode: int, mode: int, uid: int, gid: int) -> None:
        self.inode = inode
        self.mode = mode
        self.nlink = 2 if stat.S_ISDIR(mode) else 1
        self.uid = uid
        self.gid = gid
        self.atime_ns = self.mtime_ns = self.ctime_ns = time.time_ns()
        self.contents = bytearray()
        self.names: dict[bytes, Node] = {}
        self.lookups = 0


class NamesReference(pyfuse3.Operations):
    """One directory of regular files; the kernel remembers nothing of it."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self) -> None:
        super().__init__()
        self._nodes = {ROOT_INODE: Node(ROOT_INODE, stat.S_IFDIR | 0o755, os.getuid(), os.getgid())}
        self._next_inode = ROOT_INODE + 1
        self._open: dict[int, Node] = {}
        self._next_fh = 1

    def _entry(self, node: Node | None) -> EntryAttributes:
        entry = EntryAttributes()
        entry.entry_timeout = entry.attr_timeout = 0.0
        if node is None:
            entry.st_ino = pyfuse3.InodeT(0)
            return entry
        size = len(node.contents)
        entry.st_ino = pyfuse3.InodeT(node.inode)
        entry.st_mode = pyfuse3.ModeT(node.mode)
        entry.st_nlink = node.nlink
        entry.st_uid = node.uid
        entry.st_gid = node.gid
        entry.st_rdev = 0
        entry.st_size = size
        entry.st_blocks = (size + BLOCK_BYTES - 1) // BLOCK_BYTES * 8
        entry.st_atime_ns = node.atime_ns
        entry.st_mtime_ns = node.mtime_ns
        entry.st_ctime_ns = node.ctime_ns
        return entry

    def _node(self, inode: int) -> Node:
        try:
            return self._nodes[pyfuse3.InodeT(inode)]
        except KeyError:
            raise FUSEError(errno.ESTALE) from None

    def _handle(self, node: Node) -> FileInfo:
        fh = self._next_fh
        self._next_fh += 1
        self._open[fh] = node
        return FileInfo(fh=pyfuse3.FileHandleT(fh), keep_cache=False)

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        found = self._node(parent_inode).names.get(name)
        if found is not None:
            found.lookups += 1
        return self._entry(found)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            node = self._nodes.get(pyfuse3.InodeT(inode))
            if node is not None:
                node.lookups -= count
                if node.lookups <= 0 and node.nlink == 0:
                    del self._nodes[pyfuse3.InodeT(inode)]

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._entry(self._node(inode))

    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        node = self._node(inode)
        if fields.update_mode:
            node.mode = attr.st_mode
        if fields.update_size:
            del node.contents[attr.st_size :]
            node.contents.extend(bytes(attr.st_size - len(node.contents)))
        node.ctime_ns = time.time_ns()
        return self._entry(node)

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        # The kernel asks for security.capability at each write. ENOSYS would end that; disfs has attributes and cannot.
        raise FUSEError(errno.ENODATA)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        parent = self._node(parent_inode)
        if name in parent.names:
            raise FUSEError(errno.EEXIST)
        made = Node(self._next_inode, stat.S_IFREG | stat.S_IMODE(mode) & ~ctx.umask, ctx.uid, ctx.gid)
        self._next_inode += 1
        self._nodes[pyfuse3.InodeT(made.inode)] = parent.names[name] = made
        made.lookups = 1
        parent.mtime_ns = parent.ctime_ns = made.mtime_ns
        return self._handle(made), self._entry(made)

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        return self._handle(self._node(inode))

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return bytes(self._open[fh].contents[off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        node = self._open[fh]
        contents = node.contents
        if off > len(contents):
            contents.extend(bytes(off - len(contents)))
        contents[off : off + len(buf)] = buf
        node.mtime_ns = node.ctime_ns = time.time_ns()
        return len(buf)

    async def flush(self, fh: int) -> None:
        pass

    async def release(self, fh: int) -> None:
        del self._open[fh]

    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        parent = self._node(parent_inode)
        gone = parent.names.pop(name, None)
        if gone is None:
            raise FUSEError(errno.ENOENT)
        gone.nlink -= 1
        parent.mtime_ns = parent.ctime_ns = gone.ctime_ns = time.time_ns()
        if gone.lookups <= 0:
            del self._nodes[pyfuse3.InodeT(gone.inode)]

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        old, new = self._node(parent_inode_old), self._node(parent_inode_new)
        moved = old.names.pop(name_old, None)
        if moved is None:
            raise FUSEError(errno.ENOENT)
        replaced = new.names.get(name_new)
        if replaced is not None:
            replaced.nlink -= 1
        new.names[name_new] = moved
        now = time.time_ns()
        old.mtime_ns = old.ctime_ns = new.mtime_ns = new.ctime_ns = moved.ctime_ns = now
