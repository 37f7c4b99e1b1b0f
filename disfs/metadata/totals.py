"""The volume's totals for statfs: kept in memory, written with each commit that changed them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.metadata.base import VolumeUsage
from disfs.metadata.settings import INODE_COUNT, LOGICAL_BYTES

if TYPE_CHECKING:
    from disfs.metadata.database import Database
    from disfs.metadata.settings import Settings


class Totals:
    """How many inodes there are, and the sum of the sizes of all regular files, orphans included."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._settings = settings
        self._changed = False
        self._read()
        database.before_commit.append(self._write)
        database.after_rollback.append(self._read)

    def add(self, inodes: int, logical_bytes: int) -> None:
        """Move both totals by what the open transaction changes."""
        self._inode_count += inodes
        self._logical_bytes += logical_bytes
        self._changed = True

    def usage(self) -> VolumeUsage:
        """Both totals, the open transaction included."""
        return VolumeUsage(self._inode_count, self._logical_bytes)

    def _write(self) -> None:
        if self._changed:
            self._settings.put(INODE_COUNT, self._inode_count)
            self._settings.put(LOGICAL_BYTES, self._logical_bytes)
            self._changed = False

    def _read(self) -> None:
        self._inode_count = self._settings.get(INODE_COUNT) or 0
        self._logical_bytes = self._settings.get(LOGICAL_BYTES) or 0
        self._changed = False
