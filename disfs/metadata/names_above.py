"""A path of an inode, read from a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    import sqlite3

_DEEPEST = 4096
"""Directories below each other that are followed; a longer chain goes in a circle."""


def path_of(connection: sqlite3.Connection, inode: int) -> bytes | None:
    """One path from the root to an inode; None when no name leads there."""
    names: list[bytes] = []
    position = inode
    while position != ROOT_INODE:
        row = connection.execute("SELECT parent, name FROM dentries WHERE inode = ? LIMIT 1", (position,)).fetchone()
        if row is None or len(names) == _DEEPEST:
            return None
        position = row[0]
        names.append(bytes(row[1]))
    return b"/" + b"/".join(reversed(names))
