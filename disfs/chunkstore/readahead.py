"""Fetch what a sequential reader will want next: the policy, pure, and one handle's thin I/O around it.

The window starts at one chunk and doubles each time the reader gets half-way through what was asked for
ahead, up to a maximum; a seek makes it small again. The kernel sends the parts of one large read in parallel and
sometimes out of order, so a read counts as sequential within some slack of where the last ones ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from disfs.chunkstore.fetch import ChunkFetch, Fetcher

_SLACK_BYTES = 1024 * 1024


class ReadaheadPolicy:
    """Decides, read by read, which range to fetch ahead."""

    __slots__ = ("_ahead_until", "_chunk_bytes", "_expected", "_max_bytes", "window_bytes")

    def __init__(self, chunk_bytes: int, max_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._max_bytes = max_bytes
        self._expected = 0
        self._ahead_until = 0
        self.window_bytes = 0

    def is_sequential(self, offset: int) -> bool:
        """Whether a read at `offset` goes on where the others ended; a first read at 0 does."""
        return abs(offset - self._expected) <= min(_SLACK_BYTES, 8 * self._chunk_bytes)

    def on_read(self, offset: int, length: int) -> tuple[int, int] | None:
        """Take note of a read; the range [start, end) to fetch ahead now, or None."""
        end = offset + length
        if not self.is_sequential(offset):
            self._expected, self._ahead_until, self.window_bytes = end, end, 0
            return None
        self._expected = max(self._expected, end)
        if not self._max_bytes or self._ahead_until - self._expected > self.window_bytes // 2:
            return None
        self.window_bytes = min(self._max_bytes, 2 * self.window_bytes or self._chunk_bytes)
        start = max(self._ahead_until, self._expected)
        self._ahead_until = self._expected + self.window_bytes
        return (start, self._ahead_until) if start < self._ahead_until else None


class Readahead:
    """One open handle's sequential detection and the fetches that it began. The store feeds it; FS closes it."""

    def __init__(self, fetcher: Fetcher, chunk_bytes: int, max_bytes: int) -> None:
        self._fetcher = fetcher
        self._policy = ReadaheadPolicy(chunk_bytes, max_bytes)
        self._fetches: list[ChunkFetch] = []
        self._closed = False

    def on_read(self, offset: int, length: int) -> tuple[int, int] | None:
        """As `ReadaheadPolicy.on_read`; a seek cancels what was begun and nobody waits for."""
        if self._closed:
            return None
        if not self._policy.is_sequential(offset):
            self._cancel()
        return self._policy.on_read(offset, length)

    def began(self, fetches: list[ChunkFetch]) -> None:
        """Fetches that were begun for this handle."""
        self._fetches = [fetch for fetch in self._fetches if not fetch.done.is_set()] + fetches
        if self._closed:
            self._cancel()

    def close(self) -> None:
        """The handle is closed: nothing more is wanted. Closing twice is harmless."""
        self._closed = True
        self._cancel()

    def _cancel(self) -> None:
        self._fetcher.cancel(self._fetches)
        self._fetches = []
