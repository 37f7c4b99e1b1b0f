"""Who has a volume mounted, for commands that change it without mounting it themselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from disfs.chunkstore.transport.base import Urgency
from disfs.errors import CorruptDataError, NotFoundError
from disfs.recovery.lease import SIZES, VALID_MS, Posted, opened_lease, unix_seconds
from disfs.values import Location

if TYPE_CHECKING:
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import StoredMessage, Transport
    from disfs.values import ChannelId

_MARGIN_SECONDS = 60.0
"""A lease counts for so much longer here: this machine's clock may be ahead of Discord's."""


async def held_elsewhere(
    transport: Transport, channel: ChannelId, key: VolumeKey, volume_id: bytes, place: bytes
) -> Posted | None:
    """The newest lease that still holds and is not of `place`; None when nobody else has the volume mounted.

    Looks at the newest messages of the index channel alone: a mount renews its lease every two minutes. Nothing is
    posted, so a mount that begins a moment later is not seen. Errors as of `Transport`.
    """
    for message in await transport.list_messages(channel, urgency=Urgency.SYNC):
        if unix_seconds(message.message) < time.time() - VALID_MS / 1000 - _MARGIN_SECONDS:
            return None
        posted = await _opened(transport, key, message)
        if posted is not None and posted.lease.volume == volume_id and posted.lease.place != place:
            return posted
    return None


async def _opened(transport: Transport, key: VolumeKey, message: StoredMessage) -> Posted | None:
    if len(message.attachments) != 1 or message.attachments[0].size_bytes not in SIZES:
        return None
    attachment = message.attachments[0]
    location = Location(message.channel, message.message, attachment.attachment)
    try:
        raw = await transport.fetch(location, 0, attachment.size_bytes, urgency=Urgency.SYNC)
        lease = opened_lease(key, raw)
    except (CorruptDataError, NotFoundError):
        return None  # none of ours, or deleted meanwhile
    return None if lease is None else Posted(message.message, lease)
