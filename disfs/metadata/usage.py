"""What lies below a directory, and what that takes in Discord: one scan beside the mount, in a process of its own.

Each query sees what was committed when it began; no transaction stays open, so that the writer's log can begin anew.
A file with several names counts at the nearest one. Garbage belongs to nobody: that of a message is divided among
what is live in it, by size.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disfs.metadata.inspection import open_reader
from disfs.metadata.sqlite_errors import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from disfs.values import InodeNumber

_BELOW = "CREATE TEMP TABLE below (inode INTEGER NOT NULL PRIMARY KEY, top INTEGER NOT NULL)"
# UNION and not UNION ALL: damaged metadata may lead in a circle, which then ends.
_WALK = """
    INSERT OR IGNORE INTO temp.below
    WITH RECURSIVE walk (inode, top) AS (
        SELECT inode, cookie FROM dentries WHERE parent = :directory
        UNION
        SELECT dentries.inode, walk.top FROM walk CROSS JOIN dentries ON dentries.parent = walk.inode
    )
    SELECT inode, top FROM walk
    """
_NAMES = """
    SELECT cookie, name, (mode & 61440) = 16384 FROM dentries CROSS JOIN inodes USING (inode) WHERE parent = :directory
    """
_FILES = """
    SELECT top, count(*), sum(size_bytes), sum(chunk_count)
    FROM temp.below CROSS JOIN inodes USING (inode) WHERE (mode & 61440) = 32768 GROUP BY top
    """
_STORED = """
    SELECT top, sum(stored_bytes) FROM temp.below CROSS JOIN extents USING (inode) GROUP BY top
    """
_UNSENT = """
    SELECT top, count(*) FROM temp.below CROSS JOIN dirty USING (inode) GROUP BY top
    """
_GARBAGE = """
    SELECT top, sum(1.0 * taken * (stored_bytes - live_bytes) / live_bytes) FROM (
        SELECT top, packs.message AS message, sum(extents.stored_bytes) AS taken
        FROM temp.below CROSS JOIN extents USING (inode) CROSS JOIN packs USING (pack) GROUP BY top, packs.message
    ) CROSS JOIN messages USING (message) WHERE live_bytes > 0 GROUP BY top
    """


@dataclass(frozen=True, slots=True)
class Usage:
    """What lies below one name of a directory."""

    name: bytes
    is_directory: bool
    file_count: int = 0
    logical_bytes: int = 0
    """Sizes of its files, as `ls` shows them."""
    chunk_count: int = 0
    """Chunks that are no holes."""
    unsent_chunks: int = 0
    """Those whose newest content Discord does not have."""
    stored_bytes: int = 0
    """What its contents take in Discord, compressed and sealed."""
    garbage_bytes: int = 0
    """Its share of what is dead in the messages that it lies in."""


def usage_below(path: Path, directory: InodeNumber) -> list[Usage]:
    """What each name in `directory` holds, in the metadata at `path`; the largest in Discord first.

    Errors of `open_reader`; MetadataDamagedError where a page cannot be read.
    """
    connection = open_reader(path)
    try:
        return sorted(_scanned(connection, directory), key=lambda found: (-found.stored_bytes, found.name))
    except sqlite3.Error as error:
        raise translated(error) from error
    finally:
        connection.close()


def _scanned(connection: sqlite3.Connection, directory: InodeNumber) -> Iterator[Usage]:
    named = {"directory": directory}
    connection.execute(_BELOW)
    connection.execute(_WALK, named)
    files, stored, unsent, garbage = (_by_top(connection, query) for query in (_FILES, _STORED, _UNSENT, _GARBAGE))
    for cookie, name, is_directory in connection.execute(_NAMES, named):
        count, logical_bytes, chunks = files.get(cookie, (0, 0, 0))
        yield Usage(
            name=name,
            is_directory=bool(is_directory),
            file_count=count,
            logical_bytes=logical_bytes,
            chunk_count=chunks,
            unsent_chunks=unsent.get(cookie, (0,))[0],
            stored_bytes=stored.get(cookie, (0,))[0],
            garbage_bytes=round(garbage.get(cookie, (0,))[0]),
        )


def _by_top(connection: sqlite3.Connection, query: str) -> Mapping[int, Sequence[Any]]:
    return {top: rest for top, *rest in connection.execute(query)}
