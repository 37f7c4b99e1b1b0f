"""Numbers that are never handed out twice: inode numbers, readdir cookies, revisions, pack numbers.

They are reserved in blocks, so that a number costs no statement. After a crash the last reservation may have been
lost with its transaction while a number of it has left the machine inside a pack; a generous gap
is skipped then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.errors import MetadataDamagedError

if TYPE_CHECKING:
    from disfs.metadata.database import Database


@dataclass(frozen=True, slots=True)
class CounterKind:
    """Name and first number of a counter, how many numbers are reserved at once, and skipped after a crash."""

    name: str
    first: int
    block: int
    gap: int


INODES = CounterKind("inode", first=2, block=1024, gap=1 << 16)
COOKIES = CounterKind("cookie", first=3, block=4096, gap=1 << 16)
REVISIONS = CounterKind("revision", first=1, block=65536, gap=1 << 32)
PACKS = CounterKind("pack", first=1, block=256, gap=256)
SNAPSHOTS = CounterKind("snapshot", first=1, block=1, gap=0)
KINDS = (INODES, COOKIES, REVISIONS, PACKS, SNAPSHOTS)


class Counter:
    """One source of numbers. `take` must be called inside a change of the database."""

    def __init__(self, database: Database, kind: CounterKind) -> None:
        self._database = database
        self._kind = kind
        row = database.row("SELECT value FROM counters WHERE name = ?", (kind.name,))
        if row is None or not isinstance(row[0], int) or row[0] < kind.first:
            raise MetadataDamagedError(f"the counter {kind.name} is not what it was made")
        self._next: int = row[0]
        self._ceiling = self._next
        database.after_rollback.append(self._forget_reservation)

    def take(self) -> int:
        """A number higher than all before it."""
        number = self._next
        if number >= self._ceiling:
            self._store(number + self._kind.block)
        self._next = number + 1
        return number

    @property
    def next(self) -> int:
        """The number that `take` gives next: all that were given are below it."""
        return self._next

    def skip_gap(self) -> None:
        """Leave out what may have been in use when the machine crashed."""
        self._next += self._kind.gap
        self._store(self._next)

    def give_back(self) -> None:
        """End the reservation, so that a clean stop wastes no numbers."""
        self._store(self._next)

    def _store(self, ceiling: int) -> None:
        self._database.write("UPDATE counters SET value = ? WHERE name = ?", (ceiling, self._kind.name))
        self._ceiling = ceiling

    def _forget_reservation(self) -> None:
        self._ceiling = self._next
