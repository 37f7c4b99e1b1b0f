"""What the disk under the cache may still take, measured only now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from disfs.chunkstore.files import CacheFiles

_MEASURE_EVERY_BYTES = 4 * 1024 * 1024
"""The free space of the disk is measured once for so much growth, not for every write."""


class FreeSpace:
    """Keeps `min_free_bytes` of the disk for others."""

    def __init__(self, files: CacheFiles, min_free_bytes: int) -> None:
        self._files = files
        self._min_free_bytes = min_free_bytes
        self._credit_bytes = 0
        """Growth that the last measurement allows without another one."""

    def shortage(self, growth_bytes: int) -> int:
        """How many bytes are missing for that growth; 0 or less when it fits."""
        if growth_bytes <= self._credit_bytes:
            return 0
        left = self._files.free_bytes() - self._min_free_bytes
        self._credit_bytes = max(0, min(left, _MEASURE_EVERY_BYTES))
        return growth_bytes - left

    def took(self, growth_bytes: int) -> None:
        """So many bytes were written."""
        self._credit_bytes -= growth_bytes
