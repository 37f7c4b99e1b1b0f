"""Takes the volume's lease, renews it, gives it back, and notices when it is another machine's.

    claim      post a lease, then look which others hold: a listing counts only if it shows the one just posted
    settle     look once more a little later: ids are given out before messages can be seen, so one may come to light
               late that is older than ours
    renew      every RENEW_SECONDS: post, look, delete the one before
    ensure     before anything is sent that would contradict another machine's: renew first if the lease may have ended
    release    delete it

A takeover that was asked for while Discord did not answer is made with the first claim that it answers, unless another
machine has sent names meanwhile: then this one cannot go on, and must not push the other aside.

While Discord does not answer the volume works from what is here, with a lease or without one; the first answer decides.
Whoever finds that another machine's lease counts deletes its own and never claims again.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.transport.base import LIST_LIMIT, Urgency
from disfs.errors import (
    CorruptDataError,
    DisfsError,
    FilesystemError,
    NotFoundError,
    StorageError,
    TransientStorageError,
)
from disfs.recovery.arrivals import ForkedError
from disfs.recovery.frames import NewerFormatError
from disfs.recovery.holding_values import HeldElsewhereError, LeaseStatistics, while_mounted
from disfs.recovery.lease import (
    SIZES,
    THIS_MESSAGE,
    VALID_MS,
    Posted,
    message_before,
    opened_lease,
    rival,
    sealed_lease,
    unix_seconds,
)
from disfs.values import Location, MessageId

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import StoredMessage, Transport
    from disfs.recovery.holding_values import ShipperLike
    from disfs.recovery.lease import Lease
    from disfs.values import ChannelId

log = logging.getLogger(__name__)

RENEW_SECONDS = 120.0
SETTLE_SECONDS = 3.0
AGAIN_SECONDS = 15.0
"""How soon what failed is tried again."""
FRESH_SECONDS = VALID_MS / 1000 - 60.0
"""For so long after a renewal nobody can have found it ended; the rest is for clocks that do not go alike."""
_LOOKS = 5
"""How often a listing is asked for in all that does not show what was just posted."""
_LOOK_AGAIN_SECONDS = 1.0


class LeaseHolder:
    """One mount's claim to its volume."""

    def __init__(
        self,
        transport: Transport,
        channel: ChannelId,
        key: VolumeKey,
        lease: Lease,
        *,
        remember: Callable[[Posted | None], None],
        text: str,
        remembered: Posted | None = None,
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        """`lease` is what a new chain begins with. `remembered` is what the last session of this state gave to
        `remember`: its chain is taken up if its message is still there and holds. `now` counts the time also while the
        machine sleeps."""
        self._transport = transport
        self._channel = channel
        self._key = key
        self._lease = lease
        self._remember = remember
        self._remembered = remembered
        self._text = text
        self._now = now
        self._lock = trio.Lock()
        self._seen: dict[MessageId, Posted | None] = {}
        self._mine: Posted | None = None
        self._began: MessageId | None = None
        self._fresh_until = float("-inf")
        self._is_settled = False
        self._is_loose = False
        """Whether something of ours may lie in the channel of which nobody has heard."""
        self._lost: HeldElsewhereError | None = None
        self._renewals = 0
        self._failure: str | None = None
        self._takes_over = False
        self._taken_from: str | None = None
        self.before_late_takeover: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        """Raises ForkedError when this machine cannot go on with the volume; errors as of `Transport`."""

    def statistics(self) -> LeaseStatistics:
        """How it is."""
        since = None if self._mine is None else unix_seconds(self._mine.first)
        return LeaseStatistics(
            self._mine is not None, since, self._renewals, self._failure, self._takes_over, self._taken_from
        )

    def take_over_later(self) -> None:
        """Discord does not answer now: the next claim that it answers takes the volume over."""
        self._takes_over = True

    async def ensure(self) -> None:
        """Return when this mount has the lease and nobody else can have taken it for ended. See `claim`."""
        if self._lost is not None:
            raise self._lost
        if self._mine is None or self._now() >= self._fresh_until:
            await self.claim()

    async def claim(self, *, takes_over: bool = False) -> Posted | None:
        """Take the lease, or renew it. Returns whose it was with `takes_over`, None if it was nobody's.

        HeldElsewhereError when it is another machine's, whatever is asked of this object later. Errors as of
        `Transport`; then nothing is decided. TransientStorageError also when Discord does not show what it has taken.
        Where a takeover is still to be made, errors as of `before_late_takeover`.
        """
        async with self._lock:
            if self._lost is not None:
                raise self._lost
            if self._takes_over:
                # Not before the lock: what a claim that was quicker lets our own shipper send is no other machine's.
                await self.before_late_takeover()
            is_late, now_takes_over = self._takes_over, takes_over or self._takes_over
            await self._check_remembered()
            before, was_loose = self._mine, self._is_loose
            self._is_loose = True
            posted = await self._post(takes_over=now_takes_over)
            began = self._began or posted.message
            others = await self._look(posted)
            found = rival(posted, began, others)
            if found is not None:
                await self._give_up([posted, *([before] if before else [])])
                self._lose(found)
            self._mine, self._began, self._is_loose = posted, began, was_loose
            self._remember(posted)
            self._renewals += before is not None
            await self._tidy(posted, others)
            log.debug("the lease is message %d", posted.message)
            pushed = _pushed_aside(posted, others) if now_takes_over else None
            if is_late:
                self._note_takeover(pushed)
            return pushed

    def _note_takeover(self, pushed: Posted | None) -> None:
        self._takes_over = False
        if pushed is None:
            log.info("no other machine had the volume that was to be taken over")
        else:
            self._taken_from = pushed.lease.host
            log.warning("the volume was taken over from %s, as it was asked for at the mount", pushed.lease.host)

    async def notice(self, messages: Sequence[StoredMessage]) -> frozenset[MessageId]:
        """New messages of the channel that somebody has listed; returns which of them are leases.

        HeldElsewhereError when one of them counts before ours. Errors as of `Transport`.
        """
        async with self._lock:
            found = [posted for each in messages if (posted := await self._opened(each)) is not None]
            mine, began = self._mine, self._began
            if mine is not None and began is not None:
                holder = rival(mine, began, found)
                if holder is not None:
                    await self._give_up([mine])
                    self._lose(holder)
        return frozenset(each.message for each in found)

    async def run(self, shipper: ShipperLike) -> None:
        """Claim and renew, until cancelled, or until the shipper has stopped for another reason.

        The shipper gives way if another machine's lease counts.
        """
        try:
            pause = AGAIN_SECONDS if self._mine is None else SETTLE_SECONDS
            while not await self._stopped_within(shipper, pause):
                pause = await self._turn()
        except (ForkedError, NewerFormatError) as error:
            shipper.give_way(error)
        else:
            await self.release()

    async def release(self) -> None:
        """Delete what is ours; what cannot be deleted ends by itself. Nothing is raised but a cancel."""
        async with self._lock:
            mine, self._mine = self._mine, None
            if mine is None and not self._is_loose:
                return
            self._forget()
            try:
                doomed = [] if mine is None else [mine.message]
                if self._is_loose:
                    listed = await self._list(message_before(mine.message) if mine else MessageId(0))
                    found = await self._leases(listed)
                    doomed = [each.message for each in found if each.lease.session == self._lease.session]
                if doomed:
                    await self._transport.delete(self._channel, doomed, urgency=Urgency.SYNC)
            except StorageError as error:
                log.warning("the lease cannot be given back and ends by itself in a few minutes: %s", error)

    # -- a turn of the loop --------------------------------------------------------------------------------------

    async def _turn(self) -> float:
        """Renew, or look once more after a claim; returns when to come back."""
        try:
            if self._mine is None:
                await self.claim()
                self._failure = None
                return SETTLE_SECONDS
            if self._is_settled:
                await self.claim()
            else:
                await self._settle()
        except (ForkedError, NewerFormatError):
            raise
        except DisfsError as error:
            if self._failure is None:
                log.warning("the lease cannot be renewed now: %s", error)
            self._failure = str(error)
            return AGAIN_SECONDS
        self._failure = None
        return RENEW_SECONDS

    async def _settle(self) -> None:
        """A second look at what there was when the claim was made."""
        # Whatever comes of this look: the next turn renews, and looks too.
        self._is_settled = True
        async with self._lock:
            mine, began = self._mine, self._began
            if mine is not None and began is not None:
                found = rival(mine, began, await self._look(mine))
                if found is not None:
                    await self._give_up([mine])
                    self._lose(found)

    async def _stopped_within(self, shipper: ShipperLike, seconds: float) -> bool:
        """Wait so long by the clock that goes on while the machine sleeps: after that the lease may be over."""
        ends = self._now() + seconds
        while not shipper.stopped.is_set() and (left := ends - self._now()) > 0:
            with trio.move_on_after(min(left, AGAIN_SECONDS)):
                await shipper.stopped.wait()
        return shipper.stopped.is_set()

    async def _check_remembered(self) -> None:
        """A chain whose message was given back, or swept away, has ended: somebody else may have begun one since."""
        if self._remembered is not None and self._mine is None:
            message = self._remembered.message
            listed = await self._list(MessageId(message - 1))
            if all(each.message != message for each in listed):
                self._remembered = None

    # -- messages ------------------------------------------------------------------------------------------------

    async def _post(self, *, takes_over: bool) -> Posted:
        chain = self._mine or self._remembered
        lease = self._lease
        if chain is not None:
            following = chain.next()
            lease = replace(lease, first=following.first, previous=following.previous, takeover=following.takeover)
        if takes_over:
            lease = replace(lease, takeover=THIS_MESSAGE)
        pack = sealed_lease(self._key, lease)
        began = self._now()
        stored = await self._transport.send(
            self._channel, [pack.upload], nonce=f"le{os.urandom(10).hex()}", content=self._text, urgency=Urgency.SYNC
        )
        self._fresh_until = began + FRESH_SECONDS
        posted = Posted(stored.message, lease)
        self._seen[stored.message] = posted
        return posted

    async def _look(self, mine: Posted) -> list[Posted]:
        """All leases that held when ours was posted or came after it."""
        for attempt in range(_LOOKS):
            if attempt:
                await trio.sleep(_LOOK_AGAIN_SECONDS)
            listed = await self._list(message_before(mine.message))
            if any(each.message == mine.message for each in listed):
                return await self._leases(listed)
        raise TransientStorageError("Discord does not show the lease that it has taken")

    async def _list(self, after: MessageId) -> list[StoredMessage]:
        found: list[StoredMessage] = []
        while True:
            page = await self._transport.list_messages(self._channel, after=after, urgency=Urgency.SYNC)
            found += reversed(page)
            if len(page) < LIST_LIMIT:
                return found
            after = page[0].message

    async def _leases(self, listed: Sequence[StoredMessage]) -> list[Posted]:
        present = {each.message for each in listed}
        self._seen = {message: posted for message, posted in self._seen.items() if message in present}
        return [posted for message in listed if (posted := await self._opened(message)) is not None]

    async def _opened(self, message: StoredMessage) -> Posted | None:
        if message.message not in self._seen:
            self._seen[message.message] = await self._open(message)
        return self._seen[message.message]

    async def _open(self, message: StoredMessage) -> Posted | None:
        if len(message.attachments) != 1 or message.attachments[0].size_bytes not in SIZES:
            return None
        attachment = message.attachments[0]
        location = Location(message.channel, message.message, attachment.attachment)
        try:
            raw = await self._transport.fetch(location, 0, attachment.size_bytes, urgency=Urgency.SYNC)
            lease = opened_lease(self._key, raw)
        except (CorruptDataError, NotFoundError):
            return None  # none of ours, or deleted meanwhile
        return None if lease is None or lease.volume != self._lease.volume else Posted(message.message, lease)

    async def _tidy(self, mine: Posted, others: Sequence[Posted]) -> None:
        """What this place has posted before is of no more use."""
        old = [each.message for each in others if each.lease.place == mine.lease.place and each.message < mine.message]
        try:
            await self._transport.delete(self._channel, old, urgency=Urgency.SYNC)
        except StorageError as error:
            log.info("an old lease cannot be deleted now, and ends by itself: %s", error)

    def _forget(self) -> None:
        self._remembered = None
        try:
            self._remember(None)
        except FilesystemError as error:
            log.info("that the lease is given back cannot be noted: %s", error)

    async def _give_up(self, doomed: Sequence[Posted]) -> None:
        self._forget()
        try:
            await self._transport.delete(self._channel, [each.message for each in doomed], urgency=Urgency.SYNC)
        except StorageError as error:
            log.warning("a lease that does not count cannot be deleted, and ends by itself: %s", error)
        self._mine = None

    def _lose(self, holder: Posted) -> None:
        self._lost = HeldElsewhereError(while_mounted(holder), holder)
        raise self._lost


def _pushed_aside(mine: Posted, others: Sequence[Posted]) -> Posted | None:
    held = [each for each in others if each.lease.place != mine.lease.place and each.message < mine.message]
    return min(held, key=lambda each: each.precedence, default=None)
