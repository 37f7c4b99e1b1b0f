"""Looking through a whole database for damage, beside the writer and without stopping anybody.

Done after a stop that was not in order: that is when a disk or a power cut may have left something behind. A mount
after a clean stop looks at nothing, so that it takes no longer for a large volume.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from typing import TYPE_CHECKING

import trio

from disfs.metadata.sqlite_errors import DAMAGED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_STEPS_BETWEEN_LOOKS = 10_000
"""Steps of SQLite's machine after which it looks whether to stop: some hundred microseconds."""


async def find_damage(path: Path, connect: Callable[[Path], sqlite3.Connection]) -> str | None:
    """The first thing that `PRAGMA quick_check` finds, None for a sound database; in a worker thread.

    A cancel ends the check at once. What keeps it from being made is logged, and is no damage.
    """
    stop = threading.Event()

    def check() -> str | None:
        with contextlib.closing(connect(path)) as connection:
            connection.set_progress_handler(stop.is_set, _STEPS_BETWEEN_LOOKS)
            return _quick_check(connection)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_set_on_cancel, stop)
        with trio.CancelScope(shield=True):
            found = await trio.to_thread.run_sync(check)
        nursery.cancel_scope.cancel()
    return found


async def _set_on_cancel(stop: threading.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


def _quick_check(connection: sqlite3.Connection) -> str | None:
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED:
            return str(error)
        log.info("The metadata could not be looked through: %s", error)
        return None
    return None if found == "ok" else " ".join(str(found).split())
