"""Snowflakes: ids that are unique, rise, and tell when they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from disfs.emulator.clock import Clock

EPOCH_MS = 1_420_070_400_000
"""The first second of 2015, from which Discord counts."""
MAXIMUM = 2**63 - 1


def created_ms(snowflake: int) -> int:
    """When an id was made, in milliseconds since 1970."""
    return (snowflake >> 22) + EPOCH_MS


class SnowflakeFactory:
    """Makes ids above all earlier ones, even when the clock stands still or is shifted back."""

    def __init__(self, clock: Clock, last: int = 0) -> None:
        self._clock = clock
        self._last = last

    def next(self) -> int:
        """A new id."""
        fresh = (self._clock.now_ms() - EPOCH_MS) << 22
        self._last = max(self._last + 1, fresh)
        return self._last
