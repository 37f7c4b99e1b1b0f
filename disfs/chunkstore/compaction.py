"""Rewrite messages that are mostly garbage: what still lives in several of them moves together into a new one.

A round takes a few victims whose live chunks fit into one message, reads these chunks (from the cache where they are
clean, the others by few Range requests), seals them anew by (inode, index), sends one message, and has the ledger
move each chunk whose place is still the one that it was copied from. The victims hold nothing live then, and sweep
deletes them like any dead message.

What makes it safe:

- The ledger alone decides, in one step with the move, whether a chunk still lies where it was copied from. A write, a
  cut or a deletion meanwhile leaves the copy as garbage in the new message, never the other way round.
- Content and the slot that names it agree: a cached copy is taken in the step that finds the chunk clean and in its
  slot. The new slot keeps the old one's revision, which the victim's own directory states.
- Nothing is destroyed here. A crash at any moment leaves the victims as they were, and perhaps a stray (see `strays`).
- A chunk that cannot be read keeps its message: it is never left behind, and the message is not tried again.

Nobody waits for it: it works at most a share of the time, one request at a time, only while writeback has nothing to
do, and holds one message in memory. A victim with dirty chunks waits: sending them makes more of it garbage by itself.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.acknowledged import acknowledged_packs, nonce_of
from disfs.chunkstore.channels import DataChannels
from disfs.chunkstore.moving import MovingChunk, Rewriter
from disfs.chunkstore.packer import max_pack_bytes
from disfs.chunkstore.states import UNSENT
from disfs.chunkstore.transport.base import Urgency
from disfs.chunkstore.victims import Victims
from disfs.errors import (
    CorruptDataError,
    DisfsError,
    NotFoundError,
    StorageError,
    TooLargeError,
    TransientStorageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.packer import FinishedPack
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.chunkstore.transport.base import StoredMessage, Transport
    from disfs.chunkstore.underway import SendsUnderway
    from disfs.values import ChannelId, MessageId, PackId

log = logging.getLogger(__name__)

_LOOK_AT = 100
"""Sparse messages that a round chooses from."""
_SLOTS_AT_ONCE = 128
"""Slots asked about between two checkpoints."""
_POSTPONED_SECONDS = 600.0
_TRIES = 3
"""How often a message is found damaged before it is left alone for good."""
_BUSY_POLL_SECONDS = 1.0
_BUSY_PATIENCE_SECONDS = 60.0
"""A round that finds writeback busy waits so long with what it has in memory, and then gives up."""


@dataclass(frozen=True, slots=True)
class CompactionStatistics:
    """For `disfs status`."""

    rewritten_messages: int
    """Victims whose live chunks were moved."""
    rewritten_bytes: int
    """Sealed bytes that were sent for it."""
    garbage_bytes: int
    """In the messages that wait to be rewritten, as last seen."""
    unreadable_messages: int
    """They keep their garbage, because a chunk in them cannot be read."""
    failure: str | None
    """Why the last round came to nothing; None when all is well."""


@dataclass(slots=True)
class _Round:
    """What is being moved into one message."""

    victims: dict[PackId, MessageId] = field(default_factory=dict)
    """The packs that are being emptied, and their messages."""
    chunks: list[MovingChunk] = field(default_factory=list)
    packs: list[FinishedPack] = field(default_factory=list)


class _BusyError(DisfsError):
    """Writeback needs the line: the round is given up."""


class Compactor:
    """Finds mostly dead messages now and then, and rewrites them. `budget` says how large attachments and messages
    may be now; `is_busy` whether writeback has something to do."""

    def __init__(
        self,
        ledger: ChunkLedger,
        transport: Transport,
        cache: Cache,
        key: VolumeKey,
        channels: Sequence[ChannelId],
        settings: ChunkStoreSettings,
        message_text: str,
        *,
        underway: SendsUnderway,
        is_busy: Callable[[], bool],
        budget: Callable[[], tuple[int, int]],
    ) -> None:
        self._ledger = ledger
        self._transport = transport
        self._cache = cache
        self._channels = DataChannels(channels, settings)
        self._settings = settings
        self._message_text = message_text
        self._underway = underway
        self._is_busy = is_busy
        self._budget = budget
        self._rewriter = Rewriter(ledger, transport, cache, key, settings)
        self._victims = Victims(settings.compaction_patience_seconds)
        self._damages: Counter[MessageId] = Counter()
        self._unreadable: set[MessageId] = set()
        self._refused_bytes = 1 << 62
        """Messages of this size were too large for Discord."""
        self._worked_seconds = 0.0
        """What the last round took, the waiting for writeback apart."""
        self._rewritten_messages = 0
        self._rewritten_bytes = 0
        self._failure: str | None = None

    def statistics(self) -> CompactionStatistics:
        """Counters since the start."""
        return CompactionStatistics(
            rewritten_messages=self._rewritten_messages,
            rewritten_bytes=self._rewritten_bytes,
            garbage_bytes=self._victims.garbage_bytes,
            unreadable_messages=len(self._unreadable),
            failure=self._failure,
        )

    async def run(self) -> None:
        """Compact until cancelled, within the share of time that the settings allow; a share of 0 turns it off."""
        share = self._settings.compaction_share
        if share <= 0:
            return
        while True:
            rest = self._worked_seconds * max(0.0, 1 / share - 1)
            await trio.sleep(max(self._settings.compaction_interval_seconds, rest))
            try:
                await self.compact()
                self._failure = None
            except DisfsError as error:
                if self._failure is None:
                    log.warning("garbage in Discord stays where it is for now: %s", error)
                self._failure = str(error)

    async def compact(self) -> bool:
        """Rewrite one message's worth of sparse messages now; False when there is nothing worth it, or no time.

        Errors as of `Transport`; whatever is raised, nothing is lost, and the next round begins anew.
        """
        self._worked_seconds = 0.0
        if self._is_busy():
            return False
        began = trio.current_time()
        try:
            return await self._compact()
        except _BusyError:
            return False
        finally:
            self._worked_seconds += trio.current_time() - began

    async def _compact(self) -> bool:
        _, message_bytes = self._sizes()
        sparse = await self._ledger.sparse_messages(_LOOK_AT + self._victims.postponed_count)
        this = _Round()
        for victim in self._victims.choose(sparse, message_bytes, trio.current_time()):
            await self._give_way()
            await self._gather(victim.message, this)
        this.chunks.sort(key=lambda moving: moving.key)
        await self._seal(this)
        if not this.packs:
            return False
        await self._give_way()
        return await self._send(this)

    def _sizes(self) -> tuple[int, int]:
        attachment_bytes, message_bytes = self._budget()
        floor_bytes = max_pack_bytes(self._settings.chunk_bytes)
        most_bytes = max(floor_bytes, self._refused_bytes * 3 // 4)
        return min(attachment_bytes, most_bytes), min(message_bytes, most_bytes)

    async def _give_way(self) -> None:
        """Return when writeback has nothing to do; give up when that takes long."""
        began = trio.current_time()
        try:
            while self._is_busy():
                if trio.current_time() - began >= _BUSY_PATIENCE_SECONDS:
                    raise _BusyError
                await trio.sleep(_BUSY_POLL_SECONDS)
        finally:
            self._worked_seconds -= trio.current_time() - began

    # -- reading ------------------------------------------------------------------------------------------------

    async def _gather(self, message: MessageId, this: _Round) -> None:
        """Add a victim's live chunks to the round; a victim that cannot be read, or is being written, stays out."""
        found: dict[PackId, Sequence[MovingChunk]] = {}
        try:
            for pack in await self._ledger.packs_of_message(message):
                live = await self._live_chunks(pack)
                if live is None:
                    self._victims.postpone(message, trio.current_time() + _POSTPONED_SECONDS)
                    return
                if live:
                    found[pack] = await self._rewriter.read(await self._ledger.pack(pack), live)
        except KeyError:
            return  # the rest of it was cut meanwhile, and sweep was quick
        except (CorruptDataError, NotFoundError) as error:
            self._cannot_read(message, error)
            return
        except TransientStorageError:
            self._victims.postpone(message, trio.current_time() + _POSTPONED_SECONDS)
            raise
        for pack, chunks in found.items():
            this.victims[pack] = message
            this.chunks += chunks

    async def _live_chunks(self, pack: PackId) -> list[MovingChunk] | None:
        """What lives in a pack; None when any of it is dirty: more of the pack is about to die."""
        found: list[MovingChunk] = []
        slot_count = len((await self._ledger.pack(pack)).slots)
        for first in range(0, slot_count, _SLOTS_AT_ONCE):
            for chunk in await self._ledger.chunks_of_pack(pack, first, _SLOTS_AT_ONCE):
                if self._cache.map.state(chunk.key) in UNSENT:
                    return None
                found.append(MovingChunk(chunk.key, pack, chunk.slot))
            await trio.lowlevel.checkpoint()
        return found

    def _cannot_read(self, message: MessageId, error: StorageError) -> None:
        """What came may have been damaged on its way: it is asked for again later, but not for ever."""
        self._damages[message] += 1
        if self._damages[message] < _TRIES:
            self._victims.postpone(message, trio.current_time() + _POSTPONED_SECONDS)
            return
        log.error("message %d is mostly garbage and cannot be rewritten, it stays: %s", message, error)
        self._unreadable.add(message)
        self._victims.postpone(message, float("inf"))

    # -- sealing ------------------------------------------------------------------------------------------------

    async def _seal(self, this: _Round) -> None:
        this.packs, damaged = await self._rewriter.seal(this.chunks, *self._sizes())
        for pack, error in damaged.items():
            victim = this.victims.pop(pack)
            self._cannot_read(victim, error)

    # -- sending ------------------------------------------------------------------------------------------------

    async def _send(self, this: _Round) -> bool:
        uploads = [pack.upload for pack in this.packs]
        sent_bytes = sum(upload.size_bytes for upload in uploads)
        best = self._channels.best(trio.current_time(), self._transport.send_delay_seconds)
        if best is None:
            return False
        channel, _ = best
        with self._underway.sending(this.packs):
            try:
                stored = await self._transport.send(
                    channel.channel,
                    uploads,
                    nonce=nonce_of(this.packs),
                    content=self._message_text,
                    urgency=Urgency.SWEEP,
                )
            except TooLargeError:
                self._refused_bytes = min(self._refused_bytes, sent_bytes)
                raise
            except StorageError as error:
                self._channels.failed(channel, error, trio.current_time())
                raise
            # From the send to the record nothing may come between, a cancel least of all.
            with trio.CancelScope(shield=True):
                moved = await self._record(stored, this)
        self._channels.succeeded(channel)
        victims = set(this.victims.values())
        self._rewritten_messages += len(victims)
        self._rewritten_bytes += sent_bytes
        log.info("moved %d chunks out of %d messages that were mostly garbage", moved, len(victims))
        return True

    async def _record(self, stored: StoredMessage, this: _Round) -> int:
        sent = acknowledged_packs(this.packs, stored)
        origins = {chunk.key: (chunk.pack, chunk.slot) for chunk in this.chunks}
        return await self._ledger.record_moved(sent, origins)
