"""Ask about many rows by few statements: their keys go in as a table of values."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from disfs.metadata.database import Database, Row

_SIZES = (64, 8, 1)
"""So many keys a statement: few different statements, so that each stays parsed."""


def rows_of(database: Database, sql: str, keys: Sequence[Sequence[Any]], *, width: int) -> Iterator[Row]:
    """The rows of a query for all `keys`, each a tuple of `width` values; `{values}` in `sql` is where they go."""
    position = 0
    while position < len(keys):
        size = next(size for size in _SIZES if size <= len(keys) - position)
        parameters = tuple(itertools.chain.from_iterable(keys[position : position + size]))
        yield from database.rows(_statement(sql, size, width), parameters)
        position += size


@functools.cache
def _statement(sql: str, count: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return sql.format(values=", ".join([row] * count))
