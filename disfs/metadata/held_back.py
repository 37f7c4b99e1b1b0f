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
        self._database = database
        self._values: dict[K, V | None] = {}
        self._has_row: dict[K, bool] = {}
        """Whether the table may have a row of that key."""

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def __bool__(self) -> bool:
        return bool(self._values)

    def get(self, key: K) -> V | None:
        """The row of a key that is held back; None when it is not, or is to be deleted."""
        return self._values.get(key)

    def put(self, key: K, value: V, *, is_new: bool = False) -> None:
        """The row is this from now on. `is_new`: the caller knows that the table has none."""
        self._note(key, value, has_row=not is_new)

    def remove(self, key: K) -> None:
        """There is no such row from now on."""
        if self._has_row.get(key, True):
            self._note(key, None, has_row=True)
        else:
            self.withdraw(key)

    def withdraw(self, key: K) -> V | None:
        """Hold it back no longer: the caller writes it."""
        value = self._values.get(key)
        self._database.erase(self._values, key)
        self._database.erase(self._has_row, key)
        return value

    def take(self) -> tuple[list[K], list[tuple[K, V]]]:
        """What is to be deleted and what is to be written, and nothing is held back any more; at a flush."""
        gone = [key for key, value in self._values.items() if value is None]
        rows = [(key, value) for key, value in self._values.items() if value is not None]
        self._values.clear()
        self._has_row.clear()
        return gone, rows

    def _note(self, key: K, value: V | None, *, has_row: bool) -> None:
        self._database.alter(self._values, key, value)
        if key not in self._has_row:
            self._database.alter(self._has_row, key, has_row)
