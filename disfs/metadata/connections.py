"""Connections to database files, which they never make. Each keeps its temporary tables and sorts in memory.

SQLite would put them into files of /tmp once they are large, and what is sorted are names of a volume whose contents
are sealed everywhere else.
"""

from __future__ import annotations

import enum
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CACHED_STATEMENTS = 256
"""More than there are in this package: a statement that falls out is parsed again at each use."""


class Access(enum.Enum):
    """What a connection does with its file."""

    WRITE = "rw"
    READ = "ro"
    UNCHANGING = "ro&immutable=1"
    """Nobody writes it any more: read without locks, and without a log."""


def connected(path: Path, access: Access, *, any_thread: bool = False) -> sqlite3.Connection:
    """A connection without implicit transactions. With `any_thread` it may be used in any, though never in two at once.

    sqlite3.Error when the file cannot be opened.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={access.value}",
        uri=True,
        isolation_level=None,
        cached_statements=CACHED_STATEMENTS,
        check_same_thread=not any_thread,
    )
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection
