"""The shape of the emulated network, and the limits that follow from it. Pure.

A limit is the time below which no client can get, whatever it does: bytes through the bandwidth, messages through the
rate of sends, one answer after one latency. Every figure of the benchmark stands beside one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

CHUNK_BYTES = 128 * KIB
"""What a volume is made of unless it was made otherwise."""
MESSAGE_BYTES = 24 * MIB
"""What one message carries unless a mount was told otherwise."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A network and its limits; the defaults are those of the targets."""

    latency_seconds: float = 0.08
    up_bytes_per_second: float = 100e6 / 8
    down_bytes_per_second: float = 400e6 / 8
    sends: int = 5
    """How many messages one channel takes in `sends_seconds`."""
    sends_seconds: float = 5.0
    requests_per_second: int = 50
    channels: int = 4

    def settings(self) -> dict[str, object]:
        """What the emulator's control API is told."""
        return {
            "latency_seconds": self.latency_seconds,
            "upload_bytes_per_second": self.up_bytes_per_second,
            "download_bytes_per_second": self.down_bytes_per_second,
            "rate_limits": True,
            "limits": {"create_message": {"limit": self.sends, "seconds": self.sends_seconds}},
            "global_limit": self.requests_per_second,
        }

    def upload_seconds(self, count_bytes: float) -> float:
        """How long so many bytes take to Discord."""
        return count_bytes / self.up_bytes_per_second

    def download_seconds(self, count_bytes: float) -> float:
        """How long so many bytes take from Discord."""
        return count_bytes / self.down_bytes_per_second

    def sending_seconds(self, messages: int) -> float:
        """How long so many messages take at the rate of all channels together."""
        return messages * self.sends_seconds / (self.sends * self.channels)

    def write_seconds(self, count_bytes: int) -> float:
        """The limit of writing: the larger of bytes through the bandwidth and messages through the rate."""
        return max(self.upload_seconds(count_bytes), self.sending_seconds(messages_for(count_bytes)))

    def chunk_read_seconds(self) -> float:
        """The limit of reading anything from an absent chunk: a latency and one sealed chunk."""
        return self.latency_seconds + self.download_seconds(CHUNK_BYTES)


OPEN_SETTINGS: dict[str, object] = {
    "latency_seconds": 0.0,
    "upload_bytes_per_second": 0.0,
    "download_bytes_per_second": 0.0,
    "rate_limits": False,
}
"""No shape at all: how files are prepared that a row only reads."""


def messages_for(count_bytes: int) -> int:
    """The fewest messages that hold so many bytes."""
    return max(1, math.ceil(count_bytes / MESSAGE_BYTES))
