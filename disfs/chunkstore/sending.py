"""Send one message, and record what Discord acknowledged.

The order never changes: acknowledged, recorded in one step, durable, evictable. Until a chunk is recorded its bytes in
the cache are the only copy.

All packs of a message are recorded by one call. One call for each pack would be shorter steps of the main thread, but
between two of them the message could seem dead (its first pack superseded at once, its second unknown), and if the
second record had to wait longer than the grace time of the sweep, the sweep would delete what is then recorded.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.channels import backoff_seconds
from disfs.chunkstore.outgoing import is_sending
from disfs.chunkstore.states import ChunkEvent, ChunkState
from disfs.chunkstore.transport.base import Urgency
from disfs.errors import CorruptDataError, FilesystemError, TooLargeError, TransientStorageError
from disfs.values import Location, PackRecord, SentPack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.channels import DataChannel, DataChannels
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.outgoing import Outgoing
    from disfs.chunkstore.packer import FinishedPack
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.chunkstore.sizes import SizeLimits
    from disfs.chunkstore.transport.base import StoredMessage, Transport
    from disfs.values import ChunkKey, Revision

log = logging.getLogger(__name__)

_NONCE_DIGITS = 24


class Sending:
    """Brings packed messages to Discord and into the ledger."""

    def __init__(
        self,
        ledger: ChunkLedger,
        transport: Transport,
        cache: Cache,
        channels: DataChannels,
        sizes: SizeLimits,
        settings: ChunkStoreSettings,
        message_text: str,
    ) -> None:
        self._ledger = ledger
        self._transport = transport
        self._cache = cache
        self._channels = channels
        self._sizes = sizes
        self._settings = settings
        self._message_text = message_text

    async def deliver(self, message: Outgoing) -> bool:
        """Send and record a message; False when it is too large and is to be made anew. Errors as of `send`."""
        sizes = [pack.upload.size_bytes for pack in message.packs]
        began = trio.current_time()
        try:
            stored = await self._transport.send(
                message.channel.channel,
                [pack.upload for pack in message.packs],
                nonce=message.packs[0].pack.hex()[:_NONCE_DIGITS],
                content=self._message_text,
                urgency=Urgency.SYNC if message.urgent else Urgency.WRITEBACK,
            )
        except TooLargeError:
            if not self._sizes.refused(sizes):
                raise
            log.info("Discord takes less at once than was known; packs: %d bytes", self._sizes.attachment_bytes)
            return False
        except TransientStorageError:
            self._sizes.failed(sizes)
            raise
        seconds = trio.current_time() - began
        await self._record_in_the_end(message.channel, stored, message.packs)
        self._sizes.accepted(sizes, seconds)
        return True

    async def _record_in_the_end(
        self, channel: DataChannel, stored: StoredMessage, packs: Sequence[FinishedPack]
    ) -> None:
        # A ledger that cannot record now is asked again. To send once more would leave messages that nobody knows of.
        while True:
            try:
                # From the send to here, and to the record, nothing may come between, a cancel least of all.
                with trio.CancelScope(shield=True):
                    return await self._record(stored, packs)
            except FilesystemError as error:
                self._channels.failed(channel, error, trio.current_time())
                self._cache.changed.unpark_all()
            await trio.sleep(backoff_seconds(channel.failures, self._settings))

    async def _record(self, stored: StoredMessage, packs: Sequence[FinishedPack]) -> None:
        if [a.size_bytes for a in stored.attachments] != [pack.upload.size_bytes for pack in packs]:
            raise CorruptDataError("Discord acknowledged other attachments than were sent")
        sent = [
            SentPack(
                PackRecord(
                    pack.pack,
                    Location(stored.channel, stored.message, attachment.attachment),
                    attachment.size_bytes,
                    pack.slots,
                ),
                pack.chunks,
            )
            for pack, attachment in zip(packs, stored.attachments, strict=True)
        ]
        recorded = await self._ledger.record_packs(sent)
        clean, still_dirty = frozenset(recorded.clean), frozenset(recorded.still_dirty)
        for pack in packs:
            for chunk in pack.chunks:
                self._move_on(chunk.key, chunk.revision, clean=chunk.key in clean, still=chunk.key in still_dirty)

    def _move_on(self, key: ChunkKey, revision: Revision, *, clean: bool, still: bool) -> None:
        chunks = self._cache.map
        if not is_sending(chunks, key, revision):
            return
        unchanged = chunks.state(key) is ChunkState.SENDING
        if clean != unchanged or not (clean or still):
            # The ledger sees it differently. Dirty is the side on which nothing is lost: it is sent once more.
            log.error("the record of inode %d, chunk %d, contradicts the cache; sending it again", key.inode, key.chunk)
            with contextlib.suppress(FilesystemError):  # no room for the mark: the pack is recorded all the same
                self._cache.rewritten(key)
        elif unchanged:
            chunks.move(key, ChunkEvent.RECORD)
            self._cache.recorded(key)
        else:
            chunks.recorded_older(key)
