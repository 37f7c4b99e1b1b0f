"""Which sends are under way: what they made in Discord is not recorded yet, and yet is no stray."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.packer import FinishedPack


class SendsUnderway:
    """Numbers the sends as they begin, and knows which have not ended.

    A send lasts from before its first request until its packs are recorded or given up for good; each of its packs
    is sent within this one send only. So a message that was seen in Discord before a send began cannot be
    its, and one that was seen while no send was under way, and is not recorded, belongs to nobody.
    """

    def __init__(self, ledger: ChunkLedger) -> None:
        self._ledger = ledger
        self._numbers = itertools.count()
        self._next = next(self._numbers)
        self._underway: set[int] = set()

    @contextmanager
    def sending(self, packs: Sequence[FinishedPack]) -> Iterator[None]:
        """Enclose a send of these packs, its record included. The ledger notes them: it may be all that is left."""
        number, self._next = self._next, next(self._numbers)
        self._underway.add(number)
        self._ledger.note_sending([pack.pack for pack in packs])
        try:
            yield
        finally:
            self._underway.remove(number)

    def mark(self) -> int:
        """A moment to ask `ended_before` about."""
        return self._next

    def ended_before(self, mark: int) -> bool:
        """Whether every send that began before that moment has ended."""
        return all(number >= mark for number in self._underway)
