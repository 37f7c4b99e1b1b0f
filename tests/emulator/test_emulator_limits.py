"""Rate limit decisions with a clock that stands still until told."""

from __future__ import annotations

import pytest

from disfs.emulator.clock import Clock
from disfs.emulator.ratelimit import RateLimiter
from disfs.emulator.settings import Limit, Settings
from disfs.emulator.snowflake import EPOCH_MS


class StillClock(Clock):
    """Moves only when `seconds` is changed."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 1_800_000_000.0

    def now(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


def limiter_of(clock: Clock, **changes: object) -> RateLimiter:
    settings = Settings()
    settings.update(changes)
    return RateLimiter(settings, clock)


def test_fixed_window_refills_whole_at_its_end(clock: StillClock) -> None:
    """Five sends pass, the sixth waits for the end of the window that the first one opened."""
    limiter = limiter_of(clock)
    verdicts = []
    for _ in range(6):
        verdicts.append(limiter.check("create_message", "1"))
        clock.seconds += 0.5

    assert [4, 3, 2, 1, 0, 0] == [verdict.remaining for verdict in verdicts if verdict]
    refused = verdicts[-1]
    assert refused is not None
    assert (False, "user", 2.5) == (refused.allowed, refused.scope, round(refused.reset_after, 6))
    assert "3" == refused.headers()["Retry-After"]
    clock.seconds += 2.0
    assert 4 == getattr(limiter.check("create_message", "1"), "remaining", None)


def test_sliding_window_returns_requests_one_by_one(clock: StillClock) -> None:
    """In sliding mode one slot comes back when the oldest request is old enough."""
    limiter = limiter_of(clock, rate_limit_mode="sliding")
    for _ in range(5):
        limiter.check("create_message", "1")
        clock.seconds += 1
    allowed = []
    for _ in range(3):
        verdict = limiter.check("create_message", "1")
        allowed.append(verdict is not None and verdict.allowed)

    assert [True, False, False] == allowed


def test_buckets_are_per_channel_and_route(clock: StillClock) -> None:
    """A full bucket of one channel leaves other channels and routes alone; its name is shared by channels."""
    limiter = limiter_of(clock)
    for _ in range(6):
        full = limiter.check("create_message", "1")
    other, listing = limiter.check("create_message", "2"), limiter.check("list_messages", "1")

    assert full is not None
    assert other is not None
    assert listing is not None
    assert (False, True, True) == (full.allowed, other.allowed, listing.allowed)
    assert full.bucket == other.bucket != listing.bucket


def test_listing_advertises_more_than_it_allows(clock: StillClock) -> None:
    """List messages claims 999 of 1000 left until the real limit hits, then tells 0 of 5."""
    limiter = limiter_of(clock)
    verdicts = [limiter.check("list_messages", "1") for _ in range(6)]

    shown = [(verdict.limit, verdict.remaining) for verdict in verdicts if verdict]
    assert [(1000, 999)] * 5 + [(5, 0)] == shown


def test_global_limit_counts_all_routes(clock: StillClock) -> None:
    """The bot's limit is one for everything, and its refusal says global."""
    limiter = limiter_of(clock, global_limit=3)
    for number in range(3):
        limiter.check("get_me", str(number))
    refused = limiter.check("create_message", "1")

    assert refused is not None
    assert {"X-RateLimit-Global": "true", "Retry-After": "1", "X-RateLimit-Scope": "global"} == refused.headers()


@pytest.mark.parametrize(("age_seconds", "allowed"), [(1, 5), (3600, 3), (20 * 86_400, 30)])
def test_delete_bucket_depends_on_age(clock: StillClock, age_seconds: int, allowed: int) -> None:
    """Young, ordinary and old messages are deleted from buckets of their own."""
    message = (int((clock.seconds - age_seconds) * 1000) - EPOCH_MS) << 22
    limiter = limiter_of(clock)
    verdicts = [limiter.check("delete_message", "1", message) for _ in range(31)]

    assert allowed == sum(verdict is not None and verdict.allowed for verdict in verdicts)


def test_limits_can_be_changed_while_running(clock: StillClock) -> None:
    """A new number counts from the next request on, and switching off lifts everything."""
    settings = Settings()
    limiter = RateLimiter(settings, clock)
    limiter.check("create_message", "1")
    settings.update({"limits": {"create_message": {"limit": 1, "seconds": 5}}})
    refused = limiter.check("create_message", "1")
    settings.update({"rate_limits": False})

    assert refused is not None
    assert not refused.allowed
    assert limiter.check("create_message", "1") is None
    assert Limit(5, 5.0, 1000) == settings.limits["list_messages"]


def test_too_many_invalid_requests_bring_cloudflare(clock: StillClock) -> None:
    """The ban comes at the limit within the window, lasts as long as set, and then ends."""
    limiter = limiter_of(clock, invalid_request_limit=3, invalid_request_seconds=600, cloudflare_block_seconds=60)
    limiter.note_invalid()
    clock.seconds += 601
    limiter.note_invalid()
    limiter.note_invalid()
    before = limiter.blocked_seconds()
    limiter.note_invalid()

    assert (0, 60) == (before, limiter.blocked_seconds())
    clock.seconds += 60
    assert limiter.blocked_seconds() == 0
