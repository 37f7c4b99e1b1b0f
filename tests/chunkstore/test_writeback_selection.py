"""When a message is worth sending, and what goes into it: the policy by itself."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from disfs.chunkstore.packer import SLOT_OVERHEAD_BYTES
from disfs.chunkstore.presence import ChunkMap
from disfs.chunkstore.selection import Elevator, Quiet, Situation, next_send_at
from disfs.chunkstore.states import ChunkEvent
from disfs.values import ChunkIndex, ChunkKey, InodeNumber, Revision

CHUNK = 1000
SLOT = CHUNK + SLOT_OVERHEAD_BYTES
QUIET = Quiet(delay_seconds=5.0, age_seconds=60.0)
NOW = float("-inf")
FILE = InodeNumber(7)


class Dirty:
    """A chunk map that is written to; every chunk is of full length."""

    def __init__(self) -> None:
        self.map = ChunkMap(CHUNK)
        self.waiting = self.map.waiting
        self.revisions = count(1)

    def write(self, chunk: int, at: float, inode: InodeNumber = FILE) -> None:
        """One chunk is written whole."""
        record = self.map.at(inode)
        record.end = record.disk_end = max(record.end, (chunk + 1) * CHUNK)
        self.map.wrote(ChunkKey(inode, ChunkIndex(chunk)), Revision(next(self.revisions)), at)

    def next_at(self, slots: int, *, hurry: bool = False, in_flight: bool = False) -> float | None:
        """When a message of so many slots is to be sent."""
        return next_send_at(self.waiting, QUIET, Situation(slots * SLOT, hurry, in_flight))

    def send(self, key: ChunkKey) -> None:
        """A message takes the chunk."""
        entry = self.map.entry(key)
        assert entry is not None
        self.map.move(key, ChunkEvent.SEND)
        entry.sent_revision = entry.revision

    def take(self, elevator: Elevator, most: int, now: float, *, hurry: bool = False) -> list[int]:
        """The chunks of the next message of FILE, taken as a message takes them."""
        choice = elevator.begin(self.waiting, now, hurry=hurry)
        taken: list[int] = []
        while len(taken) < most and not choice.exhausted:
            choice.look(3)
            if choice.ready:
                key = choice.take()
                self.send(key)
                taken.append(int(key.chunk))
        elevator.end(choice)
        return taken


def test_nothing_dirty_is_never_due() -> None:
    """Without dirty chunks there is nothing to wait for."""
    assert Dirty().next_at(4) is None


def test_lone_chunk_waits_for_the_delay() -> None:
    """A partial message goes when its oldest chunk has been quiet for the delay."""
    dirty = Dirty()
    dirty.write(0, at=1.0)
    dirty.write(1, at=3.0)
    assert 6.0 == dirty.next_at(4)
    dirty.write(0, at=4.0)
    assert 8.0 == dirty.next_at(4)


def test_full_message_waits_a_moment() -> None:
    """A message's worth goes once as much has been quiet for a second, whatever else is still being written."""
    dirty = Dirty()
    for chunk in range(4):
        dirty.write(chunk, at=1.0 + chunk / 10)
    assert 1.3 + 1.0 == dirty.next_at(4)
    dirty.write(4, at=2.2)
    assert 1.3 + 1.0 == dirty.next_at(4)
    assert 1.1 + 1.0 == dirty.next_at(2)


def test_chunk_that_is_never_quiet_goes_by_age() -> None:
    """A chunk that is written all the time is due when it has been dirty for the greatest age."""
    dirty = Dirty()
    for second in range(59):
        dirty.write(0, at=float(second))
    assert 60.0 == dirty.next_at(4)


def test_asked_for_goes_at_once() -> None:
    """What somebody waits for is due now; what is written afterwards is not."""
    dirty = Dirty()
    dirty.write(0, at=1.0)
    drain = dirty.map.begin_drain()
    dirty.write(1, at=2.0)
    assert dirty.next_at(4) == NOW
    dirty.send(ChunkKey(FILE, ChunkIndex(0)))
    dirty.map.move(ChunkKey(FILE, ChunkIndex(0)), ChunkEvent.RECORD)
    assert 0 == drain.remaining
    assert 7.0 == dirty.next_at(4)


def test_hurry_sends_full_messages() -> None:
    """Writers who wait make full messages go at once; a partial one only while nothing is on its way."""
    dirty = Dirty()
    for chunk in range(3):
        dirty.write(chunk, at=1.0)
    assert 6.0 == dirty.next_at(4, hurry=True, in_flight=True)
    assert dirty.next_at(4, hurry=True, in_flight=False) == NOW
    dirty.write(3, at=1.0)
    assert dirty.next_at(4, hurry=True, in_flight=True) == NOW


def test_elevator_goes_on_where_it_was() -> None:
    """Chunks go in the order of the file, each message behind the last one, and round."""
    dirty, elevator = Dirty(), Elevator(QUIET)
    for chunk in [5, 1, 7, 3, 0, 6]:
        dirty.write(chunk, at=0.0)
    assert [0, 1, 3] == dirty.take(elevator, 3, now=5.0)
    dirty.write(2, at=1.0)
    dirty.write(4, at=1.0)
    assert [4, 5, 6] == dirty.take(elevator, 3, now=5.0)
    assert [7, 2] == dirty.take(elevator, 3, now=5.0)


def test_company_has_been_quiet_for_a_moment() -> None:
    """What was written just now stays behind, unless writers wait for room: then it comes last."""
    dirty = Dirty()
    dirty.write(0, at=4.9)
    dirty.write(1, at=0.0)
    assert [1] == dirty.take(Elevator(QUIET), 9, now=5.0)
    dirty.write(2, at=0.0)
    assert [2, 0] == dirty.take(Elevator(QUIET), 9, now=5.0, hurry=True)


def test_urgent_chunks_come_first() -> None:
    """What somebody waits for is first in the message, however little of it fits."""
    dirty = Dirty()
    dirty.write(8, at=4.9)
    dirty.map.begin_drain()
    for chunk in range(3):
        dirty.write(chunk, at=1.0)
    assert [8, 0] == dirty.take(Elevator(QUIET), 2, now=5.0)


def test_writer_ahead_of_the_elevator_starves_nobody() -> None:
    """A chunk behind the elevator goes although others become due ahead of it for ever."""
    dirty, elevator = Dirty(), Elevator(QUIET)
    dirty.write(10, at=0.0)
    dirty.write(11, at=0.0)
    assert [10] == dirty.take(elevator, 1, now=5.0)
    dirty.write(0, at=5.0)
    for second in range(6, 200):
        dirty.write(second + 10, at=float(second))
        if 0 in dirty.take(elevator, 1, now=second + 5.0):
            return
    raise AssertionError("never sent")


writes = st.lists(
    st.tuples(st.sampled_from([FILE, InodeNumber(9)]), st.integers(0, 12), st.integers(0, 9)), max_size=40
)


@given(writes, st.integers(1, 8), st.booleans(), st.integers(0, 12))
def test_choice_takes_each_chunk_once(
    written: list[tuple[InodeNumber, int, int]], looks: int, hurry: bool, asked_after: int
) -> None:
    """Whoever looks long enough gets every chunk that may go, once: the urgent ones first, each group in order."""
    dirty = Dirty()
    last: OrderedDict[ChunkKey, int] = OrderedDict()
    urgent: set[ChunkKey] = set()
    for number, (inode, chunk, at) in enumerate(sorted(written, key=lambda w: w[2])):
        dirty.write(chunk, float(at), inode)
        last[ChunkKey(inode, ChunkIndex(chunk))] = at
        if number == asked_after:
            dirty.map.begin_drain()
            urgent = set(last)
    now = 9.0
    choice = Elevator(QUIET).begin(dirty.waiting, now, hurry=hurry)
    taken: list[ChunkKey] = []
    while not choice.exhausted:
        choice.look(looks)
        while choice.ready:
            taken.append(choice.take())
            dirty.send(taken[-1])
    quiet = {key for key, at in last.items() if at + 0.25 <= now}
    rest = set(last) if hurry else set()
    assert [*sorted(urgent), *sorted(quiet - urgent), *sorted(rest - quiet - urgent)] == taken
    assert len(dirty.waiting) == len(last) - len(taken)
    assert dirty.waiting.bytes == CHUNK * len(dirty.waiting)
