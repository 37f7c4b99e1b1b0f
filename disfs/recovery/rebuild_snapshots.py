"""Bring snapshots back from the index channel: their databases beside the rebuilt one, and what they hold into it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import trio

from disfs.chunkstore.codec import PackKind
from disfs.errors import CorruptDataError, NotFoundError
from disfs.metadata.migrations import SUM_STORED_BYTES
from disfs.metadata.replicated import Table
from disfs.metadata.restoring import Origin, Restoration
from disfs.metadata.snapshots import DIRECTORY, SnapshotState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from disfs.recovery.chain import Shipment
    from disfs.recovery.frames import PartReader
    from disfs.recovery.index_channel import IndexChannel

_MISSING_PACKS = (
    "SELECT pack, pack_id, message, attachment, size_bytes, slots, (SELECT channel FROM copy.messages AS its"
    " WHERE its.message = new.message) FROM copy.packs AS new WHERE pack_id NOT IN (SELECT pack_id FROM main.packs)"
)


_STORED = SUM_STORED_BYTES + " WHERE message = ? AND live_bytes = 0"


class Volume(NamedTuple):
    """Which volume it is."""

    volume_id: bytes
    chunk_bytes: int


@dataclass(slots=True)
class _Told:
    """What a shipment says of its snapshot."""

    snapshot: int
    created_ns: int
    name: bytes


async def rebuild_snapshots(
    index: IndexChannel,
    shipments: Sequence[Shipment],
    path: Path,
    volume: Volume,
    on_snapshot: Callable[[int, int], None],
) -> tuple[list[str], list[str]]:
    """Rebuild every snapshot that is whole, into the database at `path` and files beside it; says which, and what not.

    Storage errors as of `Transport`. What is damaged is left out.
    """
    whole = sorted((each for each in shipments if each.is_whole), key=lambda each: each.header.created_ns)
    # Of one that was sent twice, as a kill leaves it, the second time counts.
    newest = {each.header.sequence: each for each in whole}
    (path.parent / DIRECTORY).mkdir(mode=0o700, exist_ok=True)
    names, missing = [], []
    for done, (number, shipment) in enumerate(sorted(newest.items())):
        on_snapshot(done, len(newest))
        file = path.parent / DIRECTORY / f"{number}.db"
        file.unlink(missing_ok=True)  # of an attempt that was interrupted
        try:
            told = await _rebuild_one(index, shipment, file, volume)
        except (CorruptDataError, NotFoundError) as error:
            file.unlink(missing_ok=True)
            missing.append(f"snapshot {number} is damaged ({error})")
            continue
        messages = [message for each in whole if each.header.sequence == number for message in each.messages]
        name = await trio.to_thread.run_sync(_adopt, path, file, told, messages)
        names.append(name.decode(errors="backslashreplace"))
    await trio.to_thread.run_sync(
        _note_remains, path, [m for each in shipments if not each.is_whole for m in each.messages]
    )
    return names, missing


async def _rebuild_one(index: IndexChannel, shipment: Shipment, file: Path, volume: Volume) -> _Told:
    restoration = await trio.to_thread.run_sync(Restoration, file)
    told: list[_Told] = []
    rows = 0
    try:
        for part in range(len(shipment.parts)):
            reader = await index.read(shipment.parts[part])
            await trio.to_thread.run_sync(_apply, restoration, reader, told)
            rows += reader.rows
        if len(told) != 1 or reader.total != (len(shipment.parts), rows):
            raise CorruptDataError("it has not the rows that it says")
        header = shipment.header
        origin = Origin(
            volume.volume_id, volume.chunk_bytes, header.state, header.sequence, (), header.counters, (), 0, {}
        )
        await trio.to_thread.run_sync(lambda: restoration.finish(origin, keeps_unsent=True))
    finally:
        restoration.close()
    return told[0]


def _apply(restoration: Restoration, reader: PartReader, told: list[_Told]) -> None:
    for block in reader.blocks():
        if block.table is Table.SNAPSHOT:
            told += [_Told(*row) for row in block.rows()]
        else:
            restoration.apply(block)


def _adopt(path: Path, file: Path, told: _Told, messages: Sequence[int]) -> bytes:
    """Note a snapshot in the rebuilt database, with what it holds; returns its name, which nobody else has."""
    connection = sqlite3.connect(path, isolation_level=None)
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
            [(message, PackKind.SNAPSHOT, told.snapshot) for message in messages],
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


def _note_remains(path: Path, messages: Sequence[int]) -> None:
    """Parts of snapshots that never came to be whole are deleted one day."""
    connection = sqlite3.connect(path)
    with connection:
        connection.executemany(
            "INSERT OR IGNORE INTO shipped (message, kind, sequence) VALUES (?, 0, 0)", [(each,) for each in messages]
        )
    connection.close()
