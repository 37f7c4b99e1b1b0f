"""One rate limit bucket as we know it from Discord's headers: when may the next request start? Pure arithmetic.

Discord does not say whether it counts in fixed windows (all returns at once) or sliding ones (each request returns
by itself), nor at which moment between its start and its answer a request is counted. So two bounds are kept, both of
which hold in either case, and the more generous one decides:

- **the log**: with a limit of L per W seconds, no more than L of our own requests may be counted within any W seconds.
  A request counts from its start until W after its answer, for it was counted somewhere in between.
- **the allowance**: an answer that says "r remaining" allows r more, less those that may have been counted after it:
  all that were under way at any time since that answered request began.

L comes with each answer. W is the reset time in an answer of which we know that it began its window (r = L - 1); until
one came, there is no log, and what the last answer allowed is followed by one request at a time.

A channel's listings announce a limit that is not the real one: for those there is a ceiling of our own.
A 429 that comes all the same makes the window longer for a while.

Times are seconds of any clock that only goes forward.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.chunkstore.transport.routes import Scope

if TYPE_CHECKING:
    from disfs.chunkstore.transport.routes import Observation

LONGEST_CAUTION = 4.0
_CAUTION_STEP = 1.25
_CAUTION_DECAY = 0.98
REMEMBERED_ANSWERS = 1000
"""How many answered requests a log holds at most; far more than any limit that was ever seen on a channel's route."""


@dataclass(frozen=True, slots=True)
class Pace:
    """At most `count` starts within any `seconds`."""

    count: int
    seconds: float


@dataclass(slots=True, eq=False)
class Charge:
    """One of our requests, as a bucket counts it."""

    answered_at: float = math.inf


class Bucket:
    """What is known of one bucket of one channel."""

    def __init__(self, ceiling: Pace | None = None) -> None:
        self._ceiling = ceiling
        self.limit: int | None = None
        """As last announced; None while nothing was."""
        self._is_known = False
        self._window_seconds = 0.0
        self._window_is_sure = False
        self._caution = 1.0
        self._charges: deque[Charge] = deque()
        """In the order of their starts."""
        self._allowance = 0
        self._reset_at = -math.inf
        self.blocked_until = -math.inf
        """Until when the last 429 asked to wait."""
        self._foreign_count = 0
        self._foreign_until = -math.inf

    # What happens to it

    def start(self) -> Charge:
        """A request starts now."""
        charge = Charge()
        self._charges.append(charge)
        self._allowance = max(0, self._allowance - 1)
        return charge

    def end(self, charge: Charge, now: float) -> None:
        """The request has its answer, or will never have one; it may have been counted until now."""
        charge.answered_at = now
        self._forget(now)

    def observe(self, seen: Observation, now: float) -> None:
        """Learn from an answer that has just come, before `end` of its own request."""
        if seen.refused is not None:
            self._refuse(seen, now)
        elif seen.limit is not None and seen.remaining is not None and seen.reset_after_seconds is not None:
            self._learn(seen.limit, seen.remaining, seen.reset_after_seconds, now - seen.took_seconds, now)
            self._caution = max(1.0, self._caution * _CAUTION_DECAY)
        elif not seen.says_nothing:
            self._is_known, self.limit = True, None

    def _refuse(self, seen: Observation, now: float) -> None:
        """A 429: nothing may start before the time that it names."""
        if seen.refused is Scope.GLOBAL:
            return  # says nothing about this bucket
        self.blocked_until = max(self.blocked_until, now + seen.retry_after_seconds)
        self._allowance = 0
        if seen.refused is Scope.USER:
            self._caution = min(LONGEST_CAUTION, self._caution * _CAUTION_STEP)

    def _learn(self, limit: int, remaining: int, reset_after: float, began: float, now: float) -> None:
        remaining = min(remaining, limit)
        if limit != self.limit:
            self._window_is_sure, self._allowance = False, 0
        self._is_known, self.limit = True, limit
        if remaining == limit - 1:
            self._window_seconds, self._window_is_sure = reset_after, True
        else:
            self._window_seconds = max(self._window_seconds, reset_after)
        self._reset_at = now + reset_after
        under_way = sum(charge.answered_at > began for charge in self._charges)
        # Its own request is among those that are under way, and is in `remaining` already.
        allowance = max(0, remaining - max(0, under_way - 1))
        possibly_ours = sum(charge.answered_at + self._window_seconds > began for charge in self._charges)
        foreign = limit - remaining - possibly_ours
        if foreign > 0:
            self._foreign_count, self._foreign_until = foreign, now + self._window_seconds
            self._allowance = allowance
        else:
            self._foreign_count = 0
            self._allowance = max(self._allowance, allowance)

    # What follows from it

    def free_at(self, now: float, ahead: int = 0) -> float:
        """When a request may start that has `ahead` others before it; infinite when only an answer can tell."""
        allowed = max(now, self.blocked_until, self._announced_at(now, ahead))
        if self._ceiling is not None:
            allowed = max(allowed, self._logged_at(now, self._ceiling.count, self._ceiling.seconds, ahead))
        return allowed

    def wait_seconds(self, now: float, ahead: int = 0) -> float:
        """How long a request with `ahead` others before it is going to wait: a guess where only an answer can tell."""
        at = self.free_at(now, ahead)
        if math.isinf(at):
            at = max(now, self.blocked_until, self._reset_at) + (self._window_seconds if ahead else 0.0)
        return at - now

    def remaining(self, now: float) -> int | None:
        """How many could start now; None when no limit is known."""
        if self.limit is None:
            return None
        if self.blocked_until > now:
            return 0
        count = 0
        while count < self.limit and self.free_at(now, count) <= now:
            count += 1
        return count

    def _announced_at(self, now: float, ahead: int) -> float:
        """When what Discord has announced lets one through."""
        running = any(charge.answered_at == math.inf for charge in self._charges)
        if not self._is_known:
            return math.inf if running or ahead else now
        if self.limit is None or self._allowance > ahead:
            return now
        if self._window_is_sure:
            return self._logged_at(now, self.limit, self._window_seconds, ahead)
        if ahead or running:
            return math.inf
        return max(now, self._reset_at)

    def _logged_at(self, now: float, count: int, seconds: float, ahead: int) -> float:
        """When no more than `count` requests are counted within `seconds`, this one included."""
        seconds *= self._caution
        ends = sorted(c.answered_at + seconds for c in self._charges if c.answered_at + seconds > now)
        if self._foreign_until > now:
            ends = sorted(ends + [self._foreign_until] * self._foreign_count)
        excess = len(ends) + ahead + 1 - count
        if excess <= 0:
            return now
        return ends[excess - 1] if excess <= len(ends) else math.inf

    def _forget(self, now: float) -> None:
        """Drop the requests that no window still counts."""
        longest = max(self._window_seconds, self._ceiling.seconds if self._ceiling else 0.0) * LONGEST_CAUTION
        while self._charges and (
            self._charges[0].answered_at + longest <= now or len(self._charges) > REMEMBERED_ANSWERS
        ):
            self._charges.popleft()
