"""What of the metadata is in Discord: read states that are to be shipped, and write down what was acknowledged.

The order that keeps a crash from doing harm, whose steps the caller takes:

    begin        commit, and fix the state that is to be shipped; what is noted up to here goes along
    attempt      note which state is about to be sent, and make all of it durable here: what Discord has of this
                 machine, this machine has
    (sent)       Discord has acknowledged all of it
    acknowledged in one transaction: this is the newest state, and what was noted is shipped

A crash before the last step leaves what was noted in the outbox: it is shipped again, and state applied twice is
harmless. That a state which was found in Discord is one of the attempts tells it from one that this machine made and
has forgotten, as a machine does whose disk was put back to what it was.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disfs.metadata.settings import (
    ABANDONED,
    ATTEMPTS,
    COPY_BYTES,
    COPY_SEQUENCE,
    DEVICE,
    INDEX_EXAMINED,
    JOURNAL_BYTES,
    REVISION,
    SEQUENCE,
    STATE,
    SUPERSEDED,
    UNSHIPPED,
)
from disfs.values import MessageId

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import trio

    from disfs.metadata.counters import Counter
    from disfs.metadata.database import Database
    from disfs.metadata.outbox import Outbox
    from disfs.metadata.settings import Setting, Settings
    from disfs.metadata.snapshot import Snapshot

ID_BYTES = 16
NO_STATE = bytes(ID_BYTES)
"""Stands where there is no state yet."""
_ABANDONED_COUNT = 64
"""One comes with each crash at a bad moment, and a request that is older than a few others arrives no more."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where this machine's state stands in the chain of states."""

    device: bytes
    sequence: int
    """Of the newest state that was acknowledged; 0: none."""
    state: bytes
    """Its id."""
    copy_sequence: int
    """Of the state that the newest checkpoint copy holds; 0: none."""
    copy_bytes: int
    journal_bytes: int
    """Of the journals since that copy."""
    journal_count: int
    needs_copy: bool
    """A checkpoint copy goes before any further journal."""
    examined: MessageId
    """Every message of the index channel up to this one is known."""
    attempts: frozenset[bytes]
    abandoned: frozenset[bytes]
    """Attempts of before the newest state: those that arrive now are of no use."""
    superseded: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """A state that is to be shipped."""

    last: int
    """The outbox up to this row goes along."""
    revision: int
    """All revisions in it are lower."""
    counters: Mapping[str, int]
    """By name: all numbers in it are lower."""


@dataclass(frozen=True, slots=True)
class ShippedMessage:
    """A message of the index channel that this machine answers for."""

    message: MessageId
    kind: int
    """2: journal, 3: checkpoint copy, 0: remains of one that was never completed."""
    sequence: int


class Shipping:
    """The replicated side of one metadata store. Call it on the main thread; `snapshot` reads in worker threads."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        settings: Settings,
        counters: Mapping[str, Counter],
        snapshot: Snapshot,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._settings = settings
        self._counters = counters
        self.snapshot = snapshot
        self._may_delete = False
        self.look: Callable[[], Awaitable[bool]] | None = None
        """Looks whether the volume has gone on elsewhere; returns whether it has not. None: nobody can look."""

    @property
    def pending(self) -> trio.Event:
        """Set while a committed change is not shipped; another Event once all is."""
        return self._outbox.pending

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest change was committed that is not shipped; None when all is."""
        return self._outbox.oldest_ns

    @property
    def shipped_revision(self) -> int:
        """What came to be garbage at a lower revision than this is garbage in the newest acknowledged state too.

        0 unless `allow_deletions` says otherwise: nobody knows what other machines refer to. And it may have been
        acknowledged long after another machine had gone on: `confirm_deletions` comes before what is deleted for it.
        """
        return self._settings.get(REVISION) or 0 if self._may_delete else 0

    @property
    def may_delete(self) -> bool:
        """Whether what is in Discord follows from this state, as far as is known."""
        return self._may_delete

    async def confirm_deletions(self) -> bool:
        """Look at the index channel now; returns whether what is garbage by all that was acknowledged may be deleted.

        To be awaited immediately before. Errors as of `Transport`.
        """
        return self.look is not None and await self.look() and self._may_delete

    def allow_deletions(self, allowed: bool) -> None:
        """Whether what is in Discord follows from this state, as far as is known: else nothing is to be deleted."""
        self._may_delete = allowed

    @property
    def sequence(self) -> int:
        """Of the newest state that Discord has acknowledged; 0: none."""
        return self._settings.get(SEQUENCE) or 0

    def position(self) -> Position:
        """Where things stand. The first call of a new state gives it its device id."""
        device = self._settings.get(DEVICE)
        if device is None:
            device = os.urandom(ID_BYTES).hex()
            self._settings.set(DEVICE, device)
        return position_of(self._settings.get, bytes.fromhex(device), self._journal_count)

    @property
    def has_unshipped(self) -> bool:
        """Whether anything that is committed is to be shipped."""
        return self.pending.is_set() or self._settings.get(UNSHIPPED) is True

    def mark(self) -> int:
        """Commit; returns what `is_shipped` is asked about. FilesystemError when it cannot be committed."""
        self._database.commit()
        return self._outbox.last

    def is_shipped(self, mark: int) -> bool:
        """Whether everything that was committed at that mark is in Discord."""
        return self._outbox.is_empty(mark) and self._settings.get(UNSHIPPED) is not True

    def begin(self) -> Begun:
        """Commit, and let `snapshot` see exactly that until its `end`. FilesystemError, and nothing begun."""
        self._database.commit()
        self.snapshot.begin()
        counters = {name: counter.next for name, counter in self._counters.items()}
        return Begun(self._outbox.last, counters["revision"], counters)

    def attempt(self, state: bytes) -> None:
        """This state is about to be sent. The caller makes it durable before it is."""
        with self._database.changing:
            attempts = _ids(self._settings.get(ATTEMPTS)) | {state}
            self._settings.put(ATTEMPTS, " ".join(sorted(each.hex() for each in attempts)))
        self._database.commit()

    def acknowledged(
        self, begun: Begun, state: bytes, messages: Sequence[ShippedMessage], size_bytes: int, *, as_copy: bool
    ) -> None:
        """Discord has all of the state that was begun: it is the newest one, and what was noted is shipped.

        Of very much that was noted a part: `forget_more` is to be called until it returns False.
        `as_copy`: as a checkpoint copy, of its own or of what was acknowledged before by the same id.
        """
        with self._database.changing:
            put, get = self._settings.put, self._settings.get
            if get(STATE) != state.hex():
                put(SEQUENCE, (get(SEQUENCE) or 0) + 1)
                put(STATE, state.hex())
                self._abandon_attempts(state)
                self._outbox.forget(begun.last)
                put(REVISION, begun.revision)
                if not as_copy:
                    put(JOURNAL_BYTES, (get(JOURNAL_BYTES) or 0) + size_bytes)
            if as_copy and self._outbox.dropped <= begun.last:  # else changes went unnoted after the copy was begun
                put(UNSHIPPED, False)
            self._note_messages(messages)

    def forget_more(self, begun: Begun) -> bool:
        """Go on forgetting what `acknowledged` left; False when that is done. A crash before: it is shipped again."""
        if self._outbox.is_empty(begun.last):
            return False
        with self._database.changing:
            return self._outbox.forget(begun.last)

    def copied(self, sequence: int, messages: Sequence[ShippedMessage], size_bytes: int, journal_bytes: int) -> None:
        """Discord has a checkpoint copy of the state `sequence`; `journal_bytes` is what came after it since."""
        with self._database.changing:
            self._settings.put(COPY_SEQUENCE, sequence)
            self._settings.put(COPY_BYTES, size_bytes)
            self._settings.put(JOURNAL_BYTES, journal_bytes)
            self._note_messages(messages)

    def adopt(self, state: bytes, messages: Sequence[ShippedMessage], *, as_copy: bool) -> None:
        """An attempt was found in Discord, whole: it is the newest state. What was noted is shipped all the same."""
        with self._database.changing:
            sequence = (self._settings.get(SEQUENCE) or 0) + 1
            self._settings.put(SEQUENCE, sequence)
            self._settings.put(STATE, state.hex())
            self._abandon_attempts(state)
            if as_copy:
                # UNSHIPPED stays: the outbox may have dropped what changed after that copy was begun.
                self._settings.put(COPY_SEQUENCE, sequence)
            self._note_messages(messages)

    def _abandon_attempts(self, state: bytes) -> None:
        get, put = self._settings.get, self._settings.put
        others = sorted(_ids(get(ATTEMPTS)) - {state})
        abandoned = [*(get(ABANDONED) or "").split(), *(each.hex() for each in others)]
        put(ABANDONED, " ".join(abandoned[-_ABANDONED_COUNT:]))
        put(ATTEMPTS, "")

    def examined(self, message: MessageId) -> None:
        """Every message of the index channel up to this one is known. Nothing is said twice."""
        if message > (self._settings.get(INDEX_EXAMINED) or 0):
            self._settings.set(INDEX_EXAMINED, message)

    def note(self, messages: Sequence[ShippedMessage]) -> None:
        """This machine answers for these messages too."""
        with self._database.changing:
            self._note_messages(messages)

    def note_remains(self, messages: Sequence[MessageId]) -> None:
        """These messages hold parts of something of this machine's that will never be complete."""
        if messages:
            with self._database.changing:
                self._note_messages([ShippedMessage(message, 0, 0) for message in messages])

    def messages(self) -> list[ShippedMessage]:
        """All that this machine answers for, oldest first."""
        rows = self._database.rows("SELECT message, kind, sequence FROM shipped ORDER BY message")
        return [ShippedMessage(MessageId(message), kind, sequence) for message, kind, sequence in rows]

    def forget_messages(self, messages: Sequence[MessageId]) -> None:
        """They are deleted."""
        with self._database.changing:
            self._database.write_all("DELETE FROM shipped WHERE message = ?", [(message,) for message in messages])

    def _journal_count(self, since: int) -> int:
        row = self._database.row("SELECT count(*) FROM shipped WHERE kind = 2 AND sequence > ?", (since,))
        assert row is not None
        count: int = row[0]
        return count

    def _note_messages(self, messages: Sequence[ShippedMessage]) -> None:
        self._database.write_all(
            "INSERT INTO shipped (message, kind, sequence) VALUES (?, ?, ?) ON CONFLICT (message) DO UPDATE"
            " SET kind = excluded.kind, sequence = excluded.sequence",
            [(each.message, each.kind, each.sequence) for each in messages],
        )


def position_of(get: Callable[[Setting[Any]], Any], device: bytes, journals_since: Callable[[int], int]) -> Position:
    """Where the state with these settings stands. ValueError for ids that are none."""
    copy_sequence = get(COPY_SEQUENCE) or 0
    return Position(
        device=device,
        sequence=get(SEQUENCE) or 0,
        state=bytes.fromhex(get(STATE) or "") or NO_STATE,
        copy_sequence=copy_sequence,
        copy_bytes=get(COPY_BYTES) or 0,
        journal_bytes=get(JOURNAL_BYTES) or 0,
        journal_count=journals_since(copy_sequence),
        needs_copy=get(UNSHIPPED) is True or not copy_sequence,
        examined=MessageId(get(INDEX_EXAMINED) or 0),
        attempts=_ids(get(ATTEMPTS)),
        abandoned=_ids(get(ABANDONED)),
        superseded=tuple(sorted(_ids(get(SUPERSEDED)))),
    )


def _ids(text: str | None) -> frozenset[bytes]:
    return frozenset(bytes.fromhex(each) for each in (text or "").split())
