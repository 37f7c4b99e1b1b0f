"""Bring the cache directory and the ledger together at the start, and leave a note at a clean stop.

After a clean stop the note of what was present is believed, if it is the one that the caller remembers. After a
crash only dirty chunks count as present: everything else is dropped, which costs a fetch and no data. What an
uncommitted write left behind the recorded size of a file is cut off, so it cannot come back as content.

Small contents are the ledger's, and agree with its marks whatever happened: what is not dirty of them is clean. They
count in whichever directory we are, and instead of a cache file (see `small`).

A dirty chunk whose cache file is gone or too short is LOST: reading it is an error that names the file, now and after
every further restart (a note in the cache directory keeps the list), until the whole chunk is written anew or cut.

A directory with another identity than the one remembered is not ours to clean: it may hold somebody's only copy.
Its files are set aside, once, and a new set is begun.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from disfs.chunkstore.states import ChunkEvent
from disfs.spans import chunk_count
from disfs.values import ChunkIndex, ChunkKey, InodeNumber, Revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from disfs.chunkstore.files import CacheFiles
    from disfs.chunkstore.inode_chunks import InodeChunks
    from disfs.chunkstore.presence import ChunkMap
    from disfs.chunkstore.small import SmallContents
    from disfs.values import DirtyChunk

log = logging.getLogger(__name__)

_IDENTITY = "identity"
_PRESENT = "present.json"
_LOST = "lost.json"


@dataclass(frozen=True, slots=True)
class CacheMarks:
    """What the caller keeps beside the ledger between two runs, and brings back: two short texts.

    `identity` names the cache directory: dirty chunks are looked for only in the directory in which they
    were written. `clean_stop` names the note of the last clean stop; None while the volume is mounted.
    """

    identity: str
    clean_stop: str | None = None


@dataclass(frozen=True, slots=True)
class CacheNotes:
    """What the cache directory says of itself beside its files. Nothing that another directory says counts."""

    is_ours: bool
    """The directory is the one that the marks name."""
    present: dict[InodeNumber, list[range]]
    """The chunks of cache files that were there at a stop in order; empty after a crash."""
    lost: frozenset[tuple[ChunkKey, Revision]]
    """Dirty chunks, and their revisions, whose bytes are known to be nowhere."""


def read_notes(files: CacheFiles, marks: CacheMarks | None) -> CacheNotes:
    """Read them, and change nothing."""
    is_ours = marks is None or files.read_note(_IDENTITY) == marks.identity.encode()
    if not is_ours:
        return CacheNotes(False, {}, frozenset())
    return CacheNotes(True, _noted_presence(files, marks), _noted_losses(files))


def note_lost(files: CacheFiles, lost: Iterable[tuple[ChunkKey, Revision]]) -> None:
    """Add to the list of dirty chunks that are lost. Where the ledger has no such revision the entry means nothing."""
    rows = sorted(_noted_losses(files).union(lost))
    files.write_note(_LOST, json.dumps([[*key, revision] for key, revision in rows]).encode())


def recover(
    files: CacheFiles,
    small: SmallContents,
    chunks: ChunkMap,
    dirty: Sequence[DirtyChunk],
    sizes: Mapping[InodeNumber, int | None],
    marks: CacheMarks | None,
) -> tuple[CacheMarks, list[ChunkKey]]:
    """Fill `chunks` from cache directory and small contents; returns the marks to remember, and what is lost.

    `sizes` has the recorded size of every inode with dirty chunks, None where the inode is unknown. After this
    nothing in the directory is present that `chunks` does not know.
    """
    identity = _identity(files)
    notes = read_notes(files, marks)
    ours, noted, known_lost = notes.is_ours, notes.present, notes.lost
    if not ours:
        identity = _begin_anew(files, identity)
    # From here on the directory changes; the note must not be believed after a crash.
    files.remove_note(_PRESENT)
    by_inode = {inode: list(rows) for inode, rows in groupby(sorted(dirty, key=_by_key), key=lambda row: row.key.inode)}
    lost: list[DirtyChunk] = []
    for inode, length in small.lengths():
        lost += _recover_small(small, chunks, inode, length, by_inode.pop(inode, []))
        noted.pop(inode, None)
    for inode in sorted(by_inode.keys() | set(files.inodes())):
        rows = by_inode.get(inode, [])
        kept = [row for row in rows if ours and (row.key, row.revision) not in known_lost]
        if len(kept) < len(rows):
            lost += [row for row in rows if not ours or (row.key, row.revision) in known_lost]
        if inode in chunks.inodes:
            files.remove(inode)  # its content is a small one
        else:
            lost += _recover_inode(files, chunks, inode, kept, noted.get(inode, ()), sizes.get(inode))
    for row in lost:
        chunks.move(row.key, ChunkEvent.LOSE)
    _note_losses(files, lost)
    return CacheMarks(identity), [row.key for row in lost]


def _by_key(row: DirtyChunk) -> ChunkKey:
    return row.key


def _recover_small(
    small: SmallContents, chunks: ChunkMap, inode: InodeNumber, length: int, rows: Sequence[DirtyChunk]
) -> list[DirtyChunk]:
    """One inode whose content is a small one; returns its lost rows: chunks behind it were lost before."""
    record = chunks.at(inode)
    small.found(record, length)
    for row in rows:
        if row.key.chunk == 0:
            _make_dirty(chunks, row)
    chunks.restore(record, range(1))
    return [row for row in rows if row.key.chunk]


def _recover_inode(
    files: CacheFiles,
    chunks: ChunkMap,
    inode: InodeNumber,
    rows: Sequence[DirtyChunk],
    noted: Sequence[range],
    size_bytes: int | None,
) -> list[DirtyChunk]:
    """One inode's part of `recover`; returns its lost rows."""
    length = files.length(inode)
    if length is None or not (rows or noted):
        files.remove(inode)
        return list(rows)
    if size_bytes is not None and length > size_bytes:
        files.truncate(inode, length := size_bytes)
    there = [row for row in rows if row.key.chunk * chunks.chunk_bytes < length]
    record = chunks.at(inode)
    record.end = record.disk_end = length
    for row in there:
        _make_dirty(chunks, row)
    for run in noted:
        chunks.restore(record, range(run.start, min(run.stop, chunk_count(length, chunks.chunk_bytes))))
    if record.count:
        _punch_the_rest(files, record, chunks.chunk_bytes)
    else:
        files.remove(inode)
        record.end = record.disk_end = 0
        chunks.forget_if_empty(inode)
    return [row for row in rows if row.key.chunk * chunks.chunk_bytes >= length]


def _make_dirty(chunks: ChunkMap, row: DirtyChunk) -> None:
    # It has waited through a restart: no delay.
    chunks.wrote(row.key, row.revision, float("-inf"))


def _punch_the_rest(files: CacheFiles, record: InodeChunks, chunk_bytes: int) -> None:
    """Make holes of everything that is not present (rule 1 of `cache`)."""
    hole_from = 0
    for index in record.indices():
        if index > hole_from:
            files.punch(record.inode, hole_from * chunk_bytes, (index - hole_from) * chunk_bytes)
        hole_from = index + 1
    rest = record.disk_end - hole_from * chunk_bytes
    if rest > 0:
        files.punch(record.inode, hole_from * chunk_bytes, rest)


def note_clean_stop(files: CacheFiles, chunks: ChunkMap) -> CacheMarks:
    """Write down what is present, after everything in the directory is on the disk. Blocks: use a worker thread."""
    files.sync_disk()
    stop = os.urandom(16).hex()
    in_files = (record for record in chunks.inodes.values() if record.count and not record.is_small)
    runs = {str(record.inode): [(run.start, run.stop) for run in record.runs()] for record in in_files}
    # A digit that changed on the disk would turn a hole into zeros that are shown as data.
    note = {"clean_stop": stop, "runs": runs, "checksum": _checksum(runs)}
    files.write_note(_PRESENT, json.dumps(note).encode())
    return CacheMarks(_identity(files), stop)


def _identity(files: CacheFiles) -> str:
    found = files.read_note(_IDENTITY)
    if found is None:
        files.write_note(_IDENTITY, os.urandom(16).hex().encode())
        found = files.read_note(_IDENTITY) or b""
    return found.decode(errors="replace")


def _begin_anew(files: CacheFiles, found: str) -> str:
    if files.inodes():
        aside = files.set_aside()
        log.warning("the cache directory holds files of another cache (%s); they were moved to %s", found[:8], aside)
    files.remove_note(_LOST)
    files.remove_note(_IDENTITY)
    return _identity(files)


def _noted_presence(files: CacheFiles, marks: CacheMarks | None) -> dict[InodeNumber, list[range]]:
    if marks is None or marks.clean_stop is None:
        return {}
    note = _read_json(files, _PRESENT)
    if not isinstance(note, dict) or note.get("clean_stop") != marks.clean_stop:
        return {}
    runs = note.get("runs")
    if note.get("checksum") != _checksum(runs):
        log.warning("the note of what is cached is damaged: it is fetched again when it is read")
        return {}
    assert isinstance(runs, dict)
    return {InodeNumber(int(inode)): [range(*run) for run in runs] for inode, runs in runs.items()}


def _checksum(runs: object) -> int:
    return zlib.crc32(json.dumps(runs).encode())


def _noted_losses(files: CacheFiles) -> frozenset[tuple[ChunkKey, Revision]]:
    try:
        return frozenset(
            (ChunkKey(InodeNumber(inode), ChunkIndex(chunk)), Revision(revision))
            for inode, chunk, revision in _read_json(files, _LOST) or ()
        )
    except (TypeError, ValueError):
        log.warning("the note %s of the cache is unreadable and is ignored", _LOST)
        return frozenset()


def _note_losses(files: CacheFiles, lost: Iterable[DirtyChunk]) -> None:
    rows = [[row.key.inode, row.key.chunk, row.revision] for row in lost]
    if rows:
        files.write_note(_LOST, json.dumps(rows).encode())
    else:
        files.remove_note(_LOST)


def _read_json(files: CacheFiles, name: str) -> Any:
    raw = files.read_note(name)
    if raw is None:
        return None
    try:
        return json.loads(raw)
    except ValueError:
        log.warning("the note %s of the cache is unreadable and is ignored", name)
        return None
