"""Work out what did not travel to a database that is built anew, and look whether all fits together.

What does not is mended where the mending is plain (a name without its inode goes, a chunk whose pack is unknown is
lost) and told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disfs.errors import CorruptDataError
from disfs.metadata.acls import ACL_NAMES
from disfs.metadata.counters import COOKIES, INODES, KINDS, PACKS, REVISIONS, SNAPSHOTS
from disfs.metadata.invariants import CHUNKS_OF_INODE
from disfs.metadata.migrations import SUM_ALLOCATED_BYTES, SUM_STORED_BYTES
from disfs.metadata.names_above import path_of
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
from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from disfs.metadata.settings import Setting
    from disfs.metadata.shipping import ShippedMessage

_GAPS = {INODES.name: 1 << 20, COOKIES.name: 1 << 20, REVISIONS.name: 1 << 33, PACKS.name: 1 << 16, SNAPSHOTS.name: 0}
"""Skipped of each counter: the machine that is gone may have handed out more numbers than it told of."""

_NAMED_PATHS = 1000
"""How many files are named that something is missing of; all are counted."""

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
NOTE_LOST_RUNS = "INSERT INTO unsent (inode, first_chunk, count) SELECT inode, first_chunk, count FROM extents"
LONGER_RUN_STAYS = "ON CONFLICT (inode, first_chunk) DO UPDATE SET count = max(count, excluded.count)"
"""What was noted as unsent may begin with the same chunk."""
_WITHOUT_PACK = "pack NOT IN (SELECT pack FROM packs)"
_NOT_KEPT = "inode NOT IN (SELECT inode FROM inodes) AND inode NOT IN (SELECT inode FROM trash)"
_TRASH_NOT_WHOLE = (
    "DELETE FROM trash WHERE inode IN (SELECT inode FROM unsent)"  # noqa: S608 - constants of this module
    f" OR inode IN (SELECT inode FROM extents WHERE {_WITHOUT_PACK})"
)
"""What is restored from the trash is whole, or not there."""
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
        (f"{NOTE_LOST_RUNS} WHERE {_WITHOUT_PACK} {LONGER_RUN_STAYS}"),
    ),
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
    lost_trash: int
    """Things in the trash of which some content is not in Discord: they cannot be restored any more."""
    problems: tuple[str, ...]
    """What did not fit together; empty when all is well."""


def complete(connection: sqlite3.Connection, origin: Origin, *, keeps_unsent: bool) -> Rebuilt:
    """Work out the rest of the rows that were applied, in the open transaction. CorruptDataError without a root.

    `keeps_unsent`: all that is dirty stays so, whether there is an older content of it or not.
    """
    return _Completion(connection).run(origin, keeps_unsent=keeps_unsent)


class _Completion:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lost_trash = 0

    def run(self, origin: Origin, *, keeps_unsent: bool) -> Rebuilt:
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
        return self._summary(problems)

    def _mend(self) -> Iterator[str]:
        self._lost_trash = self._connection.execute(_TRASH_NOT_WHOLE).rowcount
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
            lost_trash=self._lost_trash,
            problems=tuple(problems),
        )

    def _named(self, inodes: Sequence[int]) -> Incomplete:
        return Incomplete(tuple(self._path_of(inode) for inode in inodes[:_NAMED_PATHS]), len(inodes))

    def _path_of(self, inode: int) -> str:
        path = path_of(self._connection, inode)
        return f"inode {inode} (no name)" if path is None else path.decode(errors="backslashreplace")
