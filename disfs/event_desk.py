"""What happens to a mounted volume, told to whoever listens.

Two sources. What belongs to one file is noted where it happens: that is a step of the main thread which must not take
long, so a note is a few words, and names are looked up when it is told. All else is found by comparing how things
are with how they were a moment ago, and only while somebody listens; what comes and goes in between is not told.

Each listener has a buffer. One that does not keep up loses the oldest notes, and is told how many: nothing here waits.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from disfs.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from disfs.values import InodeNumber

LOOK_SECONDS = 0.25
BUFFER_COUNT = 1000
MAX_LISTENERS = 8
"""Each has a connection to the control socket, and others must still get one."""


@dataclass(frozen=True, slots=True)
class Situation:
    """How things are."""

    paused: bool
    failures: tuple[str, ...]
    """Why channels do not take data."""
    trouble: str | None
    """Why requests are being repeated."""
    writers_wait: bool
    """Somebody waits for room at the dirty limit."""
    lease_held: bool
    lease_failure: str | None
    conflict: str | None
    """Why nothing will be shipped any more."""


def changes(before: Situation, after: Situation) -> Iterator[dict[str, object]]:
    """What must have happened in between. Pure."""
    if before.paused != after.paused:
        yield {"event": "paused" if after.paused else "resumed"}
    for reason in after.failures:
        if reason not in before.failures:
            yield {"event": "upload_failed", "reason": reason}
    if before.failures and not after.failures:
        yield {"event": "uploads_recovered"}
    if after.trouble is not None and before.trouble is None:
        yield {"event": "connection_lost", "reason": after.trouble}
    if before.trouble is not None and after.trouble is None:
        yield {"event": "connection_back"}
    if before.writers_wait != after.writers_wait:
        yield {"event": "dirty_limit_reached" if after.writers_wait else "dirty_limit_left"}
    if (before.lease_held and not after.lease_held) or (after.conflict and not before.conflict):
        yield {"event": "lease_lost", "reason": after.conflict or after.lease_failure}


@dataclass(frozen=True, slots=True)
class _Note:
    """Something that happened to a file."""

    at: float
    event: str
    inode: InodeNumber
    size_bytes: int | None = None


class Listener:
    """What one listener has still to be told."""

    def __init__(self, path_of: Callable[[InodeNumber], str | None]) -> None:
        self._path_of = path_of
        self._waiting: deque[_Note | Mapping[str, object]] = deque()
        self._lost = 0
        self._changed = trio.Event()

    def put(self, note: _Note | Mapping[str, object]) -> None:
        """Something happened. Never waits."""
        if len(self._waiting) >= BUFFER_COUNT:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(note)
        self._changed.set()

    async def next(self) -> Mapping[str, object]:
        """What comes next, oldest first: `event`, `at` (seconds since 1970), and what belongs to it."""
        while not self._waiting:
            self._changed = trio.Event()
            await self._changed.wait()
        if self._lost:
            lost, self._lost = self._lost, 0
            return {"event": "events_lost", "at": time.time(), "count": lost}
        note = self._waiting.popleft()
        if not isinstance(note, _Note):
            return note
        told: dict[str, Any] = {"event": note.event, "at": note.at, "path": self._path_of(note.inode)}
        told["inode"] = note.inode
        if note.size_bytes is not None:
            told["size_bytes"] = note.size_bytes
        return told


class EventDesk:
    """All listeners of one volume."""

    def __init__(self, situation: Callable[[], Situation], path_of: Callable[[InodeNumber], str | None]) -> None:
        """`path_of` says where an inode can be found, None for one that cannot be."""
        self._situation = situation
        self._path_of = path_of
        self._listeners: list[Listener] = []
        self._before: Situation | None = None
        self._wanted = trio.Event()

    async def run(self) -> None:
        """Look now and then while somebody listens, until cancelled."""
        while True:
            if not self._listeners:
                self._wanted = trio.Event()
                await self._wanted.wait()
            await trio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Compare with the last time; for whoever knows that something has just changed."""
        if self._before is None or not self._listeners:
            return
        before, self._before = self._before, self._situation()
        for change in changes(before, self._before):
            self._put({**change, "at": time.time()})

    @contextlib.contextmanager
    def listener(self) -> Iterator[Listener]:
        """Hear of what happens from now on. USAGE when too many listen."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise UserError(f"{MAX_LISTENERS} programs listen already; end one of them", ExitCode.USAGE)
        if not self._listeners:
            self._before = self._situation()
        made = Listener(self._path_of)
        self._listeners.append(made)
        self._wanted.set()
        try:
            yield made
        finally:
            self._listeners.remove(made)

    def file_sent(self, inode: InodeNumber, size_bytes: int) -> None:
        """All of a file is in Discord, and so much was sent for that."""
        if self._listeners:
            self._put(_Note(time.time(), "file_sent", inode, size_bytes))

    def damage_found(self, inode: InodeNumber) -> None:
        """A part of a file cannot be had."""
        if self._listeners:
            self._put(_Note(time.time(), "damage_found", inode))

    def _put(self, note: _Note | Mapping[str, object]) -> None:
        for listener in self._listeners:
            listener.put(note)
