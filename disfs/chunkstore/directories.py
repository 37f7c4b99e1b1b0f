"""The directory of a pack, fetched from Discord: what an attachment says of itself to whoever has the volume key."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from disfs.chunkstore.packer import TRAILER_BYTES, open_directory, tail_bytes
from disfs.errors import CorruptDataError

if TYPE_CHECKING:
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.packer import PackDirectory
    from disfs.chunkstore.transport.base import Transport, Urgency
    from disfs.values import Location

_ATTEMPTS = 3
"""How often a tail that does not open is fetched in all: it may have been damaged on its way."""
_GUESSED_TAIL_BYTES = 16 * 1024
"""Holds the directory of a pack of 450 slots; more is asked for when there are more."""


async def fetch_directory(
    transport: Transport, key: VolumeKey, location: Location, size_bytes: int, urgency: Urgency
) -> PackDirectory:
    """The directory of an attachment that is `size_bytes` long; other errors as in `Transport.fetch`.

    CorruptDataError when it is no pack of this volume, however often it is fetched.
    """
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(CorruptDataError):  # damaged on its way, perhaps
            return await _fetch_once(transport, key, location, size_bytes, urgency)
    return await _fetch_once(transport, key, location, size_bytes, urgency)


async def _fetch_once(
    transport: Transport, key: VolumeKey, location: Location, size_bytes: int, urgency: Urgency
) -> PackDirectory:
    async def tail(length: int) -> bytes:
        if length < TRAILER_BYTES:
            raise CorruptDataError("too short for a pack")
        return await transport.fetch(location, size_bytes - length, length, urgency=urgency)

    length = min(size_bytes, _GUESSED_TAIL_BYTES)
    found = await tail(length)
    wanted = tail_bytes(found)
    if length < wanted <= size_bytes:
        found = await tail(wanted)
    return open_directory(key, found)
