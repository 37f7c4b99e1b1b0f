"""The queue of fetches by itself: who is next, and what one request brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from disfs.chunkstore.fetch_queue import ChunkFetch, FetchLimits, FetchQueue, FetchStream, RunLimit, Target
from disfs.values import (
    AttachmentId,
    ChannelId,
    ChunkIndex,
    ChunkKey,
    InodeNumber,
    Location,
    MessageId,
    PackId,
    PackRecord,
    SlotTable,
)

if TYPE_CHECKING:
    import pytest

    from disfs.chunkstore.fetch_queue import Run

SLOTS = 40
SLOT_BYTES = 100
LIMITS = FetchLimits(requests=4, total_bytes=1000, run_bytes=400)
RECORDS = [
    PackRecord(
        PackId(bytes([number]) * 16),
        Location(ChannelId(1), MessageId(2), AttachmentId(number)),
        SLOTS * SLOT_BYTES,
        SlotTable([SLOT_BYTES] * SLOTS, [False] * SLOTS),
    )
    for number in range(2)
]


def a_fetch(pack: int, slot: int) -> ChunkFetch:
    """A chunk in that slot."""
    key = ChunkKey(InodeNumber(5 + pack), ChunkIndex(slot))
    return ChunkFetch(Target(key, RECORDS[pack].pack, slot), record=RECORDS[pack])


def demanded(pack: int, slot: int, near: FetchStream | None = None) -> ChunkFetch:
    """A chunk that a reader waits for."""
    fetch = a_fetch(pack, slot)
    fetch.readers, fetch.near = 1, near
    return fetch


def wanted_by(stream: FetchStream, pack: int, slot: int) -> ChunkFetch:
    """A chunk that a stream wants."""
    fetch = a_fetch(pack, slot)
    fetch.streams.append(stream)
    stream.fetches.add(fetch)
    return fetch


def slots(run: Run | None) -> list[int]:
    """What a request brings."""
    return [] if run is None else [fetch.target.slot for fetch in run.fetches]


async def test_reader_goes_before_readahead() -> None:
    """A chunk that somebody waits for goes first, however much was queued before, and goes alone."""
    queue, stream = FetchQueue(LIMITS), FetchStream(run_bytes=400)
    for slot in range(10):
        queue.add(wanted_by(stream, 0, slot))
    queue.add(demanded(0, 20))
    assert [20] == slots(queue.take())
    assert [0, 1, 2, 3] == slots(queue.take())


async def test_queued_chunk_moves_up() -> None:
    """A chunk that was queued for later moves up when a reader comes to wait for it, and back when he leaves."""
    queue, stream = FetchQueue(LIMITS), FetchStream(run_bytes=100)
    fetches = [wanted_by(stream, 0, slot) for slot in range(5)]
    for fetch in fetches:
        queue.add(fetch)
    fetches[3].readers = 1
    assert not queue.move(fetches[3])
    assert [3] == slots(queue.take())
    fetches[4].readers = 1
    queue.move(fetches[4])
    fetches[4].readers = 0
    assert not queue.move(fetches[4])
    assert [0] == slots(queue.take())


async def test_readers_own_stream_comes_along() -> None:
    """What a sequential reader waits for brings what he will want next; a stranger's demand brings only its own."""
    queue, stream = FetchQueue(LIMITS), FetchStream(run_bytes=300)
    fetches = [wanted_by(stream, 0, slot) for slot in range(10)]
    for fetch in fetches:
        queue.add(fetch)
    fetches[0].readers, fetches[0].near = 1, stream
    queue.move(fetches[0])
    fetches[5].readers = 1
    queue.move(fetches[5])
    assert [0, 1, 2] == slots(queue.take())
    assert [5] == slots(queue.take())


async def test_neighbours_that_are_waited_for_share_a_request() -> None:
    """One large read is one request, not one for each chunk."""
    queue = FetchQueue(LIMITS)
    for slot in (7, 8, 9, 11):
        queue.add(demanded(1, slot))
    assert [7, 8, 9] == slots(queue.take())
    assert [11] == slots(queue.take())


async def test_least_served_stream_is_next() -> None:
    """Streams take turns by what each has on its way; the background waits for all of them."""
    queue = FetchQueue(FetchLimits(requests=8, total_bytes=10_000, run_bytes=200))
    background, first, second = FetchStream(background=True, run_bytes=200), FetchStream(), FetchStream()
    first.run_bytes = second.run_bytes = 200
    for slot in range(4):
        queue.add(wanted_by(background, 1, 20 + slot))
        queue.add(wanted_by(first, 0, slot))
        queue.add(wanted_by(second, 1, slot))
    taken = [queue.take() for _ in range(6)]
    owners = [run.stream for run in taken if run is not None]
    assert [first, second, first, second, background, background] == owners


async def test_room_is_kept_for_readers() -> None:
    """What nobody waits for leaves requests free, and bytes are bounded; a reader gets through all the same."""
    queue, stream = FetchQueue(LIMITS), FetchStream(run_bytes=400)
    for slot in range(30):
        queue.add(wanted_by(stream, 0, slot))
    taken = []
    while (run := queue.take()) is not None:
        taken.append(run)
    assert 3 == len(taken)
    assert queue.running_bytes <= LIMITS.total_bytes
    queue.add(demanded(1, 0))
    assert [0] == slots(queue.take())
    queue.add(demanded(1, 5))
    assert queue.take() is None


def test_run_limit_follows_the_line() -> None:
    """Requests get smaller, then fewer, while they take long; large ones that are quick undo it, small ones do not."""
    limit = RunLimit(2048 * 1024, 12)
    for _ in range(4):
        limit.took(limit.limit_bytes, 5.0)
    assert (128 * 1024, 12) == (limit.limit_bytes, limit.ahead_requests)
    for _ in range(4):
        limit.took(limit.limit_bytes, 5.0)
    assert (128 * 1024, 2) == (limit.limit_bytes, limit.ahead_requests)
    limit.took(1000, 0.1)
    limit.took(limit.limit_bytes, 1.5)
    assert (128 * 1024, 2) == (limit.limit_bytes, limit.ahead_requests)
    for _ in range(10):
        limit.took(limit.limit_bytes, 0.2)
    assert (2048 * 1024, 12) == (limit.limit_bytes, limit.ahead_requests)


class QueueMachine(RuleBasedStateMachine):
    """Readers and streams come and go; every chunk comes exactly once, or is taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FetchQueue(LIMITS)
        self.streams = [FetchStream(background=number == 2, run_bytes=100 * (number + 1)) for number in range(3)]
        self.queued: set[ChunkFetch] = set()
        self.known: dict[tuple[int, int], ChunkFetch] = {}
        self.runs: list[Run] = []

    @rule(pack=st.integers(0, 1), slot=st.integers(0, SLOTS - 1), stream=st.integers(0, 2), reader=st.booleans())
    def want(self, pack: int, slot: int, stream: int, reader: bool) -> None:
        """Somebody wants a chunk."""
        fetch = self.known.get((pack, slot))
        fresh = fetch is None
        if fetch is None:
            fetch = self.known[pack, slot] = a_fetch(pack, slot)
        if reader:
            fetch.readers += 1
            fetch.near = self.streams[stream]
        elif self.streams[stream] not in fetch.streams:
            fetch.streams.append(self.streams[stream])
            self.streams[stream].fetches.add(fetch)
        if fresh:
            self.queue.add(fetch)
            self.queued.add(fetch)
        elif reader:
            self.queue.move(fetch)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A reader goes."""
        waited = [fetch for fetch in self.known.values() if fetch.readers]
        if waited:
            fetch = data.draw(st.sampled_from(waited))
            fetch.readers -= 1
            if self.queue.move(fetch):
                assert not fetch.wanted
                self.gone(fetch)

    @rule(stream=st.integers(0, 2))
    def forget(self, stream: int) -> None:
        """A stream takes everything back."""
        for fetch in self.queue.forget(self.streams[stream]):
            assert not fetch.wanted
            if fetch.run is None:
                self.gone(fetch)

    def gone(self, fetch: ChunkFetch) -> None:
        self.queued.remove(fetch)
        self.known = {place: other for place, other in self.known.items() if other is not fetch}

    @rule()
    def take(self) -> None:
        """A request begins."""
        waiting = any(fetch.readers for fetch in self.queued)
        run = self.queue.take()
        if run is None:
            return
        self.runs.append(run)
        assert run.demanded == waiting
        assert self.queued >= set(run.fetches)
        self.queued -= set(run.fetches)
        first = run.fetches[0].target
        assert [(first.pack, first.slot + n) for n in range(len(run.fetches))] == [f.target.place for f in run.fetches]
        assert run.size_bytes <= LIMITS.run_bytes

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A request ends."""
        run = self.runs.pop(data.draw(st.integers(0, len(self.runs) - 1)))
        self.queue.finished(run)
        for fetch in run.fetches:
            for stream in fetch.streams:
                stream.fetches.discard(fetch)
            self.known = {place: other for place, other in self.known.items() if other is not fetch}

    @invariant()
    def it_holds_what_is_queued(self) -> None:
        """Nothing is lost, nothing is there twice."""
        assert len(self.queued) == len(self.queue)
        assert self.queued == set(self.queue)

    @invariant()
    def limits_hold(self) -> None:
        """Requests and bytes stay within their bounds; single chunks of readers alone may pass the latter."""
        assert self.queue.running == len(self.runs) <= LIMITS.requests
        assert self.queue.running_bytes <= LIMITS.total_bytes + LIMITS.requests * SLOT_BYTES
        assert self.queue.running_bytes == sum(run.size_bytes for run in self.runs)

    def teardown(self) -> None:
        """What is left comes in the end."""
        while self.queued:
            self.take()
            if self.runs:
                run = self.runs.pop(0)
                self.queue.finished(run)


def test_queue_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever readers and streams do, each chunk is begun exactly once or taken back, within the limits."""
    monkeypatch.setattr(trio, "current_time", lambda: 0.0)
    run_state_machine_as_test(QueueMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
