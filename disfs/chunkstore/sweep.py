"""Delete messages whose packs hold nothing live.

The order is safe at every instant: what made the packs dead is durable before anything is deleted, and a
message is forgotten only after Discord has deleted it. A crash between the two deletes it once more, which
is harmless. Whoever keeps a copy of what is recorded says up to which revision that copy goes: a message is deleted
only if it was dead by then, so nothing goes that the copy still refers to. And before each batch it is asked whether
that copy still is the newest: another machine may have gone on with the volume meanwhile, and refer to all of it. The
grace time runs from when this process first saw the message so; readers that were on their way to it have then long
arrived.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from disfs.chunkstore.transport.base import DELETE_LIMIT
from disfs.errors import DisfsError, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.chunkstore.strays import Strays
    from disfs.chunkstore.transport.base import Transport
    from disfs.values import ChannelId, DeadMessage, MessageId

log = logging.getLogger(__name__)

_LOOK_AT = 10 * DELETE_LIMIT


@dataclass(frozen=True, slots=True)
class SweepStatistics:
    """For `disfs status`."""

    swept_messages: int
    waiting_messages: int
    """Dead, but within the grace time."""
    stray_messages: int
    """Messages of ours that no record referred to, deleted since the start."""
    newer_messages: int
    """Messages of the volume that are newer than this machine's state of it; they are kept."""
    failure: str | None
    """Why the last sweep could not delete; None when all is well."""


class Copies(Protocol):
    """What is kept elsewhere of what is recorded here."""

    @property
    def shipped_revision(self) -> int:
        """What became garbage at a lower revision is garbage in every copy too."""

    @property
    def may_delete(self) -> bool:
        """Whether, as far as is known, nobody has gone on from these copies but this machine."""

    async def confirm_deletions(self) -> bool:
        """Whether that is so at this moment. Errors as of `Transport`."""


class Sweeper:
    """Looks for dead messages now and then, and deletes them in bulk."""

    def __init__(
        self,
        ledger: ChunkLedger,
        make_durable: Callable[[], Awaitable[None]],
        transport: Transport,
        strays: Strays,
        settings: ChunkStoreSettings,
        copies: Copies | None,
    ) -> None:
        """`copies`: of what is recorded; None: there are none."""
        self._ledger = ledger
        self._copies = copies
        self._make_durable = make_durable
        self._transport = transport
        self._strays = strays
        self._grace_seconds = settings.sweep_grace_seconds
        self._interval_seconds = settings.sweep_interval_seconds
        self._dead_since: dict[tuple[ChannelId, MessageId], float] = {}
        self._refused_count = 0
        """Messages that were not deleted the last time: they must not hide the others behind them."""
        self._swept = 0
        self._failure: str | None = None

    def statistics(self) -> SweepStatistics:
        """Counters since the start."""
        strays = self._strays
        return SweepStatistics(
            self._swept, len(self._dead_since), strays.deleted_count, strays.newer_count, self._failure
        )

    async def run(self) -> None:
        """Sweep until cancelled; a sweep that fails is tried again at the next turn."""
        while True:
            await trio.sleep(self._interval_seconds)
            try:
                await self.sweep()
                self._failure = None
            except DisfsError as error:
                # Discord, or a ledger that cannot be made durable now: garbage is in nobody's way.
                if self._failure is None:
                    log.warning("could not delete garbage in Discord, will try again: %s", error)
                self._failure = str(error)

    async def sweep(self) -> None:
        """Delete what has been dead for the grace time, and strays that were noted long enough ago.

        A channel that refuses keeps only its own: its error is raised in the end.
        """
        refused: StorageError | None = None
        try:
            await self._sweep_dead()
        except StorageError as error:
            refused = error
        if self._copies is None or self._copies.may_delete:
            await self._strays.look(self._confirm)
        if refused is not None:
            raise refused

    async def _sweep_dead(self) -> None:
        by_channel = self._ripe(await self._ledger.dead_messages(_LOOK_AT + self._refused_count))
        self._refused_count = 0
        if not by_channel:
            return
        await self._make_durable()
        refused: StorageError | None = None
        for channel, messages in by_channel.items():
            try:
                for position in range(0, len(messages), DELETE_LIMIT):
                    await self._delete(channel, messages[position : position + DELETE_LIMIT])
            except StorageError as error:
                refused = error
                self._refused_count += len(messages)
        if refused is not None:
            raise refused

    def _ripe(self, dead: Sequence[DeadMessage]) -> dict[ChannelId, list[DeadMessage]]:
        now = trio.current_time()
        if self._copies is not None:
            copied = self._copies.shipped_revision
            dead = [message for message in dead if message.dead_since < copied]
        seen = {(d.location.channel, d.location.message): d for d in dead}
        self._dead_since = {key: self._dead_since.get(key, now) for key in seen}
        ripe: dict[ChannelId, list[DeadMessage]] = {}
        for key, message in seen.items():
            if now - self._dead_since[key] >= self._grace_seconds:
                ripe.setdefault(key[0], []).append(message)
        for messages in ripe.values():
            # Oldest first: Discord deletes in bulk only what is younger than 14 days. So those near that age go before
            # it is too late, and those past it, which go one by one, do not spoil the batches of the others.
            messages.sort(key=lambda message: message.location.message)
        return ripe

    async def _confirm(self) -> bool:
        return self._copies is None or await self._copies.confirm_deletions()

    async def _delete(self, channel: ChannelId, messages: Sequence[DeadMessage]) -> None:
        if not await self._confirm():
            return
        await self._transport.delete(channel, [message.location.message for message in messages])
        await self._ledger.forget_messages(messages)
        for message in messages:
            self._dead_since.pop((channel, message.location.message), None)
        self._swept += len(messages)
        log.debug("deleted %d dead messages", len(messages))
