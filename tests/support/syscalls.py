"""System calls that Python's `os` does not offer, and what tests ask about them."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)
RENAME_WHITEOUT = 4


class Listed(NamedTuple):
    """One entry of a directory, as getdents64(2) gives it."""

    name: str
    inode: int
    position: int
    """Where the listing goes on after it: to be passed to lseek(2)."""


_DIRENT = struct.Struct("=QqHB")
_SYS_GETDENTS64 = {"x86_64": 217, "aarch64": 61}[os.uname().machine]


def getdents(fd: int, buffer_bytes: int = 32768) -> list[Listed]:
    """One call of getdents64(2); empty at the end of the directory."""
    buffer = ctypes.create_string_buffer(buffer_bytes)
    taken = _LIBC.syscall(_SYS_GETDENTS64, fd, buffer, buffer_bytes)
    if taken < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    found = []
    start = 0
    while start < taken:
        inode, position, length, _ = _DIRENT.unpack_from(buffer, start)
        name = buffer.raw[start + _DIRENT.size : start + length].split(b"\0", 1)[0]
        found.append(Listed(os.fsdecode(name), inode, position))
        start += length
    return found


def getxattr_into(path: str, name: str, size_bytes: int) -> int:
    """getxattr(2) with a buffer of that size, 0 to ask for the length; the length. OSError when it fails."""
    buffer = ctypes.create_string_buffer(max(size_bytes, 1))
    return _checked(_LIBC.getxattr(os.fsencode(path), os.fsencode(name), buffer, ctypes.c_size_t(size_bytes)))


def listxattr_into(path: str, size_bytes: int) -> int:
    """listxattr(2), in the same way."""
    buffer = ctypes.create_string_buffer(max(size_bytes, 1))
    return _checked(_LIBC.listxattr(os.fsencode(path), buffer, ctypes.c_size_t(size_bytes)))


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def failing(call: Callable[[], object]) -> int:
    """The errno that a call fails with; 0 when it does not."""
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what the kernel does when it has time; fails when it does not come true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
