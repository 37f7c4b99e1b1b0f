"""A look at a volume's metadata from beside: a connection that reads, and a list of what turned out to be damaged.

Nothing is changed: what is found is kept in temporary tables of the connection, in memory. Results are streamed, so a
million files need little. Beside a mounted volume each query sees what was committed when it began; no transaction
stays open, so that the log of the writer can begin anew.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from disfs.errors import ExitCode, MetadataDamagedError, UserError
from disfs.metadata.connections import Access, connected
from disfs.metadata.inspected import BadRun, Broken, FileView, KnownPack, LiveRun
from disfs.metadata.invariants import IN_NO_SLOT, INVARIANTS, LEFT_BY_A_CRASH, broken, broken_totals, low_counters
from disfs.metadata.migrations import check_version
from disfs.metadata.opening import check_end, damaged, log_exists
from disfs.metadata.schema import SCHEMA_VERSION
from disfs.metadata.settings import CHUNK_BYTES
from disfs.metadata.sqlite_errors import reading
from disfs.values import (
    ROOT_INODE,
    AttachmentId,
    ChannelId,
    ChunkIndex,
    ChunkKey,
    DirtyChunk,
    InodeNumber,
    Location,
    MessageId,
    PackId,
    PackRecord,
    Revision,
    SlotTable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from disfs.metadata.settings import Setting

_PACKS_AT_ONCE = 256
_FRAME_BYTES, _ENTRY_BYTES = 56, 36
_INTEGRITY_LINES = 100
_DEEPEST = 4096
"""Directories below each other that are followed; a longer chain goes in a circle."""
_REMEMBERED_PATHS = 4096
LOST_AND_FOUND = b"lost+found"
DAMAGED = b"damaged"

_TEMPORARY = (
    "CREATE TEMP TABLE bad (inode INTEGER NOT NULL, first_chunk INTEGER NOT NULL, count INTEGER NOT NULL, cause TEXT)",
    "CREATE INDEX temp.bad_by_inode ON bad (inode, first_chunk)",
)


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that reads the metadata at `path`, also beside a mount: in a process that is not the mount's.

    VOLUME_DAMAGED for what is no metadata, STATE_UNUSABLE for an older version.
    """
    if not path.is_file():
        raise damaged(path, "it is missing")
    has_log = log_exists(path)
    connection = connected(path, Access.READ)
    try:
        connection.execute("PRAGMA cell_size_check = ON")
        if check_version(connection) < SCHEMA_VERSION:
            raise UserError(
                "the volume's metadata are of an older disfs; mount and unmount the volume once, then repeat",
                ExitCode.STATE_UNUSABLE,
            )
        check_end(connection, path, has_log=has_log)
    except (sqlite3.Error, ValueError) as error:
        connection.close()
        raise damaged(path, str(error)) from error
    except BaseException:
        connection.close()
        raise
    return connection


class Inspection:
    """A reading connection to the metadata at `path`. MetadataDamagedError where a page cannot be read."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path
        self.bad_packs: set[int] = set()
        """Numbers of the packs that were noted as bad."""
        self.suspect_packs: set[int] = set()
        """Numbers of the packs whose slot tables `check` found to be wrong."""
        self.path_of_directory = lru_cache(_REMEMBERED_PATHS)(self._path_of_directory)
        for statement in _TEMPORARY:
            connection.execute(statement)

    @classmethod
    def open(cls, path: Path) -> Inspection:
        """Open it. VOLUME_DAMAGED for what is no metadata, STATE_UNUSABLE for an older version."""
        connection = open_reader(path)
        try:
            return cls(connection, path)
        except sqlite3.Error as error:
            connection.close()
            raise damaged(path, str(error)) from error

    def close(self) -> None:
        """Drop the connection and what was noted in it."""
        self._connection.close()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """All queries inside see one state. Not for long beside a mount: its log cannot begin anew meanwhile."""
        with reading():
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")

    # -- the metadata by themselves -----------------------------------------------------------------------------

    def damage(self) -> Iterator[str]:
        """What SQLite finds wrong with the file; a file so damaged that it cannot look is one line too."""
        try:
            for (line,) in self._connection.execute(f"PRAGMA integrity_check({_INTEGRITY_LINES})"):
                if line != "ok":
                    yield " ".join(str(line).split())
        except sqlite3.Error as error:
            yield str(error)

    def check(self, on_step: Callable[[int, int], None]) -> Iterator[Broken]:
        """Each place where an invariant does not hold; `on_step` hears how many questions of how many are answered."""
        steps = len(INVARIANTS) + 3
        with reading():
            for number, invariant in enumerate(INVARIANTS):
                on_step(number, steps)
                for row in broken(self._connection, invariant):
                    inode = InodeNumber(row[0]) if invariant.of_inode and isinstance(row[0], int) else None
                    yield Broken(invariant.sentence, inode, _shown(row))
            on_step(steps - 3, steps)
            for name, wanted, found in broken_totals(self._connection):
                yield Broken("a total is not what it should be", None, f"{name} is {found}, should be {wanted}")
            on_step(steps - 2, steps)
            for name, least, found in low_counters(self._connection):
                yield Broken("a counter hands out what is in use", None, f"{name} is {found}, must be {least} or more")
            on_step(steps - 1, steps)
            yield from self._broken_slots()
            on_step(steps, steps)

    def orphans(self) -> Iterator[InodeNumber]:
        """Inodes without a name that a crash, or a mount that is still up, has left."""
        with reading():
            for row in broken(self._connection, LEFT_BY_A_CRASH):
                yield InodeNumber(int(str(row[0])))

    def _broken_slots(self) -> Iterator[Broken]:
        """Packs whose slot table cannot be right, and runs that say of their slots what the table does not."""
        for number, size_bytes, slots in self._connection.execute("SELECT pack, size_bytes, slots FROM packs"):
            sentence = "a slot table does not fill its pack"
            table = SlotTable.from_bytes(slots[: len(slots) // 4 * 4])
            if len(slots) % 4 or table.offset(len(table)) + _FRAME_BYTES + _ENTRY_BYTES * len(table) != size_bytes:
                self.suspect_packs.add(number)
                yield Broken(sentence, None, f"pack {number}")
            for run in self._runs(number):
                end = run.first_slot + run.chunk_count
                if 0 <= run.first_slot < end <= len(table):
                    stored_bytes = table.offset(end) - table.offset(run.first_slot)
                    if stored_bytes != run.stored_bytes:
                        self.suspect_packs.add(number)
                        yield Broken("a run takes other bytes than its slots", run.inode, f"chunk {run.first}")

    # -- settings and names -------------------------------------------------------------------------------------

    def setting(self, setting: Setting[Any]) -> Any:
        """The value, None when it was never set or makes no sense."""
        row = self._row("SELECT value FROM settings WHERE name = ?", (setting.name,))
        try:
            return None if row is None else setting.decode(row[0])
        except (TypeError, ValueError):
            return None

    @property
    def chunk_bytes(self) -> int:
        """How long a chunk is. MetadataDamagedError when nobody knows."""
        chunk_bytes = self.setting(CHUNK_BYTES)
        if not isinstance(chunk_bytes, int) or chunk_bytes < 1:
            raise MetadataDamagedError("the setting chunk_bytes is missing or makes no sense")
        return chunk_bytes

    def inode_count(self) -> int:
        """How many inodes there are."""
        row = self._row("SELECT count(*) FROM inodes")
        return int(row[0]) if row else 0

    def is_renumbered(self, inode: InodeNumber) -> bool:
        """See ChunkLedger."""
        found = "SELECT rdev FROM {table} WHERE inode = ?1 AND mode & 0xF000 = 0x8000 AND rdev <> 0"
        both = " UNION ALL ".join(found.format(table=table) for table in ("inodes", "trash"))
        return self._row(both, (inode,)) is not None

    def file(self, inode: InodeNumber) -> FileView:
        """What to say of a file; an inode that does not exist has no path."""
        row = self._row("SELECT size_bytes FROM inodes WHERE inode = ?", (inode,))
        trashed = self._row("SELECT path, size_bytes FROM trash WHERE inode = ?", (inode,)) if row is None else None
        if trashed is not None:
            return FileView(bytes(trashed[0]), trashed[1], set_aside=False, in_trash=True)
        name = self._row("SELECT parent, name FROM dentries WHERE inode = ? ORDER BY parent, name LIMIT 1", (inode,))
        directory = None if name is None else self.path_of_directory(name[0])
        path = None if name is None or directory is None else directory + bytes(name[1])
        aside = path is not None and path.startswith(b"/" + LOST_AND_FOUND + b"/" + DAMAGED + b"/")
        return FileView(path, 0 if row is None else row[0], aside)

    def _path_of_directory(self, inode: int) -> bytes | None:
        """With a slash at its end; None for one that hangs in the air."""
        names: list[bytes] = []
        for _ in range(_DEEPEST):
            if inode == ROOT_INODE:
                return b"/" + b"".join(name + b"/" for name in reversed(names))
            row = self._row("SELECT parent, name FROM dentries WHERE inode = ? LIMIT 1", (inode,))
            if row is None:
                return None
            inode = row[0]
            names.append(bytes(row[1]))
        return None

    # -- what is on this machine --------------------------------------------------------------------------------

    def dirty_chunks(self) -> Iterator[DirtyChunk]:
        """Every dirty chunk, by inode and index."""
        with reading():
            for inode, chunk, revision, born in self._connection.execute(
                "SELECT inode, chunk, revision, born FROM dirty ORDER BY inode, chunk"
            ):
                yield DirtyChunk(ChunkKey(InodeNumber(inode), ChunkIndex(chunk)), Revision(revision), Revision(born))

    def small_contents(self) -> Iterator[tuple[InodeNumber, bool]]:
        """Every inode with a small content, and whether that is what was written."""
        with reading():
            for inode, content, checksum in self._connection.execute(
                "SELECT inode, content, checksum FROM small_contents ORDER BY inode"
            ):
                yield InodeNumber(inode), zlib.crc32(content) == checksum

    def has_small_content(self, inode: InodeNumber) -> bool:
        """Whether the inode's cached content is a row, and what was written."""
        row = self._row("SELECT content, checksum FROM small_contents WHERE inode = ?", (inode,))
        return row is not None and zlib.crc32(row[0]) == row[1]

    def has_any_small_content(self, inode: InodeNumber) -> bool:
        """Whether the inode's cached content is a row, sound or not."""
        return self._row("SELECT 1 FROM small_contents WHERE inode = ?", (inode,)) is not None

    def dirty_among(self, inode: InodeNumber, first: int, count: int) -> frozenset[int]:
        """Those of the chunks that are dirty."""
        query = "SELECT chunk FROM dirty WHERE inode = ? AND chunk >= ? AND chunk < ?"
        return frozenset(row[0] for row in self._rows(query, (inode, first, first + count)))

    # -- what is in Discord -------------------------------------------------------------------------------------

    def channels(self) -> list[ChannelId]:
        """Every channel that holds recorded messages."""
        return [ChannelId(row[0]) for row in self._rows("SELECT DISTINCT channel FROM messages ORDER BY channel")]

    def message_count(self) -> int:
        """How many messages are recorded."""
        row = self._row("SELECT count(*) FROM messages")
        return int(row[0]) if row else 0

    def messages(self, channel: ChannelId, after: MessageId, until: MessageId | None, limit: int) -> list[MessageId]:
        """Up to `limit` recorded messages of a channel behind `after` and not behind `until`, in order."""
        rows = self._rows(
            "SELECT message FROM messages WHERE channel = ?1 AND message > ?2 AND message <= coalesce(?3, 1 << 62)"
            " ORDER BY message LIMIT ?4",
            (channel, after, until, limit),
        )
        return [MessageId(row[0]) for row in rows]

    def is_recorded(self, message: MessageId) -> bool:
        """Whether a message is recorded now."""
        return self._row("SELECT 1 FROM messages WHERE message = ?", (message,)) is not None

    def is_held(self, message: MessageId) -> bool:
        """Whether a snapshot refers to a recorded message."""
        return self._row("SELECT 1 FROM messages WHERE message = ? AND held > 0", (message,)) is not None

    def packs_of(self, message: MessageId) -> list[KnownPack]:
        """The recorded packs of a message."""
        return [self._pack(row) for row in self._rows(f"{_PACKS} WHERE packs.message = ? ORDER BY pack", (message,))]

    def packs(self) -> Iterator[KnownPack]:
        """Every recorded pack with live bytes, by number; those that come and go meanwhile may be left out."""
        last = -1
        while rows := self._rows(f"{_PACKS} WHERE pack > ? ORDER BY pack LIMIT {_PACKS_AT_ONCE}", (last,)):
            last = rows[-1][0]
            yield from (pack for pack in map(self._pack, rows) if pack.live_bytes)

    @staticmethod
    def _pack(row: tuple[Any, ...]) -> KnownPack:
        number, pack, channel, message, attachment, size_bytes, slots, live_bytes = row
        location = Location(ChannelId(channel), MessageId(message), AttachmentId(attachment))
        table = SlotTable.from_bytes(slots[: len(slots) // 4 * 4])
        return KnownPack(number, PackRecord(PackId(pack), location, size_bytes, table), live_bytes)

    def live_runs(self, number: int) -> list[LiveRun]:
        """The runs that lie in a pack now, by slot."""
        with reading():
            return list(self._runs(number))

    def _runs(self, number: int) -> Iterator[LiveRun]:
        for row in self._connection.execute(
            "SELECT inode, first_chunk, count, first_slot, stored_bytes FROM extents WHERE pack = ?"
            " ORDER BY first_slot",
            (number,),
        ):
            yield LiveRun(InodeNumber(row[0]), *row[1:])

    def has_sent(self, packs: Sequence[PackId]) -> bool:
        """Whether this state of the volume has begun to send each of these packs."""
        return all(self._row("SELECT 1 FROM sent_packs WHERE pack_id = ?", (pack,)) is not None for pack in packs)

    # -- what is damaged ----------------------------------------------------------------------------------------

    def note_bad_pack(self, number: int, cause: str) -> bool:
        """What lies in the pack cannot be had; False when nothing lies there."""
        with reading():
            noted = self._connection.execute(
                "INSERT INTO temp.bad SELECT inode, first_chunk, count, ? FROM extents WHERE pack = ?", (cause, number)
            )
            self.bad_packs.add(number)
            return noted.rowcount > 0

    def note_unreadable_runs(self, cause: str) -> None:
        """Runs that lie in no slots of a known pack are damaged."""
        with reading():
            self._connection.execute(
                "INSERT INTO temp.bad SELECT extents.inode, extents.first_chunk, max(extents.count, 1), ?1"
                f" {IN_NO_SLOT}",
                (cause,),
            )

    def note_bad_chunks(self, inode: InodeNumber, first: int, count: int, cause: str) -> None:
        """These chunks cannot be had."""
        with reading():
            self._connection.execute("INSERT INTO temp.bad VALUES (?, ?, ?, ?)", (inode, first, count, cause))

    def bad_files(self) -> Iterator[tuple[InodeNumber, list[BadRun]]]:
        """Every inode with noted damage, and which chunks, in order."""
        inode: InodeNumber | None = None
        runs: list[BadRun] = []
        with reading():
            for found, *run in self._connection.execute(
                "SELECT DISTINCT inode, first_chunk, count, cause FROM temp.bad ORDER BY inode, first_chunk"
            ):
                if found != inode:
                    if inode is not None:
                        yield inode, runs
                    inode, runs = InodeNumber(found), []
                runs.append(BadRun(*run))
            if inode is not None:
                yield inode, runs

    def _rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with reading():
            return self._connection.execute(query, parameters).fetchall()

    def _row(self, query: str, parameters: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        rows = self._rows(query, parameters)
        return rows[0] if rows else None


_PACKS = (
    "SELECT pack, pack_id, coalesce(channel, 0), packs.message, attachment, size_bytes, slots, packs.live_bytes"
    " FROM packs LEFT JOIN messages ON messages.message = packs.message"
)


def _shown(row: tuple[object, ...]) -> str:
    """A row for people."""
    return ", ".join(
        field.decode("utf-8", "backslashreplace") if isinstance(field, bytes) else str(field) for field in row
    )
