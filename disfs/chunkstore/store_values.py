"""What the chunk store says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from disfs.chunkstore.compaction import CompactionStatistics
    from disfs.chunkstore.fetch import FetchStatistics
    from disfs.chunkstore.reads import ReadStatistics
    from disfs.chunkstore.sweep import SweepStatistics
    from disfs.chunkstore.writeback_values import WritebackStatistics


@dataclass(frozen=True, slots=True)
class ChunkStoreStatistics:
    """For `disfs status`."""

    cache_bytes: int
    cache_limit_bytes: int
    dirty_bytes: int
    dirty_chunks: int
    dirty_limit_bytes: int
    lost_chunks: int
    """Dirty chunks whose only copy is gone from the cache; reading them is an error."""
    evicted_chunks: int
    pinned_bytes: int
    """What pinned inodes take of the cache."""
    pinned_limit_bytes: int
    """How much of it they may take."""
    pinned_inodes: int
    open_files: int
    unsettled: int
    """Cuts and records that wait until they are durable."""
    writeback: WritebackStatistics
    reads: ReadStatistics
    fetch: FetchStatistics
    sweep: SweepStatistics
    compaction: CompactionStatistics
