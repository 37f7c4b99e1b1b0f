"""The nouns that the layers exchange: ids, locations, extents, packs, attributes. No I/O.

Ids are NewTypes so that a chunk index cannot stand where an inode number belongs. Records are frozen
dataclasses; `Attributes` is a NamedTuple instead, because one is made from a row for every kernel
request and a tuple is built several times faster.
"""

from __future__ import annotations

import array
import enum
import itertools
import sys
from dataclasses import dataclass
from typing import NamedTuple, NewType

InodeNumber = NewType("InodeNumber", int)
ChunkIndex = NewType("ChunkIndex", int)
Revision = NewType("Revision", int)
"""Counter of a chunk's content. One counter serves a whole volume, so a later write anywhere has a higher one."""
PackId = NewType("PackId", bytes)
"""16 random bytes; a pack that is sealed again gets a new one."""
GuildId = NewType("GuildId", int)
ChannelId = NewType("ChannelId", int)
MessageId = NewType("MessageId", int)
AttachmentId = NewType("AttachmentId", int)

ROOT_INODE = InodeNumber(1)
PACK_ID_BYTES = 16


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """Where an attachment lies in Discord."""

    channel: ChannelId
    message: MessageId
    attachment: AttachmentId


class ChunkKey(NamedTuple):
    """Names one chunk of a volume; sorts by inode, then by the chunk's index in it."""

    inode: InodeNumber
    chunk: ChunkIndex


def may_be_of(written: ChunkKey, key: ChunkKey) -> bool:
    """Whether a slot that was written for one chunk may hold another one now, if its inode is renumbered.

    A file that is emptied lives on, and what was in it gets a number of its own, a later one: see metadata/trash.py.
    """
    return written.chunk == key.chunk and written.inode <= key.inode


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of `count` consecutive chunks of one inode in consecutive slots of one pack."""

    inode: InodeNumber
    first_chunk: ChunkIndex
    count: int
    pack: PackId
    first_slot: int

    def slot_of(self, index: ChunkIndex) -> int:
        """The slot that holds chunk `index`, which must lie in this extent."""
        assert self.first_chunk <= index < self.first_chunk + self.count
        return self.first_slot + (index - self.first_chunk)


class SlotTable:
    """How many bytes each slot of a pack takes, and whether it is compressed: what a reader needs for a Range.

    Kept beside the pack's location as little-endian u32, one per slot: the stored length in the low 31
    bits, the top bit set when the chunk is compressed.
    """

    __slots__ = ("_offsets", "_words")

    _COMPRESSED = 1 << 31

    def __init__(self, stored_lengths: list[int], compressed: list[bool]) -> None:
        assert len(stored_lengths) == len(compressed)
        assert all(0 <= length < self._COMPRESSED for length in stored_lengths)
        self._words = array.array(
            "I", [n | (self._COMPRESSED if c else 0) for n, c in zip(stored_lengths, compressed, strict=True)]
        )
        self._offsets = [0, *itertools.accumulate(stored_lengths)]

    @classmethod
    def from_bytes(cls, raw: bytes) -> SlotTable:
        """Read what `to_bytes` wrote; ValueError when the length is not a multiple of four."""
        words = array.array("I")
        words.frombytes(raw)
        if sys.byteorder == "big":
            words.byteswap()
        return cls([w & ~cls._COMPRESSED for w in words], [bool(w & cls._COMPRESSED) for w in words])

    def to_bytes(self) -> bytes:
        """The stored form, four bytes a slot."""
        words = array.array("I", self._words)
        if sys.byteorder == "big":
            words.byteswap()
        return words.tobytes()

    def __len__(self) -> int:
        return len(self._words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotTable) and self._words == other._words

    def __hash__(self) -> int:
        return hash(self._words.tobytes())

    def offset(self, slot: int) -> int:
        """Where `slot` begins in the pack; `offset(len(table))` is where the directory begins."""
        return self._offsets[slot]

    def stored_length(self, slot: int) -> int:
        """How many bytes `slot` takes in the pack."""
        return self._offsets[slot + 1] - self._offsets[slot]

    def is_compressed(self, slot: int) -> bool:
        """Whether the chunk in `slot` was compressed before it was encrypted."""
        return bool(self._words[slot] & self._COMPRESSED)


@dataclass(frozen=True, slots=True)
class PackRecord:
    """A pack that Discord has acknowledged."""

    pack: PackId
    location: Location
    size_bytes: int
    slots: SlotTable


@dataclass(frozen=True, slots=True)
class SentChunk:
    """One chunk as it went into a pack: its content had `revision`, its slot is its position in the list."""

    key: ChunkKey
    revision: Revision


@dataclass(frozen=True, slots=True)
class SentPack:
    """A pack that Discord has acknowledged together with what its slots hold, slot 0 first."""

    record: PackRecord
    chunks: tuple[SentChunk, ...]


@dataclass(frozen=True, slots=True)
class DirtyChunk:
    """A chunk whose content is newer than any recorded location."""

    key: ChunkKey
    revision: Revision
    born: Revision
    """The revision of the first write since the chunk was last clean (or did not exist). A pack that was
    sealed from an older life of the chunk, before a truncate, has a lower revision and is not recorded."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of the chunks of packs that Discord acknowledged."""

    clean: tuple[ChunkKey, ...]
    """Recorded, and unchanged since they were sealed: no longer dirty."""
    still_dirty: tuple[ChunkKey, ...]
    """Recorded, but written again meanwhile: dirty still, and Discord has the content of the older revision."""
    dropped: tuple[ChunkKey, ...]
    """Truncated or deleted meanwhile: not recorded, their slots are garbage from the start."""


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message all of whose packs hold no live byte; what sweep deletes."""

    location: Location
    """Of the first of its packs."""
    packs: tuple[PackId, ...]
    dead_since: Revision
    """It held nothing live any more when this revision was given out."""


class LiveChunk(NamedTuple):
    """A chunk whose recorded place is a slot of a given pack."""

    key: ChunkKey
    pack: PackId
    slot: int


@dataclass(frozen=True, slots=True)
class SparseMessage:
    """A message of which less than half is live; what compaction rewrites."""

    channel: ChannelId
    message: MessageId
    stored_bytes: int
    """Of all slots of its packs. What packs take beside their slots is no garbage: rewriting would not save it."""
    live_bytes: int
    """Of those slots that are some chunk's recorded place."""

    @property
    def garbage_bytes(self) -> int:
        """What deleting it would free beyond what has to be sent again."""
        return self.stored_bytes - self.live_bytes


class Attributes(NamedTuple):
    """What stat(2) shows of an inode. Field order is the column order of the inodes table."""

    inode: InodeNumber
    mode: int
    """Type and permission bits, as st_mode."""
    nlink: int
    uid: int
    gid: int
    rdev: int
    size_bytes: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    chunk_count: int = 0
    """How many chunks of a file are not holes; what the chunk store wrote down in the ledger."""


@dataclass(frozen=True, slots=True)
class AttributeChanges:
    """What setattr(2) asks for; None leaves a field as it is."""

    mode: int | None = None
    """Permission bits only; the type of an inode never changes."""
    uid: int | None = None
    gid: int | None = None
    size_bytes: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None


class NewInode(NamedTuple):
    """What mknod, mkdir, symlink and create give a new inode. The store sets the rest: number, times, nlink,
    and what the parent hands down: a setgid parent its group, one with a default ACL that instead of the umask."""

    mode: int
    uid: int
    gid: int
    rdev: int = 0
    target: bytes | None = None
    """A symbolic link's target; None for everything else."""
    umask: int = 0
    """Permission bits that are taken from `mode`, unless the parent has a default ACL."""


class DirectoryEntry(NamedTuple):
    """One name in a directory. `cookie` rises with each entry ever made, is never reused, and is at least 3."""

    name: bytes
    cookie: int
    attributes: Attributes


class TrashReason(enum.IntEnum):
    """How something came into the trash. Numbers of a stored format: never renumbered."""

    DELETED = 1
    REPLACED = 2
    """Another file was renamed over it."""
    EMPTIED = 3
    """It was cut to nothing, as programs do that write a file anew; the file itself lives on."""


@dataclass(frozen=True, slots=True)
class Trashed:
    """Something in the trash."""

    inode: InodeNumber
    path: bytes
    """The last one that led to it."""
    trashed_ns: int
    reason: TrashReason
    mode: int
    uid: int
    gid: int
    rdev: int
    size_bytes: int
    atime_ns: int
    mtime_ns: int
    target: bytes | None


FIRST_VIEW_INODE = InodeNumber(1 << 62)
"""Inodes from here on are those of snapshots, and never change. This one is the directory of all snapshots."""
REPORTS_INODE = InodeNumber(FIRST_VIEW_INODE + 1)
"""The directory of what the daemon says of itself; its files follow, in the order of REPORT_NAMES."""
REPORTS_NAME = b".disfs"
REPORT_NAMES = (b"status", b"status.json", b"metrics")
_VIEW_BITS = 40


def view_inode(snapshot: int, inode: int) -> InodeNumber:
    """The number under which a mount shows an inode of a snapshot."""
    assert 0 < snapshot < 1 << (62 - _VIEW_BITS)
    assert 0 < inode < 1 << _VIEW_BITS
    return InodeNumber(FIRST_VIEW_INODE | snapshot << _VIEW_BITS | inode)


def snapshot_of(inode: InodeNumber) -> tuple[int, InodeNumber]:
    """The snapshot that an inode from FIRST_VIEW_INODE on belongs to, 0 for none, and its number there."""
    number = inode - FIRST_VIEW_INODE
    return number >> _VIEW_BITS, InodeNumber(number & (1 << _VIEW_BITS) - 1)


def is_report(inode: InodeNumber) -> bool:
    """Whether it is one of the files in which the daemon says how it is."""
    return 0 < inode - REPORTS_INODE <= len(REPORT_NAMES)
