"""Rate limits: per bucket, for the whole bot, and for invalid requests. Decisions only; no waiting, no replies."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from disfs.emulator.snowflake import created_ms

if TYPE_CHECKING:
    from disfs.emulator.clock import Clock
    from disfs.emulator.settings import Limit, Settings

YOUNG_SECONDS = 10
OLD_SECONDS = 14 * 86_400
FORGET_COUNT = 10_000
"""Windows kept before the ended ones are dropped."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may pass, and what its headers say."""

    allowed: bool
    limit: int
    remaining: int
    reset_after: float
    reset_at: float
    bucket: str
    scope: str = "user"

    def headers(self) -> dict[str, str]:
        """The X-RateLimit headers; `Retry-After` and the scope when it was refused."""
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": f"{self.reset_at:.3f}",
            "X-RateLimit-Reset-After": f"{self.reset_after:.3f}",
            "X-RateLimit-Bucket": self.bucket,
        }
        if self.scope == "global":
            headers = {"X-RateLimit-Global": "true"}
        if not self.allowed:
            headers["Retry-After"] = str(math.ceil(self.reset_after))
            headers["X-RateLimit-Scope"] = self.scope
        return headers


class Window(Protocol):
    """Counts the requests of one bucket."""

    def take(self, now: float, limit: int, seconds: float) -> tuple[bool, int, float]:
        """Count a request unless the bucket is full: allowed, remaining, seconds until it refills."""

    def ended(self, now: float, seconds: float) -> bool:
        """Whether forgetting it changes nothing."""


class FixedWindow:
    """Starts at the first request; everything refills at its end."""

    def __init__(self) -> None:
        self._start = -math.inf
        self._used = 0

    def take(self, now: float, limit: int, seconds: float) -> tuple[bool, int, float]:
        """As in `Window`."""
        if self.ended(now, seconds):
            self._start, self._used = now, 0
        reset_after = self._start + seconds - now
        if self._used >= limit:
            return False, 0, reset_after
        self._used += 1
        return True, limit - self._used, reset_after

    def ended(self, now: float, seconds: float) -> bool:
        """As in `Window`."""
        return not self._start <= now < self._start + seconds


class SlidingWindow:
    """Each request counts for the window's length and then returns by itself."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def take(self, now: float, limit: int, seconds: float) -> tuple[bool, int, float]:
        """As in `Window`."""
        self._expire(now, seconds)
        allowed = len(self._times) < limit
        if allowed:
            self._times.append(now)
        oldest = self._times[0] if self._times else now
        return allowed, max(0, limit - len(self._times)), oldest + seconds - now

    def ended(self, now: float, seconds: float) -> bool:
        """As in `Window`."""
        self._expire(now, seconds)
        return not self._times

    def _expire(self, now: float, seconds: float) -> None:
        while self._times and not self._times[0] <= now < self._times[0] + seconds:
            self._times.popleft()


class RateLimiter:
    """Keeps the windows of all buckets, and counts invalid requests until Cloudflare steps in."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._windows: dict[tuple[str, str, str], Window] = {}
        self._invalid: deque[float] = deque()
        self._blocked_until = -math.inf

    def check(self, route: str, resource: str, message: int | None = None) -> Verdict | None:
        """Count a request; None when nothing limits it.

        `resource` is the channel or guild id, `message` the one that a delete names: its age chooses the bucket.
        """
        if not self._settings.rate_limits:
            return None
        now = self._clock.now()
        everything = self._window("global", "")
        allowed, remaining, reset_after = everything.take(
            now, self._settings.global_limit, self._settings.global_seconds
        )
        if not allowed:
            return Verdict(False, self._settings.global_limit, remaining, reset_after, now + reset_after, "", "global")
        name = route if message is None or route != "delete_message" else _delete_bucket(message, now)
        limit = self._settings.limits.get(name)
        return None if limit is None else self._check_bucket(name, resource, limit, now)

    def note_invalid(self) -> None:
        """A 401, 403 or 429 went out that counts against the invalid request limit."""
        now = self._clock.now()
        self._invalid.append(now)
        while self._invalid and self._invalid[0] <= now - self._settings.invalid_request_seconds:
            self._invalid.popleft()
        if self._settings.rate_limits and len(self._invalid) >= self._settings.invalid_request_limit:
            self._blocked_until = now + self._settings.cloudflare_block_seconds
            self._invalid.clear()

    def blocked_seconds(self) -> float:
        """How long Cloudflare still refuses everything; 0 when it does not."""
        return max(0.0, self._blocked_until - self._clock.now())

    def forget(self) -> None:
        """Empty all buckets and lift a block."""
        self._windows.clear()
        self._invalid.clear()
        self._blocked_until = -math.inf

    def _check_bucket(self, name: str, resource: str, limit: Limit, now: float) -> Verdict:
        allowed, remaining, reset_after = self._window(name, resource).take(now, limit.limit, limit.seconds)
        shown = limit.limit
        if limit.advertised is not None and allowed:
            shown, remaining = limit.advertised, limit.advertised - 1
        bucket = hashlib.sha256(name.encode()).hexdigest()[:32]
        return Verdict(allowed, shown, remaining, reset_after, now + reset_after, bucket)

    def _window(self, name: str, resource: str) -> Window:
        mode = self._settings.rate_limit_mode
        if len(self._windows) > FORGET_COUNT:
            now, longest = self._clock.now(), max(limit.seconds for limit in self._settings.limits.values())
            self._windows = {key: kept for key, kept in self._windows.items() if not kept.ended(now, longest)}
        window = self._windows.get((mode, name, resource))
        if window is None:
            window = SlidingWindow() if mode == "sliding" else FixedWindow()
            self._windows[(mode, name, resource)] = window
        return window


def _delete_bucket(message: int, now: float) -> str:
    age = now - created_ms(message) / 1000
    if age < YOUNG_SECONDS:
        return "delete_message_young"
    return "delete_message_old" if age > OLD_SECONDS else "delete_message"
