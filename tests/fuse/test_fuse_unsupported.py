"""What pyfuse3 does not pass on: how each call fails, or what the kernel does in its place (see docs/semantics.md)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.syscalls import failing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
FICLONE, FIEMAP, GETFLAGS = 0x40049409, 0xC020660B, 0x80086601
CONTENT = b"data" * 5000


@pytest.fixture
def fd(here: Path) -> Iterator[int]:
    """An open file of 20,000 bytes."""
    (here / "file").write_bytes(CONTENT)
    opened = os.open(here / "file", os.O_RDWR)
    yield opened
    os.close(opened)


@pytest.mark.parametrize("mode", [0, 1, 3, 0x10], ids=["allocate", "keep size", "punch hole", "zero range"])
def test_fallocate_is_not_supported(fd: int, mode: int) -> None:
    """Every mode of fallocate(2) is EOPNOTSUPP and changes nothing."""
    assert -1 == _LIBC.fallocate(fd, mode, 0, 100_000)
    assert errno.EOPNOTSUPP == ctypes.get_errno()
    assert CONTENT == os.pread(fd, 1 << 20, 0)


def test_posix_fallocate_writes(fd: int) -> None:
    """The C library falls back to writing one byte of each block: the file has the size, and its contents."""
    os.posix_fallocate(fd, 0, 100_000)
    assert CONTENT + bytes(80_000) == os.pread(fd, 1 << 20, 0)


def test_seeking_holes_sees_one_piece_of_data(here: Path) -> None:
    """SEEK_DATA finds data everywhere, SEEK_HOLE only the end; beyond it both are ENXIO."""
    fd = os.open(here / "sparse", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 20)
    assert (0, 70_000) == (os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 70_000, os.SEEK_DATA))
    assert (1 << 20, 1 << 20) == (os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, 70_000, os.SEEK_HOLE))
    assert errno.ENXIO == failing(lambda: os.lseek(fd, 1 << 20, os.SEEK_DATA))
    assert errno.ENXIO == failing(lambda: os.lseek(fd, 1 << 20, os.SEEK_HOLE))
    os.close(fd)


def test_copies_are_made_by_the_kernel(here: Path, fd: int) -> None:
    """copy_file_range and sendfile copy; cloning is EOPNOTSUPP."""
    target = os.open(here / "copy", os.O_RDWR | os.O_CREAT)
    assert len(CONTENT) == os.copy_file_range(fd, target, len(CONTENT))
    assert CONTENT == os.pread(target, 1 << 20, 0)
    os.ftruncate(target, 0)
    os.lseek(target, 0, os.SEEK_SET)
    assert len(CONTENT) == os.sendfile(target, fd, 0, len(CONTENT))
    assert CONTENT == os.pread(target, 1 << 20, 0)
    assert errno.EOPNOTSUPP == failing(lambda: fcntl.ioctl(target, FICLONE, fd))
    os.close(target)


def test_files_without_a_name_are_not_supported(here: Path) -> None:
    """O_TMPFILE is EOPNOTSUPP."""
    assert errno.EOPNOTSUPP == failing(lambda: os.open(here, os.O_TMPFILE | os.O_RDWR))


def test_ioctls_are_refused(fd: int) -> None:
    """Flags and extents cannot be asked for."""
    request = struct.pack("=QQLLLL", 0, 1 << 40, 0, 0, 0, 0)
    assert errno.EOPNOTSUPP == failing(lambda: fcntl.ioctl(fd, FIEMAP, request))
    assert failing(lambda: fcntl.ioctl(fd, GETFLAGS, bytes(8))) in {errno.ENOTTY, errno.EOPNOTSUPP}


def test_locks_hold_on_this_machine(here: Path, fd: int) -> None:
    """flock and fcntl locks keep other processes out until they are given back."""
    attempt = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'r+') as file:\n"
        "    for lock in (fcntl.flock, fcntl.lockf):\n"
        "        try: lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "        except OSError: print('locked', end=' ')\n"
        "        else: print('free', end=' ')\n"
    )

    def tried() -> str:
        return subprocess.check_output([sys.executable, "-c", attempt, here / "file"], text=True)

    fcntl.flock(fd, fcntl.LOCK_EX)
    assert "locked free " == tried()
    fcntl.lockf(fd, fcntl.LOCK_EX)
    assert "locked locked " == tried()
    fcntl.flock(fd, fcntl.LOCK_UN)
    fcntl.lockf(fd, fcntl.LOCK_UN)
    assert "free free " == tried()


def test_leases_are_taken(here: Path) -> None:
    """A lease can be taken on a file that nobody else has open."""
    (here / "leased").touch()
    fd = os.open(here / "leased", os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    assert fcntl.F_RDLCK == fcntl.fcntl(fd, fcntl.F_GETLEASE)
    os.close(fd)
