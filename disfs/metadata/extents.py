"""Where chunks lie: runs of one inode's chunks in consecutive slots of a pack, never overlapping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.values import ChunkIndex, Extent, PackId

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from disfs.metadata.database import Database
    from disfs.metadata.packs import Packs
    from disfs.values import InodeNumber

END_OF_CHUNKS = 1 << 62
"""Past the last chunk of the largest possible file."""

# The run that begins at or before the first chunk is the only earlier one that can reach it.
TOUCHING = (
    " WHERE extents.inode = ?1 AND extents.first_chunk < ?3 AND extents.first_chunk >= coalesce("
    "(SELECT max(first_chunk) FROM extents WHERE inode = ?1 AND first_chunk <= ?2), ?2)"
    " AND extents.first_chunk + extents.count > ?2"
)
"""Narrows a query to the runs of inode ?1 that hold any of the chunks from ?2 up to ?3, ?3 excluded."""
_FIND = (
    "SELECT extents.first_chunk, extents.count, packs.pack_id, extents.first_slot"  # noqa: S608 - constants of this module
    f" FROM extents JOIN packs ON packs.pack = extents.pack{TOUCHING} ORDER BY extents.first_chunk"
)
_FIND_NUMBERED = (
    "SELECT first_chunk, count, pack, first_slot, stored_bytes"  # noqa: S608 - constants of this module
    f" FROM extents{TOUCHING} ORDER BY first_chunk"
)


class Extents:
    """The extents of all inodes. Every change of them moves the live bytes of the packs they name."""

    def __init__(self, database: Database, packs: Packs) -> None:
        self._database = database
        self._packs = packs

    def find(self, inode: InodeNumber, first: ChunkIndex, last: ChunkIndex) -> Sequence[Extent]:
        """See ChunkLedger.extents."""
        rows = self._database.rows(_FIND, (inode, first, last + 1))
        found = []
        for run_first, count, pack, slot in rows:
            begin, end = max(run_first, first), min(run_first + count, last + 1)
            found.append(Extent(inode, ChunkIndex(begin), end - begin, PackId(pack), slot + begin - run_first))
        return found

    def among(self, inode: InodeNumber, first: int, end: int) -> Iterator[int]:
        """Those of chunks `first` to `end`, end excluded, that lie in a pack."""
        for run_first, count, *_ in self._database.rows(_FIND_NUMBERED, (inode, first, end)):
            yield from range(max(run_first, first), min(run_first + count, end))

    def place(self, inode: InodeNumber, first: int, count: int, pack: int, first_slot: int) -> None:
        """Chunks `first` to `first + count` now lie in that pack; where they lay before is garbage. In a change."""
        self._clear(inode, first, first + count)
        self._packs.add_live(pack, self._insert(inode, first, count, pack, first_slot))

    def cut(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """Forget the runs of an inode from `first` on. In a change.

        By set, not by row: an inode may have millions of chunks.
        """
        self._clear(inode, first, first + 1)  # splits the run that reaches across
        self._packs.release_from(inode, first)
        self._database.write("DELETE FROM extents WHERE inode = ? AND first_chunk >= ?", (inode, first))

    def _clear(self, inode: InodeNumber, first: int, end: int) -> None:
        """Forget chunks `first` to `end`: what a run has left on either side stays, as one run or two."""
        for run_first, count, pack, slot, stored_bytes in self._database.rows(_FIND_NUMBERED, (inode, first, end)):
            run_end = run_first + count
            self._database.write("DELETE FROM extents WHERE inode = ? AND first_chunk = ?", (inode, run_first))
            kept_bytes = 0
            if run_first < first:
                kept_bytes += self._insert(inode, run_first, first - run_first, pack, slot)
            if run_end > end:
                kept_bytes += self._insert(inode, end, run_end - end, pack, slot + end - run_first)
            self._packs.add_live(pack, kept_bytes - stored_bytes)

    def _insert(self, inode: InodeNumber, first: int, count: int, pack: int, first_slot: int) -> int:
        """A new row; returns how many stored bytes it refers to."""
        slots = self._packs.slots(pack)
        assert 0 <= first < first + count <= END_OF_CHUNKS
        assert first_slot + count <= len(slots), "a run lies inside its pack"
        stored_bytes = slots.offset(first_slot + count) - slots.offset(first_slot)
        self._database.write(
            "INSERT INTO extents (inode, first_chunk, count, pack, first_slot, stored_bytes) VALUES (?, ?, ?, ?, ?, ?)",
            (inode, first, count, pack, first_slot, stored_bytes),
        )
        return stored_bytes
