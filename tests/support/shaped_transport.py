"""A transport with a latency and a line that all fetches share, under a clock that jumps; it remembers every fetch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from disfs.chunkstore.transport.base import Urgency

if TYPE_CHECKING:
    from disfs.chunkstore.transport.base import Transport
    from disfs.values import Location

_PIECE_BYTES = 2048


@dataclass(frozen=True)
class Fetched:
    """One request for contents."""

    began_at: float
    location: Location
    start: int
    length: int
    urgency: Urgency


class ShapedTransport:
    """Passes everything on; a fetch takes the latency, then its bytes' time on a line shared piece by piece."""

    def __init__(self, inner: Transport, *, latency_seconds: float, bytes_per_second: float) -> None:
        self._inner = inner
        self.latency_seconds = latency_seconds
        self.bytes_per_second = bytes_per_second
        self.fetched: list[Fetched] = []
        self.running_bytes = 0
        self.most_running_bytes = 0
        self.running = 0
        self.most_running = 0
        self._free_at = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def seconds(self, length: int) -> float:
        """How long a single request of that length takes on an idle line."""
        return self.latency_seconds + length / self.bytes_per_second

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
        self.fetched.append(Fetched(trio.current_time(), location, start, length, urgency))
        self.running_bytes += length
        self.running += 1
        self.most_running_bytes = max(self.most_running_bytes, self.running_bytes)
        self.most_running = max(self.most_running, self.running)
        try:
            await trio.sleep(self.latency_seconds)
            for position in range(0, length, _PIECE_BYTES):
                piece = min(_PIECE_BYTES, length - position)
                self._free_at = max(self._free_at, trio.current_time()) + piece / self.bytes_per_second
                await trio.sleep_until(self._free_at)
            return await self._inner.fetch(location, start, length, urgency=urgency)
        finally:
            self.running_bytes -= length
            self.running -= 1
