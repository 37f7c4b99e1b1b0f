"""The cache against the metadata: what is only here must be here, and be what was written."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from disfs.chunkstore.files import CacheFiles
from disfs.chunkstore.recovery import CacheMarks, CacheNotes, note_lost, read_notes
from disfs.local_volume import CACHE_CLEAN_STOP, CACHE_IDENTITY
from disfs.recovery.fsck_findings import Kind, shown_path
from disfs.spans import chunk_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from disfs.metadata.inspection import Inspection
    from disfs.recovery.fsck_findings import Findings
    from disfs.values import ChunkKey, DirtyChunk, InodeNumber, Revision

UNSENT_LOST = "it was not sent yet, and is not in the cache any more"
SMALL_DAMAGED = "what the cache has of it is not what was written"


class CacheView:
    """What the cache of a volume has that nobody has mounted. `close` it."""

    def __init__(self, inspection: Inspection, directory: Path) -> None:
        self.bad_small: list[InodeNumber] = []
        """Inodes whose small content is not what was written."""
        self._inspection = inspection
        self._files = CacheFiles(directory, open_files=1) if directory.is_dir() else None
        self._notes = CacheNotes(False, {}, frozenset())
        if self._files is not None:
            identity = inspection.setting(CACHE_IDENTITY)
            marks = CacheMarks(identity, inspection.setting(CACHE_CLEAN_STOP) or None) if identity else None
            self._notes = read_notes(self._files, marks)

    def close(self) -> None:
        """Close the directory."""
        if self._files is not None:
            self._files.close()

    def has_file_for(self, row: DirtyChunk) -> bool:
        """Whether a cache file of ours reaches to the chunk."""
        if self._files is None or not self._notes.is_ours:
            return False
        return row.key.chunk * self._inspection.chunk_bytes < (self._files.length(row.key.inode) or 0)

    def is_noted_lost(self, row: DirtyChunk) -> bool:
        """Whether the bytes of the chunk are known to be nowhere."""
        return (row.key, row.revision) in self._notes.lost

    def clean_chunks(self, inode: InodeNumber, first: int, count: int) -> list[int]:
        """Those of the chunks of which the cache has a copy that Discord had too."""
        if self._inspection.has_any_small_content(inode):
            return [0] if first == 0 and self._inspection.has_small_content(inode) else []
        if self._files is None or inode not in self._notes.present:
            return []
        end = chunk_count(self._files.length(inode) or 0, self._inspection.chunk_bytes)
        last = min(first + count, end)
        runs = self._notes.present[inode]
        return sorted({chunk for run in runs for chunk in range(max(run.start, first), min(run.stop, last))})

    def note_lost(self, lost: Iterable[tuple[ChunkKey, Revision]]) -> None:
        """Write down that the bytes of these dirty chunks are nowhere, durably; before the metadata say dirty."""
        rows = list(lost)
        if rows and self._files is not None:
            note_lost(self._files, rows)


def check_cache(inspection: Inspection, view: CacheView, findings: Findings) -> None:
    """Note dirty chunks without their bytes as damage of their files, and small contents that are not as written."""
    for row in _lost_chunks(inspection, view):
        inspection.note_bad_chunks(row.key.inode, row.key.chunk, 1, UNSENT_LOST)
    view.bad_small.extend(check_small_contents(inspection, findings))


def check_small_contents(inspection: Inspection, findings: Findings) -> Iterator[InodeNumber]:
    """The inodes whose small content is damaged: their only copy, if it was not sent yet."""
    for inode, is_sound in inspection.small_contents():
        if is_sound:
            continue
        if inspection.dirty_among(inode, 0, 1):
            inspection.note_bad_chunks(inode, 0, 1, SMALL_DAMAGED)
        else:
            path = shown_path(inspection.file(inode).path, inode)
            findings.add(Kind.CACHE, f"{path}: {SMALL_DAMAGED}; Discord has it", path=path, inode=inode)
        yield inode


def _lost_chunks(inspection: Inspection, view: CacheView) -> Iterator[DirtyChunk]:
    for inode, rows in groupby(inspection.dirty_chunks(), key=lambda row: row.key.inode):
        small = inspection.has_any_small_content(inode)
        for row in rows:
            # Whether a small content is sound is another question.
            is_small = small and row.key.chunk == 0
            if view.is_noted_lost(row) or not (is_small or (not small and view.has_file_for(row))):
                yield row
