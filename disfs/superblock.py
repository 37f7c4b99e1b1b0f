"""The superblock: what a volume says about itself in the first message of its index channel. Pure.

JSON, because it is read once a mount, by people too, and grows with the formats; docs/superblock.md has it field by
field. Nothing in it is secret: the volume key is wrapped by the passphrase.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from disfs.errors import DisfsError
from disfs.values import ChannelId

MAGIC = "disfs-superblock"
VERSION = 1
ATTACHMENT_NAME = "superblock.json"
MAX_BYTES = 64 * 1024
"""No superblock is longer; a longer attachment is not one."""
DEFAULT_DATA_CHANNELS = 4
MAX_DATA_CHANNELS = 49
"""A category holds 50 channels, and one of them is the index."""

_FIELDS = ("format", "version", "volume_id", "name", "created", "chunk_bytes", "data_channels", "wrapped_key")
"""What the checksum covers."""
_CHUNK_BYTES = range(4096, 16 * 1024 * 1024 + 1)


class SuperblockError(DisfsError):
    """Bytes that are no superblock, or one of a version that this disfs does not know."""


class NewerSuperblockError(SuperblockError):
    """A superblock that a later disfs has written."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """The identity of a volume."""

    volume_id: bytes
    """16 random bytes that tell this volume from every other one, also from another of the same name."""
    name: str
    created: str
    """When the volume was made, ISO 8601 in UTC; for people."""
    chunk_bytes: int
    data_channels: tuple[ChannelId, ...]
    """Where packs go; the order spreads them."""
    wrapped_key: bytes = field(repr=False)
    """The volume key, sealed by a passphrase: the bytes of `chunkstore.keys`."""

    def to_json(self) -> str:
        """The stored form; `from_json` reads it back equal."""
        fields = {
            "format": MAGIC,
            "version": VERSION,
            "volume_id": self.volume_id.hex(),
            "name": self.name,
            "created": self.created,
            "chunk_bytes": self.chunk_bytes,
            # As strings, as Discord writes its ids: many JSON readers round integers above 2**53.
            "data_channels": [str(channel) for channel in self.data_channels],
            "wrapped_key": base64.b64encode(self.wrapped_key).decode("ascii"),
        }
        return json.dumps({**fields, "checksum": _checksum(fields)}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Superblock:
        """Read a superblock; `SuperblockError` says what is wrong with it. Unknown fields are left alone."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SuperblockError("it is not JSON") from error
        if not isinstance(raw, dict) or raw.get("format") != MAGIC:
            raise SuperblockError("it is not a disfs superblock")
        version = raw.get("version")
        if type(version) is int and version > VERSION:
            raise NewerSuperblockError(f"it has format version {version}, this disfs knows {VERSION}")
        if version != VERSION:
            raise SuperblockError("it has no format version that there is")
        try:
            found = cls._from_fields(raw)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise SuperblockError(f"a field is missing or wrong ({error})") from error
        # Those of before there were checksums have none.
        if "checksum" in raw and raw["checksum"] != _checksum(raw):
            raise SuperblockError("its checksum does not fit")
        return found

    @classmethod
    def _from_fields(cls, raw: dict[str, Any]) -> Superblock:
        volume_id = bytes.fromhex(raw["volume_id"])
        channels = tuple(ChannelId(int(channel)) for channel in raw["data_channels"])
        chunk_bytes = raw["chunk_bytes"]
        if len(volume_id) != 16:
            raise ValueError("volume_id")
        if not channels or any(channel <= 0 for channel in channels):
            raise ValueError("data_channels")
        if type(chunk_bytes) is not int or chunk_bytes not in _CHUNK_BYTES or chunk_bytes % 4096:
            raise ValueError("chunk_bytes")
        return cls(
            volume_id=volume_id,
            name=str(raw["name"]),
            created=str(raw["created"]),
            chunk_bytes=chunk_bytes,
            data_channels=channels,
            wrapped_key=base64.b64decode(raw["wrapped_key"], validate=True),
        )


def _checksum(raw: dict[str, Any]) -> str:
    """Against damage, not against people: whoever may write a superblock may write its checksum."""
    fields = {name: raw[name] for name in _FIELDS}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
