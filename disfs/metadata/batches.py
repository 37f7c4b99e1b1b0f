"""Ask about many rows by few statements, or insert them: their keys or values go in as a table of values."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from disfs.metadata.database import Database, Row

_SIZES = (64, 8, 1)
"""So many keys a statement: few different statements, so that each stays parsed."""
_INSERTED = 24
"""Rows that one statement inserts: what each takes falls by a quarter until there, and rises again with some more."""


def rows_of(database: Database, sql: str, keys: Sequence[Sequence[Any]], *, width: int) -> Iterator[Row]:
    """The rows of a query for all `keys`, each a tuple of `width` values; `{values}` in `sql` is where they go."""
    position = 0
    while position < len(keys):
        size = next(size for size in _SIZES if size <= len(keys) - position)
        parameters = tuple(itertools.chain.from_iterable(keys[position : position + size]))
        yield from database.rows(_statement(sql, size, width), parameters)
        position += size


def insert_rows(database: Database, sql: str, rows: Sequence[Sequence[Any]], *, width: int) -> None:
    """Insert `rows`, each of `width` values; `{values}` in `sql` is where they go. Inside a change."""
    whole = len(rows) - len(rows) % _INSERTED
    for position in range(0, whole, _INSERTED):
        parameters = tuple(itertools.chain.from_iterable(rows[position : position + _INSERTED]))
        database.write(_statement(sql, _INSERTED, width), parameters)
    if whole < len(rows):
        database.write_all(_statement(sql, 1, width), rows[whole:])


@functools.cache
def _statement(sql: str, count: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return sql.format(values=", ".join([row] * count))
