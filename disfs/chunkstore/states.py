"""The states of one chunk, and every move between them that is legal. Pure.

    ABSENT ---FETCH---> FETCHING --FETCHED--> CLEAN --EVICT--> ABSENT
       \\                  |                    |
        +------WRITE------+-------WRITE--------+--> DIRTY --SEND--> SENDING --RECORD--> RECORDED --SETTLE--> CLEAN
                                                     ^                 | WRITE             | WRITE
                                                     +----FAIL/RECORD--REWRITTEN           +--> DIRTY

CUT leads from everywhere to ABSENT. Bytes in the cache may be destroyed at once in ABSENT, FETCHING and CLEAN only: in
every other state the newest durable record of this machine may still name them as the only copy.
"""

from __future__ import annotations

import enum


class ChunkState(enum.Enum):
    """Where the content of a chunk is."""

    # Members are single objects; Enum's own hash is Python code, and every write asks for several.
    __hash__ = object.__hash__

    ABSENT = enum.auto()
    """Not in the cache: a hole, or in Discord alone. The ledger knows which."""
    FETCHING = enum.auto()
    """Not in the cache, but on its way there."""
    CLEAN = enum.auto()
    """In the cache, and durably known to be in Discord: may be evicted."""
    DIRTY = enum.auto()
    """In the cache, newer than any recorded location."""
    SENDING = enum.auto()
    """Dirty, and this very revision is on its way to Discord."""
    REWRITTEN = enum.auto()
    """Dirty, and an older revision is on its way to Discord."""
    RECORDED = enum.auto()
    """In Discord and recorded, but a crash could still undo the record: kept until that is durable."""
    LOST = enum.auto()
    """Dirty, but its bytes are not in the cache any more: reading it is an error, never zeros."""


class ChunkEvent(enum.Enum):
    """What happens to a chunk."""

    __hash__ = object.__hash__

    FETCH = enum.auto()
    FETCHED = enum.auto()
    WRITE = enum.auto()
    CUT = enum.auto()
    """Truncated away, or its file was deleted."""
    EVICT = enum.auto()
    SEND = enum.auto()
    """A copy of the content was taken for a pack."""
    FAIL = enum.auto()
    """The fetch or the send that it was part of came to nothing."""
    RECORD = enum.auto()
    """The pack that holds the copy was acknowledged and recorded."""
    SETTLE = enum.auto()
    """The record became durable."""
    LOSE = enum.auto()
    """The ledger calls it dirty, and the cache does not have it."""


_S, _E = ChunkState, ChunkEvent

TRANSITIONS: dict[tuple[ChunkState, ChunkEvent], ChunkState] = {
    (_S.ABSENT, _E.FETCH): _S.FETCHING,
    (_S.ABSENT, _E.WRITE): _S.DIRTY,
    (_S.ABSENT, _E.FETCHED): _S.CLEAN,  # remembered from before a clean stop, or brought along by a partial write
    (_S.ABSENT, _E.LOSE): _S.LOST,
    (_S.FETCHING, _E.FETCHED): _S.CLEAN,
    (_S.FETCHING, _E.FAIL): _S.ABSENT,
    (_S.FETCHING, _E.WRITE): _S.DIRTY,
    (_S.CLEAN, _E.WRITE): _S.DIRTY,
    (_S.CLEAN, _E.EVICT): _S.ABSENT,
    (_S.DIRTY, _E.WRITE): _S.DIRTY,
    (_S.DIRTY, _E.SEND): _S.SENDING,
    (_S.DIRTY, _E.LOSE): _S.LOST,
    (_S.SENDING, _E.WRITE): _S.REWRITTEN,
    (_S.SENDING, _E.RECORD): _S.RECORDED,
    (_S.SENDING, _E.FAIL): _S.DIRTY,
    (_S.REWRITTEN, _E.WRITE): _S.REWRITTEN,
    (_S.REWRITTEN, _E.RECORD): _S.DIRTY,
    (_S.REWRITTEN, _E.FAIL): _S.DIRTY,
    (_S.RECORDED, _E.SETTLE): _S.CLEAN,
    (_S.RECORDED, _E.WRITE): _S.DIRTY,
    (_S.LOST, _E.WRITE): _S.DIRTY,  # the whole chunk: a partial write of a lost chunk fails before it gets here
    **{(state, _E.CUT): _S.ABSENT for state in _S},
}

PRESENT = frozenset({_S.CLEAN, _S.DIRTY, _S.SENDING, _S.REWRITTEN, _S.RECORDED})
"""States in which reading is a pread."""
UNSENT = frozenset({_S.DIRTY, _S.SENDING, _S.REWRITTEN})
"""States in which Discord does not have the newest content, and the cache does."""
ON_THEIR_WAY = frozenset({_S.SENDING, _S.REWRITTEN})
"""States in which a copy is on its way to Discord."""
IRREPLACEABLE = UNSENT | {_S.RECORDED}
"""States in which the cached bytes must outlive a crash."""


class IllegalTransitionError(AssertionError):
    """A bug of ours: the chunk store asked for a move that is not in the table."""


def moved(state: ChunkState, event: ChunkEvent) -> ChunkState:
    """The state after `event`; IllegalTransitionError when the table has no such move."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransitionError(f"a chunk that is {state.name} cannot {event.name}") from None
