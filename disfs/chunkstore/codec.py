"""Seal and unseal one chunk: compress where it helps, encrypt, authenticate. Pure.

AES-256-GCM under a key that belongs to one pack alone; the nonce is the slot number, so within a pack
no nonce comes twice, and a pack that is sealed again has a new id and with it a new key. What a slot
may be mistaken for is authenticated beside it: format version, kind, compression, slot, pack id. Bytes that
were moved, truncated, mixed up between packs or flipped raise `CorruptDataError`; they are never returned.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, NamedTuple

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from disfs.errors import CorruptDataError

if TYPE_CHECKING:
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import Buffer
    from disfs.values import PackId

FORMAT_VERSION = 1
TAG_BYTES = 16
"""How much longer a sealed chunk may be than its content: the authentication tag."""
DIRECTORY_SLOT = 0xFFFFFFFF
"""The slot number under which a pack's directory is sealed; no chunk ever has it."""

_ASSOCIATED_DATA = struct.Struct("<HBBI16s")
_COMPRESSED = 1
_LEVEL = 1
_MIN_COMPRESS_BYTES = 64


class PackKind(enum.IntEnum):
    """What an attachment holds. A number of the format: never renumbered."""

    CHUNKS = 1
    JOURNAL = 2
    CHECKPOINT = 3
    SUPERBLOCK = 4
    LEASE = 5
    SNAPSHOT = 6


class SealedChunk(NamedTuple):
    """The bytes as they are stored, and whether they are compressed beneath the encryption."""

    stored: bytes
    compressed: bool


class PackCipher:
    """Seals and unseals the slots of one pack. Use it from one thread at a time."""

    __slots__ = ("_cipher", "_compressor", "_decompressor", "_kind", "_pack")

    def __init__(self, key: VolumeKey, pack: PackId, kind: PackKind = PackKind.CHUNKS) -> None:
        self._cipher = AESGCM(key.pack_key(pack))
        self._pack = pack
        self._kind = kind
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        self._decompressor = zstandard.ZstdDecompressor()

    def seal(self, slot: int, plain: Buffer, *, compress: bool = True) -> SealedChunk:
        """Seal `plain` for `slot`; the result is at most `TAG_BYTES` longer.

        A slot of a pack that leaves this machine is sealed once: the caller answers for that.
        """
        packed = self._compressed(plain) if compress else None
        content = plain if packed is None else packed
        stored = self._cipher.encrypt(_nonce(slot), content, self._associated_data(slot, packed is not None))
        return SealedChunk(stored, packed is not None)

    def unseal(self, slot: int, stored: Buffer, *, compressed: bool, max_bytes: int) -> bytes:
        """The content of `slot`, at most `max_bytes` long; CorruptDataError when anything at all is wrong."""
        try:
            content = self._cipher.decrypt(_nonce(slot), stored, self._associated_data(slot, compressed))
        except (InvalidTag, ValueError) as error:
            # ValueError: shorter than a tag, which is no less damaged.
            raise CorruptDataError(f"slot {slot} of pack {self._pack.hex()} fails authentication") from error
        if compressed:
            return self._decompressed(slot, content, max_bytes)
        if len(content) > max_bytes:
            raise CorruptDataError(f"slot {slot} of pack {self._pack.hex()} is longer than a chunk")
        return content

    def _compressed(self, plain: Buffer) -> bytes | None:
        """`plain` compressed, or None where that saves less than a sixteenth."""
        length = len(plain)
        if length < _MIN_COMPRESS_BYTES:
            return None
        packed = self._compressor.compress(plain)
        return packed if len(packed) <= length - length // 16 else None

    def _decompressed(self, slot: int, content: bytes, max_bytes: int) -> bytes:
        # `max_output_size` is ignored where the frame states its size, so the statement is checked first.
        try:
            stated = zstandard.get_frame_parameters(content).content_size
            if stated > max_bytes:  # "unknown" is the largest number there is, so it is refused here too
                raise CorruptDataError(f"slot {slot} of pack {self._pack.hex()} expands beyond a chunk")
            return self._decompressor.decompress(content, max_output_size=max_bytes)
        except zstandard.ZstdError as error:
            raise CorruptDataError(f"slot {slot} of pack {self._pack.hex()} does not decompress") from error

    def _associated_data(self, slot: int, compressed: bool) -> bytes:
        flags = _COMPRESSED if compressed else 0
        return _ASSOCIATED_DATA.pack(FORMAT_VERSION, self._kind, flags, slot, self._pack)


def _nonce(slot: int) -> bytes:
    return slot.to_bytes(12, "little")
