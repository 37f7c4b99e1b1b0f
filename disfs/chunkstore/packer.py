"""The pack format, version 1: build a pack slot by slot, and open a whole pack from its bytes. Pure.

A pack is `sealed chunks | sealed directory | trailer`. Slots lie back to back from byte 0, in order. The
directory says of each slot whose chunk it holds; the trailer, the only clear part, says what the
pack is and how long the directory is. So a pack explains itself to whoever has the volume key, and a
reader that has the slot table beside it needs one Range and nothing else. `docs/format.md` has the bytes.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from disfs.chunkstore.codec import DIRECTORY_SLOT, FORMAT_VERSION, TAG_BYTES, PackCipher, PackKind
from disfs.chunkstore.transport.base import Upload
from disfs.errors import CorruptDataError
from disfs.values import PACK_ID_BYTES, ChunkIndex, ChunkKey, InodeNumber, PackId, Revision, SentChunk, SlotTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import Buffer

_MAGIC = b"DISFSPCK"
_TRAILER = struct.Struct("<8sHBBI16s")
TRAILER_BYTES = _TRAILER.size
_DIRECTORY_HEADER = struct.Struct("<II")
_ENTRY = struct.Struct("<QQQIII")

_FRAME_BYTES = TRAILER_BYTES + TAG_BYTES + _DIRECTORY_HEADER.size
SLOT_OVERHEAD_BYTES = _ENTRY.size + TAG_BYTES
"""What a slot takes beside its content."""


def new_pack_id() -> PackId:
    """A pack id that no pack has had before."""
    return PackId(os.urandom(PACK_ID_BYTES))


def attachment_name(pack: PackId) -> str:
    """What a pack's attachment is called. Discord may rename it: it is a help for people, never a key."""
    return f"{pack.hex()}.bin"


def max_pack_bytes(chunk_bytes: int) -> int:
    """The most that a pack of a single chunk takes: no attachment limit may be below it."""
    return _FRAME_BYTES + SLOT_OVERHEAD_BYTES + chunk_bytes


class DirectoryEntry(NamedTuple):
    """What the directory says of one slot."""

    key: ChunkKey
    revision: Revision
    stored_bytes: int
    plain_bytes: int
    compressed: bool


class FinishedPack(NamedTuple):
    """A pack that is ready to be sent."""

    pack: PackId
    upload: Upload
    slots: SlotTable
    chunks: tuple[SentChunk, ...]
    """Slot 0 first."""


class PackBuilder:
    """Collects sealed chunks until the next one might not fit. Sealing is CPU work: use it in a worker thread."""

    def __init__(
        self,
        key: VolumeKey,
        *,
        limit_bytes: int,
        chunk_bytes: int,
        kind: PackKind = PackKind.CHUNKS,
        pack: PackId | None = None,
    ) -> None:
        assert limit_bytes >= _FRAME_BYTES
        self.pack = pack or new_pack_id()
        self._cipher = PackCipher(key, self.pack, kind)
        self._kind = kind
        self._chunk_bytes = chunk_bytes
        self._limit_bytes = limit_bytes
        self._size_bytes = _FRAME_BYTES
        self._parts: list[bytes] = []
        self._entries: list[DirectoryEntry] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """How long the pack would be if it were finished now."""
        return self._size_bytes

    def has_room(self, plain_bytes: int) -> bool:
        """Whether a chunk of that length fits even if it does not compress."""
        return self._size_bytes + plain_bytes + SLOT_OVERHEAD_BYTES <= self._limit_bytes

    def add(self, key: ChunkKey, revision: Revision, plain: Buffer) -> None:
        """Seal one chunk into the next slot; the caller has asked `has_room`."""
        length = len(plain)
        assert length <= self._chunk_bytes
        assert self.has_room(length)
        sealed = self._cipher.seal(len(self._entries), plain)
        self._parts.append(sealed.stored)
        self._entries.append(DirectoryEntry(key, revision, len(sealed.stored), length, sealed.compressed))
        self._size_bytes += len(sealed.stored) + _ENTRY.size

    def finish(self) -> FinishedPack:
        """Seal the directory; afterwards the builder is of no more use."""
        directory = self._cipher.seal(DIRECTORY_SLOT, self._directory(), compress=False).stored
        trailer = _TRAILER.pack(_MAGIC, FORMAT_VERSION, self._kind, 0, len(directory), self.pack)
        upload = Upload(attachment_name(self.pack), (*self._parts, directory, trailer))
        assert upload.size_bytes == self._size_bytes
        slots = SlotTable([e.stored_bytes for e in self._entries], [e.compressed for e in self._entries])
        return FinishedPack(self.pack, upload, slots, tuple(SentChunk(e.key, e.revision) for e in self._entries))

    def _directory(self) -> bytes:
        header = _DIRECTORY_HEADER.pack(self._chunk_bytes, len(self._entries))
        return header + b"".join(
            _ENTRY.pack(e.key.inode, e.key.chunk, e.revision, e.stored_bytes, e.plain_bytes, int(e.compressed))
            for e in self._entries
        )


class PackDirectory(NamedTuple):
    """What a pack says of itself, authenticated by the volume key."""

    pack: PackId
    kind: PackKind
    chunk_bytes: int
    entries: tuple[DirectoryEntry, ...]
    """Slot 0 first."""


def stated_version(tail: Buffer) -> int | None:
    """Which version of the format a pack says it has, from at least its last TRAILER_BYTES; None for what is no pack.

    Nothing is authenticated: it says whether it is worth the attempt, and with what.
    """
    view = memoryview(tail)
    if len(view) < TRAILER_BYTES:
        return None
    magic, version, *_ = _TRAILER.unpack(view[-TRAILER_BYTES:])
    return int(version) if magic == _MAGIC else None


def tail_bytes(tail: Buffer) -> int:
    """How many bytes at the end of a pack are its directory and trailer, from at least its last TRAILER_BYTES.

    CorruptDataError for what is no pack of a version that is known.
    """
    directory_bytes, _, _ = _open_trailer(memoryview(tail))
    return directory_bytes + TRAILER_BYTES


def open_directory(key: VolumeKey, tail: Buffer) -> PackDirectory:
    """Open a pack's directory; `tail` is the end of the pack, its last `tail_bytes` or more.

    CorruptDataError when it is no pack, or none that was sealed under this volume key.
    """
    view = memoryview(tail)
    directory_bytes, kind, pack = _open_trailer(view)
    if directory_bytes + TRAILER_BYTES > len(view):
        raise CorruptDataError("the trailer states an impossible directory")
    sealed = view[len(view) - TRAILER_BYTES - directory_bytes : len(view) - TRAILER_BYTES]
    cipher = PackCipher(key, pack, kind)
    plain = cipher.unseal(DIRECTORY_SLOT, sealed, compressed=False, max_bytes=len(sealed))
    chunk_bytes, count = _DIRECTORY_HEADER.unpack_from(plain)
    if len(plain) != _DIRECTORY_HEADER.size + count * _ENTRY.size:
        raise CorruptDataError("the directory is not of the length that it states")
    entries = tuple(
        DirectoryEntry(
            ChunkKey(InodeNumber(inode), ChunkIndex(chunk)), Revision(revision), stored, length, bool(flags & 1)
        )
        for inode, chunk, revision, stored, length, flags in _ENTRY.iter_unpack(plain[_DIRECTORY_HEADER.size :])
    )
    return PackDirectory(pack, kind, chunk_bytes, entries)


def _open_trailer(view: memoryview) -> tuple[int, PackKind, PackId]:
    """Length of the sealed directory, kind, pack id."""
    if len(view) < TRAILER_BYTES:
        raise CorruptDataError(f"{len(view)} bytes are too short for a pack")
    magic, version, kind, reserved, directory_bytes, pack = _TRAILER.unpack(view[-TRAILER_BYTES:])
    if magic != _MAGIC or version != FORMAT_VERSION or reserved:
        raise CorruptDataError("not a pack of a version that this disfs knows")
    if directory_bytes < TAG_BYTES + _DIRECTORY_HEADER.size:
        raise CorruptDataError("the trailer states an impossible directory")
    try:
        return directory_bytes, PackKind(kind), PackId(pack)
    except ValueError as error:
        raise CorruptDataError(f"packs of kind {kind} are unknown") from error


class PackReader:
    """A whole pack, opened from its bytes with nothing but the volume key.

    Opening checks the trailer, the directory and that the slots fill the pack exactly; every failure
    is a `CorruptDataError`. The chunks themselves are checked as they are read.
    """

    def __init__(self, key: VolumeKey, raw: Buffer) -> None:
        view = memoryview(raw)
        if len(view) < _FRAME_BYTES:
            raise CorruptDataError(f"{len(view)} bytes are too short for a pack")
        self.pack, self.kind, self.chunk_bytes, self.entries = open_directory(key, view)
        self._cipher = PackCipher(key, self.pack, self.kind)
        directory_start = len(view) - tail_bytes(view)
        self._body = view[:directory_start]
        if sum(entry.stored_bytes for entry in self.entries) != directory_start:
            raise CorruptDataError("the slots do not fill the pack")

    @property
    def slots(self) -> SlotTable:
        """The slot table, as the builder gave it."""
        return SlotTable([e.stored_bytes for e in self.entries], [e.compressed for e in self.entries])

    def chunks(self) -> Iterator[tuple[DirectoryEntry, bytes]]:
        """Each slot's entry and content, in order; CorruptDataError at the first one that is damaged."""
        position = 0
        for slot, entry in enumerate(self.entries):
            stored = self._body[position : position + entry.stored_bytes]
            position += entry.stored_bytes
            plain = self._cipher.unseal(slot, stored, compressed=entry.compressed, max_bytes=self.chunk_bytes)
            if len(plain) != entry.plain_bytes:
                raise CorruptDataError(f"slot {slot} of pack {self.pack.hex()} is not as long as its directory says")
            yield entry, plain
