"""What must hold between the rows of a volume's metadata, asked in SQL, each question once for the whole volume.

Every question reads the tables in the order of an index and keeps nothing, so a million files take seconds and no
memory to speak of. What SQLite itself guards (types, NULL, primary keys) is not asked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.errors import MetadataDamagedError
from disfs.metadata.settings import ALLOCATED_BYTES, CHUNK_BYTES, INODE_COUNT, LOGICAL_BYTES
from disfs.spans import allocated_bytes
from disfs.values import FIRST_VIEW_INODE, ROOT_INODE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from disfs.metadata.settings import Setting

IS_DIRECTORY = "(inodes.mode & 0xF000) = 0x4000"
IS_FILE = "(inodes.mode & 0xF000) = 0x8000"
IS_CONNECTED = "inodes.inode NOT IN (SELECT inode FROM orphans)"
"""Orphans have no name, and are told from what has lost its name by being noted as such."""
CHUNK_BYTES_SETTING = "(SELECT CAST(value AS INTEGER) FROM settings WHERE name = 'chunk_bytes')"
STORED_BYTES = "(packs.size_bytes - 56 - 9 * length(packs.slots))"
"""What a pack's slots take: beside them it has a frame of 56 bytes, and 36 for each slot, of which the table has 4."""
REACHED = (
    f"WITH RECURSIVE reached (inode) AS (SELECT {ROOT_INODE} UNION SELECT dentries.inode FROM dentries, reached"
    " WHERE dentries.parent = reached.inode)"
)
UNREACHED = f"inodes.inode NOT IN (SELECT inode FROM reached) AND {IS_CONNECTED}"
NAMES_OF_INODE = "(SELECT count(*) FROM dentries WHERE dentries.inode = inodes.inode)"
DIRECTORY_NLINK = (
    "(2 + (SELECT count(*) FROM dentries JOIN inodes AS below ON below.inode = dentries.inode"
    " WHERE dentries.parent = inodes.inode AND (below.mode & 0xF000) = 0x4000))"
)
CHUNKS_OF_INODE = (
    "((SELECT coalesce(sum(count), 0) FROM extents WHERE extents.inode = inodes.inode)"
    " + (SELECT count(*) FROM dirty WHERE dirty.inode = inodes.inode AND NOT EXISTS (SELECT 1 FROM extents"
    " WHERE extents.inode = dirty.inode AND chunk >= first_chunk AND chunk < first_chunk + count)))"
)
LIVE_OF_PACK = "(SELECT coalesce(sum(stored_bytes), 0) FROM extents WHERE extents.pack = packs.pack)"
LIVE_OF_MESSAGE = "(SELECT coalesce(sum(live_bytes), 0) FROM packs WHERE packs.message = messages.message)"
STORED_OF_MESSAGE = f"(SELECT coalesce(sum({STORED_BYTES}), 0) FROM packs WHERE packs.message = messages.message)"
OVERLAPPING = (
    "FROM extents AS one JOIN extents AS other ON other.inode = one.inode"
    " AND other.first_chunk > one.first_chunk AND other.first_chunk < one.first_chunk + one.count"
)
IN_NO_SLOT = (
    "FROM extents LEFT JOIN packs ON packs.pack = extents.pack WHERE packs.pack IS NULL OR extents.count < 1"
    " OR extents.first_slot < 0 OR extents.first_slot + extents.count > length(packs.slots) / 4"
)
"""Runs that lie in no slots: nobody can read them."""
NOT_KEPT = "inode NOT IN (SELECT inode FROM inodes) AND inode NOT IN (SELECT inode FROM trash)"
"""What is in the trash has chunks and attributes, and is no inode."""
OWNERLESS = (
    f"SELECT inode FROM dirty WHERE {NOT_KEPT}"
    f" UNION SELECT inode FROM extents WHERE {NOT_KEPT}"
    f" UNION SELECT inode FROM small_contents WHERE inode < {FIRST_VIEW_INODE} AND {NOT_KEPT}"
)
HOLDS_OF_MESSAGE = "(SELECT count(*) FROM holds WHERE holds.message = messages.message)"
BAD_NAME = "length(name) NOT BETWEEN 1 AND 255 OR instr(name, x'2F') OR instr(name, x'00') OR name IN (x'2E', x'2E2E')"
LAST_CHUNK = (
    "max(coalesce((SELECT max(chunk) FROM dirty WHERE dirty.inode = inodes.inode), -1),"
    " coalesce((SELECT max(first_chunk + count - 1) FROM extents WHERE extents.inode = inodes.inode), -1))"
)
COUNTERS_IN_USE = {
    "inode": "SELECT max(coalesce((SELECT max(inode) FROM inodes), 0), coalesce((SELECT max(inode) FROM trash), 0))",
    "snapshot": "SELECT max(snapshot) FROM snapshots",
    "cookie": "SELECT max(cookie) FROM dentries",
    "pack": "SELECT max(pack) FROM packs",
    "revision": (
        "SELECT max(coalesce((SELECT max(revision) FROM dirty), 0),"
        " coalesce((SELECT max(dead_since) FROM messages WHERE dead_since IS NOT NULL), 0))"
    ),
}


@dataclass(frozen=True, slots=True)
class Invariant:
    """What is wrong, as a sentence, and the query whose rows show where; their first column is an inode, or not."""

    sentence: str
    query: str
    of_inode: bool = True


# What is broken further up makes much of what is below it look broken.
INVARIANTS: tuple[Invariant, ...] = (
    Invariant(
        "the root directory is missing",
        f"SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM inodes WHERE inode = {ROOT_INODE} AND {IS_DIRECTORY})",
    ),
    Invariant(
        "a name leads to no inode",
        "SELECT inode, parent, name FROM dentries WHERE inode NOT IN (SELECT inode FROM inodes)",
    ),
    Invariant(
        "a name lies in no directory",
        f"SELECT inode, parent, name FROM dentries WHERE parent NOT IN (SELECT inode FROM inodes WHERE {IS_DIRECTORY})",
    ),
    Invariant("a name is none that a file may have", f"SELECT inode, parent, name FROM dentries WHERE {BAD_NAME}"),
    Invariant(
        "two names of a directory have one place in its listing",
        "SELECT parent, cookie FROM dentries GROUP BY parent, cookie HAVING count(*) > 1 OR cookie < 3",
    ),
    Invariant("an inode cannot be reached from the root", f"{REACHED} SELECT inode FROM inodes WHERE {UNREACHED}"),
    Invariant(
        "nlink of what is no directory is not the number of its names",
        f"SELECT inode, nlink FROM inodes WHERE NOT {IS_DIRECTORY} AND nlink <> {NAMES_OF_INODE}",
    ),
    Invariant(
        "nlink of a directory is not 2 and one for each directory in it",
        f"SELECT inode, nlink FROM inodes WHERE {IS_DIRECTORY} AND nlink <> {DIRECTORY_NLINK} AND {IS_CONNECTED}",
    ),
    Invariant(
        "a directory has not exactly one name",
        f"SELECT inode FROM inodes WHERE {IS_DIRECTORY}"
        f" AND inode <> {ROOT_INODE} AND 1 <> {NAMES_OF_INODE} AND {IS_CONNECTED}",
    ),
    Invariant(
        "an inode is of no type",
        "SELECT inode, mode FROM inodes WHERE mode & 0xF000"
        " NOT IN (0x1000, 0x2000, 0x4000, 0x6000, 0x8000, 0xA000, 0xC000) OR mode > 0xFFFF",
    ),
    Invariant(
        "a symbolic link's size is not that of its target",
        "SELECT inode, size_bytes FROM inodes"
        " WHERE mode & 0xF000 = 0xA000 AND size_bytes <> coalesce(length(target), -1)",
    ),
    Invariant(
        "an attribute belongs to no inode",
        f"SELECT inode, name FROM xattrs WHERE {NOT_KEPT}",
    ),
    Invariant(
        "something in the trash is an inode too", "SELECT inode FROM trash WHERE inode IN (SELECT inode FROM inodes)"
    ),
    Invariant(
        "an ACL is there, and the volume says that it has none",
        "SELECT inode, name FROM xattrs WHERE name IN (CAST('system.posix_acl_access' AS BLOB),"
        " CAST('system.posix_acl_default' AS BLOB))"
        " AND NOT EXISTS (SELECT 1 FROM settings WHERE name = 'has_acls' AND value = '1')",
    ),
    Invariant(
        "an orphan has a name or no inode",
        "SELECT inode FROM orphans WHERE inode IN"
        " (SELECT inode FROM dentries) OR inode NOT IN (SELECT inode FROM inodes WHERE nlink = 0)",
    ),
    Invariant("chunks belong to no inode", OWNERLESS),
    Invariant(
        "chunks belong to what is no file",
        f"SELECT inode FROM inodes WHERE NOT {IS_FILE}"
        " AND (EXISTS (SELECT 1 FROM dirty WHERE dirty.inode = inodes.inode)"
        " OR EXISTS (SELECT 1 FROM extents WHERE extents.inode = inodes.inode))",
    ),
    Invariant(
        "a chunk lies behind the end of its file",
        f"SELECT inode, size_bytes FROM inodes WHERE {IS_FILE}"
        f" AND {LAST_CHUNK} >= 0 AND {LAST_CHUNK} * {CHUNK_BYTES_SETTING} >= size_bytes",
    ),
    Invariant("two runs of a file overlap", f"SELECT one.inode, one.first_chunk {OVERLAPPING}"),
    Invariant("a run lies in no slots", f"SELECT extents.inode, extents.first_chunk {IN_NO_SLOT}"),
    Invariant(
        "two runs share a slot",
        "SELECT one.inode, one.first_chunk, one.pack FROM extents AS one JOIN extents"
        " AS other ON other.pack = one.pack AND other.first_slot >= one.first_slot"
        " AND other.first_slot < one.first_slot + one.count"
        " AND (other.inode <> one.inode OR other.first_chunk <> one.first_chunk)",
    ),
    Invariant("a dirty chunk is older than its first change", "SELECT inode, chunk FROM dirty WHERE born > revision"),
    Invariant(
        "chunk_count is not the number of chunks",
        f"SELECT inode, chunk_count FROM inodes WHERE chunk_count <> {CHUNKS_OF_INODE}",
    ),
    Invariant(
        "a pack lies in no message",
        "SELECT pack, message FROM packs WHERE message NOT IN (SELECT message FROM messages)",
        of_inode=False,
    ),
    Invariant(
        "what lives in a pack is not what it says",
        f"SELECT pack, live_bytes FROM packs WHERE live_bytes <> {LIVE_OF_PACK}",
        of_inode=False,
    ),
    Invariant(
        "what lives in a message is not what it says",
        f"SELECT message, live_bytes FROM messages WHERE live_bytes <> {LIVE_OF_MESSAGE}",
        of_inode=False,
    ),
    Invariant(
        "what a message stores is not what it says",
        f"SELECT message, stored_bytes FROM messages WHERE stored_bytes <> {STORED_OF_MESSAGE}",
        of_inode=False,
    ),
    Invariant(
        "a message is not held by as many snapshots as it says",
        f"SELECT message, held FROM messages WHERE held <> {HOLDS_OF_MESSAGE}",
        of_inode=False,
    ),
    Invariant(
        "a message is dead and has live bytes, or neither",
        "SELECT message FROM messages WHERE (dead_since IS NULL) <> (live_bytes <> 0)",
        of_inode=False,
    ),
    Invariant(
        "a small content belongs to no file, or is longer than it",
        "SELECT small_contents.inode"
        " FROM small_contents LEFT JOIN (SELECT inode, size_bytes FROM inodes"
        " UNION ALL SELECT inode, size_bytes FROM trash)"
        f" AS kept USING (inode) WHERE small_contents.inode < {FIRST_VIEW_INODE}"
        " AND (kept.inode IS NULL OR length(content) > size_bytes)",
    ),
)
LEFT_BY_A_CRASH = Invariant("an orphan is left", "SELECT inode FROM orphans")
"""Holds after a stop in order, and after the next mount."""


def broken(connection: sqlite3.Connection, invariant: Invariant) -> Iterator[tuple[object, ...]]:
    """The rows for which an invariant does not hold."""
    return iter(connection.execute(invariant.query))


def broken_totals(connection: sqlite3.Connection) -> Iterator[tuple[str, int, int | None]]:
    """Each total that statfs shows and that is wrong: its name, what it should be, what it is."""
    for setting, wanted in totals(connection).items():
        found = _number(connection, setting)
        if found != wanted:
            yield setting.name, wanted, found


def totals(connection: sqlite3.Connection) -> dict[Setting[int], int]:
    """What the volume's totals are, summed up. MetadataDamagedError when nobody knows how long a chunk is."""
    chunk_bytes = _number(connection, CHUNK_BYTES)
    if not chunk_bytes or chunk_bytes < 1:
        raise MetadataDamagedError("the setting chunk_bytes is missing or makes no sense")
    logical, allocated = 0, 0
    # In Python: a few sparse files together pass what SQL can add.
    files = connection.execute(f"SELECT size_bytes, chunk_count FROM inodes WHERE {IS_FILE}")
    for size_bytes, chunk_count in files:
        logical += size_bytes
        allocated += allocated_bytes(size_bytes, chunk_count, chunk_bytes)
    (inode_count,) = connection.execute("SELECT count(*) FROM inodes").fetchone()
    return {INODE_COUNT: inode_count, LOGICAL_BYTES: logical, ALLOCATED_BYTES: allocated}


def low_counters(connection: sqlite3.Connection) -> Iterator[tuple[str, int, int | None]]:
    """Each source of numbers that would hand out one that is in use: its name, where it must begin, where it does."""
    stored = dict(connection.execute("SELECT name, value FROM counters"))
    for name, query in COUNTERS_IN_USE.items():
        (most,) = connection.execute(query).fetchone()
        if name not in stored or stored[name] <= (most or 0):
            yield name, (most or 0) + 1, stored.get(name)


def _number(connection: sqlite3.Connection, setting: Setting[int]) -> int | None:
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (setting.name,)).fetchone()
    try:
        return None if row is None else setting.decode(row[0])
    except (TypeError, ValueError):
        return None
