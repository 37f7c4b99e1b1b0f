"""What an inspection of a volume's metadata speaks of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from disfs.values import InodeNumber, PackRecord


class Broken(NamedTuple):
    """One place where an invariant does not hold."""

    sentence: str
    inode: InodeNumber | None
    detail: str


class KnownPack(NamedTuple):
    """A recorded pack, with the number by which extents name it."""

    number: int
    record: PackRecord
    live_bytes: int


class LiveRun(NamedTuple):
    """Chunks of an inode that lie in consecutive slots of a pack."""

    inode: InodeNumber
    first: int
    chunk_count: int
    first_slot: int
    stored_bytes: int


class BadRun(NamedTuple):
    """Consecutive chunks of an inode that cannot be had from where they are said to be."""

    first: int
    chunk_count: int
    cause: str


@dataclass(frozen=True, slots=True)
class FileView:
    """What a finding says of a file."""

    path: bytes | None
    """One of its names; None when none leads to it."""
    size_bytes: int
    set_aside: bool
    """It lies where a repair put damaged files."""
    in_trash: bool = False
    """It was deleted, and can be restored for a while; the path is where it was."""
