"""Find messages of ours that nobody knows of, and delete them.

A stray is a message that holds packs of this volume and is not recorded: the send was cancelled, or its answer was lost
and the chunks went elsewhere, or the process was killed before the record was crash-safe. The chunks were sent
again, so nothing refers to it. But a message that is being sent looks just the same. What tells them apart:

- A channel's newest message is noted, and so is the number of the next send. Later, when a good while has passed by our
  own clock and every send that had begun by then has ended (its record included), whatever is not newer than
  that message and is not recorded never will be: each pack is sent within one send only. Neither Discord's clock nor
  this machine's time of day plays a part, so no clock can be wrong.
- Only what opens under the volume key is touched: every attachment must be a pack of chunks, its directory authentic.
  A message of a person, another bot or another volume never is. File names are not looked at: Discord changes them.
- It counts whether the message is recorded, not the pack: a pack may have been stored twice, and be recorded once.
- The ledger has noted that each of its packs was being sent. When a machine's state is put back from a backup, what
  Discord got after that backup is unknown here too, and is all that is left of those changes: it is kept.

How far a channel was looked through is written down, so each message is listed once, and the work of a look is bounded.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import trio

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.directories import fetch_directory
from disfs.chunkstore.transport.base import LIST_LIMIT, Urgency
from disfs.errors import CorruptDataError, NotFoundError, StorageError
from disfs.values import Location, MessageId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.transport.base import StoredMessage, Transport
    from disfs.chunkstore.underway import SendsUnderway
    from disfs.values import ChannelId

log = logging.getLogger(__name__)

_PAGES = 10
"""How many listings one look makes in a channel at most; the next one goes on."""


class _Mark(NamedTuple):
    """What is to be examined, and from when on that can be done."""

    newest: MessageId
    at: float
    sends: int


class Strays:
    """Looks through the data channels of one volume. One task at a time."""

    def __init__(
        self,
        ledger: ChunkLedger,
        transport: Transport,
        key: VolumeKey,
        channels: Sequence[ChannelId],
        underway: SendsUnderway,
        *,
        after_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._transport = transport
        self._key = key
        self._channels = tuple(channels)
        self._underway = underway
        self._after_seconds = after_seconds
        self._marks: dict[ChannelId, _Mark] = {}
        self.deleted_count = 0
        self.newer_count = 0
        """Messages of this volume that are newer than this machine's state of it."""

    async def look(self) -> None:
        """Note what is new in each channel, and delete the strays among what was noted long enough ago.

        A channel that is gone is passed over. Another one that refuses does not keep the others from being looked at;
        its error is raised in the end.
        """
        refused: StorageError | None = None
        for channel in self._channels:
            try:
                await self._look_at(channel)
            except NotFoundError:
                self._marks.pop(channel, None)
            except StorageError as error:
                refused = error
        if refused is not None:
            raise refused

    async def _look_at(self, channel: ChannelId) -> None:
        mark = self._marks.get(channel)
        if mark is None:
            newest = await self._transport.list_messages(channel, urgency=Urgency.SWEEP)
            # In this order: a send that begins after the listing cannot have made what it shows.
            sends = self._underway.mark()
            last = newest[0].message if newest else MessageId(0)
            self._marks[channel] = _Mark(last, trio.current_time(), sends)
        elif trio.current_time() - mark.at >= self._after_seconds and self._underway.ended_before(mark.sends):
            for _ in range(_PAGES):
                if not await self._examine_page(channel, mark.newest):
                    del self._marks[channel]
                    return

    async def _examine_page(self, channel: ChannelId, newest: MessageId) -> bool:
        """Examine the next messages up to `newest`; False when there are no more."""
        position = self._ledger.examined(channel)
        if position >= newest:
            return False
        listed = await self._transport.list_messages(channel, after=position, urgency=Urgency.SWEEP)
        page = [message for message in reversed(listed) if message.message <= newest]
        strays = [message for message in await self._unknown(page) if await self._is_stray(message)]
        # What is about to be destroyed is asked about once more.
        doomed = [message.message for message in await self._unknown(strays)]
        if doomed:
            await self._transport.delete(channel, doomed, urgency=Urgency.SWEEP)
            self.deleted_count += len(doomed)
            log.info("deleted %d messages of channel %d that no record refers to", len(doomed), channel)
        self._ledger.set_examined(channel, page[-1].message if len(listed) == LIST_LIMIT and page else newest)
        return len(page) == LIST_LIMIT

    async def _unknown(self, messages: Sequence[StoredMessage]) -> list[StoredMessage]:
        unknown = await self._ledger.unknown_messages([message.message for message in messages])
        return [message for message in messages if message.message in unknown]

    async def _is_stray(self, message: StoredMessage) -> bool:
        """Whether an unknown message holds packs that this state of the volume has sent, and nothing else."""
        directories = []
        for attachment in message.attachments:
            location = Location(message.channel, message.message, attachment.attachment)
            try:
                found = await fetch_directory(
                    self._transport, self._key, location, attachment.size_bytes, Urgency.SWEEP
                )
            except (CorruptDataError, NotFoundError):
                return False
            directories.append(found)
        if any(directory.kind is not PackKind.CHUNKS for directory in directories):
            return False
        if all(self._ledger.has_sent(directory.pack) for directory in directories):
            return bool(directories)
        self.newer_count += 1
        log.warning(
            "message %d of this volume is newer than what this machine knows of it, and is kept;"
            " was its state put back from a backup?",
            message.message,
        )
        return False
