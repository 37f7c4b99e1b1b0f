"""Rows of one table that are newer in memory than in the table, until the database flushes what is held back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from disfs.metadata.database import Database

K = TypeVar("K")
V = TypeVar("V")


class HeldBack(Generic[K, V]):
    """Rows by their key, changed inside `changing` or `growing`. None stands for a row that is to be deleted.

    A row that was made since the last flush and is removed again leaves nothing to be written.
    """

    def __init__(self, database: Database) -> None:
        self._alter, self._erase = database.alter, database.erase
        self._held: dict[K, tuple[V | None, bool]] = {}
        """The row, and whether the table may have one of that key."""

    def __contains__(self, key: K) -> bool:
        return key in self._held

    def __bool__(self) -> bool:
        return bool(self._held)

    def get(self, key: K) -> V | None:
        """The row of a key that is held back; None when it is not, or is to be deleted."""
        held = self._held.get(key)
        return None if held is None else held[0]

    def put(self, key: K, value: V, *, is_new: bool = False) -> None:
        """The row is this from now on. `is_new`: the caller knows that the table has none."""
        held = self._held.get(key)
        self._alter(self._held, key, (value, not is_new if held is None else held[1]))

    def remove(self, key: K) -> None:
        """There is no such row from now on."""
        held = self._held.get(key)
        if held is None or held[1]:
            self._alter(self._held, key, (None, True))
        else:
            self._erase(self._held, key)

    def withdraw(self, key: K) -> V | None:
        """Hold it back no longer: the caller writes it."""
        value = self.get(key)
        self._erase(self._held, key)
        return value

    def take(self) -> tuple[list[K], list[tuple[K, V]]]:
        """What is to be deleted and what is to be written, and nothing is held back any more; at a flush."""
        gone = [key for key, (value, _) in self._held.items() if value is None]
        rows = [(key, value) for key, (value, _) in self._held.items() if value is not None]
        self._held.clear()
        return gone, rows
