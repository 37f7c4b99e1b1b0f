"""Puts a volume's superblock in Discord in the place of the one before: with another passphrase, never without one.

The superblock in force is the oldest one of the index channel. The new one is sent behind it and read back; only then
are the older ones deleted, newest first, so that at each instant the oldest is whole and opens with the passphrase of
before or the new one. After a crash in between the old one counts, and a repetition deletes what was left.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from disfs.chunkstore.transport.base import LIST_LIMIT, Upload, Urgency
from disfs.errors import ExitCode, StorageError, UserError
from disfs.message_texts import superblock_text
from disfs.superblock import ATTACHMENT_NAME, MAX_BYTES, Superblock, SuperblockError
from disfs.values import Location, MessageId

if TYPE_CHECKING:
    from disfs.chunkstore.transport.base import StoredMessage, Transport
    from disfs.values import ChannelId


async def replace_superblock(transport: Transport, index_channel: ChannelId, new: Superblock) -> None:
    """Return when `new` is the superblock in force. VOLUME_DAMAGED when what is in force is another volume's.

    VOLUME_EXISTS when somebody replaced it at the same time and theirs is in force. Errors as of `Transport`; then the
    one before is in force, or the new one.
    """
    old = await _superblock_messages(transport, index_channel)
    for message in old:
        found = await _read(transport, message)
        if found is None or found.volume_id != new.volume_id:
            what = "another volume's superblock" if found else "a superblock that cannot be read"
            raise UserError(
                f"the index channel of volume {new.name!r} holds {what}, nothing is replaced; 'disfs fsck' says more",
                ExitCode.VOLUME_DAMAGED,
            )
    upload = Upload(ATTACHMENT_NAME, (new.to_json().encode("utf-8"),))
    sent = await transport.send(
        index_channel,
        [upload],
        nonce=f"sb{os.urandom(10).hex()}",
        content=superblock_text(new.name),
        urgency=Urgency.SYNC,
    )
    if await _read(transport, sent) != new:
        raise StorageError("the new superblock does not come back as it was sent; the one before is in force")
    for older in sorted((each.message for each in old if each.message < sent.message), reverse=True):
        await transport.delete(index_channel, [older], urgency=Urgency.SYNC)
    left = await _superblock_messages(transport, index_channel)
    if left and left[0].message != sent.message and await _read(transport, left[0]) != new:
        raise UserError(
            f"the superblock of volume {new.name!r} was replaced from elsewhere at the same time; that one counts",
            ExitCode.VOLUME_EXISTS,
        )


async def _superblock_messages(transport: Transport, index_channel: ChannelId) -> list[StoredMessage]:
    """All messages with a superblock, oldest first."""
    found: list[StoredMessage] = []
    position = MessageId(0)
    while True:
        page = await transport.list_messages(index_channel, after=position, urgency=Urgency.SYNC)
        found += [each for each in reversed(page) if any(a.name == ATTACHMENT_NAME for a in each.attachments)]
        if len(page) < LIST_LIMIT:
            return found
        position = page[0].message


async def _read(transport: Transport, message: StoredMessage) -> Superblock | None:
    """What a message says; None for what is no superblock that can be read."""
    attachment = next(each for each in message.attachments if each.name == ATTACHMENT_NAME)
    if attachment.size_bytes > MAX_BYTES:
        return None
    location = Location(message.channel, message.message, attachment.attachment)
    try:
        return Superblock.from_json(await transport.fetch(location, 0, attachment.size_bytes, urgency=Urgency.SYNC))
    except SuperblockError:
        return None
