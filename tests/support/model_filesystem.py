"""A POSIX file system in dicts: the model that mounts and the local disk are held against. No I/O, nothing of disfs.

It is a `Surface`: the same calls as `real_surface.RealSurface` makes as system calls. Open files are numbered by the
caller (`slot`), so that the same number means the same open file everywhere. What a call returns is what every file
system must return; times are compared apart, as moments (`model_nodes`).
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from support.model_nodes import Moment
from support.model_paths import ModelPaths, fail

if TYPE_CHECKING:
    from support.model_nodes import Node


class Surface(Protocol):
    """What the tests ask of a file system; see `ModelFilesystem` for what each call answers."""

    def mkdir(self, path: str, mode: int) -> None: ...
    def mkfifo(self, path: str, mode: int) -> None: ...
    def symlink(self, target: str, path: str) -> None: ...
    def link(self, old: str, new: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def rename(self, old: str, new: str, flags: int) -> None: ...
    def readlink(self, path: str) -> str: ...
    def listdir(self, path: str) -> list[str]: ...
    def truncate(self, path: str, size: int) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...
    def lchown(self, path: str, uid: int, gid: int) -> None: ...
    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None: ...
    def touch(self, path: str) -> None: ...
    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None: ...
    def getxattr(self, path: str, name: str) -> bytes: ...
    def removexattr(self, path: str, name: str) -> None: ...
    def open(self, slot: int, path: str, flags: int, mode: int) -> bool: ...
    def close(self, slot: int) -> None: ...
    def read(self, slot: int, offset: int, length: int) -> bytes: ...
    def write(self, slot: int, offset: int, data: bytes) -> int: ...
    def map_write(self, slot: int, offset: int, data: bytes) -> None: ...
    def map_read(self, slot: int) -> bytes: ...
    def ftruncate(self, slot: int, size: int) -> None: ...
    def fchmod(self, slot: int, mode: int) -> None: ...
    def fsync(self, slot: int) -> None: ...
    def fstat(self, slot: int) -> tuple[int, int, int]: ...
    def mkdir_at(self, slot: int, name: str) -> None: ...
    def list_at(self, slot: int) -> list[str]: ...


@dataclass
class OpenFile:
    """One open(2)."""

    node: Node
    flags: int

    @property
    def reads(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def writes(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY


class ModelFilesystem(ModelPaths):
    """The model; see the module's docstring."""

    def __init__(self, now: Moment, *, umask: int, uid: int, gid: int, chunk_bytes: int) -> None:
        super().__init__(now, umask=umask, uid=uid, gid=gid, chunk_bytes=chunk_bytes)
        self.files: dict[int, OpenFile] = {}

    # Attributes

    def readlink(self, path: str) -> str:
        node = self.find(path, follow=False)
        if not node.is_symlink:
            fail(errno.EINVAL)
        node.read(self.now)
        return node.target

    def listdir(self, path: str) -> list[str]:
        node = self.find(path)
        if not node.is_directory:
            fail(errno.ENOTDIR)
        node.read(self.now, seen=False)  # the kernel may have kept the listing
        return sorted(node.entries)

    def chmod(self, path: str, mode: int) -> None:
        self._set_mode(self.find(path), mode)

    def _set_mode(self, node: Node, mode: int) -> None:
        node.mode = stat.S_IFMT(node.mode) | mode
        node.ctime = self.now

    def lchown(self, path: str, uid: int, gid: int) -> None:
        node = self.find(path, follow=False)
        if not node.is_directory:
            # Linux does so for everybody, privileged or not; setgid without group execution is another thing.
            node.mode &= ~(stat.S_ISUID | (stat.S_ISGID if node.mode & stat.S_IXGRP else 0))
        node.uid, node.gid, node.ctime = uid, gid, self.now

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        node = self.find(path, follow=False)
        node.set_atime(Moment.exactly(atime_ns))
        node.mtime, node.ctime = Moment.exactly(mtime_ns), self.now

    def touch(self, path: str) -> None:
        node = self.find(path, follow=False)
        node.set_atime(self.now)
        node.changed(self.now)

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        node = self.find(path, follow=False)
        if not (node.is_file or node.is_directory):
            fail(errno.EPERM)
        if flags == os.XATTR_CREATE and name in node.xattrs:
            fail(errno.EEXIST)
        if flags == os.XATTR_REPLACE and name not in node.xattrs:
            fail(errno.ENODATA)
        node.xattrs[name] = value
        node.ctime = self.now

    def getxattr(self, path: str, name: str) -> bytes:
        node = self.find(path, follow=False)
        return node.xattrs[name] if name in node.xattrs else fail(errno.ENODATA)

    def removexattr(self, path: str, name: str) -> None:
        node = self.find(path, follow=False)
        if not (node.is_file or node.is_directory):
            fail(errno.EPERM)
        if name not in node.xattrs:
            fail(errno.ENODATA)
        del node.xattrs[name]
        node.ctime = self.now

    # Files

    def truncate(self, path: str, size: int) -> None:
        if size < 0:
            fail(errno.EINVAL)
        node = self.find(path)
        if node.is_directory:
            fail(errno.EISDIR)
        if not node.is_file:
            fail(errno.EINVAL)
        self._resize(node, size)

    def _resize(self, node: Node, size: int) -> None:
        node.resize(size, self.chunk_bytes)
        node.changed(self.now)

    def open(self, slot: int, path: str, flags: int, mode: int) -> bool:
        """Open a file or a directory. False, and nothing is open, for a FIFO."""
        assert slot not in self.files
        exclusive = flags & os.O_CREAT and flags & os.O_EXCL
        place = self.place(path, follow=not (exclusive or flags & os.O_NOFOLLOW))
        node = place.node
        if node is None:
            if not flags & os.O_CREAT:
                fail(errno.ENOENT)
            node = self.make(place, stat.S_IFREG | mode)
        else:
            self._check_open(node, flags)
            if not node.is_file and not node.is_directory:
                return False
            if flags & os.O_TRUNC:
                self._resize(node, 0)
        self.files[slot] = OpenFile(node, flags)
        return True

    def _check_open(self, node: Node, flags: int) -> None:
        if flags & os.O_CREAT and flags & os.O_EXCL:
            fail(errno.EEXIST)
        if node.is_symlink:
            fail(errno.ELOOP)
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if node.is_directory and (writes or flags & (os.O_CREAT | os.O_TRUNC)):
            fail(errno.EISDIR)
        if stat.S_ISFIFO(node.mode) and flags & os.O_ACCMODE == os.O_WRONLY:
            fail(errno.ENXIO)  # opened without waiting, and there is no reader

    def close(self, slot: int) -> None:
        del self.files[slot]

    def read(self, slot: int, offset: int, length: int) -> bytes:
        file = self.files[slot]
        if not file.reads:
            fail(errno.EBADF)
        if file.node.is_directory:
            fail(errno.EISDIR)
        file.node.read(self.now, seen=False)
        return bytes(file.node.content[offset : offset + length])

    def write(self, slot: int, offset: int, data: bytes) -> int:
        file = self.files[slot]
        if not file.writes:
            fail(errno.EBADF)
        if data:
            at = len(file.node.content) if file.flags & os.O_APPEND else offset
            file.node.write(at, data, self.chunk_bytes)
            file.node.changed(self.now)
        return len(data)

    def can_map(self, slot: int, end: int) -> bool:
        """Whether a shared mapping for reading and writing holds the bytes before `end`."""
        file = self.files[slot]
        return file.node.is_file and file.reads and file.writes and 0 < end <= len(file.node.content)

    def map_write(self, slot: int, offset: int, data: bytes) -> None:
        node = self.files[slot].node
        node.write(offset, data, self.chunk_bytes)
        node.read(self.now, seen=False)
        node.changed(self.now)

    def map_read(self, slot: int) -> bytes:
        node = self.files[slot].node
        node.read(self.now, seen=False)
        return bytes(node.content)

    def ftruncate(self, slot: int, size: int) -> None:
        file = self.files[slot]
        if size < 0 or not file.node.is_file or not file.writes:
            fail(errno.EINVAL)
        self._resize(file.node, size)

    def fchmod(self, slot: int, mode: int) -> None:
        self._set_mode(self.files[slot].node, mode)

    def fsync(self, slot: int) -> None:
        """Everything so far is kept whatever happens; the caller notes it."""
        assert slot in self.files

    def fstat(self, slot: int) -> tuple[int, int, int]:
        """Mode, number of names, and size (0 for a directory)."""
        node = self.files[slot].node
        return node.mode, node.nlink, 0 if node.is_directory else node.size

    def mkdir_at(self, slot: int, name: str) -> None:
        directory = self.files[slot].node
        if not directory.is_directory:
            fail(errno.ENOTDIR)
        self.make(self._walk(directory, name, follow=False), stat.S_IFDIR | 0o755)

    def list_at(self, slot: int) -> list[str]:
        directory = self.files[slot].node
        if not directory.is_directory:
            fail(errno.ENOTDIR)
        if directory.nlink == 0:
            fail(errno.ENOENT)
        directory.read(self.now, seen=False)
        return sorted(directory.entries)
