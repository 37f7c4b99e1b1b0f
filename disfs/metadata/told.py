"""What of a volume's metadata Discord was told, against the metadata: read from beside, for a check of the volume.

What changed is noted row by row, by each component for what it writes. A change that nobody noted would never be sent.
So the rows are compared with those that were rebuilt from what was sent: whatever differs must be noted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from disfs.metadata.connections import Access, connected
from disfs.metadata.outbox import Noted
from disfs.metadata.settings import DEVICE, LEASE
from disfs.metadata.shipping import NO_STATE, ShippedMessage, position_of
from disfs.metadata.snapshot import Snapshot
from disfs.metadata.snapshots import SnapshotRecord, SnapshotState
from disfs.metadata.sqlite_errors import reading
from disfs.values import MessageId

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from disfs.metadata.settings import Setting
    from disfs.metadata.shipping import Position

_ALL = 1 << 62
_ATTRIBUTES = ("mode", "uid", "gid", "rdev", "size_bytes", "atime_ns", "mtime_ns")
_NOT_NOTED_INODE = "{row}.inode NOT IN (SELECT inode FROM noted_inodes)"


class _Compared(NamedTuple):
    """How the rows of one table are told from each other, and which of them need not be alike."""

    what: str
    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    not_noted: str

    def query(self) -> str:
        """The keys of rows that differ, are here alone, or there alone, and that are not noted."""
        same = " AND ".join(f"other.{name} = own.{name}" for name in self.key)
        own, other = (", ".join(f"coalesce({row}.{name}, x'')" for name in self.columns) for row in ("own", "other"))
        own_key, other_key = (", ".join(f"{row}.{name}" for name in self.key) for row in ("own", "other"))
        return (
            f"SELECT {own_key} FROM main.{self.table} AS own LEFT JOIN told.{self.table} AS other ON {same}"  # noqa: S608 - constants of this module
            f" WHERE (other.{self.key[0]} IS NULL OR ({own}) IS NOT ({other})) AND {self.not_noted.format(row='own')}"
            f" UNION ALL SELECT {other_key} FROM told.{self.table} AS other WHERE NOT EXISTS (SELECT 1"
            f" FROM main.{self.table} AS own WHERE {same}) AND {self.not_noted.format(row='other')}"
        )


_COMPARED = (
    _Compared("inodes", "inodes", ("inode",), (*_ATTRIBUTES, "nlink", "ctime_ns", "target"), _NOT_NOTED_INODE),
    _Compared(
        "entries of the trash",
        "trash",
        ("inode",),
        (*_ATTRIBUTES, "trashed_ns", "reason", "path", "target"),
        _NOT_NOTED_INODE,
    ),
    _Compared(
        "names",
        "dentries",
        ("parent", "name"),
        ("inode", "cookie"),
        "NOT EXISTS (SELECT 1 FROM noted_names AS n WHERE n.parent = {row}.parent AND n.name = {row}.name)",
    ),
    _Compared(
        "extended attributes",
        "xattrs",
        ("inode", "name"),
        ("value",),
        "NOT EXISTS (SELECT 1 FROM noted_xattrs AS n WHERE n.inode = {row}.inode AND n.name = {row}.name)"
        " AND {row}.inode NOT IN (SELECT inode FROM noted_inodes)",
    ),
    _Compared(
        "packs",
        "packs",
        ("pack",),
        ("message", "attachment", "size_bytes", "pack_id", "slots"),
        "{row}.pack NOT IN (SELECT pack FROM noted_packs)",
    ),
    _Compared(
        "runs of chunks",
        "extents",
        ("inode", "first_chunk"),
        ("count", "pack", "first_slot", "stored_bytes"),
        "NOT EXISTS (SELECT 1 FROM noted_extents AS n WHERE n.inode = {row}.inode AND {row}.first_chunk >= n.first"
        ' AND {row}.first_chunk < n."end")',
    ),
)


class Untold(NamedTuple):
    """Rows of one kind of which Discord has something else, although nothing says that they are still to be sent."""

    what: str
    rows: int
    first: str
    """The key of one of them, for people."""


class ToldRows:
    """A reading connection to the metadata at `path`. MetadataDamagedError where they cannot be read. Close it."""

    def __init__(self, path: Path) -> None:
        self._connection = connected(path, Access.READ, any_thread=True)
        self._noted = Snapshot(self._connection)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _setting(self, setting: Setting[Any]) -> Any:
        row = self._row("SELECT value FROM settings WHERE name = ?", (setting.name,))
        return None if row is None else setting.decode(row[0])

    def position(self) -> Position | None:
        """Where this machine's state stands in the chain of states; None when that makes no sense.

        Its journals are not counted. Before its first mount the device is `NO_STATE`.
        """
        try:
            return position_of(self._setting, bytes.fromhex(self._setting(DEVICE) or NO_STATE.hex()), lambda since: 0)
        except (TypeError, ValueError):
            return None

    def lease(self) -> str:
        """The setting with this machine's newest lease; empty without one."""
        return str(self._setting(LEASE) or "")

    def messages(self) -> list[ShippedMessage]:
        """All messages of the index channel that this machine answers for."""
        rows = self._rows("SELECT message, kind, sequence FROM shipped ORDER BY message")
        return [ShippedMessage(MessageId(message), kind, sequence) for message, kind, sequence in rows]

    def unreadable_notes(self) -> int:
        """How many rows of the outbox do not say any more what has changed."""
        count = 0
        with reading():
            for (keys,) in self._connection.execute("SELECT keys FROM outbox ORDER BY number"):
                try:
                    Noted.from_bytes(keys)
                except (TypeError, ValueError):
                    count += 1
        return count

    def untold(self, told: Path) -> Iterator[Untold]:
        """Compare with the rows at `told`, rebuilt from what was sent up to the newest acknowledged state."""
        with reading():
            self._connection.execute("ATTACH ? AS told", (told.absolute().as_uri() + "?mode=ro",))
            try:
                self._noted.sort_out(_ALL)
                for compared in _COMPARED:
                    # In one go: the log of a writer cannot begin anew meanwhile, and there is none.
                    count, first = 0, ""
                    for row in self._connection.execute(compared.query()):
                        first = first or _shown(row)
                        count += 1
                    if count:
                        yield Untold(compared.what, count, first)
            finally:
                self._connection.execute("DETACH told")

    def snapshots(self) -> list[SnapshotRecord]:
        """Those that can be used: neither being made nor being deleted."""
        rows = self._rows(
            "SELECT snapshot, name, created_ns, state, sent_after FROM snapshots WHERE state IN (?, ?)"
            " ORDER BY snapshot",
            (SnapshotState.WHOLE, SnapshotState.SENT),
        )
        return [SnapshotRecord(row[0], row[1], row[2], SnapshotState(row[3]), MessageId(row[4])) for row in rows]

    def held(self, snapshot: int) -> frozenset[int]:
        """The messages that a snapshot keeps from being deleted."""
        return frozenset(row[0] for row in self._rows("SELECT message FROM holds WHERE snapshot = ?", (snapshot,)))

    def _rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with reading():
            return self._connection.execute(query, parameters).fetchall()

    def _row(self, query: str, parameters: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        rows = self._rows(query, parameters)
        return rows[0] if rows else None


def _shown(row: tuple[object, ...]) -> str:
    return ", ".join(
        field.decode("utf-8", "backslashreplace") if isinstance(field, bytes) else str(field) for field in row
    )
