"""Arithmetic between byte ranges and chunks. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.values import ChunkIndex

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_CHUNK_BYTES = 128 * 1024
BLOCK_BYTES = 4096
"""In what pieces statfs and st_blocks count; not a unit of anything that is stored."""


@dataclass(frozen=True, slots=True)
class Span:
    """The part of one chunk that a request touches: bytes `start` to `end` of chunk `index`, end excluded."""

    index: ChunkIndex
    start: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes the span covers; never 0."""
        return self.end - self.start


def spans(offset: int, length: int, chunk_bytes: int) -> Iterator[Span]:
    """Split `length` bytes from `offset` of a file into the chunks that they touch, in order."""
    assert offset >= 0
    assert length >= 0
    position, last = offset, offset + length
    while position < last:
        index, start = divmod(position, chunk_bytes)
        end = min(chunk_bytes, start + last - position)
        yield Span(ChunkIndex(index), start, end)
        position += end - start


def chunk_range(offset: int, length: int, chunk_bytes: int) -> range:
    """The indices of the chunks that `length` bytes from `offset` touch; empty for length 0."""
    if length == 0:
        return range(0)
    return range(offset // chunk_bytes, (offset + length - 1) // chunk_bytes + 1)


def chunk_count(size_bytes: int, chunk_bytes: int) -> int:
    """How many chunks a file of `size_bytes` has room for: the index of the first chunk past its end."""
    return -(-size_bytes // chunk_bytes)


def allocated_bytes(size_bytes: int, chunk_count: int, chunk_bytes: int) -> int:
    """What a file takes of the volume, in whole blocks, when `chunk_count` of its chunks are no holes.

    As if the last chunk were there, which may be a hole: less than a chunk too much, for sparse files only. The
    volume's total is kept by the same arithmetic, so `du` and `df` agree.
    """
    return (min(size_bytes, chunk_count * chunk_bytes) + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES
