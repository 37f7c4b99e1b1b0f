"""Journals and checkpoint copies as attachments, version 1: written part by part, opened from their bytes. Pure.

Both use the frame of packs, under kinds of their own. A shipment (a journal or a copy) is cut into parts, each of them
an attachment: slot 0 has the header, the slots after it rows, and the last slot of the last part says that this was
all. Parts of one shipment know each other by its id, and say how the state that it leads to follows from another one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.packer import PackBuilder, PackReader
from disfs.errors import CorruptDataError, ExitCode, UserError
from disfs.recovery.blocks import decode_blocks, encode_block
from disfs.values import ChunkIndex, ChunkKey, InodeNumber, Revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import IO

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.packer import DirectoryEntry, PackDirectory
    from disfs.chunkstore.transport.base import Buffer
    from disfs.metadata.replicated import Block
    from disfs.values import PackId

SHIPMENT_KINDS = (PackKind.JOURNAL, PackKind.CHECKPOINT, PackKind.SNAPSHOT)
ROWS_VERSION = 1
SLOT_BYTES = 192 * 1024
"""A slot is closed when it has so much."""
MAX_SLOT_BYTES = 64 * 1024 * 1024
"""No slot is longer: what says so is refused before it is unpacked."""
END_SLOT = ChunkIndex((1 << 64) - 1)
"""The chunk index under which the directory lists the last slot of the last part."""
COUNTERS = ("inode", "cookie", "revision", "pack")
_HEADER = struct.Struct("<H16s16s16s16s16sQIQ4QH")
_ID_BYTES = 16
_END = struct.Struct("<IQ")
MAX_SUPERSEDED = 256


@dataclass(frozen=True, slots=True)
class Header:
    """What each part of a shipment says of it."""

    volume: bytes
    device: bytes
    shipment: bytes
    """Random: which parts belong together."""
    state: bytes
    """The id of the state that it leads to; a journal's is its shipment's."""
    previous: bytes
    """The id of the state that this one follows; zeros for the first state of a volume."""
    sequence: int
    """Of the state; one more than that of the previous one."""
    part: int
    created_ns: int
    """When the state was fixed, by that machine's clock, in nanoseconds since 1970."""
    counters: Mapping[str, int]
    superseded: tuple[bytes, ...] = ()
    """Ids of other states that were left behind for this one."""

    def to_bytes(self) -> bytes:
        """Slot 0."""
        assert len(self.superseded) <= MAX_SUPERSEDED
        fixed = _HEADER.pack(
            ROWS_VERSION,
            self.volume,
            self.device,
            self.shipment,
            self.state,
            self.previous,
            self.sequence,
            self.part,
            self.created_ns,
            *(self.counters[name] for name in COUNTERS),
            len(self.superseded),
        )
        return fixed + b"".join(self.superseded)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Header:
        """What `to_bytes` wrote. CorruptDataError; `NewerFormatError` for one of a later version."""
        if len(raw) < 2:
            raise CorruptDataError("a header is cut off")
        (version,) = struct.unpack_from("<H", raw)
        if version > ROWS_VERSION:
            raise NewerFormatError(version)
        if version != ROWS_VERSION or len(raw) < _HEADER.size:
            raise CorruptDataError("a header is cut off, or none")
        _, volume, device, shipment, state, previous, sequence, part, created_ns, *rest = _HEADER.unpack_from(raw)
        *counters, count = rest
        ids = raw[_HEADER.size :]
        if count > MAX_SUPERSEDED or len(ids) != count * _ID_BYTES:
            raise CorruptDataError("a header is not as long as it says")
        superseded = tuple(ids[start : start + _ID_BYTES] for start in range(0, len(ids), _ID_BYTES))
        named = dict(zip(COUNTERS, counters, strict=True))
        return cls(volume, device, shipment, state, previous, sequence, part, created_ns, named, superseded)


class NewerFormatError(UserError):
    """What a later version of disfs wrote."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"the volume's journal has format version {version}, this disfs knows {ROWS_VERSION}: use a newer disfs",
            ExitCode.VOLUME_DAMAGED,
        )


class Part(NamedTuple):
    """One attachment of a shipment, in the spool."""

    pack: PackId
    name: str
    offset: int
    size_bytes: int


def write_parts(
    spool: IO[bytes], key: VolumeKey, kind: PackKind, header: Header, blocks: Iterable[Block], *, limit_bytes: int
) -> list[Part]:
    """Write a shipment into `spool`, sealed, and return its parts, each of up to `limit_bytes`. CPU work, and files.

    ValueError when a row does not fit into an attachment.
    """
    writer = _PartWriter(spool, key, kind, header, limit_bytes)
    for block in blocks:
        writer.add(block)
    return writer.finish()


class _PartWriter:
    def __init__(self, spool: IO[bytes], key: VolumeKey, kind: PackKind, header: Header, limit_bytes: int) -> None:
        self._spool = spool
        self._key = key
        self._kind = kind
        self._header = header
        self._limit_bytes = limit_bytes
        self._slot_bytes = min(SLOT_BYTES, limit_bytes // 4)
        self._parts: list[Part] = []
        self._pending = bytearray()
        self._rows = 0
        self._builder = self._begin()

    def add(self, block: Block) -> None:
        section = encode_block(block)
        if len(section) > self._slot_bytes and len(block) > 1:
            for half in block.halves():
                self.add(half)
            return
        self._rows += len(block)
        if self._pending and len(self._pending) + len(section) > self._slot_bytes:
            self._close_slot()
        self._pending += section

    def finish(self) -> list[Part]:
        if self._pending:
            self._close_slot()
        end = _END.pack(len(self._parts) + 1, self._rows)
        if not self._builder.has_room(len(end)):
            self._close_part()
            end = _END.pack(len(self._parts) + 1, self._rows)
        self._seal(END_SLOT, end)
        self._close_part(more=False)
        return self._parts

    def _begin(self) -> PackBuilder:
        builder = PackBuilder(self._key, limit_bytes=self._limit_bytes, chunk_bytes=MAX_SLOT_BYTES, kind=self._kind)
        self._builder = builder
        self._seal(ChunkIndex(0), replace(self._header, part=len(self._parts)).to_bytes())
        return builder

    def _close_slot(self) -> None:
        if not self._builder.has_room(len(self._pending)):
            self._close_part()
        if not self._builder.has_room(len(self._pending)):
            raise ValueError(f"{len(self._pending)} bytes of rows do not fit into an attachment")
        self._seal(ChunkIndex(len(self._builder)), bytes(self._pending))
        self._pending.clear()

    def _seal(self, index: ChunkIndex, content: bytes) -> None:
        self._builder.add(ChunkKey(InodeNumber(self._header.sequence), index), Revision(len(self._parts)), content)

    def _close_part(self, *, more: bool = True) -> None:
        finished = self._builder.finish()
        offset = self._spool.tell()
        for piece in finished.upload.parts:
            self._spool.write(piece)
        self._parts.append(Part(finished.pack, finished.upload.name, offset, finished.upload.size_bytes))
        if more:
            self._begin()


def last_part(directory: PackDirectory) -> bool:
    """Whether this is the last part of its shipment."""
    return bool(directory.entries) and directory.entries[-1].key.chunk == END_SLOT


def header_slot(directory: PackDirectory) -> DirectoryEntry:
    """The entry of the header. CorruptDataError when there is none."""
    if not directory.entries:
        raise CorruptDataError("a part has no header")
    return directory.entries[0]


class PartReader:
    """A part, opened from its bytes. CorruptDataError; `NewerFormatError` where its header is of a later version.

    The version in the frame is in the clear: another one than ours may be what anybody has written there.
    """

    def __init__(self, key: VolumeKey, raw: Buffer) -> None:
        self._pack = PackReader(key, raw)
        self.kind = self._pack.kind
        self.is_last = bool(self._pack.entries) and self._pack.entries[-1].key.chunk == END_SLOT
        self._slots = self._pack.chunks()
        first = next(self._slots, None)
        if self.kind not in SHIPMENT_KINDS or first is None:
            raise CorruptDataError("it is neither a journal nor a copy")
        self.header = Header.from_bytes(first[1])
        self.rows = 0
        """How many were read so far."""
        self.total: tuple[int, int] | None = None
        """How many parts and rows the whole shipment has; known at the end of its last part."""

    def blocks(self) -> Iterator[Block]:
        """The rows, in the order in which they were written; once."""
        for entry, content in self._slots:
            if entry.key.chunk == END_SLOT:
                if len(content) != _END.size:
                    raise CorruptDataError("the end of a shipment is cut off")
                self.total = _END.unpack(content)
                return
            for block in decode_blocks(content):
                self.rows += len(block)
                yield block
