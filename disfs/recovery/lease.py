"""A lease, version 1: one machine at a time has a volume mounted. What a lease says, and whose counts. Pure.

A lease is a small sealed message in the index channel. Its age, and which of two was first, are read from the ids
that Discord gave the messages: they begin with Discord's own time. No clock of any machine plays a part.

- A lease ends by itself VALID_MS after its message. Its holder posts another one long before that, which names the
  one before it, and then deletes that: a chain. A chain that was interrupted for longer than VALID_MS is none: the
  message stands for itself.
- Of two chains the one that began first counts, so of two machines that begin at once exactly one goes on, whatever
  either has seen of the other. One that took over on purpose comes before those that it found, and the last such first.
- What was posted from the same place on the same machine is no rival: the lock there keeps processes apart, so its
  sender is dead. Unless it is newer: then the place is not the same after all, but a clone.

The alternatives: a lock without an end outlives a crash; editing one message costs as many requests and loses the
order; reactions and pins of messages are fewer bytes, but cannot be sealed.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.packer import PackBuilder, PackReader, max_pack_bytes
from disfs.errors import CorruptDataError
from disfs.recovery.frames import NewerFormatError, check_frame_version
from disfs.values import ChunkIndex, ChunkKey, InodeNumber, MessageId, Revision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.packer import FinishedPack
    from disfs.chunkstore.transport.base import Buffer

LEASE_VERSION = 1
VALID_MS = 5 * 60 * 1000
"""How long a lease holds from the moment at which Discord got it."""
NO_MESSAGE = MessageId(0)
THIS_MESSAGE = MessageId((1 << 64) - 1)
"""Stands for the id of the very message that says it, which is not known beforehand."""

_LEASE = struct.Struct("<H16s16s16s16sQQQB")
_HOST_BYTES = 64
_PLAIN_BYTES = _LEASE.size + _HOST_BYTES
_STAMP_SHIFT = 22
"""An id's lower bits; above them are the milliseconds since Discord's epoch."""
_EPOCH_MS = 1_420_070_400_000
SIZES = range(max_pack_bytes(_PLAIN_BYTES) - 64, max_pack_bytes(_PLAIN_BYTES) + 1)
"""How long the attachment of a lease can be; what has another length need not be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What a lease says."""

    volume: bytes
    device: bytes
    """Which state of the volume it is for, as in journals."""
    place: bytes
    """Which directory of which machine; see `place_of`."""
    session: bytes
    """Random for each mount."""
    first: MessageId = THIS_MESSAGE
    """With which message this chain began."""
    previous: MessageId = NO_MESSAGE
    """The message before this one in the chain; 0 in its first."""
    takeover: MessageId = NO_MESSAGE
    """With which message of the chain others were pushed aside; 0 when they never were."""
    host: str
    """The machine's name, for people."""


def place_of(host: str, machine: str, directory: str) -> bytes:
    """Names a directory of a machine without telling what it is called."""
    return hashlib.sha256(f"{host}\0{machine}\0{directory}".encode(errors="surrogateescape")).digest()[:16]


def sealed_lease(key: VolumeKey, lease: Lease, *, version: int = LEASE_VERSION) -> FinishedPack:
    """A lease as an attachment. Another `version` is for tests of what is refused."""
    host = lease.host.encode("utf-8", "replace")[:_HOST_BYTES]
    plain = (
        _LEASE.pack(
            version,
            lease.volume,
            lease.device,
            lease.place,
            lease.session,
            lease.first,
            lease.previous,
            lease.takeover,
            len(host),
        )
        + host
        # Random, so that compression changes little about the length, by which leases are looked for.
        + os.urandom(_HOST_BYTES - len(host))
    )
    builder = PackBuilder(key, limit_bytes=SIZES.stop, chunk_bytes=_PLAIN_BYTES, kind=PackKind.LEASE)
    builder.add(ChunkKey(InodeNumber(0), ChunkIndex(0)), Revision(0), plain)
    return builder.finish()


def opened_lease(key: VolumeKey, raw: Buffer) -> Lease | None:
    """A lease from its attachment; None for a sealed thing of another kind.

    CorruptDataError for what is not sealed with this key; `NewerFormatError` for a lease of a later version.
    """
    check_frame_version(raw)
    pack = PackReader(key, raw)
    if pack.kind is not PackKind.LEASE:
        return None
    plain = next((content for _, content in pack.chunks()), b"")
    if len(plain) >= 2 and int.from_bytes(plain[:2], "little") > LEASE_VERSION:
        raise NewerFormatError(int.from_bytes(plain[:2], "little"))
    if len(plain) != _PLAIN_BYTES:
        raise CorruptDataError("a lease is cut off")
    version, volume, device, place, session, first, previous, takeover, length = _LEASE.unpack_from(plain)
    if version != LEASE_VERSION or length > _HOST_BYTES:
        raise CorruptDataError("a lease makes no sense")
    host = plain[_LEASE.size : _LEASE.size + length].decode("utf-8", "replace")
    return Lease(
        volume=volume,
        device=device,
        place=place,
        session=session,
        first=MessageId(first),
        previous=MessageId(previous),
        takeover=MessageId(takeover),
        host=host,
    )


def stamp_ms(message: MessageId) -> int:
    """When Discord got a message, in milliseconds since its own epoch."""
    return message >> _STAMP_SHIFT


def unix_seconds(message: MessageId) -> float:
    """When Discord got a message, in seconds since 1970."""
    return (stamp_ms(message) + _EPOCH_MS) / 1000


def message_before(message: MessageId) -> MessageId:
    """An id below those of all leases that hold when `message` is sent."""
    return MessageId(max(0, stamp_ms(message) - VALID_MS - 1) << _STAMP_SHIFT)


class Posted(NamedTuple):
    """A lease, and the message that it came with."""

    message: MessageId
    lease: Lease

    @property
    def goes_on(self) -> bool:
        """Whether it follows the one before it in time."""
        lease = self.lease
        return bool(lease.previous) and stamp_ms(self.message) - stamp_ms(lease.previous) <= VALID_MS

    @property
    def first(self) -> MessageId:
        """With which message its chain began."""
        return self.lease.first if self.goes_on and self.lease.first != THIS_MESSAGE else self.message

    @property
    def takeover(self) -> MessageId:
        """With which message it pushed others aside; 0: it did not."""
        if self.lease.takeover == THIS_MESSAGE:
            return self.message
        return self.lease.takeover if self.goes_on else NO_MESSAGE

    @property
    def precedence(self) -> tuple[int, int]:
        """The lower one counts."""
        return -self.takeover, self.first

    def next(self) -> Lease:
        """What the next lease of this chain says."""
        return replace(self.lease, first=self.first, previous=self.message, takeover=self.takeover)


def rival(mine: Posted, began: MessageId, others: Iterable[Posted]) -> Posted | None:
    """Whose lease keeps `mine` from counting at the moment of its message; None when it counts.

    `began` is the first message of this session, not of the chain, which an earlier session may have begun.
    """
    found: Posted | None = None
    for other in others:
        if other.lease.session == mine.lease.session or stamp_ms(mine.message) - stamp_ms(other.message) > VALID_MS:
            continue
        is_own_place = other.lease.place == mine.lease.place
        counts = other.message > began if is_own_place else other.precedence < mine.precedence
        if counts and (found is None or other.precedence < found.precedence):
            found = other
    return found
