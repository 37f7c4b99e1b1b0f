"""The write-back scheduler: decides when a message is sent, to which channel, and sees it through.

One task packs, one message after another, so that packs are full and a file's neighbours stay together; each packed
message is sent by a task of its own. A turn of the loop:

    something is worth sending (`selection`), and uploads are not paused
    -> what is in memory on its way leaves room for one more message
    -> a channel can take it (`channels`); if its rate limit makes that wait, the loop waits *before* it packs, and
       what becomes quiet meanwhile goes along
    -> copy, seal (`outgoing`), and hand over to a task that sends and records (`sending`)

The order never changes: acknowledged, recorded in one step, durable, evictable. Until a chunk is recorded its bytes in
the cache are the only copy, and every way out of here (failure, cancel, crash) leaves it dirty.

Trying again within a send, without storing twice, is the transport's business. What comes out of it as transient
is tried again here after a pause, for ever; what is permanent makes the channel rest, and the others take over.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, NamedTuple

import trio

from disfs.chunkstore.channels import DataChannels, backoff_seconds
from disfs.chunkstore.outgoing import Outgoing, Packing
from disfs.chunkstore.packer import max_pack_bytes
from disfs.chunkstore.selection import Elevator, Quiet, Situation, is_backlog, is_full, next_send_at
from disfs.chunkstore.sending import Sending
from disfs.chunkstore.sizes import SizeLimits, UploadRate, write_delay_seconds
from disfs.chunkstore.writeback_values import MessageInFlight, Waiting, WritebackStatistics
from disfs.errors import DisfsError, FilesystemError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.channels import DataChannel
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.chunkstore.transport.base import Transport
    from disfs.chunkstore.underway import SendsUnderway
    from disfs.values import ChannelId, InodeNumber

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.05


class _Turn(NamedTuple):
    """What the loop does next: send to `channel`, or wait until `until` (or until it is woken)."""

    channel: DataChannel | None
    until: float = 0.0
    waiting_for: Waiting | None = None


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
        underway: SendsUnderway,
    ) -> None:
        self._transport = transport
        self._underway = underway
        self._cache = cache
        self._settings = settings
        self._channels = DataChannels(channels, settings)
        self._sizes = SizeLimits(
            attachment_bytes=settings.attachment_bytes - settings.attachment_margin_bytes,
            message_bytes=settings.message_bytes,
            floor_bytes=max_pack_bytes(settings.chunk_bytes),
            send_seconds=settings.send_seconds,
        )
        self._packing = Packing(ledger, cache, key, settings, self._sizes)
        self._sending = Sending(ledger, transport, cache, self._channels, self._sizes, settings, message_text)
        self._quiet = Quiet(settings.writeback_delay_seconds, settings.writeback_age_seconds)
        self._elevator = Elevator(self._quiet)
        self._rate = UploadRate()
        self._woken = trio.lowlevel.ParkingLot()
        self._waiting_for: Waiting | None = Waiting.NOTHING_DIRTY
        self._wake_when_full = False
        """Whether the loop sleeps because what waits did not fill a message."""
        self._messages: list[Outgoing] = []
        """Being packed, or on their way."""
        self._paused = False
        self._pack_failures = 0
        self._pack_failure: str | None = None
        self._retry_pack_at = float("-inf")
        self.waiting_writers = 0
        """How many writers wait for room; while there are any, nothing waits for its delay."""
        self._sent_bytes = 0
        self._sent_packs = 0
        self._sent_messages = 0

    def adjust(self, settings: ChunkStoreSettings) -> None:
        """Keep to another dirty limit and delay from now on."""
        self._settings = settings
        self._quiet = Quiet(settings.writeback_delay_seconds, settings.writeback_age_seconds)
        self._elevator.adjust(self._quiet)
        self._cache.changed.unpark_all()
        self._woken.unpark_all()

    # -- what others ask ----------------------------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether every channel refuses us for good: what is dirty stays, and there is no point in waiting."""
        return self._channels.stopped

    @property
    def messages(self) -> Sequence[Outgoing]:
        """Those that are being packed, or are on their way; to be looked at only. The list stays the same one."""
        return self._messages

    @property
    def paused(self) -> bool:
        """Whether uploads are paused."""
        return self._paused

    @property
    def busy(self) -> bool:
        """Whether uploads belong to writeback now, or to nobody: something is on its way or due, or they are paused."""
        at = self._next_send_at()
        return self._paused or bool(self._messages) or (at is not None and at <= trio.current_time())

    def write_delay_seconds(self, growth_bytes: int) -> float:
        """How long a write that adds so many dirty bytes waits beforehand, so that writers meet the limit softly."""
        if self._paused or self.stopped:
            return 0.0  # there is no speed to fall in with
        soft, limit = self._settings.soft_mark_bytes, self._settings.dirty_bytes
        return write_delay_seconds(growth_bytes, self._cache.map.dirty_bytes, soft, limit, self._rate.bytes_per_second)

    def statistics(self) -> WritebackStatistics:
        """Counters since the start, and what is wrong now."""
        now = trio.current_time()
        packed = [message for message in self._messages if message.packed]
        return WritebackStatistics(
            sending_bytes=sum(message.plain_bytes for message in self._messages),
            sent_bytes=self._sent_bytes,
            sent_packs=self._sent_packs,
            sent_messages=self._sent_messages,
            attachment_limit_bytes=self._sizes.attachment_bytes,
            message_limit_bytes=self._message_bytes,
            bytes_per_second=self._rate.bytes_per_second,
            in_flight=tuple(MessageInFlight(m.channel.channel, m.size_bytes, now - m.began_at) for m in packed),
            paused=self._paused,
            waiting_for=self._waiting_for,
            waiting_writers=self.waiting_writers,
            failures=self._channels.failures + (() if self._pack_failure is None else (self._pack_failure,)),
            channels=self._channels.statistics(now, self._transport.send_delay_seconds),
            stopped=self.stopped,
        )

    def pause(self) -> None:
        """Begin no further send. What is on its way arrives; reads go on; writers wait at the dirty limit."""
        self._paused = True
        self._wake()

    def resume(self) -> None:
        """Send again, and see at once whether channels that rest after a failure work again."""
        self._paused = False
        self._channels.retry_now()
        self._wake()

    def offer_attachment_limit(self, limit_bytes: int) -> None:
        """The guild allows attachments of that size, as was learnt just now. What Discord refuses still lowers it.

        It answers, so channels that rest after a failure are tried again at once.
        """
        self._channels.retry_now()
        self._sizes.offered(limit_bytes - self._settings.attachment_margin_bytes)
        self._wake()

    def poke(self) -> None:
        """Something became dirty, or somebody waits: look whether there is work. Cheap: every write calls it."""
        if self._waiting_for is Waiting.NOTHING_DIRTY or (
            # Whatever else the loop waits for, more to send does not end it.
            self._waiting_for is Waiting.NOT_DUE and (self._hurry or (self._wake_when_full and self._is_full))
        ):
            self._wake()

    async def drain(self) -> None:
        """Return when every chunk that is dirty now is recorded, at its revision of now or a later one.

        Channels that rest after a failure are tried again at once: somebody is waiting.
        """
        self._channels.retry_now()
        drain = self._cache.map.begin_drain()
        try:
            self._wake()
            while drain.remaining:
                await self._cache.changed.park()
        finally:
            self._cache.map.end_drain(drain)
        await self._cache.settle()

    async def drain_file(self, inode: InodeNumber) -> None:
        """The same for the chunks of one inode; but FilesystemError(EIO) when every channel refuses us for good."""
        self._channels.retry_now()
        failures = self._channels.failure_count
        drain = self._cache.map.begin_drain_of(inode)
        try:
            self._wake()
            while drain.remaining:
                # What they refused before says nothing: somebody may have put it right.
                if self.stopped and self._channels.failure_count > failures:
                    raise FilesystemError(
                        errno.EIO, f"Discord refuses what is sent: {'; '.join(self._channels.failures)}"
                    )
                await self._cache.changed.park()
        finally:
            self._cache.map.end_drain(drain)
        await self._cache.settle()

    # -- the loop -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                message = await self._next_message()
                if message.packs:
                    nursery.start_soon(self._deliver, message)
                else:
                    self._finish(message)

    async def _next_message(self) -> Outgoing:
        """Wait for the moment for another message, and pack it. Its chunks are given back if this fails."""
        while True:
            turn = self._look()
            if turn.channel is not None:
                message = Outgoing(self._next_bytes(), turn.channel, trio.current_time())
                self._waiting_for = None
                self._begin(message)
                try:
                    await self._pack(message)
                except BaseException:
                    self._finish(message)
                    raise
                return message
            self._waiting_for = turn.waiting_for
            with trio.move_on_at(turn.until):
                await self._woken.park()

    def _look(self) -> _Turn:
        """What to do now; a step without a checkpoint, so that nothing wakes a loop that does not sleep yet."""
        now = trio.current_time()
        at = self._next_send_at()
        self._wake_when_full = not self._is_full
        if self._paused:
            return _Turn(None, float("inf"), Waiting.PAUSED)
        if at is None:
            return _Turn(None, float("inf"), Waiting.NOTHING_DIRTY)
        if self._retry_pack_at > now:
            return _Turn(None, self._retry_pack_at, Waiting.FAILURE)
        if at > now:
            # Chunks that are written all the time move that time away a little with each write.
            return _Turn(None, max(at, now + _TICK_SECONDS), Waiting.NOT_DUE)
        in_memory = sum(message.memory_bytes for message in self._messages)
        # Messages that share the link end together; writers who wait for room want the first one soon.
        most = min(self._settings.in_flight_bytes, self._settings.dirty_bytes // 2)
        if in_memory and in_memory + self._message_bytes > most:
            return _Turn(None, float("inf"), Waiting.ENOUGH_IN_FLIGHT)
        best = self._channels.best(now, self._transport.send_delay_seconds)
        if best is None:
            return _Turn(None, self._channels.retry_at(now), Waiting.NO_CHANNEL)
        channel, delay = best
        return _Turn(None, now + delay, Waiting.RATE_LIMIT) if delay > 0 else _Turn(channel)

    def _wake(self) -> None:
        self._woken.unpark_all()

    @property
    def _hurry(self) -> bool:
        return self.waiting_writers > 0 or self._cache.map.dirty_bytes >= self._settings.high_mark_bytes

    @property
    def _message_bytes(self) -> int:
        # With little room for dirty data, packing, sending and writing overlap only in smaller messages.
        quarter = self._settings.dirty_bytes // 4
        return max(self._sizes.floor_bytes, min(self._sizes.message_bytes, quarter))

    def _next_bytes(self) -> int:
        """How much the message that is begun now may carry."""
        calm = self._waiting_for in {Waiting.NOTHING_DIRTY, Waiting.NOT_DUE} and not self._messages
        if calm and is_backlog(self._cache.map.waiting, self._quiet, self._situation, trio.current_time()):
            # Two messages that begin together share the link and end together: then it idles until the next two are
            # packed, and writers wait for two at once. With a first one of half the size they take turns from then on.
            return max(self._sizes.floor_bytes, self._message_bytes // 2)
        return self._message_bytes

    @property
    def _is_full(self) -> bool:
        return is_full(self._cache.map.waiting, self._message_bytes)

    @property
    def _situation(self) -> Situation:
        return Situation(self._message_bytes, self._hurry, bool(self._messages))

    def _next_send_at(self) -> float | None:
        return next_send_at(self._cache.map.waiting, self._quiet, self._situation)

    # -- one message --------------------------------------------------------------------------------------------

    async def _pack(self, message: Outgoing) -> None:
        choice = self._elevator.begin(self._cache.map.waiting, message.began_at, hurry=self._hurry)
        try:
            await self._packing.fill(message, choice)
        except DisfsError as error:
            # Nothing is wrong with Discord: the cache cannot be read now, for want of a descriptor, say.
            if self._pack_failure is None:
                log.warning("unsent data cannot be read now, trying again: %s", error)
            await self._packing.give_back(message)
            message.packs.clear()
            self._pack_failures += 1
            self._pack_failure = str(error)
            self._retry_pack_at = trio.current_time() + backoff_seconds(self._pack_failures, self._settings)
            self._cache.changed.unpark_all()
        else:
            self._pack_failures, self._pack_failure = 0, None
            self._elevator.end(choice)

    async def _deliver(self, message: Outgoing) -> None:
        sent_bytes = 0
        message.began_at = trio.current_time()
        self._rate.began(message.began_at)
        try:
            with self._underway.sending(message.packs):
                delivered = await self._sending.deliver(message)
        except DisfsError as error:
            self._channels.failed(message.channel, error, trio.current_time())
            await self._packing.give_back(message)
        else:
            if delivered:
                sent_bytes = message.size_bytes
                self._channels.succeeded(message.channel)
                self._sent_bytes += sent_bytes
                self._sent_packs += len(message.packs)
                self._sent_messages += 1
        finally:
            self._rate.ended(trio.current_time(), sent_bytes)
            self._finish(message)
        # Writers who wait for room look whether there is some, or whether there is still hope.
        self._cache.changed.unpark_all()

    def _begin(self, message: Outgoing) -> None:
        self._channels.began(message.channel)
        self._messages.append(message)

    def _finish(self, message: Outgoing) -> None:
        """A message arrived, or came to nothing: then its chunks are dirty again."""
        self._packing.release(message)
        self._channels.ended(message.channel)
        self._messages.remove(message)
        self._wake()
