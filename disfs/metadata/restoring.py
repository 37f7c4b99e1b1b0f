"""Build a volume's database anew from the replicated rows.

Blocks are applied in the order in which they were shipped; then `finish` works out what did not travel, and looks
whether all fits together. What does not is mended where the mending is plain (a name without its inode goes, a chunk
whose pack is unknown is lost) and told. Until `finish` has returned the file is of no use to anybody.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from disfs.errors import CorruptDataError
from disfs.metadata.acls import ACL_NAMES
from disfs.metadata.counters import COOKIES, INODES, KINDS, PACKS, REVISIONS, SNAPSHOTS
from disfs.metadata.invariants import CHUNKS_OF_INODE
from disfs.metadata.migrations import SUM_ALLOCATED_BYTES, SUM_STORED_BYTES, create_tables
from disfs.metadata.replicated import LAYOUTS, Table
from disfs.metadata.settings import (
    CHUNK_BYTES,
    CLEAN_SHUTDOWN,
    HAS_ACLS,
    INDEX_EXAMINED,
    INODE_COUNT,
    LOGICAL_BYTES,
    SEQUENCE,
    STATE,
    SUPERSEDED,
    UNSHIPPED,
    VOLUME_ID,
)
from disfs.metadata.sqlite_errors import translated
from disfs.values import ROOT_INODE, ChannelId, MessageId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from disfs.metadata.replicated import Block
    from disfs.metadata.settings import Setting
    from disfs.metadata.shipping import ShippedMessage

P = ParamSpec("P")
T = TypeVar("T")

_GAPS = {INODES.name: 1 << 20, COOKIES.name: 1 << 20, REVISIONS.name: 1 << 33, PACKS.name: 1 << 16, SNAPSHOTS.name: 0}
"""Skipped of each counter: the machine that is gone may have handed out more numbers than it told of."""

_NAMED_PATHS = 1000
"""How many files are named that something is missing of; all are counted."""

_DELETE = {
    Table.GONE_INODES: (
        "DELETE FROM inodes WHERE inode = ?",
        "DELETE FROM xattrs WHERE inode = ?",
        "DELETE FROM unsent WHERE inode = ?",
        "DELETE FROM trash WHERE inode = ?",
    ),
    Table.GONE_NAMES: ("DELETE FROM dentries WHERE parent = ? AND name = ?",),
    Table.GONE_XATTRS: ("DELETE FROM xattrs WHERE inode = ? AND name = ?",),
    Table.GONE_PACKS: ("DELETE FROM packs WHERE pack = ?",),
    Table.CLEARED_EXTENTS: ("DELETE FROM extents WHERE inode = ? AND first_chunk >= ? AND first_chunk < ?",),
}
_INSERT = {
    Table.INODES: (
        (
            "INSERT OR REPLACE INTO inodes (inode, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns,"
            " ctime_ns, target) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, nullif(?, x''))"
        ),
    ),
    Table.NAMES: ("INSERT OR REPLACE INTO dentries (parent, inode, cookie, name) VALUES (?, ?, ?, ?)",),
    Table.TRASH: (
        (
            "INSERT OR REPLACE INTO trash (inode, trashed_ns, reason, mode, uid, gid, rdev, size_bytes, atime_ns,"
            " mtime_ns, path, target) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, nullif(?, x''))"
        ),
    ),
    Table.XATTRS: ("INSERT OR REPLACE INTO xattrs (inode, name, value) VALUES (?, ?, ?)",),
    Table.PACKS: (
        (
            "INSERT OR REPLACE INTO packs (pack, message, attachment, size_bytes, pack_id, slots, live_bytes, state)"
            " VALUES (?1, ?2, ?4, ?5, ?6, ?7, 0, 0)"
        ),
    ),
    Table.EXTENTS: (
        (
            "INSERT OR REPLACE INTO extents (inode, first_chunk, count, pack, first_slot, stored_bytes)"
            " VALUES (?, ?, ?, ?, ?, ?)"
        ),
    ),
    Table.DIRTY: ("INSERT OR REPLACE INTO unsent (inode, first_chunk, count) VALUES (?, ?, ?)",),
}
# An inode number is that of an inode, or of something in the trash; what is said of its dirty chunks comes anew.
_BEFORE = {
    Table.INODES: ("DELETE FROM unsent WHERE inode = ?", "DELETE FROM trash WHERE inode = ?"),
    Table.TRASH: ("DELETE FROM unsent WHERE inode = ?", "DELETE FROM inodes WHERE inode = ?"),
}
_INSERT_MESSAGE = "INSERT OR REPLACE INTO messages (message, channel, live_bytes) VALUES (?, ?, 0)"
# Runs never overlap, and a chunk that has a slot shows what lies there: only the others are lost.
_LOST_CHUNKS = (
    "WITH RECURSIVE each_one (inode, chunk, rest) AS (SELECT inode, first_chunk, count FROM unsent"
    " UNION ALL SELECT inode, chunk + 1, rest - 1 FROM each_one WHERE rest > 1)"
    " INSERT OR IGNORE INTO dirty (inode, chunk, revision, born) SELECT inode, chunk, ?1, ?1 FROM each_one"
    " WHERE inode IN (SELECT inode FROM inodes) AND NOT EXISTS (SELECT 1 FROM extents WHERE extents.inode ="
    " each_one.inode AND first_chunk + count > chunk AND first_chunk = (SELECT max(first_chunk) FROM extents"
    " WHERE extents.inode = each_one.inode AND first_chunk <= chunk))"
)
_ALL_UNSENT = _LOST_CHUNKS[: _LOST_CHUNKS.index(" AND NOT EXISTS")]
_COUNT_CHUNKS = (
    "UPDATE inodes SET chunk_count ="
    " (SELECT coalesce(sum(count), 0) FROM extents WHERE extents.inode = inodes.inode)"
    " + (SELECT count(*) FROM dirty WHERE dirty.inode = inodes.inode)"
)
"""What is dirty here lies in no pack."""
_OLDER = (
    "SELECT DISTINCT unsent.inode FROM unsent JOIN extents ON extents.inode = unsent.inode"
    " AND extents.first_chunk < unsent.first_chunk + unsent.count"
    " AND extents.first_chunk + extents.count > unsent.first_chunk"
    " WHERE unsent.inode IN (SELECT inode FROM inodes WHERE nlink > 0) ORDER BY unsent.inode"
)
_NAMED = "inode IN (SELECT inode FROM inodes WHERE nlink > 0)"
_NOTE_LOST_RUNS = "INSERT INTO unsent (inode, first_chunk, count) SELECT inode, first_chunk, count FROM extents"
_LONGER_RUN_STAYS = "ON CONFLICT (inode, first_chunk) DO UPDATE SET count = max(count, excluded.count)"
"""What was noted as unsent may begin with the same chunk."""
_WITHOUT_PACK = "pack NOT IN (SELECT pack FROM packs)"
_NOT_KEPT = "inode NOT IN (SELECT inode FROM inodes) AND inode NOT IN (SELECT inode FROM trash)"
_MENDING: tuple[tuple[str, str], ...] = (
    (
        "names of files that are not there",
        (
            "DELETE FROM dentries WHERE inode NOT IN (SELECT inode FROM inodes)"
            " OR parent NOT IN (SELECT inode FROM inodes)"
        ),
    ),
    (
        "runs of chunks in packs that are not known",
        (f"{_NOTE_LOST_RUNS} WHERE {_WITHOUT_PACK} {_LONGER_RUN_STAYS}"),
    ),
    # What is restored from the trash is whole, or not there.
    ("", "DELETE FROM trash WHERE inode IN (SELECT inode FROM unsent)"),
    ("", f"DELETE FROM extents WHERE {_WITHOUT_PACK} OR {_NOT_KEPT}"),  # noqa: S608 - constants of this module
    ("", f"DELETE FROM xattrs WHERE {_NOT_KEPT}"),  # noqa: S608 - constants of this module
)
_WRONG_LINK_COUNTS = (
    "SELECT count(*) FROM inodes LEFT JOIN (SELECT inode, count(*) AS names FROM dentries GROUP BY inode) USING (inode)"
    " WHERE (mode & 61440) <> 16384 AND nlink <> coalesce(names, 0)"
)
_NAMELESS = "SELECT count(*) FROM inodes WHERE nlink > 0 AND inode <> 1 AND inode NOT IN (SELECT inode FROM dentries)"


@dataclass(frozen=True, slots=True)
class Origin:
    """From which state of the volume a database is rebuilt, and what is known of the channel it came from."""

    volume_id: bytes
    chunk_bytes: int
    state: bytes
    sequence: int
    superseded: Sequence[bytes]
    counters: Mapping[str, int]
    """All numbers that this state has are lower."""
    messages: Sequence[ShippedMessage]
    examined: int
    """The newest message of the index channel that was looked at."""
    settings: Mapping[str, str]
    """Further settings, as text."""


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Files of which Discord has not got the newest content: their paths, as many as are named, and how many."""

    paths: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What came out."""

    file_count: int
    inode_count: int
    logical_bytes: int
    lost_chunks: int
    lost: Incomplete
    """Some chunk has no content at all: reading it is an error."""
    older: Incomplete
    """Some chunk shows the content that was sent before the newest one."""
    problems: tuple[str, ...]
    """What did not fit together; empty when all is well."""


def _translating(method: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(method)
    def translating(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return method(*arguments, **named)
        except sqlite3.Error as error:
            raise translated(error) from error

    return translating


class Restoration:
    """A database that is being built at a path where there is none. Close it whatever happens. Blocks: for a worker.

    Each method may raise FilesystemError: ENOSPC when the disk is full.
    """

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = OFF")  # whatever breaks off here is begun anew
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("PRAGMA cache_size = -65536")
        self._connection.execute("BEGIN")
        create_tables(self._connection)
        self._connection.execute(
            "CREATE TEMP TABLE unsent (inode INTEGER NOT NULL, first_chunk INTEGER NOT NULL, count INTEGER NOT NULL,"
            " PRIMARY KEY (inode, first_chunk)) WITHOUT ROWID"
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @_translating
    def clear(self) -> None:
        """Begin anew."""
        for table in ("inodes", "trash", "dentries", "xattrs", "packs", "messages", "extents", "unsent"):
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constants of this function

    @_translating
    def apply(self, block: Block) -> None:
        """Take in some rows. CorruptDataError for rows that cannot be."""
        rows = block.rows()
        assert all(len(row) == len(LAYOUTS[block.table].columns) for row in rows[:1])
        try:
            for statement in _BEFORE.get(block.table, ()):
                self._connection.executemany(statement, [row[:1] for row in rows])
            if block.table is Table.PACKS:
                self._connection.executemany(_INSERT_MESSAGE, [row[1:3] for row in rows])
            for statement in _DELETE.get(block.table) or _INSERT[block.table]:
                self._connection.executemany(statement, rows)
        except sqlite3.IntegrityError as error:
            raise CorruptDataError(f"rows of {block.table.name} contradict each other: {error}") from error

    @_translating
    def messages(self) -> dict[ChannelId, list[MessageId]]:
        """Which messages the rows that were applied refer to."""
        found: dict[ChannelId, list[MessageId]] = {}
        for channel, message in self._connection.execute(
            "SELECT channel, message FROM messages WHERE message IN"
            " (SELECT message FROM packs WHERE pack IN (SELECT pack FROM extents))"
        ):
            found.setdefault(ChannelId(channel), []).append(MessageId(message))
        return found

    @_translating
    def lose(self, messages: Sequence[MessageId]) -> None:
        """These are not in Discord any more: what chunks they had is lost.

        Their packs are forgotten, so that nothing of this state will ever delete them, should they be there after all.
        """
        execute = self._connection.execute
        execute("CREATE TEMP TABLE absent (pack INTEGER NOT NULL PRIMARY KEY)")
        for message in messages:
            execute("INSERT INTO absent (pack) SELECT pack FROM packs WHERE message = ?", (message,))
        execute(f"{_NOTE_LOST_RUNS} WHERE pack IN (SELECT pack FROM absent) {_LONGER_RUN_STAYS}")  # noqa: S608 - constants of this module
        execute("DELETE FROM extents WHERE pack IN (SELECT pack FROM absent)")
        execute("DELETE FROM packs WHERE pack IN (SELECT pack FROM absent)")
        execute("DROP TABLE absent")

    @_translating
    def finish(self, origin: Origin, *, keeps_unsent: bool = False) -> Rebuilt:
        """Work out the rest and make the file durable. CorruptDataError when it has no root directory.

        `keeps_unsent`: all that is dirty stays so, whether there is an older content of it or not.
        """
        execute = self._connection.execute
        if execute("SELECT 1 FROM inodes WHERE inode = ? AND (mode & 61440) = 16384", (ROOT_INODE,)).fetchone() is None:
            raise CorruptDataError("there is no root directory in it")
        problems = list(self._mend())
        counters = self._set_counters(origin.counters)
        execute(_ALL_UNSENT if keeps_unsent else _LOST_CHUNKS, (counters[REVISIONS.name] - 1,))
        execute("INSERT INTO orphans (inode) SELECT inode FROM inodes WHERE nlink = 0")
        execute(
            "UPDATE packs SET live_bytes ="
            " (SELECT coalesce(sum(stored_bytes), 0) FROM extents WHERE extents.pack = packs.pack)"
        )
        execute("DELETE FROM messages WHERE message NOT IN (SELECT message FROM packs)")
        execute(
            "UPDATE messages SET live_bytes ="
            " (SELECT sum(live_bytes) FROM packs WHERE packs.message = messages.message)"
        )
        execute("UPDATE messages SET dead_since = 1 WHERE live_bytes = 0")
        execute(SUM_STORED_BYTES)
        execute(f"UPDATE inodes SET chunk_count = {CHUNKS_OF_INODE}" if keeps_unsent else _COUNT_CHUNKS)  # noqa: S608 - constants of ours
        self._set_settings(origin)
        execute(SUM_ALLOCATED_BYTES)
        self._connection.executemany(
            "INSERT INTO shipped (message, kind, sequence) VALUES (?, ?, ?)",
            [(each.message, each.kind, each.sequence) for each in origin.messages],
        )
        rebuilt = self._summary(problems)
        execute("COMMIT")
        (found,) = execute("PRAGMA quick_check(1)").fetchone()
        assert found == "ok", "SQLite has just written it"
        self._sync()
        return rebuilt

    def _mend(self) -> Iterator[str]:
        for what, statement in _MENDING:
            count = self._connection.execute(statement).rowcount
            if count and what:
                yield f"{count} {what}"
        for what, query in (("wrong link counts", _WRONG_LINK_COUNTS), ("files without a name", _NAMELESS)):
            (count,) = self._connection.execute(query).fetchone()
            if count:
                yield f"{count} {what}"

    def _set_counters(self, told: Mapping[str, int]) -> dict[str, int]:
        seen = {
            INODES.name: "SELECT max(inode) FROM (SELECT inode FROM inodes UNION ALL SELECT inode FROM trash)",
            COOKIES.name: "SELECT max(cookie) FROM dentries",
            PACKS.name: "SELECT max(pack) FROM packs",
        }
        values = {}
        for kind in KINDS:
            (most,) = self._connection.execute(seen[kind.name]).fetchone() if kind.name in seen else (0,)
            values[kind.name] = max(told.get(kind.name, 0), (most or 0) + 1, kind.first) + _GAPS[kind.name]
        self._connection.executemany("INSERT INTO counters (name, value) VALUES (?, ?)", values.items())
        return values

    def _set_settings(self, origin: Origin) -> None:
        def put(setting: Setting[Any], value: Any) -> None:
            self._connection.execute(
                "INSERT INTO settings (name, value) VALUES (?, ?)", (setting.name, setting.encode(value))
            )

        (inodes,) = self._connection.execute("SELECT count(*) FROM inodes").fetchone()
        sizes = self._connection.execute("SELECT size_bytes FROM inodes WHERE (mode & 61440) = 32768")
        logical = sum(row[0] for row in sizes)  # not by SQLite: a few sparse files together pass its integers
        put(CHUNK_BYTES, origin.chunk_bytes)
        put(VOLUME_ID, origin.volume_id.hex())
        put(CLEAN_SHUTDOWN, True)
        put(INODE_COUNT, inodes)
        put(LOGICAL_BYTES, logical)
        put(SEQUENCE, origin.sequence)
        put(STATE, origin.state.hex() if origin.sequence else "")
        put(SUPERSEDED, " ".join(each.hex() for each in origin.superseded))
        put(INDEX_EXAMINED, origin.examined)
        put(UNSHIPPED, True)
        self._connection.executemany("INSERT INTO settings (name, value) VALUES (?, ?)", origin.settings.items())
        names = tuple(ACL_NAMES)
        places = ", ".join("?" * len(names))
        if self._connection.execute(f"SELECT 1 FROM xattrs WHERE name IN ({places}) LIMIT 1", names).fetchone():  # noqa: S608 - question marks
            put(HAS_ACLS, True)

    def _summary(self, problems: Sequence[str]) -> Rebuilt:
        execute = self._connection.execute
        (files,) = execute("SELECT count(*) FROM inodes WHERE (mode & 61440) = 32768").fetchone()
        settings = dict(execute("SELECT name, value FROM settings"))
        (lost_chunks,) = execute(f"SELECT count(*) FROM dirty WHERE {_NAMED}").fetchone()  # noqa: S608 - constants of this module
        lost = [row[0] for row in execute(f"SELECT DISTINCT inode FROM dirty WHERE {_NAMED} ORDER BY inode")]  # noqa: S608 - constants of this module
        older = [row[0] for row in execute(_OLDER)]
        return Rebuilt(
            file_count=files,
            inode_count=int(settings[INODE_COUNT.name]),
            logical_bytes=int(settings[LOGICAL_BYTES.name]),
            lost_chunks=lost_chunks,
            lost=self._named(lost),
            older=self._named(older),
            problems=tuple(problems),
        )

    def _named(self, inodes: Sequence[int]) -> Incomplete:
        return Incomplete(tuple(self._path_of(inode) for inode in inodes[:_NAMED_PATHS]), len(inodes))

    def _path_of(self, inode: int) -> str:
        names: list[bytes] = []
        position = inode
        while position != ROOT_INODE and len(names) < 4096:
            row = self._connection.execute(
                "SELECT parent, name FROM dentries WHERE inode = ? LIMIT 1", (position,)
            ).fetchone()
            if row is None:
                return f"inode {inode} (no name)"
            position = row[0]
            names.append(row[1])
        return "/" + b"/".join(reversed(names)).decode(errors="backslashreplace")

    def _sync(self) -> None:
        self.close()
        for path, flags in ((self._path, os.O_RDWR), (self._path.parent, os.O_RDONLY | os.O_DIRECTORY)):
            with contextlib.ExitStack() as stack:
                descriptor = os.open(path, flags | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                os.fsync(descriptor)
