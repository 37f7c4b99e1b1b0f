"""The calls of `model_filesystem.Surface` as system calls on a directory, and everything that can be seen of it."""

# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH115, PTH208, PTH211 - this file is about system calls

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.suites.posix.calls import renameat2

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Seen:
    """One inode as seen through one path."""

    status: os.stat_result
    entries: tuple[str, ...]
    content: bytes
    target: str
    xattrs: dict[str, bytes]


class RealSurface:
    """A directory of a real file system."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self._descriptors: dict[int, int] = {}

    def path(self, path: str) -> str:
        # An empty path must stay one.
        return f"{self.top}/{path}" if path else ""

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.path(path), mode)

    def mkfifo(self, path: str, mode: int) -> None:
        os.mkfifo(self.path(path), mode)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self.path(path))

    def link(self, old: str, new: str) -> None:
        os.link(self.path(old), self.path(new), follow_symlinks=False)

    def unlink(self, path: str) -> None:
        os.unlink(self.path(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self.path(path))

    def rename(self, old: str, new: str, flags: int) -> None:
        if flags:
            renameat2(self.path(old), self.path(new), flags)
        else:
            os.rename(self.path(old), self.path(new))

    def readlink(self, path: str) -> str:
        return os.readlink(self.path(path))

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(self.path(path)))

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self.path(path), size)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.path(path), mode)

    def lchown(self, path: str, uid: int, gid: int) -> None:
        os.lchown(self.path(path), uid, gid)

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        os.utime(self.path(path), ns=(atime_ns, mtime_ns), follow_symlinks=False)

    def touch(self, path: str) -> None:
        os.utime(self.path(path), follow_symlinks=False)

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        os.setxattr(self.path(path), name, value, flags, follow_symlinks=False)

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self.path(path), name, follow_symlinks=False)

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(self.path(path), name, follow_symlinks=False)

    def open(self, slot: int, path: str, flags: int, mode: int) -> bool:
        descriptor = os.open(self.path(path), flags | os.O_NONBLOCK, mode)
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return False
        self._descriptors[slot] = descriptor
        return True

    def close(self, slot: int) -> None:
        os.close(self._descriptors.pop(slot))

    def read(self, slot: int, offset: int, length: int) -> bytes:
        return os.pread(self._descriptors[slot], length, offset)

    def write(self, slot: int, offset: int, data: bytes) -> int:
        return os.pwrite(self._descriptors[slot], data, offset)

    def map_write(self, slot: int, offset: int, data: bytes) -> None:
        with mmap.mmap(self._descriptors[slot], 0) as view:
            view[offset : offset + len(data)] = data
            view.flush()

    def map_read(self, slot: int) -> bytes:
        with mmap.mmap(self._descriptors[slot], 0) as view:
            return view[:]

    def ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self._descriptors[slot], size)

    def fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self._descriptors[slot], mode)

    def fsync(self, slot: int) -> None:
        os.fsync(self._descriptors[slot])

    def fstat(self, slot: int) -> tuple[int, int, int]:
        found = os.fstat(self._descriptors[slot])
        return found.st_mode, found.st_nlink, 0 if stat.S_ISDIR(found.st_mode) else found.st_size

    def mkdir_at(self, slot: int, name: str) -> None:
        os.mkdir(name, 0o755, dir_fd=self._descriptors[slot])

    def list_at(self, slot: int) -> list[str]:
        return sorted(os.listdir(self._descriptors[slot]))

    # What is no operation

    def close_all(self) -> None:
        """Close what is open, also if the file system behind it is gone."""
        for descriptor in self._descriptors.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors.clear()

    def sync(self) -> None:
        """All names and contents are kept whatever happens."""
        for directory, _, files in os.walk(self.top):
            for path in (directory, *(f"{directory}/{name}" for name in files)):
                if stat.S_IFMT(os.lstat(path).st_mode) in {stat.S_IFREG, stat.S_IFDIR}:
                    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                    os.fsync(descriptor)
                    os.close(descriptor)

    def status(self, path: str) -> os.stat_result:
        """What lstat shows; moves nothing."""
        return os.lstat(self.path(path))

    def atimes(self) -> dict[str, int]:
        """The atime of everything, as it was before this call; the top is `.`."""
        found: dict[str, int] = {}
        waiting = ["."]
        while waiting:
            path = waiting.pop()
            status = self.status(path)
            found[path] = status.st_atime_ns
            if stat.S_ISDIR(status.st_mode):
                waiting += [name if path == "." else f"{path}/{name}" for name in self.listdir(path)]
        return found

    def seen(self, path: str) -> Seen:
        """Everything that one path shows. Reads directories and links, which moves their atime, but not files'."""
        whole = self.path(path)
        status = os.lstat(whole)
        kind = stat.S_IFMT(status.st_mode)
        return Seen(
            status,
            tuple(sorted(os.listdir(whole))) if kind == stat.S_IFDIR else (),
            _content(whole) if kind == stat.S_IFREG else b"",
            os.readlink(whole) if kind == stat.S_IFLNK else "",
            {name: os.getxattr(whole, name, follow_symlinks=False) for name in _xattrs(whole)},
        )


def _content(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOATIME)
    try:
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _xattrs(path: str) -> list[str]:
    return [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")]
