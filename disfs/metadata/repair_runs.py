"""Repairs of where chunks lie: runs that overlap, and what their slots take."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, NamedTuple

from disfs.metadata.invariants import OVERLAPPING
from disfs.values import SlotTable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


class Run(NamedTuple):
    """Chunks of one file in consecutive slots of a pack."""

    first: int
    """First, so that runs sort by it."""
    older: int
    """The pack's number, negative: the newer one first."""
    chunk_count: int
    slot: int


def part_runs(connection: sqlite3.Connection) -> int:
    """Where runs of a file overlap the one in the newer pack counts."""
    inodes = [row[0] for row in connection.execute(f"SELECT DISTINCT one.inode {OVERLAPPING}")]
    for inode in inodes:
        rows = connection.execute("SELECT first_chunk, -pack, count, first_slot FROM extents WHERE inode = ?", (inode,))
        runs = parted([Run(*row) for row in rows])
        connection.execute("DELETE FROM extents WHERE inode = ?", (inode,))
        connection.executemany(
            "INSERT INTO extents (inode, first_chunk, count, pack, first_slot, stored_bytes) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (inode, r.first, r.chunk_count, -r.older, r.slot, _stored(connection, -r.older, r.slot, r.chunk_count))
                for r in runs
            ],
        )
    return len(inodes)


def parted(runs: Sequence[Run]) -> list[Run]:
    """The same chunks as runs that do not overlap, the newer pack's content where they did."""
    waiting = list(runs)
    heapq.heapify(waiting)
    done: list[Run] = []
    while waiting:
        run = heapq.heappop(waiting)
        before = done[-1] if done else None
        if before is None or before.first + before.chunk_count <= run.first:
            done.append(run)
            continue
        end = before.first + before.chunk_count
        if before.older <= run.older:
            if run.first + run.chunk_count > end:
                heapq.heappush(waiting, _tail(run, end))
            continue
        done.pop()
        if before.first < run.first:
            done.append(before._replace(chunk_count=run.first - before.first))
        if end > run.first + run.chunk_count:
            heapq.heappush(waiting, _tail(before, run.first + run.chunk_count))
        heapq.heappush(waiting, run)
    return done


def _tail(run: Run, first: int) -> Run:
    skipped = first - run.first
    return run._replace(first=first, chunk_count=run.chunk_count - skipped, slot=run.slot + skipped)


def _stored(connection: sqlite3.Connection, pack: int, slot: int, count: int) -> int:
    row: Any = connection.execute("SELECT slots FROM packs WHERE pack = ?", (pack,)).fetchone()
    table = SlotTable.from_bytes(row[0]) if row is not None and len(row[0]) % 4 == 0 else None
    if table is None or not 0 <= slot < slot + count <= len(table):
        return 0
    return table.offset(slot + count) - table.offset(slot)


def weigh_runs(connection: sqlite3.Connection) -> int:
    """What each run says that its slots take."""
    mended = 0
    for pack, slots in connection.execute("SELECT pack, slots FROM packs WHERE length(slots) % 4 = 0"):
        table = SlotTable.from_bytes(slots)
        for inode, first, count, slot, stored_bytes in connection.execute(
            "SELECT inode, first_chunk, count, first_slot, stored_bytes FROM extents WHERE pack = ?", (pack,)
        ).fetchall():
            if 0 <= slot < slot + count <= len(table):
                wanted = table.offset(slot + count) - table.offset(slot)
                if wanted != stored_bytes:
                    connection.execute(
                        "UPDATE extents SET stored_bytes = ? WHERE inode = ? AND first_chunk = ?",
                        (wanted, inode, first),
                    )
                    mended += 1
    return mended
