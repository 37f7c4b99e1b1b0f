"""Where on the disk a run's files lie.

ext4 does not use the number of a deleted inode again for some minutes, and walks over each such number when it makes
a file near by: making one takes a millisecond where thousands were deleted just before, and a fiftieth of that
elsewhere. So that no run pays for what others, or the run before it, have deleted, its directory is marked as the top
of a hierarchy: what is made in it goes to another part of the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_GET_FLAGS = 0x80086601
_SET_FLAGS = 0x40086602
_TOP_OF_HIERARCHY = 0x00020000
"""linux/fs.h: FS_TOPDIR_FL, the T of chattr(1)."""


def mark_top(directory: Path) -> bool:
    """Mark a directory as the top of a hierarchy; whether the file system knows such marks and took it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack("i", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(4)))
            fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("i", flags | _TOP_OF_HIERARCHY))
            return True
    finally:
        os.close(descriptor)
    return False
