"""A connection that repairs a volume's metadata, while nobody else has them open and after a copy of them was kept.

Each repair is one transaction, on the disk when the method returns.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from disfs.metadata.invariants import IN_NO_SLOT
from disfs.metadata.old_copies import keep_copy
from disfs.metadata.opening import open_connection
from disfs.metadata.repair_steps import STEPS, count_holds, raise_counters, set_aside, take_number
from disfs.metadata.snapshots import SnapshotState
from disfs.metadata.sqlite_errors import translated
from disfs.values import ChunkIndex, ChunkKey, InodeNumber, Revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from disfs.values import SlotTable

_MOST_LOST_CHUNKS = 1 << 20
"""Of one run. A longer one is a damaged number."""


class LostChunk(NamedTuple):
    """A dirty chunk of that revision whose bytes are nowhere."""

    key: ChunkKey
    revision: Revision


class Repairs:
    """The repairs. FilesystemError when one cannot be done; it has then changed nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def begin(cls, path: Path, copy: Path) -> Repairs:
        """Open the metadata at `path` when a copy of them lies at `copy`. UserError, as in opening; STATE_FULL."""
        connection = open_connection(path)
        try:
            keep_copy(connection, copy, "there is no room to keep a copy of the volume's metadata before the repair as")
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as error:
            connection.close()
            raise translated(error) from error
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    def close(self) -> None:
        """Give the database back to the next mount."""
        with contextlib.suppress(sqlite3.Error):  # the log is taken over by whoever opens it next
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._ship_all()
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise translated(error) from error

    def _ship_all(self) -> None:
        """What is repaired is not noted row by row: where a journal is kept, a whole copy has to be shipped."""
        if self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'outbox'").fetchone() is not None:
            self._connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES ('unshipped', '1')")

    def ship_all(self) -> None:
        """A whole copy of the names goes to Discord at the next mount, whatever was noted as changed."""
        with self._transaction():
            pass

    def ship_snapshots(self, snapshots: Iterable[int]) -> None:
        """These go to Discord again at the next mount; what is there of them is deleted before."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE snapshots SET state = ? WHERE snapshot = ? AND state = ?",
                [(SnapshotState.WHOLE, snapshot, SnapshotState.SENT) for snapshot in snapshots],
            )

    def hold(self, snapshot: int, file: Path) -> int:
        """Keep all recorded messages that a snapshot refers to from being deleted; returns how many were not."""
        self._connection.execute("ATTACH ? AS copy", (str(file),))
        try:
            with self._transaction() as connection:
                held = connection.execute(
                    "INSERT OR IGNORE INTO holds (snapshot, message) SELECT ?, message FROM copy.messages"
                    " WHERE message IN (SELECT message FROM main.messages)",
                    (snapshot,),
                ).rowcount
                count_holds(connection)
        finally:
            self._connection.execute("DETACH copy")
        return held

    def rebuild_indexes(self) -> None:
        """Make every index anew from its table."""
        with self._transaction() as connection:
            connection.execute("REINDEX")

    def raise_counters(self) -> None:
        """See to it that every new number is one that is not in use. To be called before anything that needs one."""
        with self._transaction() as connection:
            raise_counters(connection)

    def put_in_order(self) -> Iterator[tuple[int, str]]:
        """Do what `repair_steps` has, each step a transaction; yields how many rows changed and what that was."""
        for step in STEPS:
            with self._transaction() as connection:
                count = step.run(connection)
            if count:
                yield count, step.what

    def new_revision(self) -> Revision:
        """A revision that nothing has had before, durably taken."""
        with self._transaction() as connection:
            return Revision(take_number(connection, "revision"))

    def mark_dirty(self, inode: InodeNumber, chunks: Sequence[int], revision: Revision) -> None:
        """What the cache has of these chunks is newer than what Discord has, from now on: a mount sends it again."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO dirty (inode, chunk, revision, born) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (inode, chunk) DO NOTHING",
                [(inode, chunk, revision, revision) for chunk in chunks],
            )

    def unreadable_chunks(self) -> list[ChunkKey]:
        """The chunks of runs that lie in no slots: they would read as zeros."""
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT extents.inode, extents.first_chunk, extents.count {IN_NO_SLOT}"
            ).fetchall()
        return [
            ChunkKey(InodeNumber(inode), ChunkIndex(chunk))
            for inode, first, count in rows
            for chunk in range(max(first, 0), first + min(max(count, 1), _MOST_LOST_CHUNKS))
        ]

    def lose(self, chunks: Iterable[ChunkKey], revision: Revision) -> None:
        """These chunks, noted in the cache as lost at `revision`, are dirty; what they lay in is forgotten."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO dirty (inode, chunk, revision, born) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (inode, chunk) DO NOTHING",
                [(*key, revision, revision) for key in chunks],
            )
            connection.execute(
                "DELETE FROM extents WHERE (inode, first_chunk) IN"
                f" (SELECT extents.inode, extents.first_chunk {IN_NO_SLOT})"
            )

    def damaged_small_contents(self, inodes: Iterable[InodeNumber]) -> list[LostChunk]:
        """Those of `inodes` whose small content is all that there was of their chunk 0."""
        lost = []
        with self._transaction() as connection:
            for inode in inodes:
                row = connection.execute(
                    "SELECT revision FROM dirty WHERE inode = ? AND chunk = 0", (inode,)
                ).fetchone()
                if row is not None:
                    lost.append(LostChunk(ChunkKey(inode, ChunkIndex(0)), Revision(row[0])))
        return lost

    def drop_small_contents(self, inodes: Iterable[InodeNumber]) -> None:
        """Forget cached contents that are not what was written."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM small_contents WHERE inode = ?", [(inode,) for inode in inodes])

    def restore_slots(self, number: int, slots: SlotTable) -> None:
        """A pack's slot table, as the pack itself has it."""
        with self._transaction() as connection:
            connection.execute("UPDATE packs SET slots = ? WHERE pack = ?", (slots.to_bytes(), number))

    def set_aside(self, inodes: Iterable[InodeNumber]) -> list[tuple[InodeNumber, bytes]]:
        """Move these files, under all their names, to lost+found/damaged; returns where they lie now."""
        with self._transaction() as connection:
            return [(InodeNumber(inode), path) for inode, path in set_aside(connection, inodes)]
