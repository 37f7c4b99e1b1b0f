"""Fetch what a sequential reader will want next: the policy, pure, and one handle's thin I/O around it.

The window starts at one chunk. It doubles each time the reader has read half of it and has had to wait since the last
time, up to a maximum: a film that is played needs a small window whatever the line, a copy gets one that fills the
line. A seek makes it small again. What is asked for moves on with the reader a few chunks at a time, since queueing
half of a large window at once would keep the main thread from everybody else.

The kernel sends the parts of one large read in parallel and sometimes out of order, so once a reader is known to be
sequential, a read counts as going on within some slack of where the last ones ended. Before that it must
go on exactly there: random reads must not pass for sequential ones because they happen to be near each other.

A program may read two or three places of one file in turn (the sound and the pictures of a film), so a handle
remembers a few positions. A read that fits none of them is a seek: everything that was begun is taken back, and the
positions are kept, so that a reader that returns to one of them goes on there. From then on both are known, and
changing between them is no seek.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from disfs.chunkstore.codec import TAG_BYTES
from disfs.chunkstore.fetch_queue import FetchStream

if TYPE_CHECKING:
    from disfs.chunkstore.fetch import Fetcher

_SLACK_BYTES = 1024 * 1024
_POSITIONS = 4
_STEP_CHUNKS = 16
"""The most that one read adds to what is asked for ahead."""
_RUNS = 2
"""Into how many requests a window is divided, as long as that makes none too large: the next while one is used."""


@dataclass(slots=True)
class _Position:
    """A place at which a handle reads on."""

    expected: int
    """Where the furthest read ended."""
    ahead_until: int
    window_bytes: int = 0
    widened_at: int = 0
    """Where the furthest read ended when the window was widened last."""
    waited: bool = False
    """The reader has waited since then."""
    passed_until: int = 0
    """What lies before was reported as passed."""


class Advice(NamedTuple):
    """What to do about a read."""

    seek: bool = False
    """Take back what was begun for the handle."""
    ahead: tuple[int, int] | None = None
    """The bytes [start, end) to fetch ahead now."""
    passed: tuple[int, int] | None = None
    """The bytes [start, end) that the reader has left behind."""


_NOTHING = Advice()


class ReadaheadPolicy:
    """Decides, read by read, which range to fetch ahead."""

    __slots__ = ("_chunk_bytes", "_positions", "_slack_bytes")

    def __init__(self, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._slack_bytes = min(_SLACK_BYTES, 8 * chunk_bytes)
        self._positions: list[_Position] = []
        """The one that was used last comes first."""

    @property
    def window_bytes(self) -> int:
        """The window at the position that was used last."""
        return self._positions[0].window_bytes if self._positions else 0

    def on_read(self, offset: int, length: int, *, hit: bool, max_bytes: int) -> Advice:
        """Take note of a read, and of whether all of it was in the cache."""
        positions = self._positions
        position = positions[0] if positions and positions[0].expected == offset else self._find(offset)
        if position is None:
            return self._begin(offset, length, max_bytes)
        end = offset + length
        if end > position.expected:
            position.expected = end
        if not hit:
            position.waited = True
        ahead = self._advance(position, max_bytes)
        # Before that much is behind, nothing is reported as passed.
        passed = self._passed(position) if end - position.passed_until >= 2 * self._slack_bytes else None
        return _NOTHING if ahead is passed is None else Advice(ahead=ahead, passed=passed)

    def follows(self, offset: int, length: int, present_until: int) -> bool:
        """Take note of a read that goes on where the last one ended, if `on_read` advises only what is here.

        So it is where the window ends before `present_until`, up to which all is in the cache.
        """
        if not self._positions:
            return False
        position = self._positions[0]
        end = offset + length
        if offset != position.expected or end + position.window_bytes > present_until:
            return False
        if end - position.passed_until >= 2 * self._slack_bytes:
            return False
        position.expected = end
        return True

    def _find(self, offset: int) -> _Position | None:
        for number, position in enumerate(self._positions):
            distance = offset - position.expected
            if distance == 0 or (position.window_bytes and abs(distance) <= self._slack_bytes):
                if number:
                    self._positions.insert(0, self._positions.pop(number))
                return position
        return None

    def _begin(self, offset: int, length: int, max_bytes: int) -> Advice:
        """A place that is new. A first read at 0 of some size is by somebody who reads all of it; a header is not."""
        for other in self._positions:
            other.ahead_until, other.window_bytes = other.expected, 0
        is_first = not self._positions
        end = offset + length
        self._positions.insert(0, _Position(end, end, passed_until=offset))
        del self._positions[_POSITIONS:]
        if is_first and offset == 0 and 2 * length >= self._chunk_bytes:
            return Advice(ahead=self._advance(self._positions[0], max_bytes))
        return _NOTHING if is_first else Advice(seek=True)

    def _advance(self, position: _Position, max_bytes: int) -> tuple[int, int] | None:
        if position.waited and position.expected - position.widened_at >= position.window_bytes // 2:
            position.window_bytes *= 2
            position.widened_at, position.waited = position.expected, False
        window_bytes = position.window_bytes = min(max_bytes, max(position.window_bytes, self._chunk_bytes))
        step_bytes = _STEP_CHUNKS * self._chunk_bytes
        start = max(position.ahead_until, position.expected)
        end = min(start + step_bytes, position.expected + window_bytes)
        if end - start < min(step_bytes, window_bytes // 2):
            return None  # the reader has not moved far enough for another request
        position.ahead_until = end
        return (start, end) if start < end else None

    def _passed(self, position: _Position) -> tuple[int, int] | None:
        """Behind the slack, and not for every single read."""
        until = position.expected - self._slack_bytes
        until -= until % self._chunk_bytes
        if until - position.passed_until < self._slack_bytes:
            return None
        start, position.passed_until = position.passed_until, until
        return start, until


class ReadaheadBudget:
    """Divides what may be fetched ahead among the handles that read sequentially: a quarter of the cache together."""

    def __init__(self, max_bytes: int, total_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._total_bytes = total_bytes
        self._active: set[Readahead] = set()

    def resize(self, max_bytes: int, total_bytes: int) -> None:
        """Divide so much from now on; windows that are open shrink as they are read."""
        self._max_bytes, self._total_bytes = max_bytes, total_bytes

    def share(self, readahead: Readahead) -> int:
        """The largest window of this handle now."""
        share = self._total_bytes // (len(self._active) + (readahead not in self._active))
        return min(self._max_bytes, share)

    def note(self, readahead: Readahead, *, active: bool) -> None:
        """Whether the handle has a window."""
        if active:
            self._active.add(readahead)
        else:
            self._active.discard(readahead)


class Readahead:
    """One open handle's sequential detection and the fetches that it began. The store feeds it; FS closes it."""

    def __init__(self, fetcher: Fetcher, chunk_bytes: int, budget: ReadaheadBudget) -> None:
        self.stream = FetchStream()
        """What is fetched ahead for this handle."""
        self._fetcher = fetcher
        self._policy = ReadaheadPolicy(chunk_bytes)
        self._chunk_bytes = chunk_bytes
        self._budget = budget
        self._window_bytes = 0
        self._present_until = 0
        self._closed = False

    def follows(self, offset: int, length: int) -> bool:
        """Take note of a read of what is cached, if there is nothing to advise; if False, `on_read` has to be asked."""
        return self._closed or self._policy.follows(offset, length, self._present_until)

    def on_read(self, offset: int, length: int, *, hit: bool) -> Advice:
        """As `ReadaheadPolicy.on_read`; a seek takes back what was begun and nobody waits for."""
        if self._closed:
            return _NOTHING
        self._present_until = 0  # what was found lies ahead of another position, perhaps
        advice = self._policy.on_read(offset, length, hit=hit, max_bytes=self._budget.share(self))
        if advice.seek:
            self._fetcher.cancel(self.stream)
        if (window_bytes := self._policy.window_bytes) != self._window_bytes:
            self._window_bytes = window_bytes
            self._budget.note(self, active=window_bytes > 0)
            # In sealed chunks, each a little longer than a chunk.
            run_chunks = -(-window_bytes // (_RUNS * self._chunk_bytes))
            self.stream.run_bytes = run_chunks * (self._chunk_bytes + TAG_BYTES)
        return advice

    def found_present(self, end: int) -> None:
        """Whatever lies between the last read and `end` is in the cache: for a while there is nothing to advise."""
        self._present_until = end

    @property
    def closed(self) -> bool:
        """Whether the handle is closed: nothing more is wanted."""
        return self._closed

    def close(self) -> None:
        """The handle is closed: nothing more is wanted. Closing twice is harmless."""
        self._closed = True
        self._budget.note(self, active=False)
        self._fetcher.cancel(self.stream)
