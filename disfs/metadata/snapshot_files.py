"""The databases of snapshots as files: read to be shipped, and taken over by a volume that is rebuilt. For workers."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.metadata.connections import Access, connected
from disfs.metadata.migrations import SUM_STORED_BYTES
from disfs.metadata.snapshot import Snapshot
from disfs.metadata.snapshots import SnapshotState
from disfs.metadata.sqlite_errors import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_MISSING_PACKS = (
    "SELECT pack, pack_id, message, attachment, size_bytes, slots, (SELECT channel FROM copy.messages AS its"
    " WHERE its.message = new.message) FROM copy.packs AS new WHERE pack_id NOT IN (SELECT pack_id FROM main.packs)"
)
_STORED = SUM_STORED_BYTES + " WHERE message = ? AND live_bytes = 0"


@dataclass(slots=True)
class ToldSnapshot:
    """What a snapshot says of itself."""

    snapshot: int
    created_ns: int
    name: bytes


@contextmanager
def snapshot_read(path: Path) -> Iterator[tuple[Snapshot, Mapping[str, int]]]:
    """The rows of a snapshot, and the volume's counters of then. FilesystemError."""
    try:
        connection = connected(path, Access.UNCHANGING)
        try:
            yield Snapshot(connection), dict(connection.execute("SELECT name, value FROM counters"))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise translated(error) from error


def adopt(path: Path, file: Path, told: ToldSnapshot, messages: Sequence[int], kind: int) -> bytes:
    """Note a snapshot in the rebuilt database, with what it holds; returns its name, which nobody else has."""
    connection = connected(path, Access.WRITE)
    try:
        execute = connection.execute
        execute("PRAGMA synchronous = FULL")
        execute("ATTACH ? AS copy", (str(file),))
        execute("BEGIN")
        _add_packs(connection)
        execute("INSERT INTO main.holds (snapshot, message) SELECT ?, message FROM copy.messages", (told.snapshot,))
        execute("UPDATE main.messages SET held = held + 1 WHERE message IN (SELECT message FROM copy.messages)")
        name, number = told.name, 1
        while execute("SELECT 1 FROM main.snapshots WHERE name = ?", (name,)).fetchone() is not None:
            number += 1
            name = told.name[:200] + b".%d" % number
        execute(
            "INSERT INTO main.snapshots (snapshot, name, created_ns, state, sent_after) VALUES (?, ?, ?, ?, 0)",
            (told.snapshot, name, told.created_ns, SnapshotState.SENT),
        )
        connection.executemany(
            "INSERT OR REPLACE INTO main.shipped (message, kind, sequence) VALUES (?, ?, ?)",
            [(message, kind, told.snapshot) for message in messages],
        )
        execute("UPDATE main.counters SET value = max(value, ?) WHERE name = 'snapshot'", (told.snapshot + 1,))
        execute("COMMIT")
    finally:
        connection.close()
    return name


def _add_packs(connection: sqlite3.Connection) -> None:
    """Packs that the snapshot refers to, and the rebuilt state does not know: nothing in it is live there."""
    execute = connection.execute
    for number, pack, message, attachment, size_bytes, slots, channel in execute(_MISSING_PACKS).fetchall():
        free = number
        if execute("SELECT 1 FROM main.packs WHERE pack = ?", (number,)).fetchone() is not None:
            (free,) = execute("SELECT value FROM main.counters WHERE name = 'pack'").fetchone()
            execute("UPDATE main.counters SET value = value + 1 WHERE name = 'pack'")
        execute(
            "INSERT INTO main.packs (pack, pack_id, message, attachment, size_bytes, slots, live_bytes, state)"
            " VALUES (?, ?, ?, ?, ?, ?, 0, 0)",
            (free, pack, message, attachment, size_bytes, slots),
        )
        execute(
            "INSERT OR IGNORE INTO main.messages (message, channel, live_bytes, dead_since) VALUES (?, ?, 0, 1)",
            (message, channel),
        )
        execute(_STORED, (message,))


def note_remains(path: Path, messages: Sequence[int]) -> None:
    """Parts of snapshots that never came to be whole are deleted one day."""
    connection = connected(path, Access.WRITE)
    try:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT OR IGNORE INTO shipped (message, kind, sequence) VALUES (?, 0, 0)", [(each,) for each in messages]
        )
        connection.execute("COMMIT")
    finally:
        connection.close()
