"""One bucket's arithmetic, held against servers that count in fixed and in sliding windows."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disfs.chunkstore.transport.answers import Answer
from disfs.chunkstore.transport.buckets import Bucket, Pace
from disfs.chunkstore.transport.routes import (
    ApiRoute,
    Observation,
    Scope,
    delete_route,
    observation_of,
    route_of,
)
from disfs.values import ChannelId, MessageId

if TYPE_CHECKING:
    from disfs.chunkstore.transport.buckets import Charge

HERE = ChannelId(1)


@dataclass
class Server:
    """Counts as Discord might. `fixed`: all returns at the window's end; otherwise each request by itself."""

    limit: int
    seconds: float
    fixed: bool
    times: list[float] = field(default_factory=list)

    def count(self, now: float) -> Observation:
        """Count a request; what its answer will say."""
        if self.fixed and self.times and self.times[0] + self.seconds <= now:
            self.times = []
        if not self.fixed:
            self.times = [at for at in self.times if at + self.seconds > now]
        reset_after = (self.times[0] if self.times else now) + self.seconds - now
        if len(self.times) >= self.limit:
            return Observation(ApiRoute.SEND, HERE, 0.0, refused=Scope.USER, retry_after_seconds=reset_after)
        self.times.append(now)
        return Observation(
            ApiRoute.SEND,
            HERE,
            0.0,
            limit=self.limit,
            remaining=self.limit - len(self.times),
            reset_after_seconds=reset_after,
        )


def drive(server: Server, delays: list[tuple[float, float]], in_flight: int) -> tuple[list[float], int]:
    """Start a request whenever the bucket lets us; when each started, and how many were refused.

    Each request takes some time until it is counted, then some until its answer is here.
    """
    bucket = Bucket()
    now = 0.0
    starts: list[float] = []
    refused = 0
    running: list[tuple[float, int, int, Charge, float]] = []  # when, 0: counted / 1: answered, number, charge, began
    seen: dict[int, Observation] = {}
    while len(starts) < len(delays) or running:
        may_start = len(starts) < len(delays) and sum(event[1] == 1 for event in running) < in_flight
        at = bucket.free_at(now) if may_start else float("inf")
        if running and running[0][0] <= at:
            now, stage, number, charge, began = heapq.heappop(running)
            if stage == 0:
                seen[number] = server.count(now)
                continue
            refused += seen[number].refused is not None
            bucket.observe(replace(seen[number], took_seconds=now - began), now)
            bucket.end(charge, now)
        else:
            now = at
            there, back = delays[len(starts)]
            charge = bucket.start()
            heapq.heappush(running, (now + there, 0, len(starts), charge, now))
            heapq.heappush(running, (now + there + back, 1, len(starts), charge, now))
            starts.append(now)
    return starts, refused


delay = st.floats(0.001, 3.0)


@given(
    limit=st.integers(1, 6),
    seconds=st.floats(0.5, 6.0),
    fixed=st.booleans(),
    delays=st.lists(st.tuples(delay, delay), min_size=1, max_size=25),
    in_flight=st.integers(1, 3),
)
def test_never_refused(
    limit: int, seconds: float, fixed: bool, delays: list[tuple[float, float]], in_flight: int
) -> None:
    """However long requests take, and whichever way the server counts, none is ever refused."""
    assert 0 == drive(Server(limit, seconds, fixed), delays, in_flight)[1]


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize(("limit", "seconds"), [(5, 5.0), (1, 1.0), (10, 2.0)])
def test_limit_is_reached(fixed: bool, limit: int, seconds: float) -> None:
    """With quick answers nearly everything that the server allows is used."""
    starts, _ = drive(Server(limit, seconds, fixed), [(0.01, 0.01)] * 50, 2)
    assert starts[-1] <= (49 // limit) * (seconds + 0.05) + 0.5


@given(st.booleans(), st.integers(1, 6))
def test_what_others_used_is_respected(fixed: bool, used: int) -> None:
    """When somebody else has used some of the bucket before, we are still not refused."""
    server = Server(6, 5.0, fixed)
    for _ in range(used - 1):
        server.count(0.0)
    assert 0 == drive(server, [(0.01, 0.01)] * 20, 2)[1]


def test_limit_that_falls() -> None:
    """A limit that is lowered costs no more than what was under way, and is then kept."""
    server = Server(5, 2.0, fixed=False)
    bucket, now = Bucket(), 0.0
    refused = 0
    for number in range(30):
        if number == 12:
            server.limit = 2
        now = bucket.free_at(now)
        charge = bucket.start()
        told = server.count(now)
        refused += told.refused is not None
        bucket.observe(told, now)
        bucket.end(charge, now)
    assert refused <= 1


def test_ceiling_holds_whatever_is_announced() -> None:
    """A ceiling of our own is kept although the header promises a thousand."""
    bucket = Bucket(Pace(2, 10.0))
    for _ in range(2):
        charge = bucket.start()
        bucket.observe(Observation(ApiRoute.LIST, HERE, 0.0, None, 1000, 999, 10.0), 0.0)
        bucket.end(charge, 0.0)
    assert 10.0 == bucket.free_at(0.0)


API = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "body", "scope", "retry_after"),
    [
        ({"X-RateLimit-Scope": "user", **API}, b'{"retry_after": 1.5, "global": false}', Scope.USER, 1.5),
        ({"X-RateLimit-Scope": "shared", **API}, b'{"retry_after": 1.5}', Scope.SHARED, 1.5),
        ({"X-RateLimit-Global": "true", **API}, b'{"retry_after": 1.5}', Scope.GLOBAL, 1.5),
        (API, b'{"retry_after": 1.5, "global": true}', Scope.GLOBAL, 1.5),
        ({"Content-Type": "text/plain", "Retry-After": "77"}, b"error code: 1015", Scope.GLOBAL, 77),
        ({"Content-Type": "text/plain"}, b"", Scope.GLOBAL, 0),
    ],
)
def test_refusals_are_understood(headers: dict[str, str], body: bytes, scope: Scope, retry_after: float) -> None:
    """A 429 says whose limit it is about, and for how long; a page in its stead is about everything."""
    told = observation_of(ApiRoute.SEND, HERE, Answer(429, headers, body), 0.1)
    assert (scope, retry_after) == (told.refused, told.retry_after_seconds)


def test_headers_are_read() -> None:
    """The numbers come from the headers; nonsense counts as nothing said."""
    headers = {"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "4", "X-RateLimit-Reset-After": "4.401"}
    told = observation_of(ApiRoute.SEND, HERE, Answer(200, headers | {"X-RateLimit-Bucket": "abc"}, b""), 0.1)
    assert ("abc", 5, 4, 4.401, None) == (
        told.bucket,
        told.limit,
        told.remaining,
        told.reset_after_seconds,
        told.refused,
    )
    for nonsense in ("", "many", "-1", "nan", "inf"):
        broken = observation_of(ApiRoute.SEND, HERE, Answer(200, headers | {"X-RateLimit-Limit": nonsense}, b""), 0.1)
        assert broken.limit is None


@pytest.mark.parametrize(("status", "body", "expected"), [(200, b"", False), (404, b"{}", True), (502, b"", True)])
def test_answers_without_limits(status: int, body: bytes, expected: bool) -> None:
    """Only an answer by Discord's API itself can mean that there is no limit."""
    assert expected == observation_of(ApiRoute.SEND, HERE, Answer(status, API, body), 0.1).says_nothing


@pytest.mark.parametrize(
    ("age_seconds", "route"),
    [(1, ApiRoute.DELETE_YOUNG), (3600, ApiRoute.DELETE), (15 * 86_400, ApiRoute.DELETE_OLD)],
)
def test_deletes_count_by_age(age_seconds: float, route: ApiRoute) -> None:
    """A message's id tells its age, and with it the bucket."""
    now = 1_700_000_000.0
    message = MessageId(int((now - age_seconds) * 1000 - 1_420_070_400_000) << 22)
    assert route is delete_route(message, now)


def test_routes_of_the_library() -> None:
    """Requests are told apart as discord.py tells them; one that is not about messages is none of ours."""
    one = "/channels/{channel_id}/messages/{message_id}"
    assert ApiRoute.DELETE_OLD is route_of("DELETE", one, "older-than-two-weeks")
    assert ApiRoute.DELETE is route_of("DELETE", one, None)
    assert ApiRoute.GET is route_of("GET", one, None)
    assert route_of("GET", "/guilds/{guild_id}", None) is None
