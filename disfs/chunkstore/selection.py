"""Which dirty chunks go into the next message, and in which order. Pure.

A message is worth sending once one chunk is due: quiet for the writeback delay, dirty for the greatest age,
asked for by a drain, or the dirty bytes are over the high mark. It then takes company: whatever has been quiet for a
moment goes along, so that requests, the scarce thing, are spent on full packs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.values import ChunkKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disfs.chunkstore.presence import ChunkMap, Entry

_COMPANY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Quiet:
    """The two times of writeback."""

    delay_seconds: float
    age_seconds: float


def due_at(entry: Entry, quiet: Quiet) -> float:
    """When a dirty chunk is to be sent."""
    return min(entry.written_at + quiet.delay_seconds, entry.dirty_since + quiet.age_seconds)


def earliest_due(chunks: ChunkMap, quiet: Quiet) -> float | None:
    """When the first chunk that waits is due; None when none waits. Looks at two chunks, whatever their number."""
    if chunks.urgent:
        return float("-inf")
    heads = [next(iter(order)) for order in (chunks.by_quiet, chunks.by_age) if order]
    return min((due_at(chunks.inodes[key.inode].entries[key.chunk], quiet) for key in heads), default=None)


def selected(chunks: ChunkMap, quiet: Quiet, now: float, *, hurry: bool) -> Iterator[ChunkKey]:
    """The chunks to send now, by (inode, index): a file's neighbours end up in neighbouring slots."""
    company = min(_COMPANY_SECONDS, quiet.delay_seconds)
    for inode in sorted(chunks.waiting):
        entries = chunks.inodes[inode].entries
        for index in sorted(chunks.waiting[inode]):
            entry = entries[index]
            if hurry or entry.urgent or due_at(entry, quiet) <= now or entry.written_at + company <= now:
                yield ChunkKey(inode, index)
