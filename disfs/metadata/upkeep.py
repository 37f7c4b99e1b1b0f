"""What goes on beside the operations of a metadata store: group commits, checkpoints, after a crash a look for damage.

Each runs until it is cancelled, and cancelling loses nothing. A store that has stopped is left alone.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from disfs.errors import FilesystemError
from disfs.metadata.checking import find_damage
from disfs.metadata.opening import connect

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.metadata.database import Database
    from disfs.metadata.durability import Checkpointer

log = logging.getLogger(__name__)

COMMIT_SECONDS = 0.05
"""How long a transaction stays open: what kill -9 can take."""
CHECKPOINT_CHANGES = 20_000
"""Changed rows after which the log is copied into the database; some tens of MB of log."""
CHECKPOINT_SECONDS = 30.0
"""The same after fewer changes, so that a quiet volume has a short log to recover from."""


async def commit_regularly(database: Database) -> None:
    """Commit each transaction a short while after it was opened. What cannot be committed stays open."""
    while database.failure is None:
        await database.opened.wait()
        await trio.sleep(COMMIT_SECONDS)
        try:
            database.commit()
        except FilesystemError as error:
            # Kept open, or the store has stopped and said so; either way the next caller hears of it.
            log.warning("A group commit failed: %s", error)
            await trio.sleep(1)


async def checkpoint_regularly(database: Database, checkpointer: Checkpointer) -> None:
    """Copy the log into the database when there is much of it, or some of it for long."""
    changes, seconds = 0, trio.current_time()
    while database.failure is None:
        await trio.sleep(1)
        fresh = database.committed_changes - changes
        if fresh == 0 or (fresh < CHECKPOINT_CHANGES and trio.current_time() - seconds < CHECKPOINT_SECONDS):
            continue
        changes, seconds = database.committed_changes, trio.current_time()
        try:
            await checkpointer.checkpoint()
        except FilesystemError as error:
            log.warning("The write-ahead log cannot be copied into the database: %s", error)


async def look_for_damage(database: Database, path: Path) -> None:
    """Look once through the whole database at `path`; what is found is noted, and shown by its statistics.

    Where nothing is, changes are no longer guarded against it.
    """
    found = await find_damage(path, partial(connect, for_worker=True))
    if found is not None:
        database.note_damage(found)
    elif database.damage is None:
        database.guards_changes = False
