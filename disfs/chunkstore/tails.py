"""Opens what a pack says of itself where it lies: its tail is fetched by Range, and nothing else of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from disfs.chunkstore.packer import TRAILER_BYTES, open_directory, tail_bytes
from disfs.errors import CorruptDataError
from disfs.values import Location

if TYPE_CHECKING:
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.packer import PackDirectory
    from disfs.chunkstore.transport.base import StoredAttachment, StoredMessage, Transport, Urgency

_ATTEMPTS = 3
"""How often a tail that does not open is fetched in all: it may have been damaged on its way."""
_GUESSED_TAIL_BYTES = 16 * 1024
"""Holds the directory of a pack of 450 slots; more is asked for when there are more."""


def location_of(message: StoredMessage, attachment: StoredAttachment) -> Location:
    """Where an attachment of a message lies."""
    return Location(message.channel, message.message, attachment.attachment)


async def fetch_directory(
    transport: Transport, key: VolumeKey, location: Location, size_bytes: int, urgency: Urgency
) -> PackDirectory:
    """The directory of a pack; CorruptDataError when it is none of this volume's, however often it is fetched.

    NotFoundError when it is gone, and other errors as of `Transport`.
    """
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(CorruptDataError):  # damaged on its way, perhaps
            return await _fetch_once(transport, key, location, size_bytes, urgency)
    return await _fetch_once(transport, key, location, size_bytes, urgency)


async def _fetch_once(
    transport: Transport, key: VolumeKey, location: Location, size_bytes: int, urgency: Urgency
) -> PackDirectory:
    async def last(length: int) -> bytes:
        if length < TRAILER_BYTES:
            raise CorruptDataError("too short for a pack")
        return await transport.fetch(location, size_bytes - length, length, urgency=urgency)

    length = min(size_bytes, _GUESSED_TAIL_BYTES)
    tail = await last(length)
    wanted = tail_bytes(tail)
    if length < wanted <= size_bytes:
        tail = await last(wanted)
    return open_directory(key, tail)
