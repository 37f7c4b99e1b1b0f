"""System calls that Python's `os` does not offer, and what tests ask about them."""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4


def renameat2(old: Path, new: Path, flags: int) -> None:
    """renameat2(2); OSError when it fails."""
    renameat2_text(str(old), str(new), flags)


def renameat2_text(old: str, new: str, flags: int) -> None:
    """As `renameat2`, with paths exactly as they are written: a Path would drop a slash at the end."""
    if _LIBC.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old)


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
