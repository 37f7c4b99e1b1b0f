"""Which chunks are fetched next, and how many by one request. Decides only; `fetch` does the I/O.

Requests are put together at the last moment, when one may begin, from whatever waits then. So a chunk that was queued
for later and that somebody has come to wait for needs no more than another place in the queue, and a
seek takes back what was not begun by forgetting it.

The order: chunks that a reader waits for, by arrival; then what is fetched ahead; then what is brought in the
background. Among streams of the same rank the one with the fewest bytes on their way is next, so many files that are
read at once share the line, whoever came first. Some requests are kept free for readers.

How large a request is: a chunk that is waited for goes alone, or with its neighbours that are waited for too, so a
random read brings what it wants and no more. If a sequential reader waits for it, what that reader's stream wants
next comes along, as much as the stream says: with every reader waiting for its next chunk, single chunks would
leave most of the line empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from disfs.errors import FilesystemError
    from disfs.values import ChunkKey, PackId, PackRecord


class Place(NamedTuple):
    """A slot of a pack."""

    pack: PackId
    slot: int


@dataclass(frozen=True, slots=True)
class Target:
    """A chunk that is in Discord, and where."""

    key: ChunkKey
    pack: PackId
    slot: int

    @property
    def place(self) -> Place:
        """Where it lies."""
        return Place(self.pack, self.slot)


@dataclass(slots=True, eq=False)
class FetchStream:
    """Chunks that one sequential reader will want, or that one warm-up brings."""

    background: bool = False
    """Nobody will wait for them soon."""
    run_bytes: int = 0
    """How much of the stream one request may bring."""
    fetches: set[ChunkFetch] = field(default_factory=set)
    """All of its chunks that are queued or on their way."""
    waiting: dict[Place, ChunkFetch] = field(default_factory=dict)
    """Those that wait here for their turn."""
    running_bytes: int = 0
    served: int = 0
    """When it was last served, as a count of all requests."""


@dataclass(slots=True, eq=False)
class ChunkFetch:
    """One chunk on its way. When `done` is set, at most one of `plain`, `error` is; with neither, look again."""

    target: Target
    done: trio.Event = field(default_factory=trio.Event)
    plain: bytes | None = None
    error: FilesystemError | None = None
    transient: bool = False
    """The error is of the network and may be gone."""
    readers: int = 0
    """How many wait for it."""
    streams: list[FetchStream] = field(default_factory=list)
    """Which streams want it; it waits in the first one's queue."""
    near: FetchStream | None = None
    """The stream of the reader that waits for it: what that wants next may come along."""
    record: PackRecord | None = None
    """Its pack; known from when it is queued."""
    begun_at: float = math.inf
    """When its request began."""
    run: Run | None = None
    """The request that brings it, from when it began."""

    @property
    def wanted(self) -> bool:
        """Whether anybody still has a use for it."""
        return bool(self.readers or self.streams)

    @property
    def stored_bytes(self) -> int:
        """How long it is in its pack."""
        assert self.record is not None
        return self.record.slots.stored_length(self.target.slot)


@dataclass(slots=True, eq=False)
class Run:
    """Neighbouring slots of one pack that one request brings."""

    record: PackRecord
    fetches: list[ChunkFetch]
    size_bytes: int
    stream: FetchStream | None
    demanded: bool
    """A reader waited for its first chunk when it began."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What a queue keeps to."""

    requests: int
    """How many run at once."""
    total_bytes: int
    """How much is on its way at once; a chunk that is waited for goes all the same."""
    run_bytes: int
    """The most that one request brings."""

    @property
    def ahead_requests(self) -> int:
        """How many may run that nobody waits for."""
        return max(1, self.requests - max(1, self.requests // 4))

    @property
    def background_requests(self) -> int:
        """How many may run in the background."""
        return max(1, self.requests // 2)


class FetchQueue:
    """Chunks that wait to be fetched. `take` gives the next request; `finished` must follow for each."""

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self._pace = RunLimit(limits.run_bytes, limits.ahead_requests)
        self._demanded: dict[Place, ChunkFetch] = {}
        self._ready: dict[FetchStream, None] = {}
        """The streams in which something waits."""
        self._running_background = 0
        self._served = 0
        self.running = 0
        self.running_bytes = 0

    def __len__(self) -> int:
        return len(self._demanded) + sum(len(stream.waiting) for stream in self._ready)

    def __iter__(self) -> Iterator[ChunkFetch]:
        yield from list(self._demanded.values())
        for stream in list(self._ready):
            yield from list(stream.waiting.values())

    def add(self, fetch: ChunkFetch) -> None:
        """Queue a chunk where it belongs: among those that are waited for, or in its first stream."""
        assert fetch.record is not None
        assert fetch.wanted
        place = fetch.target.place
        if fetch.readers:
            self._demanded[place] = fetch
        else:
            stream = fetch.streams[0]
            stream.waiting[place] = fetch
            self._ready[stream] = None

    def drop(self, fetch: ChunkFetch) -> bool:
        """Take a chunk out of the queue; False when it is not in it."""
        place = fetch.target.place
        if self._demanded.get(place) is fetch:
            del self._demanded[place]
            return True
        for stream in fetch.streams:
            if stream.waiting.get(place) is fetch:
                self._take_from(stream, place)
                return True
        return False

    def move(self, fetch: ChunkFetch) -> bool:
        """Somebody began or ceased to wait for it: to its new place, or out. True when it is in the queue no more."""
        if not self.drop(fetch):
            return False
        if fetch.wanted:
            self.add(fetch)
        return not fetch.wanted

    def forget(self, stream: FetchStream) -> list[ChunkFetch]:
        """Take back what a stream wants; returns its chunks that nobody wants now, queued (no more) or on their way."""
        unwanted = []
        for fetch in stream.fetches:
            queued = self.drop(fetch)
            fetch.streams.remove(stream)
            if not fetch.wanted:
                unwanted.append(fetch)
            elif queued:
                self.add(fetch)
        stream.fetches.clear()
        return unwanted

    def take(self) -> Run | None:
        """The next request; None while nothing waits, or nothing more may begin."""
        if self.running >= self._limits.requests:
            return None
        first = next(iter(self._demanded.values()), None)
        if first is not None:
            return self._begin(first, demanded=True)
        if self.running >= self._pace.ahead_requests or self.running_bytes >= self._limits.total_bytes:
            return None
        stream = min(self._ready, key=_turn, default=None)
        if stream is None or (stream.background and self._running_background >= self._limits.background_requests):
            return None
        return self._begin(next(iter(stream.waiting.values())), demanded=False)

    def _begin(self, first: ChunkFetch, *, demanded: bool) -> Run:
        stream = first.near if demanded else first.streams[0]
        self.drop(first)
        assert first.record is not None
        run = Run(first.record, [first], first.stored_bytes, stream, demanded)
        while (following := self._following(run)) is not None:
            self.drop(following)
            run.fetches.append(following)
            run.size_bytes += following.stored_bytes
        self._started(run)
        return run

    def _following(self, run: Run) -> ChunkFetch | None:
        """The chunk in the next slot, if it waits too and may come along."""
        last = run.fetches[-1].target
        if last.slot + 1 >= len(run.record.slots):
            return None
        place = Place(last.pack, last.slot + 1)
        size_bytes = run.size_bytes + run.record.slots.stored_length(place.slot)
        if size_bytes > self._pace.limit_bytes or self.running_bytes + size_bytes > self._limits.total_bytes:
            return None
        demanded = self._demanded.get(place)
        if demanded is not None:
            return demanded
        if run.stream is None or size_bytes > run.stream.run_bytes:
            return None
        return run.stream.waiting.get(place)

    def _started(self, run: Run) -> None:
        now = trio.current_time()
        for fetch in run.fetches:
            fetch.begun_at, fetch.run = now, run
        self._count(run, 1)
        self._served += 1
        if run.stream is not None:
            run.stream.served = self._served

    def finished(self, run: Run, seconds: float | None = None) -> None:
        """A request is over; `seconds` is how long it took if it brought everything."""
        self._count(run, -1)
        if seconds is not None:
            self._pace.took(run.size_bytes, seconds)

    def _count(self, run: Run, step: int) -> None:
        self.running += step
        self.running_bytes += step * run.size_bytes
        if run.stream is not None:
            run.stream.running_bytes += step * run.size_bytes
            self._running_background += step * run.stream.background

    def _take_from(self, stream: FetchStream, place: Place) -> None:
        del stream.waiting[place]
        if not stream.waiting:
            del self._ready[stream]


def _turn(stream: FetchStream) -> tuple[bool, int, int]:
    return stream.background, stream.running_bytes, stream.served


class RunLimit:
    """How much one request may bring, and how many may run ahead, so that none takes much longer than a second.

    On a slow line a large request keeps the reader of its first byte waiting for its last one, and many at once keep
    each other. A request that took long halves the size, then the number; one of about that size that was quick doubles
    the number again, then the size.
    """

    _SLOW_SECONDS = 2.0
    _QUICK_SECONDS = 1.0
    _FLOOR_BYTES = 128 * 1024
    _FLOOR_REQUESTS = 2

    def __init__(self, most_bytes: int, most_requests: int) -> None:
        self._most_bytes = most_bytes
        self._most_requests = most_requests
        self._floor_bytes = min(self._FLOOR_BYTES, most_bytes)
        self._floor_requests = min(self._FLOOR_REQUESTS, most_requests)
        self.limit_bytes = most_bytes
        self.ahead_requests = most_requests

    def took(self, size_bytes: int, seconds: float) -> None:
        """Learn from a request that brought everything."""
        if seconds > self._SLOW_SECONDS:
            if self.limit_bytes > self._floor_bytes:
                self.limit_bytes = max(self._floor_bytes, self.limit_bytes // 2)
            else:
                self.ahead_requests = max(self._floor_requests, self.ahead_requests // 2)
        elif seconds < self._QUICK_SECONDS and size_bytes >= self.limit_bytes // 2:
            if self.ahead_requests < self._most_requests:
                self.ahead_requests = min(self._most_requests, 2 * self.ahead_requests)
            else:
                self.limit_bytes = min(self._most_bytes, 2 * self.limit_bytes)


def consecutive(fetches: Iterable[ChunkFetch]) -> list[list[ChunkFetch]]:
    """Group chunks of one pack, in the order of their slots, into runs without a gap."""
    groups: list[list[ChunkFetch]] = []
    for fetch in fetches:
        if groups and groups[-1][-1].target.slot + 1 == fetch.target.slot:
            groups[-1].append(fetch)
        else:
            groups.append([fetch])
    return groups
