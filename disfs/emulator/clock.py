"""The emulator's time: it runs with the machine's monotonic clock and can be shifted."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Seconds since 1970 that never jump unless told to.

    Ids, signed URLs, rate limits, nonce windows and grace times all read this one clock, so that a test
    passes two weeks in one call.
    """

    def __init__(self, shift_seconds: float = 0.0) -> None:
        self._start = time.time() - time.monotonic()
        self.shift_seconds = shift_seconds

    def now(self) -> float:
        """The shifted time."""
        return self._start + time.monotonic() + self.shift_seconds

    def now_ms(self) -> int:
        """The shifted time in whole milliseconds."""
        return int(self.now() * 1000)


def iso_timestamp(milliseconds: int) -> str:
    """Milliseconds since 1970 as Discord writes them."""
    moment = datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    return moment.isoformat(timespec="microseconds")
