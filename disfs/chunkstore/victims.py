"""Which mostly dead messages are rewritten next, and whether it is worth a message. Pure but for what it remembers.

A rewrite costs one send, however little it moves. So it waits until a message's worth of garbage can be gained; what
has waited long goes for less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.values import MessageId, SparseMessage

_LEAST_SHARE = 8
"""Even after a long wait a rewrite must gain this part of a message, or empty as many messages."""


class Victims:
    """Remembers since when messages are sparse, and which of them are left alone for a while."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._since: dict[MessageId, float] = {}
        self._not_before: dict[MessageId, float] = {}
        self.garbage_bytes = 0
        """In the sparse messages that were last seen."""

    @property
    def postponed_count(self) -> int:
        """How many messages may hide others behind them in the ledger's answer."""
        return len(self._not_before)

    def postpone(self, message: MessageId, until: float) -> None:
        """Leave a message alone; for ever with infinity."""
        self._not_before[message] = until

    def choose(self, sparse: Sequence[SparseMessage], budget_bytes: int, now: float) -> list[SparseMessage]:
        """Those to rewrite into one message that carries `budget_bytes`; empty when that is not worth it yet.

        `sparse` comes with the most garbage first; so do those who are chosen.
        """
        known = {found.message for found in sparse}
        self._since = {message: self._since.get(message, now) for message in known}
        self._not_before = {m: until for m, until in self._not_before.items() if m in known and until > now}
        self.garbage_bytes = sum(found.garbage_bytes for found in sparse)
        chosen: list[SparseMessage] = []
        room = budget_bytes
        for found in sparse:
            if found.message not in self._not_before and found.live_bytes <= room:
                chosen.append(found)
                room -= found.live_bytes
        gain = sum(found.garbage_bytes for found in chosen)
        if gain >= budget_bytes:
            return chosen
        waited = any(now - self._since[found.message] >= self._patience_seconds for found in chosen)
        worth = gain * _LEAST_SHARE >= budget_bytes or len(chosen) >= _LEAST_SHARE
        return chosen if waited and worth else []
