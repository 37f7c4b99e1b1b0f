"""Packs that Discord acknowledged become the places of their chunks, where those have not moved on."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from disfs.metadata.extents import END_OF_CHUNKS, TOUCHING
from disfs.values import Recorded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from disfs.metadata.database import Database
    from disfs.metadata.dirty import Dirty
    from disfs.metadata.extents import Extents
    from disfs.metadata.inodes import Inodes
    from disfs.metadata.packs import Packs
    from disfs.values import ChunkIndex, ChunkKey, InodeNumber, Revision, SentChunk, SentPack


_COUNT_FROM = (
    "SELECT (SELECT coalesce(sum(first_chunk + count - max(first_chunk, ?2)), 0)"  # noqa: S608 - constants of our own
    f" FROM extents{TOUCHING})"
    " + (SELECT count(*) FROM dirty WHERE dirty.inode = ?1 AND chunk >= ?2 AND NOT EXISTS (SELECT 1 FROM extents"
    " WHERE inode = ?1 AND first_chunk + count > chunk AND first_chunk ="
    " (SELECT max(first_chunk) FROM extents WHERE inode = ?1 AND first_chunk <= chunk)))"
)
"""Chunks from ?2 up to ?3 of inode ?1 that lie in a pack, and those that are dirty without lying in one."""


class _Verdict(enum.Enum):
    CLEAN = enum.auto()
    STILL_DIRTY = enum.auto()
    DROPPED = enum.auto()


class Recording:
    """The operations of the ledger that touch dirty chunks, extents and packs together."""

    def __init__(self, database: Database, inodes: Inodes, dirty: Dirty, extents: Extents, packs: Packs) -> None:
        self._database = database
        self._inodes = inodes
        self._dirty = dirty
        self._extents = extents
        self._packs = packs

    def mark_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> Revision:
        """See ChunkLedger."""
        assert count > 0
        end = first + count
        with self._database.growing:
            revision = self._dirty.new_revision()
            if self._dirty.renew(inode, first, end, revision) < count:
                present = {*self._dirty.among(inode, first, end), *self._extents.among(inode, first, end)}
                self._dirty.mark(inode, first, end, revision)
                self._inodes.add_chunks(inode, count - len(present))
        return revision

    def record_packs(self, packs: Sequence[SentPack]) -> Recorded:
        """See ChunkLedger. Works on a full disk: it is what lets the cache give space back."""
        verdicts: dict[_Verdict, list[ChunkKey]] = {verdict: [] for verdict in _Verdict}
        with self._database.changing:
            self._check(packs)
            for pack in packs:
                self._record_pack(pack, verdicts)
        return Recorded(
            tuple(verdicts[_Verdict.CLEAN]), tuple(verdicts[_Verdict.STILL_DIRTY]), tuple(verdicts[_Verdict.DROPPED])
        )

    def cut_chunks(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """See ChunkLedger."""
        with self._database.changing:
            self._inodes.add_chunks(inode, -self._chunks_from(inode, first))
            self._dirty.cut(inode, first)
            self._extents.cut(inode, first)

    def _chunks_from(self, inode: InodeNumber, first: ChunkIndex) -> int:
        """How many chunks of an inode, from `first` on, are not holes."""
        if first == 0:
            return self._inodes.chunk_count(inode)
        row = self._database.row(_COUNT_FROM, (inode, first, END_OF_CHUNKS))
        assert row is not None
        count: int = row[0]
        return count

    def _check(self, packs: Sequence[SentPack]) -> None:
        ids = {pack.record.pack for pack in packs}
        if len(ids) != len(packs) or any(self._packs.is_recorded(pack) for pack in ids):
            raise ValueError("a pack is recorded once")
        if any(len(pack.chunks) != len(pack.record.slots) for pack in packs):
            raise ValueError("a pack has one chunk in each slot")

    def _record_pack(self, pack: SentPack, verdicts: dict[_Verdict, list[ChunkKey]]) -> None:
        number = self._packs.add(pack.record)
        for slot, run in _runs(pack.chunks):
            begin = 0
            judged = self._judge(run)
            for position, verdict in enumerate(judged):
                verdicts[verdict].append(run[position].key)
                if verdict is _Verdict.DROPPED:
                    self._place(number, slot, run, begin, position)
                    begin = position + 1
            self._place(number, slot, run, begin, len(run))
            self._settle(run, judged)

    def _judge(self, run: Sequence[SentChunk]) -> list[_Verdict]:
        inode, first = run[0].key
        dirty = self._dirty.among(inode, first, first + len(run))
        return [_verdict(sent, dirty.get(sent.key.chunk)) for sent in run]

    def _place(self, pack: int, slot: int, run: Sequence[SentChunk], begin: int, end: int) -> None:
        if begin < end:
            inode, first = run[begin].key
            self._extents.place(inode, first, end - begin, pack, slot + begin)

    def _settle(self, run: Sequence[SentChunk], judged: Sequence[_Verdict]) -> None:
        if all(verdict is _Verdict.CLEAN for verdict in judged):
            inode, first = run[0].key
            self._dirty.clean(inode, first, first + len(run))  # the usual case, in one statement
            return
        for sent, verdict in zip(run, judged, strict=True):
            inode, chunk = sent.key
            if verdict is _Verdict.CLEAN:
                self._dirty.clean(inode, chunk, chunk + 1)
            elif verdict is _Verdict.STILL_DIRTY:
                self._dirty.raise_born(sent.key, sent.revision + 1)


def _verdict(sent: SentChunk, dirty: tuple[int, int] | None) -> _Verdict:
    if dirty is None:
        return _Verdict.DROPPED
    revision, born = dirty
    if sent.revision < born:
        return _Verdict.DROPPED
    return _Verdict.CLEAN if sent.revision == revision else _Verdict.STILL_DIRTY


def _runs(chunks: Sequence[SentChunk]) -> Iterator[tuple[int, Sequence[SentChunk]]]:
    """The maximal runs of consecutive chunks of one inode, each with the slot that it begins in."""
    begin = 0
    for slot in range(1, len(chunks) + 1):
        if slot < len(chunks):
            previous, key = chunks[slot - 1].key, chunks[slot].key
            if key.inode == previous.inode and key.chunk == previous.chunk + 1:
                continue
        yield begin, chunks[begin:slot]
        begin = slot
