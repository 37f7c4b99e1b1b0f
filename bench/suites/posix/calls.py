"""System calls as functions whose answers can be compared, and the ones that Python's `os` does not offer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_CLOCK_REALTIME_COARSE = 5
_AT_SYMLINK_NOFOLLOW = 0x100
NOREPLACE = 1
EXCHANGE = 2
NOW = (1 << 30) - 1
"""UTIME_NOW"""
OMIT = (1 << 30) - 2
"""UTIME_OMIT"""


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _check(answer: int, path: str | Path) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(path))


def renameat2(old: str | Path, new: str | Path, flags: int) -> None:
    """renameat2(2). A string is taken as it is written: a Path would drop a slash at the end."""
    _check(_LIBC.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags), old)


def utimensat(path: str, atime: tuple[int, int], mtime: tuple[int, int], *, follow: bool = True) -> None:
    """utimensat(2) with (seconds, nanoseconds), where nanoseconds may be NOW or OMIT."""
    times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    _check(_LIBC.utimensat(_AT_FDCWD, os.fsencode(path), times, 0 if follow else _AT_SYMLINK_NOFOLLOW), path)


@contextlib.contextmanager
def as_user(uid: int, gid: int, groups: Sequence[int] = ()) -> Iterator[None]:
    """What the block does, another user does."""
    saved = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(saved)


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """Another umask for the block."""
    saved = os.umask(mask)
    try:
        yield
    finally:
        os.umask(saved)


def touch(path: str, content: bytes = b"", mode: int = 0o644) -> None:
    """A file with this content and exactly this mode."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, content)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def opened(path: str, flags: int, mode: int = 0o640) -> None:
    """Open and close."""
    os.close(os.open(path, flags, mode))


def read(path: str) -> bytes:
    """The content."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(fd, 1 << 20)
    finally:
        os.close(fd)


def write(path: str, content: bytes = b"new") -> None:
    """Write at the beginning."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def make_socket(path: str) -> None:
    """A socket's name."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def listed(path: str) -> list[str]:
    """The names in a directory, in order."""
    return sorted(os.listdir(path))


def shown(path: str) -> tuple[int | str, ...]:
    """What lstat shows, but for the times, and for the size of a directory, which no two file systems agree on."""
    found = os.lstat(path)
    size = "-" if stat.S_ISDIR(found.st_mode) else found.st_size
    return oct(found.st_mode), found.st_nlink, found.st_uid, found.st_gid, size, found.st_rdev


def tree(path: str = ".") -> list[tuple[int | str, ...]]:
    """Everything below a directory as `shown`, and where symbolic links point."""
    found = []
    for entry in sorted(map(str, Path(path).rglob("*"))):
        link = os.readlink(entry) if stat.S_ISLNK(os.lstat(entry).st_mode) else ""
        found.append((entry, *shown(entry), link))
    return found


def times(path: str) -> tuple[int, int, int]:
    """atime, mtime and ctime."""
    found = os.lstat(path)
    return found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns


def wait_past(time_ns: int) -> None:
    """Return when the clock that file systems use shows more than `time_ns`: a few milliseconds at most."""
    deadline = time.monotonic() + 10
    while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) <= time_ns:
        if time.monotonic() > deadline:
            raise TimeoutError("a file's time lies in the future")
