"""What must hold between the rows of a volume's metadata while it is not mounted, asked in SQL and nothing else."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_DIRECTORY = "(mode & 0xF000) = 0x4000"
_FILE = "(mode & 0xF000) = 0x8000"

FAULTS: dict[str, str] = {
    "a name leads to no inode": (
        "SELECT parent, name, inode FROM dentries WHERE inode NOT IN (SELECT inode FROM inodes)"
    ),
    "a name lies in no directory": (
        f"SELECT parent, name FROM dentries WHERE parent NOT IN (SELECT inode FROM inodes WHERE {_DIRECTORY})"
    ),
    "an inode cannot be reached from the root": (
        "WITH RECURSIVE reached (inode) AS (SELECT 1 UNION SELECT dentries.inode FROM dentries, reached"
        " WHERE dentries.parent = reached.inode)"
        " SELECT inode FROM inodes WHERE inode NOT IN (SELECT inode FROM reached)"
    ),
    "nlink of what is no directory is not the number of its names": (
        "SELECT inode, nlink FROM inodes"
        f" WHERE NOT {_DIRECTORY} AND nlink <> (SELECT count(*) FROM dentries WHERE dentries.inode = inodes.inode)"
    ),
    "nlink of a directory is not 2 and one for each directory in it": (
        f"SELECT inode, nlink FROM inodes WHERE {_DIRECTORY} AND nlink <> 2 + (SELECT count(*) FROM dentries"
        f" JOIN inodes AS below ON below.inode = dentries.inode WHERE dentries.parent = inodes.inode"
        f" AND (below.mode & 0xF000) = 0x4000)"
    ),
    "a directory has not exactly one name": (
        f"SELECT inode FROM inodes WHERE {_DIRECTORY} AND inode <> 1"
        " AND 1 <> (SELECT count(*) FROM dentries WHERE dentries.inode = inodes.inode)"
    ),
    "an orphan is left": "SELECT inode FROM orphans",
    "an attribute belongs to no inode": (
        "SELECT inode, name FROM xattrs WHERE inode NOT IN (SELECT inode FROM inodes)"
        " AND inode NOT IN (SELECT inode FROM trash)"
    ),
    "something in the trash is an inode too": "SELECT inode FROM trash WHERE inode IN (SELECT inode FROM inodes)",
    "the number of inodes is not what statfs says": (
        "SELECT value FROM settings WHERE name = 'inode_count'"
        " AND CAST(value AS INTEGER) <> (SELECT count(*) FROM inodes)"
    ),
    "the sum of all sizes is not what statfs says": (
        "SELECT value FROM settings WHERE name = 'logical_bytes' AND CAST(value AS INTEGER)"
        f" <> (SELECT coalesce(sum(size_bytes), 0) FROM inodes WHERE {_FILE})"
    ),
    "a chunk lies behind the end of its file": (
        "SELECT inodes.inode, chunk FROM dirty JOIN inodes USING (inode)"
        " WHERE chunk * (SELECT CAST(value AS INTEGER) FROM settings WHERE name = 'chunk_bytes') >= size_bytes"
        " UNION SELECT inodes.inode, first_chunk FROM extents JOIN inodes USING (inode) WHERE (first_chunk + count - 1)"
        " * (SELECT CAST(value AS INTEGER) FROM settings WHERE name = 'chunk_bytes') >= size_bytes"
    ),
    "chunks belong to no inode": (
        "SELECT inode FROM dirty WHERE inode NOT IN (SELECT inode FROM inodes)"
        " UNION SELECT inode FROM extents WHERE inode NOT IN (SELECT inode FROM inodes)"
        " EXCEPT SELECT inode FROM trash"
    ),
    "two runs of a file overlap": (
        "SELECT one.inode, one.first_chunk FROM extents AS one JOIN extents AS other ON one.inode = other.inode"
        " AND one.first_chunk < other.first_chunk AND one.first_chunk + one.count > other.first_chunk"
    ),
    "chunk_count is not the number of chunks": (
        "SELECT inode, chunk_count FROM inodes WHERE chunk_count <>"
        " (SELECT coalesce(sum(count), 0) FROM extents WHERE extents.inode = inodes.inode)"
        " + (SELECT count(*) FROM dirty WHERE dirty.inode = inodes.inode AND NOT EXISTS (SELECT 1 FROM extents"
        " WHERE extents.inode = dirty.inode AND chunk >= first_chunk AND chunk < first_chunk + count))"
    ),
    "what lives in a pack is not what it says": (
        "SELECT pack, live_bytes FROM packs WHERE live_bytes <>"
        " (SELECT coalesce(sum(stored_bytes), 0) FROM extents WHERE extents.pack = packs.pack)"
    ),
}


def faults_of(path: Path) -> list[str]:
    """What does not hold in a volume's metadata, each with the first rows that show it."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as metadata:
        asked = ((what, metadata.execute(f"{query} LIMIT 3").fetchall()) for what, query in FAULTS.items())
        return [f"{what}: {rows}" for what, rows in asked if rows]
