"""Send dirty chunks to Discord in the background.

One worker per channel (and per send allowed at once) takes what is due, seals it into packs in a worker thread,
sends them as one message, has the ledger record them, and only then lets the chunks move on. The
order never changes: acknowledged, recorded in one step, durable, evictable. Until a chunk is recorded its bytes in the
cache are the only copy, and every way out of here (failure, cancel, crash) leaves it dirty.

A copy of a chunk is taken together with its revision in one step of the main thread, where all writers are, so it is
never torn. Writers go on meanwhile: a chunk that is written again while its copy is on its way stays dirty.

Trying again within a send, without storing twice, is the transport's business. What comes out of it as transient
is tried again here after a pause, for ever; what is permanent makes the channel rest, and the others take over.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import trio

from disfs.chunkstore.packer import PackBuilder, max_pack_bytes
from disfs.chunkstore.selection import Quiet, earliest_due, selected
from disfs.chunkstore.sizes import SizeLimits
from disfs.chunkstore.states import UNSENT, ChunkEvent, ChunkState
from disfs.errors import CorruptDataError, DisfsError, FilesystemError, PermanentStorageError, TooLargeError
from disfs.values import Location, PackRecord, Revision, SentPack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.packer import FinishedPack
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.chunkstore.transport.base import StoredMessage, Transport
    from disfs.values import ChannelId, ChunkKey

log = logging.getLogger(__name__)

_STEP_BYTES = 1024 * 1024
"""How much is copied from the cache between two checkpoints: under a millisecond of the main thread."""
_NONCE_DIGITS = 24


class _Copy(NamedTuple):
    key: ChunkKey
    revision: Revision
    plain: bytes


@dataclass(slots=True)
class _Channel:
    channel: ChannelId
    failures: int = 0
    failure: str | None = None
    resting: bool = False
    """The failure was permanent."""


@dataclass(slots=True)
class _Message:
    """What one worker has taken so far."""

    copies: list[tuple[ChunkKey, Revision]] = field(default_factory=list)
    packs: list[FinishedPack] = field(default_factory=list)
    plain_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        return sum(pack.upload.size_bytes for pack in self.packs)


@dataclass(frozen=True, slots=True)
class WritebackStatistics:
    """For `disfs status`."""

    sending_bytes: int
    """Of the dirty bytes, those whose copy is on its way."""
    sent_bytes: int
    """Sealed bytes that Discord acknowledged."""
    sent_packs: int
    sent_messages: int
    attachment_limit_bytes: int
    """As far as it is known."""
    failures: tuple[str, ...]
    """Why channels do not take data now, one line each; empty when all is well."""
    stopped: bool
    """No channel takes data, and trying again will not help until somebody changes something."""


class Writeback:
    """Takes dirty chunks from the cache and brings them to Discord."""

    def __init__(
        self,
        ledger: ChunkLedger,
        transport: Transport,
        cache: Cache,
        key: VolumeKey,
        channels: Sequence[ChannelId],
        settings: ChunkStoreSettings,
        message_text: str,
    ) -> None:
        assert channels
        self._ledger = ledger
        self._transport = transport
        self._cache = cache
        self._key = key
        self._channels = [_Channel(channel) for channel in channels]
        self._settings = settings
        self._message_text = message_text
        self._quiet = Quiet(settings.writeback_delay_seconds, settings.writeback_age_seconds)
        self._limits = SizeLimits(
            attachment_bytes=settings.attachment_bytes - settings.attachment_margin_bytes,
            message_bytes=settings.message_bytes,
            floor_bytes=max_pack_bytes(settings.chunk_bytes),
        )
        self._limiter = trio.CapacityLimiter(settings.seal_threads)
        self._poked = trio.lowlevel.ParkingLot()
        self.waiting_writers = 0
        """How many writers wait for room; while there are any, nothing waits for its delay."""
        self._idle = 0
        """How many workers sleep without a time to wake at."""
        self._sending_bytes = 0
        self._sent_bytes = 0
        self._sent_packs = 0
        self._sent_messages = 0

    @property
    def stopped(self) -> bool:
        """Whether every channel refuses us for good: what is dirty stays, and there is no point in waiting."""
        return all(channel.resting for channel in self._channels)

    def statistics(self) -> WritebackStatistics:
        """Counters since the start, and what is wrong now."""
        return WritebackStatistics(
            sending_bytes=self._sending_bytes,
            sent_bytes=self._sent_bytes,
            sent_packs=self._sent_packs,
            sent_messages=self._sent_messages,
            attachment_limit_bytes=self._limits.attachment_bytes,
            failures=tuple(f"channel {c.channel}: {c.failure}" for c in self._channels if c.failure is not None),
            stopped=self.stopped,
        )

    async def run(self) -> None:
        """Send until cancelled."""
        async with trio.open_nursery() as nursery:
            for channel in self._channels:
                for _ in range(self._settings.sends_per_channel):
                    nursery.start_soon(self._work, channel)

    def poke(self) -> None:
        """Something became dirty, or somebody waits: look whether there is work."""
        if self._idle or self._hurry:
            self._poked.unpark_all()

    async def drain(self) -> None:
        """Return when every chunk that is dirty now is recorded, at its revision of now or a later one."""
        chunks = self._cache.map
        waiting = {key: chunks.inodes[key.inode].entries[key.chunk] for key in chunks.all_keys(UNSENT)}
        wanted = {key: entry.revision for key, entry in waiting.items()}
        for key in waiting:
            chunks.hasten(key)
        self._poked.unpark_all()
        while True:
            # Another entry under the same key, or none: the chunk was cut, and with it what we waited for.
            waiting = {
                key: entry
                for key, entry in waiting.items()
                if chunks.entry(key) is entry and entry.state in UNSENT and entry.recorded_revision < wanted[key]
            }
            if not waiting:
                break
            await self._cache.changed.park()
        await self._cache.settle()

    # -- taking -------------------------------------------------------------------------------------------------

    @property
    def _hurry(self) -> bool:
        chunks = self._cache.map
        return self.waiting_writers > 0 or chunks.dirty_bytes >= self._settings.high_mark_bytes or bool(chunks.urgent)

    async def _work(self, channel: _Channel) -> None:
        while True:
            await self._wait_until_due()
            message = _Message()
            try:
                await self._take(message)
                if message.packs:
                    await self._send(channel, message)
            except DisfsError as error:
                self._failed(channel, error)
            finally:
                self._release(message.copies)
                self._sending_bytes -= message.plain_bytes
            if channel.failure is not None:
                await trio.sleep(self._pause(channel))

    async def _wait_until_due(self) -> None:
        await trio.lowlevel.checkpoint()
        while True:
            due = earliest_due(self._cache.map, self._quiet)
            if due is not None and (self._hurry or due <= trio.current_time()):
                return
            self._idle += due is None
            try:
                with trio.move_on_at(float("inf") if due is None else due):
                    await self._poked.park()
            finally:
                self._idle -= due is None

    async def _take(self, message: _Message) -> None:
        """Fill packs with what is due, in the order of the files, until the message is full."""
        # A list, since the waiting chunks change while this task seals; each is looked at again when its turn comes.
        budget = 4 * self._limits.message_bytes // self._settings.chunk_bytes + 64
        keys = _up_to(budget, selected(self._cache.map, self._quiet, trio.current_time(), hurry=self._hurry))
        while keys and len(message.packs) < self._settings.attachments_per_message:
            limit = min(self._limits.attachment_bytes, self._limits.message_bytes - message.size_bytes)
            if limit < self._limits.floor_bytes:
                break
            builder = PackBuilder(self._key, limit_bytes=limit, chunk_bytes=self._settings.chunk_bytes)
            while copies := self._copy(builder, keys, message):
                await trio.to_thread.run_sync(_seal, builder, copies, limiter=self._limiter)
            if len(builder):
                message.packs.append(builder.finish())

    def _copy(self, builder: PackBuilder, keys: list[ChunkKey], message: _Message) -> list[_Copy]:
        """Copies of the next few chunks that fit, each with its revision: one step. `keys` is in reverse."""
        chunks = self._cache.map
        copies: list[_Copy] = []
        copied_bytes = 0
        while keys and copied_bytes < _STEP_BYTES:
            key = keys[-1]
            entry = chunks.entry(key)
            if entry is None or entry.state is not ChunkState.DIRTY:
                keys.pop()  # written to Discord by another worker, or cut, while we were sealing
                continue
            length = self._cache.content_length(key)
            if not builder.has_room(copied_bytes + builder.slot_overhead_bytes * len(copies) + length):
                break
            keys.pop()
            plain = self._content(key)
            if plain is not None:
                chunks.move(key, ChunkEvent.SEND)
                entry.sent_revision = entry.revision
                message.copies.append((key, entry.revision))
                message.plain_bytes += len(plain)
                self._sending_bytes += len(plain)
                copies.append(_Copy(key, entry.revision, plain))
                copied_bytes += len(plain)
        return copies

    def _content(self, key: ChunkKey) -> bytes | None:
        chunk_bytes = self._settings.chunk_bytes
        try:
            return self._cache.content(key.inode, key.chunk * chunk_bytes, chunk_bytes)
        except FilesystemError as error:
            if error.errno != errno.EIO:
                raise  # no descriptor, no memory: the bytes are there, and can be read later
            log.error("unsent data of inode %d, chunk %d, is lost: %s", key.inode, key.chunk, error)  # noqa: TRY400 - the traceback of a pread says nothing more
            self._cache.map.move(key, ChunkEvent.LOSE)
            self._cache.changed.unpark_all()
            return None

    def _release(self, copies: Iterable[tuple[ChunkKey, Revision]]) -> None:
        """Whatever was taken and is not recorded is dirty again."""
        left = [key for key, revision in copies if self._is_sending(key, revision)]
        for key in left:
            self._cache.map.move(key, ChunkEvent.FAIL)
        if left:
            # The other channels sleep: as far as they know nothing is waiting.
            self._poked.unpark_all()

    def _is_sending(self, key: ChunkKey, revision: Revision) -> bool:
        entry = self._cache.map.entry(key)
        # The revision tells this send from one that began after the chunk was cut and written anew.
        sending = {ChunkState.SENDING, ChunkState.REWRITTEN}
        return entry is not None and entry.state in sending and entry.sent_revision == revision

    # -- sending ------------------------------------------------------------------------------------------------

    async def _send(self, channel: _Channel, message: _Message) -> None:
        uploads = [pack.upload for pack in message.packs]
        nonce = message.packs[0].pack.hex()[:_NONCE_DIGITS]
        try:
            stored = await self._transport.send(channel.channel, uploads, nonce=nonce, content=self._message_text)
        except TooLargeError:
            if not self._limits.refused([upload.size_bytes for upload in uploads]):
                raise
            log.info("Discord takes less at once than was known; packs: %d bytes", self._limits.attachment_bytes)
            return
        await self._record_in_the_end(channel, stored, message.packs)
        self._limits.accepted([upload.size_bytes for upload in uploads])
        self._succeeded(channel, message)

    async def _record_in_the_end(self, channel: _Channel, stored: StoredMessage, packs: Sequence[FinishedPack]) -> None:
        # A ledger that cannot record now is asked again. To send once more would leave messages that nobody knows of.
        while True:
            try:
                # From the send to here, and to the record, nothing may come between, a cancel least of all.
                with trio.CancelScope(shield=True):
                    return await self._record(stored, packs)
            except FilesystemError as error:
                self._failed(channel, error)
            await trio.sleep(self._pause(channel))

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
        if not self._is_sending(key, revision):
            return
        entry = self._cache.map.entry(key)
        assert entry is not None
        if clean != (entry.state is ChunkState.SENDING) or not (clean or still):
            # The ledger sees it differently. Dirty is the side on which nothing is lost: it is sent once more.
            log.error("the record of inode %d, chunk %d, contradicts the cache; sending it again", key.inode, key.chunk)
            with contextlib.suppress(FilesystemError):  # no room for the mark: the pack is recorded all the same
                self._cache.rewritten(key)
            return
        entry.recorded_revision = revision
        if revision >= entry.urgent:
            entry.urgent = Revision(0)
        entry.dirty_since = entry.written_at
        if self._cache.map.move(key, ChunkEvent.RECORD) is ChunkState.RECORDED:
            self._cache.recorded(key)

    def _succeeded(self, channel: _Channel, message: _Message) -> None:
        if channel.failure is not None:
            log.info("channel %d takes data again", channel.channel)
        channel.failures, channel.failure, channel.resting = 0, None, False
        self._sent_bytes += message.size_bytes
        self._sent_packs += len(message.packs)
        self._sent_messages += 1
        self._cache.changed.unpark_all()

    def _failed(self, channel: _Channel, error: DisfsError) -> None:
        if channel.failure is None:
            log.warning("channel %d does not take data, what is unsent is kept: %s", channel.channel, error)
        channel.failures += 1
        channel.failure = str(error)
        channel.resting = isinstance(error, PermanentStorageError)
        # Writers who wait for room look whether there is still hope.
        self._cache.changed.unpark_all()

    def _pause(self, channel: _Channel) -> float:
        if channel.resting:
            return self._settings.rest_seconds
        growth = 2.0 ** min(channel.failures - 1, 20)
        return min(self._settings.backoff_limit_seconds, self._settings.backoff_seconds * growth)


def _seal(builder: PackBuilder, copies: Sequence[_Copy]) -> None:
    """In a worker thread; the builder belongs to one task, which waits."""
    for copy in copies:
        builder.add(copy.key, copy.revision, copy.plain)


def _up_to(count: int, keys: Iterable[ChunkKey]) -> list[ChunkKey]:
    """The first `count` of `keys`, reversed, so that taking the next one is a pop."""
    taken = [key for key, _ in zip(keys, range(count), strict=False)]
    taken.reverse()
    return taken
