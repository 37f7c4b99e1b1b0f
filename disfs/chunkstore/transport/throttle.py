"""A bandwidth limit that all transfers of one direction share, on the asyncio side.

A line that serves bytes at a rate, first come first served: a transfer takes its turn for a piece, waits until the
line has come to it, and then moves the piece. Pieces are small at a low rate, so that several transfers move side by
side, a transfer is never silent for long, and a new limit holds at once.
"""

from __future__ import annotations

import asyncio

SHORTEST_PIECE_BYTES = 1024
_PIECE_SECONDS = 0.05
"""How long one piece may take at the limit."""
_BURST_SECONDS = 0.05
"""How much an idle line may catch up: timers are late by some milliseconds, and the limit is to be reached."""


class Throttle:
    """One direction of the network. Made and used inside one loop."""

    def __init__(self) -> None:
        self._bytes_per_second: float | None = None
        self._free_at = 0.0
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()

    @property
    def bytes_per_second(self) -> float | None:
        """The limit in force; None without one."""
        return self._bytes_per_second

    def limit(self, bytes_per_second: float | None) -> None:
        """Set another limit; transfers that wait for the old one go on by the new one at once."""
        assert bytes_per_second is None or bytes_per_second > 0
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0
        self._changed.set()
        self._changed = asyncio.Event()

    def piece_bytes(self, most: int) -> int:
        """How much to move between two calls of `take`, at most `most`."""
        if self._bytes_per_second is None:
            return most
        return max(SHORTEST_PIECE_BYTES, min(most, int(self._bytes_per_second * _PIECE_SECONDS)))

    async def take(self, count: int) -> None:
        """Return when `count` bytes may move; without a limit at once."""
        if self._bytes_per_second is None:
            return
        async with self._turn:
            await self._wait_for_the_line()
            rate = self.bytes_per_second
            if rate is not None:  # nor had it been lifted meanwhile
                now = asyncio.get_running_loop().time()
                self._free_at = max(self._free_at, now - _BURST_SECONDS) + count / rate

    async def _wait_for_the_line(self) -> None:
        """Until what was taken before has had its time, or a new limit has made that void."""
        while (delay := self._free_at - asyncio.get_running_loop().time()) > 0:
            try:
                async with asyncio.timeout(delay):
                    await self._changed.wait()
            except TimeoutError:
                continue
