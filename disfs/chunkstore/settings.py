"""The numbers that the chunk store keeps to."""

from __future__ import annotations

from dataclasses import dataclass

from disfs.spans import DEFAULT_CHUNK_BYTES

_KIB = 1024
_MIB = 1024 * _KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkStoreSettings:
    """Sizes in bytes, times in seconds; every bound of the chunk store is here."""

    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    """Fixed when the volume is made."""

    cache_bytes: int = 4096 * _MIB
    """The budget of the local cache, kept at all times. A single write of more than this cannot succeed."""
    dirty_limit_bytes: int | None = None
    """Writers wait above it; None stands for half the cache."""
    min_free_bytes: int = 256 * _MIB
    """How much of the disk under the cache is left to others."""
    small_content_bytes: int = 16 * _KIB
    """A file's cached content up to this length is a row of the metadata instead of a cache file; 0 turns it off."""
    open_files: int = 256
    """How many cache files are held open at once."""

    writeback_delay_seconds: float = 5.0
    """A chunk is sent once it has not been written for so long."""
    writeback_age_seconds: float = 60.0
    """A chunk that is written again and again is sent after so long all the same."""
    attachment_bytes: int = 10 * _MIB
    """A first guess, from the guild's tier; what Discord refuses lowers it."""
    attachment_margin_bytes: int = 4 * _KIB
    """Packs stay so far below the attachment limit."""
    message_bytes: int = 24 * _MIB
    """How much one message carries."""
    attachments_per_message: int = 10
    sends_per_channel: int = 2
    """How many messages are on their way to one channel at once: a second one only when every other channel is busy."""
    in_flight_bytes: int = 48 * _MIB
    """How much of unsent data is held in memory, sealed and on its way; one message is always allowed."""
    send_seconds: float = 10.0
    """Messages shrink until one takes no longer: one that fails is sent anew from its first byte."""
    backoff_seconds: float = 1.0
    """The first pause after a failed send; it doubles."""
    backoff_limit_seconds: float = 30.0
    rest_seconds: float = 30.0
    """How long a channel rests that refuses us for good, before it is tried again."""
    seal_threads: int = 2

    fetch_bytes: int = 2 * _MIB
    """The most that one Range request brings."""
    fetches: int = 16
    """How many Range requests run at once, readahead included."""
    fetch_memory_bytes: int = 24 * _MIB
    """How much is on its way at once: fetched ahead and not yet in the cache, whatever the number of readers."""
    readahead_bytes: int = 32 * _MIB
    """The largest readahead window of one handle, if the cache is at least four times as large; 0 turns it off.
    A line of 1 Gbit/s and 200 ms holds 25 MB."""

    sweep_grace_seconds: float = 60.0
    """How long a message holds nothing live before it is deleted."""
    sweep_interval_seconds: float = 15.0
    stray_seconds: float = 600.0
    """How long a message that nobody knows of was in its channel, by our own clock, before it counts as a stray."""

    compaction_share: float = 0.1
    """The part of the time that compaction may work; 0 turns it off."""
    compaction_interval_seconds: float = 60.0
    """The least pause between two rounds of it."""
    compaction_patience_seconds: float = 3600.0
    """A mostly dead message waits so long for others to be rewritten together with it."""
    settle_seconds: float = 1.0
    """How long bytes that were cut wait in the cache before the cut is made durable on their account."""

    @property
    def dirty_bytes(self) -> int:
        """The dirty limit, with its default worked out."""
        return self.cache_bytes // 2 if self.dirty_limit_bytes is None else self.dirty_limit_bytes

    @property
    def small_bytes(self) -> int:
        """How long a small content may be: it lies in one chunk."""
        return min(self.small_content_bytes, self.chunk_bytes)

    @property
    def small_limit_bytes(self) -> int:
        """How much small contents may be together: the file of the metadata does not shrink when they go."""
        return min(256 * _MIB, self.cache_bytes // 8)

    @property
    def pinned_bytes(self) -> int:
        """How much pinned data may take: the rest of the cache is room for work."""
        return self.cache_bytes - self.cache_bytes // 4

    @property
    def high_mark_bytes(self) -> int:
        """Above so many dirty bytes nothing waits for the writeback delay."""
        return self.dirty_bytes // 2

    @property
    def soft_mark_bytes(self) -> int:
        """Above so many dirty bytes each write waits a little, the more the nearer the limit is."""
        return self.dirty_bytes // 4 * 3
