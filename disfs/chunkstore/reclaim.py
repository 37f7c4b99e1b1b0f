"""What had arrived in Discord when this machine crashed, and was not written down: found, and recorded, at the start.

A send that was under way when the process died, or whose record was not yet committed, left a message whose chunks are
still dirty here. They need not be sent again. The steps, each of which a crash may follow:

    list the newest messages of each channel, and open the packs of those that no record refers to (nothing changes)
    record them as if they had just been acknowledged: what is dirty at the very revision that was sent is clean
    make cache and record durable; only then is the cache taken over, which drops what is no longer dirty

The cached bytes of a chunk that became clean in this way are dropped: after a crash they may be those of a later write
that was never committed, and a content that changed when it is evicted would be worse than a fetch.

Nobody sends meanwhile, so what is found belongs to no send. What arrives later is a stray, as is what is not
recorded here: see `strays`. Taken are only messages
- whose every attachment is an authentic pack of chunks of this volume that this very state noted as being sent: after a
  backup was put back, revisions are given out a second time, and would be taken for those of its other life;
- none of whose chunks is newer than what is dirty here, which says the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.directories import fetch_directory
from disfs.chunkstore.transport.base import Urgency
from disfs.errors import CorruptDataError, NotFoundError, StorageError
from disfs.values import Location, PackRecord, SentChunk, SentPack, SlotTable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.transport.base import StoredMessage, Transport
    from disfs.values import ChannelId, ChunkKey, PackId, Recorded, Revision

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What was found."""

    messages: int = 0
    chunks: int = 0
    """Those that need not be sent again."""


class Reclaimer:
    """Looks once, before anything is sent."""

    def __init__(
        self, ledger: ChunkLedger, transport: Transport, key: VolumeKey, channels: Sequence[ChannelId]
    ) -> None:
        self._ledger = ledger
        self._transport = transport
        self._key = key
        self._channels = tuple(channels)
        self._messages = 0
        self._chunks = 0

    async def reclaim(self, within_seconds: float) -> Reclaimed:
        """Record what is found in the newest messages of each channel; makes no request when nothing can be missing.

        Discord that does not answer, or not in time, is logged: what is not recorded is sent again. FilesystemError.
        """
        wanted = self._ledger.unrecorded_sends()
        if not wanted:
            return Reclaimed()
        dirty = {row.key: row.revision for row in self._ledger.dirty_chunks()}
        if not dirty:
            return Reclaimed()
        found: list[list[SentPack]] = []
        with trio.move_on_after(within_seconds) as scope:
            async with trio.open_nursery() as nursery:
                for channel in self._channels:
                    nursery.start_soon(self._look_at, channel, wanted, found)
        if scope.cancelled_caught:
            log.info("looking for what had arrived took too long; what was not found is sent again")
        taken: set[PackId] = set()
        for packs in found:
            if _is_older_than(packs, dirty) and taken.isdisjoint(pack.record.pack for pack in packs):
                taken.update(pack.record.pack for pack in packs)
                await self._ledger.record_in_steps(packs, self._count)
                self._messages += 1
        return Reclaimed(self._messages, self._chunks)

    def _count(self, step: Recorded) -> None:
        self._chunks += len(step.clean)

    async def _look_at(self, channel: ChannelId, wanted: Collection[PackId], found: list[list[SentPack]]) -> None:
        try:
            listed = await self._transport.list_messages(channel, urgency=Urgency.SYNC)
            unknown = await self._ledger.unknown_messages([message.message for message in listed])
            # Oldest first, and newer than what was looked at before: what is older is known, or none of ours.
            for message in reversed(listed):
                if message.message in unknown and message.message > self._ledger.examined(channel):
                    packs = await self._open(message, wanted)
                    if packs:
                        found.append(packs)
        except StorageError as error:
            log.info("channel %d cannot be looked at for what had arrived: %s", channel, error)

    async def _open(self, message: StoredMessage, wanted: Collection[PackId]) -> list[SentPack]:
        """The packs of a message; empty when not all of its attachments are packs that are wanted."""
        packs = []
        for attachment in message.attachments:
            location = Location(message.channel, message.message, attachment.attachment)
            try:
                directory = await fetch_directory(
                    self._transport, self._key, location, attachment.size_bytes, Urgency.SYNC
                )
            except (CorruptDataError, NotFoundError):
                return []
            if directory.kind is not PackKind.CHUNKS or directory.pack not in wanted or not directory.entries:
                return []
            slots = SlotTable(
                [entry.stored_bytes for entry in directory.entries], [entry.compressed for entry in directory.entries]
            )
            chunks = tuple(SentChunk(entry.key, entry.revision) for entry in directory.entries)
            packs.append(SentPack(PackRecord(directory.pack, location, attachment.size_bytes, slots), chunks))
        return packs


def _is_older_than(packs: Sequence[SentPack], dirty: Mapping[ChunkKey, Revision]) -> bool:
    """Whether no chunk in these packs is newer than what is dirty of it here."""
    return all(sent.key not in dirty or sent.revision <= dirty[sent.key] for pack in packs for sent in pack.chunks)
