"""Latency and bandwidth: how fast bytes may come and go."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from disfs.emulator.settings import Settings

PIECE_BYTES = 256 * 1024
SLOW_PIECE_SECONDS = 0.05
"""A capped transfer moves in pieces that take about this long, so that several share the line fairly."""


class Line:
    """One direction of the network, shared by all transfers: a queue of bytes served at a rate."""

    def __init__(self) -> None:
        self._free_at = 0.0

    async def take(self, count: int, bytes_per_second: float) -> None:
        """Return when `count` more bytes have had their time; at once when the rate is 0 (unlimited)."""
        if bytes_per_second <= 0:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + count / bytes_per_second
        await asyncio.sleep(self._free_at - now)


class SlowStart:
    """A single transfer that begins with a small window, doubled each round trip."""

    def __init__(self, window_bytes: int, round_trip_seconds: float) -> None:
        self._window = max(1, window_bytes)
        self._round_trip = round_trip_seconds
        self._used = 0

    async def take(self, count: int) -> None:
        """Return when the window has room for `count` bytes."""
        self._used += count
        while self._used > self._window:
            self._used -= self._window
            self._window *= 2
            await asyncio.sleep(self._round_trip)


class Shaper:
    """Applies the shaping settings, which may change at any time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._up = Line()
        self._down = Line()
        self._random = random.Random(0)  # noqa: S311 - a delay is no secret

    async def latency(self) -> None:
        """The delay before a request is looked at."""
        delay = self._settings.latency_seconds + self._settings.latency_jitter_seconds * self._random.random()
        if delay > 0:
            await asyncio.sleep(delay)

    def transfer(self) -> SlowStart | None:
        """The ramp of a new transfer, when that is switched on."""
        if not self._settings.slow_start:
            return None
        return SlowStart(self._settings.slow_start_bytes, self._settings.slow_start_round_trip_seconds)

    def download_piece_bytes(self) -> int:
        """How much to send between two calls of `sent`."""
        rate = self._settings.download_bytes_per_second
        if rate <= 0:
            return PIECE_BYTES
        return max(1, min(PIECE_BYTES, int(rate * SLOW_PIECE_SECONDS)))

    async def received(self, count: int, ramp: SlowStart | None) -> None:
        """Called after reading `count` bytes of a body: waits as long as they would have taken."""
        await self._up.take(count, self._settings.upload_bytes_per_second)
        if ramp is not None:
            await ramp.take(count)

    async def sent(self, count: int, ramp: SlowStart | None) -> None:
        """Called before sending `count` bytes of an attachment."""
        await self._down.take(count, self._settings.download_bytes_per_second)
        if ramp is not None:
            await ramp.take(count)
