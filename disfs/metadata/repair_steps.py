"""What brings a volume's metadata back into order, step by step: each step is one transaction and says what it changed.

The order matters: numbers first, so that new rows get free ones, then inodes, names, chunks, and the sums over all of
them last. Nothing that leads to bytes is removed: what has lost its name gets one in `lost+found`, a name that leads
nowhere had nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from disfs.metadata.inspection import DAMAGED, LOST_AND_FOUND
from disfs.metadata.invariants import (
    BAD_NAME,
    CHUNK_BYTES_SETTING,
    CHUNKS_OF_INODE,
    DIRECTORY_NLINK,
    HOLDS_OF_MESSAGE,
    IS_CONNECTED,
    IS_DIRECTORY,
    IS_FILE,
    LAST_CHUNK,
    LIVE_OF_MESSAGE,
    LIVE_OF_PACK,
    NAMES_OF_INODE,
    NOT_KEPT,
    OWNERLESS,
    REACHED,
    STORED_OF_MESSAGE,
    UNREACHED,
    broken_totals,
    low_counters,
)
from disfs.metadata.repair_runs import part_runs, weigh_runs
from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

_NAME_MAX = 255
_ROOT_MODE = 0o40755
_SAFE_DIRECTORY_MODE = 0o40700
_LOST_FILE_MODE = 0o100600


class Step(NamedTuple):
    """One transaction; `run` returns how many rows it put right."""

    what: str
    """With the number before it: `3 names that lead nowhere removed`."""
    run: Callable[[sqlite3.Connection], int]


def take_number(connection: sqlite3.Connection, counter: str) -> int:
    """A number that is not in use. Inside a transaction."""
    (number,) = connection.execute("SELECT value FROM counters WHERE name = ?", (counter,)).fetchone()
    connection.execute("UPDATE counters SET value = ? WHERE name = ?", (number + 1, counter))
    return int(number)


def raise_counters(connection: sqlite3.Connection) -> int:
    """Let no counter hand out a number that is in use; returns how many would have."""
    low = list(low_counters(connection))
    for name, least, _ in low:
        connection.execute("INSERT OR REPLACE INTO counters (name, value) VALUES (?, ?)", (name, least))
    return len(low)


def _restore_root(connection: sqlite3.Connection) -> int:
    if connection.execute("SELECT 1 FROM inodes WHERE inode = ?", (ROOT_INODE,)).fetchone() is None:
        _insert_inode(connection, ROOT_INODE, _ROOT_MODE, 0)
        return 1
    # Names may still lie in it, whatever its mode says.
    return connection.execute(
        f"UPDATE inodes SET mode = 0x4000 | (mode & 0xFFF) WHERE inode = {ROOT_INODE} AND NOT {IS_DIRECTORY}"
    ).rowcount


def _restore_types(connection: sqlite3.Connection) -> int:
    """What is of no type: a directory if names lie in it, else a file. So is what has chunks, or a link to nothing."""
    has_names = "EXISTS (SELECT 1 FROM dentries WHERE dentries.parent = inodes.inode)"
    has_chunks = (
        "(EXISTS (SELECT 1 FROM dirty WHERE dirty.inode = inodes.inode)"
        " OR EXISTS (SELECT 1 FROM extents WHERE extents.inode = inodes.inode))"
    )
    typeless = (
        "(mode & 0xF000 NOT IN (0x1000, 0x2000, 0x4000, 0x6000, 0x8000, 0xA000, 0xC000)"
        " OR mode > 0xFFFF OR mode & 0xF000 = 0xA000 AND target IS NULL)"
    )
    named = connection.execute(
        f"UPDATE inodes SET mode = 0x4000 | (mode & 0xFFF) WHERE {typeless} AND {has_names}"
    ).rowcount
    return named + (
        connection.execute(
            "UPDATE inodes SET mode = 0x8000 | (mode & 0xFFF), target = NULL"
            f" WHERE ({typeless} OR NOT {IS_FILE} AND {has_chunks}) AND NOT {has_names}"
        ).rowcount
    )


def _measure_links(connection: sqlite3.Connection) -> int:
    return connection.execute(
        "UPDATE inodes SET size_bytes = length(target)"
        " WHERE mode & 0xF000 = 0xA000 AND size_bytes <> coalesce(length(target), -1)"
    ).rowcount


def _restore_inodes(connection: sqlite3.Connection) -> int:
    """A file for chunks that have none, as long as they are; it gets a name when the others do."""
    connection.execute(
        "DELETE FROM small_contents WHERE inode NOT IN (SELECT inode FROM inodes)"
        " AND inode NOT IN (SELECT inode FROM dirty) AND inode NOT IN (SELECT inode FROM extents)"
    )
    lost = [row[0] for row in connection.execute(OWNERLESS)]
    for inode in lost:
        _insert_inode(connection, inode, _LOST_FILE_MODE, 0)
    return len(lost)


def _insert_inode(connection: sqlite3.Connection, inode: int, mode: int, size_bytes: int) -> None:
    root = connection.execute("SELECT uid, gid FROM inodes WHERE inode = ?", (ROOT_INODE,)).fetchone() or (0, 0)
    now_ns = time.time_ns()
    connection.execute(
        "INSERT INTO inodes (inode, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, ctime_ns)"
        " VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
        (inode, mode, 2 if mode & 0xF000 == 0x4000 else 0, *root, size_bytes, now_ns, now_ns, now_ns),
    )


def _remove_dead_names(connection: sqlite3.Connection) -> int:
    return connection.execute("DELETE FROM dentries WHERE inode NOT IN (SELECT inode FROM inodes)").rowcount


def _remove_stray_names(connection: sqlite3.Connection) -> int:
    return connection.execute(
        f"DELETE FROM dentries WHERE parent NOT IN (SELECT inode FROM inodes WHERE {IS_DIRECTORY})"
        f" OR inode = {ROOT_INODE}"
    ).rowcount


def _mend_names(connection: sqlite3.Connection) -> int:
    bad = list(connection.execute(f"SELECT parent, name, inode FROM dentries WHERE {BAD_NAME}"))
    for parent, name, inode in bad:
        better = bytes(name).replace(b"/", b"_").replace(b"\0", b"_")
        if better in (b"", b".", b".."):
            better = b"#%d" % inode
        connection.execute("DELETE FROM dentries WHERE parent = ? AND name = ?", (parent, name))
        _insert_name(connection, parent, better, inode)
    return len(bad)


def _renumber_listings(connection: sqlite3.Connection) -> int:
    doubled = list(
        connection.execute(
            "SELECT parent, name FROM dentries AS one WHERE cookie < 3 OR EXISTS (SELECT 1 FROM dentries AS other"
            " WHERE other.parent = one.parent AND other.cookie = one.cookie AND other.name < one.name)"
        )
    )
    for parent, name in doubled:
        cookie = take_number(connection, "cookie")
        connection.execute("UPDATE dentries SET cookie = ? WHERE parent = ? AND name = ?", (cookie, parent, name))
    return len(doubled)


def _leave_directories_one_name(connection: sqlite3.Connection) -> int:
    return connection.execute(
        "DELETE FROM dentries WHERE (parent, name) IN (SELECT one.parent, one.name FROM dentries AS one"
        f" JOIN inodes ON inodes.inode = one.inode AND {IS_DIRECTORY} JOIN dentries AS other"
        " ON other.inode = one.inode AND (other.cookie, other.parent) < (one.cookie, one.parent))"
    ).rowcount


def _connect(connection: sqlite3.Connection) -> int:
    """Give everything that cannot be reached a name in lost+found; what lies below it comes along."""
    connected = 0
    while True:
        tops = [
            row[0]
            for row in connection.execute(
                f"{REACHED} SELECT inode FROM inodes WHERE {UNREACHED}"
                " AND NOT EXISTS (SELECT 1 FROM dentries WHERE dentries.inode = inodes.inode)"
            )
        ]
        if not tops:
            # Directories that lie in each other, in a circle: one of them is taken out of it.
            tops = [
                row[0] for row in connection.execute(f"{REACHED} SELECT inode FROM inodes WHERE {UNREACHED} LIMIT 1")
            ]
            if not tops:
                return connected
            connection.execute("DELETE FROM dentries WHERE inode = ?", (tops[0],))
        place = _lost_and_found(connection)
        for inode in tops:
            _insert_name(connection, place, b"#%d" % inode, inode)
        connected += len(tops)


def _lost_and_found(connection: sqlite3.Connection) -> int:
    return _directory(connection, ROOT_INODE, LOST_AND_FOUND)


def _directory(connection: sqlite3.Connection, parent: int, name: bytes) -> int:
    """The directory of that name, made if need be; beside what bears the name and is none."""
    for number in range(1000):
        candidate = name if not number else b"%s.%d" % (name, number)
        row = connection.execute(
            "SELECT inodes.inode, inodes.mode FROM dentries JOIN inodes USING (inode) WHERE parent = ? AND name = ?",
            (parent, candidate),
        ).fetchone()
        if row is not None and row[1] & 0xF000 == 0x4000:
            return int(row[0])
        if row is None:
            inode = take_number(connection, "inode")
            _insert_inode(connection, inode, _SAFE_DIRECTORY_MODE, 0)
            _insert_name(connection, parent, candidate, inode)
            connection.execute("UPDATE inodes SET nlink = nlink + 1 WHERE inode = ?", (parent,))
            return inode
    raise AssertionError("a thousand names are taken")


def _insert_name(connection: sqlite3.Connection, parent: int, name: bytes, inode: int) -> bytes:
    """A further name for an inode, the given one or one like it; nlink is counted afterwards. Returns the name."""
    for number in range(1_000_000):
        ending = b"" if not number else b".%d" % number
        candidate = name[: _NAME_MAX - len(ending)] + ending
        taken = connection.execute("SELECT 1 FROM dentries WHERE parent = ? AND name = ?", (parent, candidate))
        if taken.fetchone() is None:
            cookie = take_number(connection, "cookie")
            connection.execute("INSERT INTO dentries VALUES (?, ?, ?, ?)", (parent, candidate, inode, cookie))
            return candidate
    raise AssertionError("a million names are taken")


def set_aside(connection: sqlite3.Connection, inodes: Iterable[int]) -> list[tuple[int, bytes]]:
    """Move every name of these inodes to lost+found/damaged; returns where each inode lies now."""
    moved: list[tuple[int, bytes]] = []
    place = _directory(connection, _lost_and_found(connection), DAMAGED)
    for inode in inodes:
        names = connection.execute("SELECT parent, name FROM dentries WHERE inode = ?", (inode,)).fetchall()
        for parent, name in names:
            connection.execute("DELETE FROM dentries WHERE parent = ? AND name = ?", (parent, name))
            found = _insert_name(connection, place, b"%d-%s" % (inode, bytes(name)), inode)
            moved.append((inode, b"/%s/%s/%s" % (LOST_AND_FOUND, DAMAGED, found)))
    return moved


def _leave_trash(connection: sqlite3.Connection) -> int:
    return connection.execute("DELETE FROM trash WHERE inode IN (SELECT inode FROM inodes)").rowcount


def count_holds(connection: sqlite3.Connection) -> int:
    """How many snapshots hold each message."""
    return connection.execute(
        f"UPDATE messages SET held = {HOLDS_OF_MESSAGE} WHERE held <> {HOLDS_OF_MESSAGE}"
    ).rowcount


def _forget_attributes(connection: sqlite3.Connection) -> int:
    return connection.execute(f"DELETE FROM xattrs WHERE {NOT_KEPT}").rowcount


def _remember_acls(connection: sqlite3.Connection) -> int:
    kinds = "CAST('system.posix_acl_access' AS BLOB), CAST('system.posix_acl_default' AS BLOB)"
    return connection.execute(
        f"INSERT INTO settings (name, value) SELECT 'has_acls', '1' FROM xattrs WHERE name IN ({kinds})"
        " AND NOT EXISTS (SELECT 1 FROM settings WHERE name = 'has_acls' AND value = '1') LIMIT 1"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    ).rowcount


def _forget_orphans(connection: sqlite3.Connection) -> int:
    return connection.execute(
        "DELETE FROM orphans WHERE inode IN (SELECT inode FROM dentries)"
        " OR inode NOT IN (SELECT inode FROM inodes WHERE nlink = 0)"
    ).rowcount


def _lengthen_files(connection: sqlite3.Connection) -> int:
    return connection.execute(
        f"UPDATE inodes SET size_bytes = ({LAST_CHUNK} + 1) * {CHUNK_BYTES_SETTING} WHERE {IS_FILE}"
        f" AND {LAST_CHUNK} >= 0 AND {LAST_CHUNK} * {CHUNK_BYTES_SETTING} >= size_bytes"
    ).rowcount


def _drop_small_of_others(connection: sqlite3.Connection) -> int:
    """Cached copies of what Discord has; where it has not, the file was made longer."""
    return connection.execute(
        "DELETE FROM small_contents WHERE inode IN (SELECT small_contents.inode FROM small_contents"
        " JOIN inodes USING (inode) WHERE length(content) > size_bytes)"
        " AND inode NOT IN (SELECT inode FROM dirty WHERE chunk = 0)"
    ).rowcount


def _age_dirty(connection: sqlite3.Connection) -> int:
    return connection.execute("UPDATE dirty SET born = revision WHERE born > revision").rowcount


def _count_links(connection: sqlite3.Connection) -> int:
    files = connection.execute(
        f"UPDATE inodes SET nlink = {NAMES_OF_INODE} WHERE NOT {IS_DIRECTORY} AND nlink <> {NAMES_OF_INODE}"
    ).rowcount
    return files + (
        connection.execute(
            f"UPDATE inodes SET nlink = {DIRECTORY_NLINK}"
            f" WHERE {IS_DIRECTORY} AND nlink <> {DIRECTORY_NLINK} AND {IS_CONNECTED}"
        ).rowcount
    )


def _count_chunks(connection: sqlite3.Connection) -> int:
    return connection.execute(
        f"UPDATE inodes SET chunk_count = {CHUNKS_OF_INODE} WHERE chunk_count <> {CHUNKS_OF_INODE}"
    ).rowcount


def _sum_packs(connection: sqlite3.Connection) -> int:
    return connection.execute(
        f"UPDATE packs SET live_bytes = {LIVE_OF_PACK} WHERE live_bytes <> {LIVE_OF_PACK}"
    ).rowcount


def _sum_messages(connection: sqlite3.Connection) -> int:
    """A message that turns out to be dead has been so only since now: the sweep's grace time begins."""
    summed = connection.execute(
        f"UPDATE messages SET live_bytes = {LIVE_OF_MESSAGE}, stored_bytes = {STORED_OF_MESSAGE}"
        f" WHERE live_bytes <> {LIVE_OF_MESSAGE} OR stored_bytes <> {STORED_OF_MESSAGE}"
    ).rowcount
    wrong = "(dead_since IS NULL) <> (live_bytes <> 0)"
    if connection.execute(f"SELECT 1 FROM messages WHERE {wrong} LIMIT 1").fetchone() is None:
        return summed
    now = take_number(connection, "revision")
    return summed + (
        connection.execute(
            f"UPDATE messages SET dead_since = CASE WHEN live_bytes = 0 THEN ? END WHERE {wrong}", (now,)
        ).rowcount
    )


def _sum_totals(connection: sqlite3.Connection) -> int:
    wrong = list(broken_totals(connection))
    for name, wanted, _ in wrong:
        connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (name, str(wanted)))
    return len(wrong)


STEPS: tuple[Step, ...] = (
    Step("counters raised above the numbers in use", raise_counters),
    Step("root directories made anew", _restore_root),
    Step("types of inodes restored", _restore_types),
    Step("sizes of symbolic links corrected", _measure_links),
    Step("files made for chunks that belonged to none", _restore_inodes),
    Step("names that lead to nothing removed", _remove_dead_names),
    Step("names that lie in no directory removed", _remove_stray_names),
    Step("names changed into ones that a file may have", _mend_names),
    Step("places in listings given anew", _renumber_listings),
    Step("further names of directories removed", _leave_directories_one_name),
    Step("notes of orphans removed", _forget_orphans),
    Step("inodes without a name connected to lost+found", _connect),
    Step("entries of the trash removed that are there", _leave_trash),
    Step("attributes of no inode removed", _forget_attributes),
    Step("settings corrected: there are ACLs", _remember_acls),
    Step("files with overlapping runs put in order", part_runs),
    Step("runs weighed anew", weigh_runs),
    Step("files made as long as their chunks", _lengthen_files),
    Step("cached copies dropped that did not fit", _drop_small_of_others),
    Step("dirty chunks dated anew", _age_dirty),
    Step("link counts corrected", _count_links),
    Step("chunk counts corrected", _count_chunks),
    Step("sums of packs corrected", _sum_packs),
    Step("sums of messages corrected", _sum_messages),
    Step("holds of snapshots counted anew", count_holds),
    Step("totals corrected", _sum_totals),
)
