"""Send one message, and record what Discord acknowledged.

The order never changes: acknowledged, recorded in one step, durable, evictable. Until a chunk is recorded its bytes in
the cache are the only copy.

A message of thousands of small files is recorded in steps, each of them whole; the ledger keeps a message that is
recorded in part out of the sweep's sight.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.acknowledged import acknowledged_packs, nonce_of
from disfs.chunkstore.channels import backoff_seconds
from disfs.chunkstore.outgoing import is_sending
from disfs.chunkstore.states import ChunkEvent, ChunkState
from disfs.chunkstore.transport.base import Urgency
from disfs.errors import FilesystemError, TooLargeError, TransientStorageError

if TYPE_CHECKING:
    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.channels import DataChannels
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.outgoing import Outgoing
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.chunkstore.sizes import SizeLimits
    from disfs.chunkstore.transport.base import StoredMessage, Transport
    from disfs.values import ChunkKey, Recorded

log = logging.getLogger(__name__)


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
                nonce=nonce_of(message.packs),
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
        await self._record_in_the_end(message, stored)
        self._sizes.accepted(sizes, seconds)
        return True

    async def _record_in_the_end(self, message: Outgoing, stored: StoredMessage) -> None:
        sent = acknowledged_packs(message.packs, stored)
        # A ledger that cannot record now is asked again, and goes on where it was. To send once more would leave
        # messages that nobody knows of.
        while True:
            try:
                # From the send to here, and to the record, nothing may come between, a cancel least of all.
                with trio.CancelScope(shield=True):
                    await self._ledger.record_in_steps(sent, lambda step: self._recorded(message, step))
            except FilesystemError as error:
                self._channels.failed(message.channel, error, trio.current_time())
                self._cache.changed.unpark_all()
            else:
                break
            await trio.sleep(backoff_seconds(message.channel.failures, self._settings))
        self._check(message)

    def _recorded(self, message: Outgoing, step: Recorded) -> None:
        """In the step in which the ledger recorded these: cache and ledger never differ at a checkpoint."""
        chunks = self._cache.map
        for key in step.clean:
            if self._is_as_recorded(message, key, ChunkState.SENDING):
                chunks.move(key, ChunkEvent.RECORD)
                self._cache.recorded(key)
        for key in step.still_dirty:
            if self._is_as_recorded(message, key, ChunkState.REWRITTEN):
                chunks.recorded_older(key)

    def _is_as_recorded(self, message: Outgoing, key: ChunkKey, state: ChunkState) -> bool:
        revision = message.copies.get(key)
        if revision is None or self._cache.map.state(key) is not state:
            return False
        if not is_sending(self._cache.map, key, revision):
            return False
        del message.copies[key]
        return True

    def _check(self, message: Outgoing) -> None:
        """What is left was cut meanwhile. If not, the ledger sees it differently; dirty is the side on which nothing is
        lost: it is sent once more."""
        for key, revision in message.copies.items():
            if is_sending(self._cache.map, key, revision):
                log.error(
                    "the record of inode %d, chunk %d, contradicts the cache; sending it again", key.inode, key.chunk
                )
                with contextlib.suppress(FilesystemError):  # no room for the mark: the pack is recorded all the same
                    self._cache.rewritten(key)
