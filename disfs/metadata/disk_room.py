"""The room on the disk of the database, looked at before SQLite finds it missing."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class DiskRoom:
    """`free_bytes` says how much is free; `is_low` whether that was below `reserve_bytes` when last looked at."""

    def __init__(self, free_bytes: Callable[[], int], reserve_bytes: int) -> None:
        self._free_bytes = free_bytes
        self._reserve_bytes = reserve_bytes
        self.is_low = False

    def measure(self) -> None:
        """Look at the disk's free space; a change of its state is logged."""
        is_low = self._free_bytes() < self._reserve_bytes
        if is_low and not self.is_low:
            log.warning(
                "The disk that holds the volume's metadata has less than %d bytes free: nothing new is accepted",
                self._reserve_bytes,
            )
        elif self.is_low and not is_low:
            log.info("The disk that holds the volume's metadata has room again")
        self.is_low = is_low

    def check(self, likely_bytes: int, most_bytes: Callable[[], int]) -> None:
        """Raise ENOSPC when the write-ahead log may not have room; `most_bytes` is asked if the likely do not fit."""
        free = self._free_bytes()
        if likely_bytes > free and most_bytes() > free:
            self.measure()
            raise FilesystemError(errno.ENOSPC, "no room to commit the volume's metadata; it is kept in memory")
