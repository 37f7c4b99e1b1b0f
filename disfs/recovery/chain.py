"""Which states of a volume can be rebuilt from what lies in its index channel, and from which shipments. Pure.

Each state follows from another one: a journal says what has changed since, a checkpoint copy has all of it. A state can
be rebuilt if there is a whole copy of it, or its whole journal and the state before it can be rebuilt. The newest
such state is what a volume is rebuilt from. Two that both are the newest of their branch are a fork: two
machines have gone on from the same state, each without knowing of the other, and somebody must say which one counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from disfs.chunkstore.codec import PackKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from disfs.recovery.frames import Header
    from disfs.values import Location, MessageId


class SeenPart(NamedTuple):
    """An attachment of the index channel that is part of a shipment of this volume."""

    location: Location
    size_bytes: int
    kind: PackKind
    header: Header
    is_last: bool


@dataclass(slots=True)
class Shipment:
    """A journal or a copy, as far as its parts were found."""

    kind: PackKind
    header: Header
    parts: dict[int, SeenPart] = field(default_factory=dict)
    part_count: int | None = None
    """Known once its last part is found."""
    messages: set[MessageId] = field(default_factory=set)
    broken: str | None = None
    """What was found to be wrong with it when it was read."""

    @property
    def is_whole(self) -> bool:
        """Whether all of its parts were found, and nothing is wrong with them as far as is known."""
        return self.broken is None and self.part_count is not None and len(self.parts) == self.part_count

    @property
    def size_bytes(self) -> int:
        """Of all its parts."""
        return sum(part.size_bytes for part in self.parts.values())


@dataclass(slots=True)
class State:
    """A state of the volume, and what leads to it."""

    header: Header
    copies: list[Shipment] = field(default_factory=list)
    journals: list[Shipment] = field(default_factory=list)


class Plan(NamedTuple):
    """How a state is rebuilt: a copy first, then the journals in order."""

    state: State
    copy: Shipment
    journals: tuple[Shipment, ...]


def gather(parts: Iterable[SeenPart]) -> list[Shipment]:
    """Put the parts together, in whatever order they come; what was stored twice counts once."""
    found: dict[bytes, Shipment] = {}
    for part in parts:
        shipment = found.setdefault(part.header.shipment, Shipment(part.kind, part.header))
        shipment.messages.add(part.location.message)
        shipment.parts.setdefault(part.header.part, part)
        if part.is_last:
            shipment.part_count = part.header.part + 1
    return list(found.values())


class Chain:
    """The states that shipments lead to."""

    def __init__(self, shipments: Iterable[Shipment]) -> None:
        self.states: dict[bytes, State] = {}
        for shipment in shipments:
            state = self.states.setdefault(shipment.header.state, State(shipment.header))
            (state.copies if shipment.kind is PackKind.CHECKPOINT else state.journals).append(shipment)

    def plan(self, state: bytes) -> Plan | None:
        """How to rebuild a state; None when it cannot be."""
        journals: list[Shipment] = []
        goal = position = self.states.get(state)
        seen: set[bytes] = set()
        while position is not None and goal is not None and position.header.state not in seen:
            seen.add(position.header.state)
            copy = next((each for each in position.copies if each.is_whole), None)
            if copy is not None:
                return Plan(goal, copy, tuple(reversed(journals)))
            journal = next((each for each in position.journals if each.is_whole), None)
            if journal is None:
                return None
            journals.append(journal)
            position = self.states.get(position.header.previous)
        return None

    def heads(self) -> list[State]:
        """The newest states that can be rebuilt, one for each branch, newest first."""
        able = {state: found for state, found in self.states.items() if self.plan(state) is not None}
        left_behind = self._left_behind(able.values())
        heads = [found for state, found in able.items() if state not in left_behind]
        heads.sort(key=_age, reverse=True)
        newest: dict[bytes, State] = {}
        for head in heads:
            # What a machine sent again, because it did not know that it had been sent, is no branch.
            newest.setdefault(head.header.device, head)
        return list(newest.values())

    def out_of_reach(self, head: State) -> list[State]:
        """States that came after `head` and cannot be rebuilt."""
        newer = [state for state in self.states.values() if state.header.sequence > head.header.sequence]
        return sorted((state for state in newer if self.plan(state.header.state) is None), key=_age)

    def _left_behind(self, states: Collection[State]) -> set[bytes]:
        """What others follow, at whatever distance, and what comes after states that were left behind on purpose."""
        followed = {ancestor for state in states for ancestor in self.ancestors(state)}
        children: dict[bytes, list[bytes]] = {}
        for child in self.states.values():
            children.setdefault(child.header.previous, []).append(child.header.state)
        to_leave = [state for each in states for state in each.header.superseded]
        left: set[bytes] = set()
        kept = {each.header.state for each in states if each.header.superseded}
        while to_leave:
            leaving = to_leave.pop()
            if leaving not in left and leaving not in kept:
                left.add(leaving)
                to_leave += children.get(leaving, [])
        return followed | left

    def ancestors(self, state: State) -> set[bytes]:
        """All states that lead to one, those included that cannot be rebuilt.

        Where the trail is lost, all older states count: what was deleted or damaged in between does not make a branch.
        """
        found: set[bytes] = set()
        position = state
        while (previous := position.header.previous) not in found:
            found.add(previous)
            known = self.states.get(previous)
            if known is None:
                lowest = position.header.sequence
                return found | {
                    each for each, other in self.states.items() if other.header.sequence < lowest and other is not state
                }
            position = known
        return found


def _age(state: State) -> tuple[int, int, int]:
    header = state.header
    return header.sequence, header.counters.get("revision", 0), header.created_ns


def broken_shipments(states: Mapping[bytes, State]) -> list[Shipment]:
    """Those that are not whole."""
    found = [each for state in states.values() for each in (*state.copies, *state.journals)]
    return [each for each in found if not each.is_whole]
