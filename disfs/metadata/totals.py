"""The volume's totals for statfs: kept in memory, written with each commit that changed them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, TypeAlias

from disfs.errors import FilesystemError
from disfs.metadata.base import VolumeUsage
from disfs.metadata.settings import ALLOCATED_BYTES, INODE_COUNT, LOGICAL_BYTES
from disfs.spans import allocated_bytes

if TYPE_CHECKING:
    from disfs.metadata.database import Database
    from disfs.metadata.settings import Settings

_ONLY = "now"


_Sums: TypeAlias = tuple[int, int, int]
"""Inodes, logical bytes, allocated bytes: as VolumeUsage, in a plain tuple, since every write makes one."""


class Totals:
    """How many inodes there are, and the sums over all regular files, orphans included, of sizes and of what they take.

    `capacity_bytes` is how much all files together may take; what a volume holds beyond that stays.
    """

    def __init__(self, database: Database, settings: Settings, chunk_bytes: int, capacity_bytes: int) -> None:
        self._database = database
        self._settings = settings
        self._chunk_bytes = chunk_bytes
        self.capacity_bytes = capacity_bytes
        self._written: _Sums = (
            settings.get(INODE_COUNT) or 0,
            settings.get(LOGICAL_BYTES) or 0,
            settings.get(ALLOCATED_BYTES) or 0,
        )
        self._now = {_ONLY: self._written}
        database.before_commit.append(self._write)

    def add_inodes(self, count: int) -> None:
        """The open transaction makes `count` inodes, empty ones."""
        inode_count, logical_bytes, taken = self._now[_ONLY]
        self._database.alter(self._now, _ONLY, (inode_count + count, logical_bytes, taken))

    def removed(self, size_bytes: int, chunks: int) -> None:
        """The open transaction removes an inode, which took what a file of that size takes; 0 of what is no file."""
        inode_count, logical_bytes, taken = self._now[_ONLY]
        taken -= allocated_bytes(size_bytes, chunks, self._chunk_bytes)
        self._database.alter(self._now, _ONLY, (inode_count - 1, logical_bytes - size_bytes, taken))

    def resized(self, old_bytes: int, old_chunks: int, new_bytes: int, new_chunks: int) -> None:
        """The open transaction changes a file's size or chunk count. Every such change comes through here."""
        inode_count, logical_bytes, taken = self._now[_ONLY]
        if old_bytes:
            taken -= allocated_bytes(old_bytes, old_chunks, self._chunk_bytes)
        taken += allocated_bytes(new_bytes, new_chunks, self._chunk_bytes)
        self._database.alter(self._now, _ONLY, (inode_count, logical_bytes + new_bytes - old_bytes, taken))

    def growth(self, old_bytes: int, old_chunks: int, new_bytes: int, new_chunks: int) -> int:
        """How much more a file takes after such a change."""
        before = allocated_bytes(old_bytes, old_chunks, self._chunk_bytes)
        return allocated_bytes(new_bytes, new_chunks, self._chunk_bytes) - before

    def has_room(self, growth_bytes: int) -> bool:
        """Whether the files may take that much more."""
        return self._now[_ONLY][2] + growth_bytes <= self.capacity_bytes

    def check_growth(self, old_bytes: int, old_chunks: int, new_bytes: int, new_chunks: int) -> None:
        """ENOSPC when such a change would make the files take more than they may, and more than before."""
        growth_bytes = self.growth(old_bytes, old_chunks, new_bytes, new_chunks)
        if growth_bytes > 0 and not self.has_room(growth_bytes):
            raise FilesystemError(errno.ENOSPC, "the volume is as large as its size allows")

    def usage(self) -> VolumeUsage:
        """All totals, the open transaction included."""
        return VolumeUsage(*self._now[_ONLY])

    def _write(self) -> None:
        now = self._now[_ONLY]
        if now != self._written:
            for setting, value in zip((INODE_COUNT, LOGICAL_BYTES, ALLOCATED_BYTES), now, strict=True):
                self._settings.put(setting, value)
            self._written = now
