"""A wrapper that tries again what may succeed the next time, and never lets a repeated send store twice.

Waiting: exponential with jitter, at least as long as Discord asked for, up to a bound in attempts or in time, or
for ever.

Sending again: while Discord remembers the nonce, a repeat is answered with the first message. It remembers for "a
few minutes", so after `nonce_window_seconds` from the first attempt whose fate is unknown, the newest messages of
the channel are searched for the attachments' names (each holds its pack's id, so it exists once) before a new nonce
is used. A nonce whose message was deleted meanwhile is refused by Discord for ever; that too calls for a new one.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import random as random_module
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import trio

from disfs.chunkstore.transport.base import LIST_LIMIT, Urgency
from disfs.chunkstore.transport.forwarding import ForwardingTransport
from disfs.errors import NotFoundError, TransientStorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from disfs.chunkstore.transport.base import StoredMessage, Transport, TransportStatistics, Upload
    from disfs.values import ChannelId, Location, MessageId

log = logging.getLogger(__name__)
T = TypeVar("T")

SEARCH_PAGES = 20
"""How many hundreds of messages a search for a lost send goes back at most when nothing was acknowledged in the channel
before. Our own sends make about one message a second and channel, and none at all while there is no connection."""

ASKED_SECONDS = 60.0
"""How much of the time that Discord asked to wait does not count against a policy's bound in time."""
SHORT_WAIT_SECONDS = 10.0
"""A wait that Discord asked for is told as trouble only when it is longer, or when it did not help."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to try; None means without end."""

    attempts: int | None = None
    total_seconds: float | None = None
    """No new attempt begins later than this after the first one, waits that Discord asked for not counted (up to
    ASKED_SECONDS)."""
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 60.0

    def delay(self, failures: int, chance: float) -> float:
        """How long to wait after so many failures in a row; `chance` in [0, 1) spreads clients that failed together."""
        longest: float = min(self.longest_delay_seconds, self.first_delay_seconds * 2 ** min(failures - 1, 30))
        return longest * (0.5 + 0.5 * chance)


@dataclass(frozen=True, slots=True)
class Retries:
    """Which policy holds for what."""

    sends: RetryPolicy = RetryPolicy()
    """Sending is background work that nobody waits for; what is unsent is safe on disk."""
    others: RetryPolicy = RetryPolicy(total_seconds=30.0, longest_delay_seconds=5.0)
    """A reader waits: better an error than a process that hangs for ever."""
    nonce_window_seconds: float = 120.0


@dataclass(slots=True)
class _Attempts:
    """One call's way through its policy. `failed` says whether to go on, by waiting or by raising."""

    policy: RetryPolicy
    random: Callable[[], float]
    began: float
    failures: int = 0
    asked_seconds: float = 0.0
    """How long Discord itself has asked to wait, as far as that is not counted against the policy's time."""

    def next_wait(self, error: TransientStorageError) -> float:
        """How long to wait before the next attempt; raises `error` when there shall be none."""
        self.failures += 1
        if self.policy.attempts is not None and self.failures >= self.policy.attempts:
            raise error
        asked = error.retry_after_seconds or 0.0
        wait = max(self.policy.delay(self.failures, self.random()), asked)
        # A rate limit passes at a time that is known: waiting for that is no sign that it never will.
        self.asked_seconds = min(ASKED_SECONDS, self.asked_seconds + asked)
        spent = trio.current_time() - self.began - self.asked_seconds
        if self.policy.total_seconds is not None and spent + wait > self.policy.total_seconds:
            raise error
        return wait


class RetryingTransport(ForwardingTransport):
    """Passes every call on to `inner`, again and again as far as the policies go."""

    def __init__(
        self,
        inner: Transport,
        retries: Retries,
        *,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        super().__init__(inner)
        self._retries = retries
        self._random = random
        self._retry_count = 0
        self._troubles: dict[int, str] = {}
        self._newest: dict[ChannelId, MessageId] = {}
        """The newest message of ours that each channel acknowledged: whatever was begun later is newer."""

    async def send(
        self,
        channel: ChannelId,
        uploads: Sequence[Upload],
        *,
        nonce: str,
        content: str = "",
        urgency: Urgency = Urgency.WRITEBACK,
    ) -> StoredMessage:
        """See `Transport.send`. Returns one message and leaves exactly one, whatever got lost on the way."""
        message = _Message(channel, tuple(uploads), content, urgency)
        sending = _Sending(self._inner, message, nonce, self._retries.nonce_window_seconds)
        sending.floor = self._newest.get(channel)
        stored = await self._repeat("send", self._retries.sends, sending.attempt)
        self._newest[channel] = max(stored.message, self._newest.get(channel, stored.message))
        return stored

    async def fetch(self, location: Location, start: int, length: int, *, urgency: Urgency = Urgency.READER) -> bytes:
        """See `Transport.fetch`."""
        return await self._repeat(
            "fetch", self._retries.others, lambda: self._inner.fetch(location, start, length, urgency=urgency)
        )

    async def list_messages(
        self,
        channel: ChannelId,
        *,
        before: MessageId | None = None,
        after: MessageId | None = None,
        around: MessageId | None = None,
        urgency: Urgency = Urgency.READER,
    ) -> list[StoredMessage]:
        """See `Transport.list_messages`."""
        return await self._repeat(
            "list",
            self._retries.others,
            lambda: self._inner.list_messages(channel, before=before, after=after, around=around, urgency=urgency),
        )

    async def delete(
        self, channel: ChannelId, messages: Sequence[MessageId], *, urgency: Urgency = Urgency.SWEEP
    ) -> None:
        """See `Transport.delete`."""
        await self._repeat(
            "delete", self._retries.others, lambda: self._inner.delete(channel, messages, urgency=urgency)
        )

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        inner = self._inner.statistics()
        trouble = next(reversed(self._troubles.values()), inner.trouble)
        return replace(inner, retries=inner.retries + self._retry_count, trouble=trouble)

    async def _repeat(self, what: str, policy: RetryPolicy, attempt: Callable[[], Awaitable[T]]) -> T:
        attempts = _Attempts(policy, self._random, trio.current_time())
        try:
            while True:
                try:
                    return await attempt()
                except TransientStorageError as error:
                    wait = attempts.next_wait(error)
                    level = logging.WARNING if attempts.failures == 4 else logging.DEBUG
                    log.log(
                        level, "%s failed (%d times now), next try in %.1f s: %s", what, attempts.failures, wait, error
                    )
                    self._troubles.pop(id(attempts), None)
                    if attempts.failures > 1 or not _is_short_rate_limit(error):
                        self._troubles[id(attempts)] = str(error)
                self._retry_count += 1
                await trio.sleep(wait)
        finally:
            self._troubles.pop(id(attempts), None)


def _is_short_rate_limit(error: TransientStorageError) -> bool:
    """Whether Discord asked to wait a moment: that is counted among the 429s, and nothing is wrong."""
    return error.retry_after_seconds is not None and error.retry_after_seconds <= SHORT_WAIT_SECONDS


@dataclass(frozen=True, slots=True)
class _Message:
    """What is to be sent."""

    channel: ChannelId
    uploads: tuple[Upload, ...]
    content: str
    urgency: Urgency


class _Sending:
    """One message on its way: knows which nonce is in use and since when its fate may be unknown."""

    def __init__(self, inner: Transport, message: _Message, nonce: str, nonce_window_seconds: float) -> None:
        self._inner = inner
        self._message = message
        self._window_seconds = nonce_window_seconds
        self._first_nonce = self._nonce = nonce
        self._epoch = 0
        self._uncertain_since: float | None = None
        self.floor: MessageId | None = None
        """Our message, if it exists, is newer than this."""

    async def attempt(self) -> StoredMessage:
        """Try once, in the way that what happened before calls for."""
        began = trio.current_time()
        if self._uncertain_since is not None and began - self._uncertain_since >= self._window_seconds:
            found = await self._search()
            if found is not None:
                return found
            self._renew_nonce()
            began = trio.current_time()
        try:
            return await self._send()
        except TransientStorageError as error:
            if error.maybe_done and self._uncertain_since is None:
                self._uncertain_since = began
            raise

    async def _send(self) -> StoredMessage:
        try:
            return await self._send_once()
        except NotFoundError:
            # The channel is gone, or what this nonce made was deleted. With a new nonce only the former can be.
            self._renew_nonce()
            return await self._send_once()

    async def _send_once(self) -> StoredMessage:
        one = self._message
        return await self._inner.send(
            one.channel, one.uploads, nonce=self._nonce, content=one.content, urgency=one.urgency
        )

    def _renew_nonce(self) -> None:
        """Derived, not random: a test can foresee it, and it still is as unique as the first one."""
        self._epoch += 1
        self._nonce = hashlib.blake2b(f"{self._first_nonce}/{self._epoch}".encode(), digest_size=12).hexdigest()
        self._uncertain_since = None

    async def _search(self) -> StoredMessage | None:
        """Our message, if an attempt whose answer was lost made it after all; newest messages first."""
        wanted = {(upload.name, upload.size_bytes) for upload in self._message.uploads}
        before: MessageId | None = None
        for _ in range(SEARCH_PAGES) if self.floor is None else itertools.count():
            page = await self._inner.list_messages(self._message.channel, before=before, urgency=self._message.urgency)
            for message in page:
                if self.floor is not None and message.message <= self.floor:
                    return None
                if wanted == {(a.name, a.size_bytes) for a in message.attachments}:
                    log.info("a send whose answer was lost had been stored after all")
                    return self._in_order(message)
            if len(page) < LIST_LIMIT:
                return None
            before = page[-1].message
        return None

    def _in_order(self, message: StoredMessage) -> StoredMessage:
        """The message with its attachments in the order of the uploads; names in one message differ."""
        by_name = {a.name: a for a in message.attachments}
        return replace(message, attachments=tuple(by_name[upload.name] for upload in self._message.uploads))
