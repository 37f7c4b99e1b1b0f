"""When the next message is worth sending, and which dirty chunks go into it, in which order. Pure.

Requests are the scarce thing, so a message goes when it is full, and a partial one only when its time has come:

    somebody waits until it is in Discord    at once, down to the last partial message
    a message's worth has been quiet         once that is so for a moment
    writers wait for room, or the high mark  a full message at once; a partial one only if nothing is on its way, for
                                             what is on its way will soon let the writers fill the next one (as Nagle's
                                             algorithm does with packets)
    one chunk has been quiet for the delay,  a partial message at that time; whatever has been quiet for a
    or dirty for the greatest age            quarter of a second goes along

Which: the scheduler goes through the waiting chunks as an elevator goes through floors, by (inode, index), from where
the last message ended, round and round. So neighbours in a file become neighbours in a pack, in whatever order
they were written. Urgent chunks come first. Somebody who writes ahead of the elevator could keep it from ever coming
round: when the chunk that waits for longest is overdue, the elevator jumps to it (as Linux' deadline scheduler does).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.chunkstore.packer import SLOT_OVERHEAD_BYTES
from disfs.values import ChunkIndex, ChunkKey, InodeNumber

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.chunkstore.inode_chunks import Entry
    from disfs.chunkstore.waiting import WaitingChunks

_COMPANY_SECONDS = 0.25
"""So long must a chunk have been quiet to go along with others."""
_SETTLED_SECONDS = 1.0
"""So long must a message's worth of chunks have been quiet to be sent before its delay."""
_BEFORE_ALL = ChunkKey(InodeNumber(-1), ChunkIndex(-1))


@dataclass(frozen=True, slots=True)
class Quiet:
    """The two times of writeback."""

    delay_seconds: float
    age_seconds: float

    def due_at(self, entry: Entry) -> float:
        """When a dirty chunk is to be sent, company or not."""
        return min(entry.written_at + self.delay_seconds, entry.dirty_since + self.age_seconds)

    def may_go_along(self, entry: Entry, now: float) -> bool:
        """Whether a dirty chunk goes into a message that is sent now."""
        company = min(_COMPANY_SECONDS, self.delay_seconds)
        return entry.written_at + company <= now or self.due_at(entry) <= now

    @property
    def settled_seconds(self) -> float:
        """How long a full message's chunks are quiet before it goes."""
        return min(_SETTLED_SECONDS, self.delay_seconds)


@dataclass(frozen=True, slots=True)
class Situation:
    """What besides the chunks themselves decides when to send."""

    message_bytes: int
    """How much a full message carries."""
    hurry: bool
    """Writers wait for room, or soon will."""
    in_flight: bool
    """Something is on its way."""


def next_send_at(waiting: WaitingChunks, quiet: Quiet, situation: Situation) -> float | None:
    """When the next message is worth sending: -inf for now, None when nothing that waits will ever be due by itself.

    Looks at a message's worth of chunks at most.
    """
    if waiting.urgent_count:
        return float("-inf")
    if not len(waiting):
        return None
    enough = is_full(waiting, situation.message_bytes)
    if situation.hurry and (enough or not situation.in_flight):
        return float("-inf")
    heads = (next(iter(waiting.by_quiet.values())), next(iter(waiting.by_age.values())))
    due = min(quiet.due_at(entry) for entry in heads)
    return min(due, _full_since(waiting, situation.message_bytes) + quiet.settled_seconds) if enough else due


def is_full(waiting: WaitingChunks, message_bytes: int) -> bool:
    """Whether all that waits, quiet or not, fills a message."""
    return waiting.bytes + len(waiting) * SLOT_OVERHEAD_BYTES >= message_bytes


def is_backlog(waiting: WaitingChunks, quiet: Quiet, situation: Situation, now: float) -> bool:
    """Whether what may go now fills two messages at least."""
    two_bytes = 2 * situation.message_bytes
    if not is_full(waiting, two_bytes):
        return False
    everything = situation.hurry or waiting.urgent_count == len(waiting)
    return everything or _full_since(waiting, two_bytes) + quiet.settled_seconds <= now


def _full_since(waiting: WaitingChunks, message_bytes: int) -> float:
    """Since when a message's worth of chunks has been quiet; there is as much."""
    missing_bytes = message_bytes
    for entry in waiting.by_quiet.values():
        missing_bytes -= entry.length + SLOT_OVERHEAD_BYTES
        if missing_bytes <= 0:
            return entry.written_at
    return float("inf")


class Choice:
    """The chunks for one message, looked for a few at a time while the waiting ones come and go.

    Goes round once for each test in turn.
    """

    def __init__(self, waiting: WaitingChunks, start: ChunkKey, tests: list[Callable[[Entry], bool]]) -> None:
        self.ready: deque[ChunkKey] = deque()
        """Chosen, and not taken yet; whether such a chunk still waits is for the taker to check."""
        self.last = start
        """The last chunk that was taken."""
        self._waiting = waiting
        self._start = start
        self._tests = tests
        self._position = start
        self._came_round = False

    @property
    def exhausted(self) -> bool:
        """Whether there is no more to take."""
        return not self.ready and not self._tests

    def look(self, count: int) -> None:
        """Look at the next `count` waiting chunks, if nothing is ready; perhaps something is afterwards."""
        if self.ready or not self._tests:
            return
        wanted = self._tests[0]
        found = self._waiting.between(self._position, self._start if self._came_round else None, count)
        self.ready.extend(key for key in found if wanted(self._waiting.by_quiet[key]))
        if found:
            self._position = found[-1]
        if len(found) < count:
            self._turn()

    def take(self) -> ChunkKey:
        """Take the first ready chunk."""
        self.last = self.ready.popleft()
        return self.last

    def _turn(self) -> None:
        """The end of the line: go on at the other end, or begin the next round."""
        if self._came_round:
            self._tests.pop(0)
            self._position = self._start
        else:
            self._position = _BEFORE_ALL
        self._came_round = not self._came_round


class Elevator:
    """Remembers where the last message ended."""

    def __init__(self, quiet: Quiet) -> None:
        self._quiet = quiet
        self._cursor = _BEFORE_ALL

    def adjust(self, quiet: Quiet) -> None:
        """Choose by other times from now on."""
        self._quiet = quiet

    def begin(self, waiting: WaitingChunks, now: float, *, hurry: bool) -> Choice:
        """Choose for a message that is sent now."""
        tests: list[Callable[[Entry], bool]] = []
        if waiting.urgent_count:
            tests.append(waiting.is_urgent)
        tests.append(lambda entry: self._quiet.may_go_along(entry, now))
        if hurry:
            tests.append(lambda _: True)
        return Choice(waiting, self._start(waiting, now), tests)

    def end(self, choice: Choice) -> None:
        """The message is full, or there is no more for it: the next one goes on behind it."""
        self._cursor = choice.last

    def _start(self, waiting: WaitingChunks, now: float) -> ChunkKey:
        for order in (waiting.by_quiet, waiting.by_age):
            for key, entry in order.items():
                if self._quiet.due_at(entry) + self._quiet.age_seconds <= now:
                    return ChunkKey(key.inode, ChunkIndex(key.chunk - 1))
                break
        return self._cursor
