"""What two databases of one volume must have in common."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_REPLICATED = {
    "inodes": "*",
    "dentries": "*",
    "xattrs": "*",
    "packs": "*",
    "messages": "message, channel, live_bytes, stored_bytes, dead_since IS NULL",
    "extents": "*",
    "orphans": "inode",
    "trash": "*",
}


def shipped_rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row that a rebuilt volume must have again."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {
            table: sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
            for table, columns in _REPLICATED.items()
        }
