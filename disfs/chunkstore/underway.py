"""Which sends are under way: what they made in Discord is not recorded yet, and yet is no stray. No I/O."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from disfs.values import PackId

_REMEMBERED_PACKS = 20_000
"""Some megabytes of memory, for hundreds of gigabytes that were sent."""


class SendsUnderway:
    """Numbers the sends as they begin, and knows which have not ended.

    A send lasts from before its first request until its packs are recorded or given up for good; each of its packs
    is sent within this one send only. So a message that was seen in Discord before a send began cannot be
    its, and one that was seen while no send was under way, and is not recorded, belongs to nobody.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._next = next(self._numbers)
        self._underway: set[int] = set()
        self._packs: dict[PackId, None] = {}

    @contextmanager
    def sending(self, packs: Iterable[PackId]) -> Iterator[None]:
        """Enclose a send of these packs, its record included."""
        number, self._next = self._next, next(self._numbers)
        self._packs.update(dict.fromkeys(packs))
        while len(self._packs) > _REMEMBERED_PACKS:
            del self._packs[next(iter(self._packs))]
        self._underway.add(number)
        try:
            yield
        finally:
            self._underway.remove(number)

    def sent_here(self, pack: PackId) -> bool:
        """Whether this process has tried to send the pack; what lies very far back is forgotten."""
        return pack in self._packs

    def mark(self) -> int:
        """A moment to ask `ended_before` about."""
        return self._next

    def ended_before(self, mark: int) -> bool:
        """Whether every send that began before that moment has ended."""
        return all(number >= mark for number in self._underway)
