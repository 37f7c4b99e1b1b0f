"""The one queue in which every API request waits for Discord's limits, the most urgent first.

A request may start when its channel's bucket, the global limit and the bound on requests in flight all have room.
Among those that may, the one goes first that has the earliest date: the time at which it came, plus a handicap for
each step that it is less urgent than a reader. So a reader overtakes what came up to a few seconds before it, those of
one urgency go in their order, and nobody starves: however many readers keep coming, a sweep that has
waited for its handicap is ahead of all newer ones. (Rejected: strict priorities, which let a busy reader stop
uploads for ever; a reserved share, which is lost while nobody wants it.)

A request that waits here costs nothing: it holds no connection, and one that is cancelled leaves no trace.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter, deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.transport.base import BucketView, Urgency
from disfs.chunkstore.transport.buckets import Bucket
from disfs.chunkstore.transport.routes import ApiRoute, Scope
from disfs.errors import TransientStorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from disfs.chunkstore.transport.buckets import Charge, Pace
    from disfs.chunkstore.transport.routes import Observation
    from disfs.values import ChannelId

HANDICAP_SECONDS = 2.0
"""How much later than a request of one step less urgency another one may come and still go first."""
LONGEST_WAIT_SECONDS = 60.0
"""A refusal that lasts longer is an error, which says when to come again, instead of a wait in silence."""


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits for a turn."""

    date: float
    number: int
    may_go: trio.Event = field(default_factory=trio.Event)

    def __lt__(self, other: _Waiter) -> bool:
        return (self.date, self.number) < (other.date, other.number)


@dataclass(eq=False, slots=True)
class _Request(_Waiter):
    """One API request that waits, then runs."""

    route: ApiRoute = ApiRoute.GET
    channel: ChannelId = field(kw_only=True)
    bucket: Bucket | None = None
    charge: Charge | None = None
    """Its place in `bucket`; None until it may start."""
    sleep: trio.CancelScope = field(default_factory=trio.CancelScope)
    """Ends when it should look again whether it may start."""


def date_of(urgency: Urgency, now: float) -> float:
    """The date that decides the order among those who wait."""
    return now + (urgency - Urgency.READER) * HANDICAP_SECONDS


class Slots:
    """A bound on how many run at once, given to the earliest date first.

    The last `reserved` of them are for readers alone: work in advance must not fill all of them with long transfers.
    """

    def __init__(self, count: int, reserved: int = 0) -> None:
        assert 0 <= reserved < count
        self._free = count
        self._reserved = reserved
        self._numbers = itertools.count()
        self._readers: list[_Waiter] = []
        self._others: list[_Waiter] = []

    @asynccontextmanager
    async def hold(self, urgency: Urgency) -> AsyncIterator[None]:
        """Hold one; waits for it, and gives it back however the block ends."""
        await trio.lowlevel.checkpoint_if_cancelled()
        queue = self._readers if urgency is Urgency.READER else self._others
        waiter = _Waiter(date_of(urgency, trio.current_time()), next(self._numbers))
        bisect.insort(queue, waiter)
        self._hand_out()
        try:
            await waiter.may_go.wait()
            yield
        finally:
            if waiter.may_go.is_set():
                self._free += 1
            else:
                queue.remove(waiter)
            self._hand_out()

    def _hand_out(self) -> None:
        while (queue := self._next()) is not None:
            self._free -= 1
            queue.pop(0).may_go.set()

    def _next(self) -> list[_Waiter] | None:
        """The queue whose first one has its turn now."""
        open_queues = [self._readers] if self._free > 0 else []
        if self._free > self._reserved:
            open_queues.append(self._others)
        waiting = [queue for queue in open_queues if queue]
        return min(waiting, key=lambda queue: queue[0]) if waiting else None


class Pacer:
    """Knows the buckets, and lets requests start. What Discord's answers say is told to `observe`."""

    def __init__(self, everything: Pace, lists: Pace, sends_in_flight: int) -> None:
        self._everything = everything
        self._lists = lists
        self._sends_in_flight = sends_in_flight
        self._numbers = itertools.count()
        self._waiting: list[_Request] = []
        self._starts: deque[float] = deque()
        self._blocked_until = -math.inf
        self._sending: Counter[ChannelId] = Counter()
        self._buckets: dict[tuple[ApiRoute | str, ChannelId], Bucket] = {}
        """By Discord's name for the bucket; by route as long as no answer has named it."""
        self._names: dict[tuple[ApiRoute, ChannelId], str] = {}
        self.waited_seconds = 0.0
        """How long requests have waited here, all together."""
        self.refusals: Counter[Scope] = Counter()
        """The 429s, by whose limit they were about."""

    @asynccontextmanager
    async def turn(self, route: ApiRoute, channel: ChannelId, urgency: Urgency) -> AsyncIterator[None]:
        """Run one request in the block: entered when it may start, left when it has its answer.

        Raises `TransientStorageError` when Discord has refused for longer than anybody should wait in silence.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        request = _Request(date_of(urgency, trio.current_time()), next(self._numbers), route=route, channel=channel)
        bisect.insort(self._waiting, request)
        try:
            await self._wait(request)
            yield
        finally:
            self._end(request)

    def observe(self, seen: Observation) -> None:
        """Learn from an answer; called as soon as it is here, before its request's turn ends. Never raises."""
        now = trio.current_time()
        if seen.refused is not None:
            self.refusals[seen.refused] += 1
            if seen.refused is Scope.GLOBAL:
                self._blocked_until = max(self._blocked_until, now + seen.retry_after_seconds)
        self._bucket_of_answer(seen).observe(seen, now)
        self._dispatch()

    def send_delay_seconds(self, channel: ChannelId) -> float:
        """How long a send would wait, as far as is known; those that wait already go before it."""
        now = trio.current_time()
        ahead = sum(r.route is ApiRoute.SEND and r.channel == channel for r in self._waiting)
        bucket = self._bucket(ApiRoute.SEND, channel)
        return max(bucket.wait_seconds(now, ahead), self._global_at(now) - now, 0.0)

    def views(self) -> tuple[BucketView, ...]:
        """Each bucket that has a known limit, for statistics."""
        now = trio.current_time()
        return tuple(
            BucketView(channel, route.value, bucket.limit, bucket.remaining(now) or 0, bucket.wait_seconds(now))
            for route in ApiRoute
            for (named, channel), name in self._names.items()
            if named is route and (bucket := self._buckets[name, channel]).limit is not None
        )

    # Waiting

    async def _wait(self, request: _Request) -> None:
        came = trio.current_time()
        self._dispatch()
        while request.charge is None:
            now = trio.current_time()
            if self._is_hopeless(request, now):
                raise TransientStorageError(
                    "Discord's rate limit refuses more for a while", retry_after_seconds=self._blocked(request) - now
                )
            with trio.CancelScope(deadline=self._earliest(request, now)) as request.sleep:
                await request.may_go.wait()
            self._dispatch()
        self.waited_seconds += trio.current_time() - came

    def _dispatch(self) -> None:
        """Let everybody start who may, the earliest date first."""
        now = trio.current_time()
        for request in list(self._waiting):
            earliest = self._earliest(request, now)
            if earliest > now:
                # What has changed may have made it sooner, or known at all, or hopeless.
                request.sleep.deadline = now if self._is_hopeless(request, now) else earliest
                continue
            request.bucket = self._bucket(request.route, request.channel)
            request.charge = request.bucket.start()
            self._starts.append(now)
            if request.route is ApiRoute.SEND:
                self._sending[request.channel] += 1
            self._waiting.remove(request)
            request.may_go.set()

    def _end(self, request: _Request) -> None:
        if request.charge is None:
            self._waiting.remove(request)
            return
        assert request.bucket is not None
        request.bucket.end(request.charge, trio.current_time())
        if request.route is ApiRoute.SEND:
            self._sending[request.channel] -= 1
        self._dispatch()

    def _earliest(self, request: _Request, now: float) -> float:
        """When a request may start by what is known; infinite when something else must happen first."""
        if request.route is ApiRoute.SEND and self._sending[request.channel] >= self._sends_in_flight:
            return math.inf
        return max(self._global_at(now), self._bucket(request.route, request.channel).free_at(now))

    def _global_at(self, now: float) -> float:
        while self._starts and self._starts[0] + self._everything.seconds <= now:
            self._starts.popleft()
        if len(self._starts) < self._everything.count:
            return max(now, self._blocked_until)
        return max(self._starts[0] + self._everything.seconds, self._blocked_until)

    def _blocked(self, request: _Request) -> float:
        """Until when a refusal holds it back."""
        return max(self._blocked_until, self._bucket(request.route, request.channel).blocked_until)

    def _is_hopeless(self, request: _Request, now: float) -> bool:
        return self._blocked(request) - now > LONGEST_WAIT_SECONDS

    # Buckets

    def _bucket(self, route: ApiRoute, channel: ChannelId) -> Bucket:
        key = self._names.get((route, channel), route), channel
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._lists if route is ApiRoute.LIST else None)
        return bucket

    def _bucket_of_answer(self, seen: Observation) -> Bucket:
        """The bucket that an answer is about; what was known of its route so far goes with it to its new name."""
        old = self._bucket(seen.route, seen.channel)
        known_as = self._names.get((seen.route, seen.channel), seen.route)
        # Listings have a ceiling of their own, and what they announce is not true of anything.
        if seen.bucket is None or seen.bucket == known_as or seen.route is ApiRoute.LIST:
            return old
        self._names[seen.route, seen.channel] = seen.bucket
        if not any(name == known_as and channel == seen.channel for (_, channel), name in self._names.items()):
            del self._buckets[known_as, seen.channel]
        return self._buckets.setdefault((seen.bucket, seen.channel), old)
