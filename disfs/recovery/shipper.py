"""Ships what has changed in the metadata to the volume's index channel, one state after another.

A turn of the loop:

    (once, at the start) a look at what is new in the index channel: until then nothing is deleted in Discord
    something has changed for long enough, or somebody waits, and nobody has paused uploads
    -> a look at what is new in the index channel: another machine's shipments end it all here (see below)
    -> commit, fix the state, read and seal it in a worker thread
    -> note the attempt, and make everything durable here: nothing is in Discord that a power cut could take from here
    -> send, and only when Discord has acknowledged all of it write that down: what was noted is shipped

Whatever fails is tried again, after another look, the same bytes under the same nonces: the transport must not repeat
sends by itself. Whatever breaks off leaves what is noted in the outbox. Copies are sent beside the journals that follow
them, which do not wait.

A send may get through long after its look, when another machine has gone on: a laptop that was asleep. So nothing is
deleted on the strength of an acknowledgement alone, but after a look that follows it (`confirm`).

A machine that finds shipments of another one, or of its own that it knows nothing of (its disk was put back to what it
was), must not go on: what it would send contradicts them. It stops shipping and sweeping for good and says so;
everything else goes on, and what was written stays here.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

import trio

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.transport.base import Urgency
from disfs.errors import DisfsError, FilesystemError, TooLargeError, TransientStorageError
from disfs.recovery.arrivals import Arrivals, ForkedError
from disfs.recovery.delivery import Delivery
from disfs.recovery.frames import NewerFormatError
from disfs.recovery.retention import Retention
from disfs.recovery.shipper_values import ShipperStatistics

if TYPE_CHECKING:
    from disfs.chunkstore.transport.base import Transport
    from disfs.metadata.shipping import Begun, Shipping
    from disfs.recovery.building import Builder, Built
    from disfs.recovery.index_channel import IndexChannel
    from disfs.recovery.shipper_values import ShipperSettings, Surroundings
    from disfs.values import ChannelId

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.5
"""How often it is looked whether contents that were waited for have been sent."""
FLOOR_BYTES = 256 * 1024
"""However much Discord refuses, attachments are not made smaller."""


class _Turn(NamedTuple):
    """A state that is on its way."""

    built: Built
    begun: Begun
    copy: Built | None
    """Of the same state, to be sent after it."""
    fixed_at: float

    def close(self) -> None:
        """It is given up: what it would have sent goes."""
        self.built.spool.close()
        if self.copy is not None:
            self.copy.spool.close()


class Shipper:
    """One volume's metadata on its way to Discord. One `run` at a time."""

    def __init__(
        self,
        shipping: Shipping,
        transport: Transport,
        channel: ChannelId,
        index: IndexChannel,
        builder: Builder,
        settings: ShipperSettings,
        surroundings: Surroundings,
        *,
        volume_name: str,
    ) -> None:
        self._shipping = shipping
        self._builder = builder
        self._settings = settings
        self._ask = surroundings
        self._index = index
        self._arrivals = Arrivals(shipping, index, surroundings.notice)
        self._delivery = Delivery(
            transport,
            channel,
            volume_name,
            message_bytes=settings.message_bytes,
            on_message=self._arrivals.know,
        )
        self._retention = Retention(shipping, transport, channel, surroundings.make_durable)
        shipping.look = self.confirm
        self._lock = trio.Lock()
        self._woken = trio.lowlevel.ParkingLot()
        self._changed = trio.lowlevel.ParkingLot()
        self._turn: _Turn | None = None
        self._copy: Built | None = None
        """The copy that is being sent beside."""
        self._refused_bytes: int | None = None
        self._last_end = float("-inf")
        self._fixed: float | None = None
        """When the newest state was fixed that Discord has: no change that it lacks is older."""
        self._waiters = 0
        self._paused = False
        self._failures = 0
        self._failure: str | None = None
        self._conflict: str | None = None
        self.stopped = trio.Event()
        """Set once nothing will be shipped any more."""
        self._running = trio.CancelScope()
        self._journal_count = self._copy_count = 0

    # -- what others ask ----------------------------------------------------------------------------------------

    @property
    def is_stopped(self) -> bool:
        """Whether nothing will be shipped any more."""
        return self._conflict is not None

    def give_way(self, error: DisfsError) -> None:
        """Ship nothing more, not even the rest of what is on its way."""
        if not self.is_stopped:
            self._stop(error)
        self._running.cancel()
        self._changed.unpark_all()

    @property
    def conflict(self) -> str | None:
        """Why that is so; None while all is well."""
        return self._conflict

    def statistics(self) -> ShipperStatistics:
        """Counters since the start, and what is wrong now."""
        oldest_ns = self._shipping.oldest_ns
        sending = [built.kind for built in self._outgoing()]
        return ShipperStatistics(
            sequence=self._sequence(),
            unshipped_seconds=None if oldest_ns is None else max(0.0, (time.time_ns() - oldest_ns) / 1e9),
            journals=self._journal_count,
            copies=self._copy_count,
            sent_bytes=self._delivery.sent_bytes,
            deleted_messages=self._retention.deleted_count,
            sending=" and ".join("a journal" if kind is PackKind.JOURNAL else "a checkpoint copy" for kind in sending),
            failure=self._failure or self._retention.failure,
            conflict=self._conflict,
            unreadable=self._index.unreadable_count,
        )

    def _sequence(self) -> int:
        try:
            return self._shipping.sequence
        except FilesystemError:  # the metadata store has stopped, and its own statistics say why
            return 0

    def pause(self) -> None:
        """Begin nothing new until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Go on, at once if something failed."""
        self._paused = False
        self._woken.unpark_all()

    async def drain(self) -> None:
        """Return when everything that was changed before the call is in Discord, or when nothing will be any more.

        Waits for ever while Discord does not take it; cancelling loses nothing. FilesystemError.
        """
        mark = self._shipping.mark()
        self._waiters += 1
        self._woken.unpark_all()
        try:
            while not (self.is_stopped or self._shipping.is_shipped(mark)):
                await self._changed.park()
        finally:
            self._waiters -= 1

    # -- the loop -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ship until cancelled, or until there is a conflict. What is on its way then is begun anew by the next run."""
        try:
            with self._running:
                await self._run()
        finally:
            if self._turn is not None:
                self._turn.close()
                self._turn = None

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            looked = False
            while not self.is_stopped:
                copy: Built | None = None
                try:
                    if looked:
                        if await self._until_due():
                            copy = await self.ship()
                    else:
                        await self.look()
                        looked = True
                except (ForkedError, NewerFormatError) as error:
                    self._stop(error)
                except (DisfsError, OSError, ValueError) as error:
                    await self._failed(error)
                else:
                    self._failures, self._failure = 0, None
                    if copy is not None:
                        nursery.start_soon(self._send_copy, copy)
                self._changed.unpark_all()

    async def ship(self) -> Built | None:
        """Ship one state, or go on with one that failed. Returns the copy that is to be sent next, if one is due."""
        async with self._lock:
            await self._ask.hold_lease()
            await self._arrivals.look({built.header.shipment: built for built in self._outgoing()})
            turn = self._turn = self._turn or await self._begin()
            try:
                await self._delivery.send(turn.built, Urgency.SYNC if self._waiters else Urgency.WRITEBACK)
            except TooLargeError:
                self._refused(turn.built)
                turn.close()
                self._turn = None
                raise
            self._acknowledged(turn)
            self._turn = None
            try:
                while self._shipping.forget_more(turn.begun):
                    await trio.lowlevel.checkpoint()
            except BaseException:
                turn.close()  # its copy will not be sent
                raise
            self._last_end = trio.current_time()
        if turn.built.kind is PackKind.CHECKPOINT:
            await self._retention.clean_up()
        return turn.copy

    async def look(self) -> None:
        """See whether the volume has gone on elsewhere. Until that was done once, nothing is deleted in Discord."""
        async with self._lock:
            await self._ask.hold_lease()
            await self._arrivals.look({built.header.shipment: built for built in self._outgoing()})
            self._shipping.allow_deletions(not self.is_stopped)

    async def confirm(self) -> bool:
        """Look now; returns whether this machine may go on. Errors as of `Transport`."""
        if not self.is_stopped:
            try:
                await self.look()
            except (ForkedError, NewerFormatError) as error:
                if not self.is_stopped:
                    self._stop(error)
                self._changed.unpark_all()
                self._woken.unpark_all()
        return not self.is_stopped

    def _outgoing(self) -> list[Built]:
        found = [] if self._turn is None else [self._turn.built]
        return found if self._copy is None else [*found, self._copy]

    async def _until_due(self) -> bool:
        """Wait until something is to be shipped. False when nothing will be any more."""
        began = self._fixed
        if not self._shipping.has_unshipped:
            await self._shipping.pending.wait()
            began = None
        if began is None:
            began = trio.current_time()
        while True:
            now = trio.current_time()
            due = began + self._settings.delay_seconds
            if self._ask.has_unsent():
                due += self._settings.hold_seconds
            due = now if self._waiters else max(due, self._last_end + self._settings.pause_seconds)
            if self.is_stopped or (now >= due and not self._paused):
                return not self.is_stopped
            with trio.move_on_after(_TICK_SECONDS if self._paused else min(due - now, _TICK_SECONDS)):
                await self._woken.park()

    async def _begin(self) -> _Turn:
        """Fix the state of this moment and make it ready to be sent. A step that fails leaves nothing behind."""
        position = self._shipping.position()
        fixed_at = trio.current_time()
        begun = self._shipping.begin()
        try:
            built, copy = await trio.to_thread.run_sync(
                self._builder.build,
                self._shipping.snapshot,
                begun,
                position,
                self._attachment_bytes,
                self._copy is None,
            )
        finally:
            self._shipping.snapshot.end()
        turn = _Turn(built, begun, copy, fixed_at)
        try:
            self._shipping.attempt(built.header.state)
            await self._ask.make_durable()
        except BaseException:
            turn.close()
            raise
        return turn

    @property
    def _attachment_bytes(self) -> int:
        known = self._ask.attachment_bytes()
        return known if self._refused_bytes is None else min(known, self._refused_bytes)

    def _refused(self, built: Built) -> None:
        """Discord takes smaller attachments only: what has arrived of this shipment is of no use."""
        self._refused_bytes = max(FLOOR_BYTES, max(part.size_bytes for part in built.parts) // 2)
        self._shipping.note_remains(sorted(set(built.messages.values())))

    def _acknowledged(self, turn: _Turn) -> None:
        """Discord has all of it. One step: the record is whole, or it is made anew from what is in the channel."""
        built = turn.built
        is_copy = built.kind is PackKind.CHECKPOINT
        self._shipping.acknowledged(
            turn.begun, built.header.state, built.shipped_messages, built.size_bytes, as_copy=is_copy
        )
        self._fixed = turn.fixed_at
        if is_copy:
            self._shipping.copied(built.header.sequence, (), built.size_bytes, 0)
            self._copy_count += 1
        else:
            self._journal_count += 1
        built.spool.close()
        log.debug("state %d is in Discord", built.header.sequence)

    async def _send_copy(self, copy: Built) -> None:
        """Send a copy beside the journals that follow it; one that cannot be sent goes with a later journal."""
        self._copy = copy
        try:
            before = self._shipping.position().journal_bytes
            if await self._is_sent(copy):
                since = self._shipping.position().journal_bytes - before
                self._shipping.copied(copy.header.sequence, copy.shipped_messages, copy.size_bytes, since)
                self._copy_count += 1
                self._failure = None
        except (DisfsError, OSError) as error:
            self._give_up(copy, error)
        finally:
            self._copy = None
            copy.spool.close()
        if not self.is_stopped:
            await self._retention.clean_up()

    async def _is_sent(self, copy: Built) -> bool:
        """Send it, tried again while that may help and another look allows it. Errors when it does not help."""
        failures = 0
        while not self.is_stopped:
            try:
                if not failures or await self.confirm():
                    await self._delivery.send(copy, Urgency.WRITEBACK)
                    return True
            except TransientStorageError as error:
                failures += 1
                self._failure = str(error)
                await trio.sleep(self._pause_after(failures, error))
        return False

    def _give_up(self, copy: Built, error: DisfsError | OSError) -> None:
        self._failure = str(error)
        log.warning("a checkpoint copy cannot be sent, another one goes with a later journal: %s", error)
        with contextlib.suppress(FilesystemError):  # what is not noted is found by the next look after a restart
            if isinstance(error, TooLargeError):
                self._refused(copy)
            else:
                self._shipping.note_remains(sorted(set(copy.messages.values())))

    def _stop(self, error: DisfsError) -> None:
        self._conflict = str(error)
        self._shipping.allow_deletions(False)
        self.stopped.set()
        log.error("the metadata are not sent to Discord any more: %s", error)

    async def _failed(self, error: Exception) -> None:
        if self._failure is None:
            log.warning("the metadata cannot be sent to Discord, trying again: %s", error)
        self._failures += 1
        self._failure = str(error)
        with trio.move_on_after(self._pause_after(self._failures, error)):
            await self._woken.park()

    def _pause_after(self, failures: int, error: Exception) -> float:
        pause: float = self._settings.backoff_seconds * 2.0 ** min(failures - 1, 20)
        asked = error.retry_after_seconds if isinstance(error, TransientStorageError) else None
        return max(asked or 0.0, min(pause, self._settings.backoff_limit_seconds))
