"""What went in and out since the start or the last reset, for tests and benchmarks."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Counters:
    """Requests and answers by route, bytes of bodies."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.statuses: dict[str, Counter[str]] = {}
        self.received_bytes = 0
        self.sent_bytes = 0

    def answered(self, route: str, status: int) -> None:
        """An answer was made; whether it arrives is another matter. Status 0 is a connection cut on purpose."""
        self.statuses.setdefault(route, Counter())[str(status)] += 1

    def reset(self) -> None:
        """Start again at zero."""
        self.requests.clear()
        self.statuses.clear()
        self.received_bytes = self.sent_bytes = 0

    def as_json(self) -> dict[str, Any]:
        """All counters."""
        return {
            "requests": dict(self.requests),
            "statuses": {route: dict(statuses) for route, statuses in self.statuses.items()},
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
        }
