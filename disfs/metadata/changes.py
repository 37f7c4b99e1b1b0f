"""One operation of a caller on the database: `with database.changing`, or `growing`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from disfs.metadata.database import Database


class Change:
    """What `with database.changing` enters: one operation of a caller, whole or not at all."""

    __slots__ = ("_database", "_grows")

    def __init__(self, database: Database, *, grows: bool) -> None:
        self._database = database
        self._grows = grows

    def __enter__(self) -> None:
        self._database.begin_change(self._grows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.end_change(error)
