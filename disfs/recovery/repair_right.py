"""The right to change what Discord has of a volume that nobody has mounted: its lease, and that nobody has gone on.

A repair decides by what is on this machine. Another machine that has the volume mounted, or had it mounted since,
refers to messages that this one knows nothing of. So a repair holds the lease as a mount does, and before anything is
changed in Discord it is looked whether all that is new in the index channel was sent from here.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.transport.stack import running_beside
from disfs.errors import ExitCode, UserError
from disfs.metadata.shipping import NO_STATE
from disfs.recovery.admission import give_back, refusal
from disfs.recovery.arrivals import ForkedError, refuse_fork
from disfs.recovery.assembly import Origin, holder_of, place_here
from disfs.recovery.holding_values import HeldElsewhereError
from disfs.recovery.index_channel import IndexChannel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import Transport
    from disfs.config import VolumeConfig
    from disfs.errors import DisfsError
    from disfs.metadata.told import ToldRows
    from disfs.recovery.holding import LeaseHolder


class RepairRight:
    """Held by one repair, which asks `confirm` before each change in Discord."""

    def __init__(self, holder: LeaseHolder, index: IndexChannel, rows: ToldRows) -> None:
        self._holder = holder
        self.index = index
        """The volume's index channel."""
        self._position = rows.position()
        self._known = {each.message for each in rows.messages()}
        self._lost: DisfsError | None = None
        self.stopped = trio.Event()

    def give_way(self, error: DisfsError) -> None:
        """See `ShipperLike`."""
        self._lost = error
        self.stopped.set()

    async def claim(self, name: str) -> None:
        """Take the lease of volume `name`. VOLUME_HELD when another machine has it; errors as of `Transport`."""
        try:
            await self._holder.claim()
        except HeldElsewhereError as error:
            raise UserError(refusal(name, error.holder), ExitCode.VOLUME_HELD) from error

    async def confirm(self) -> None:
        """Return when this machine may change what Discord has of the volume: to be awaited immediately before.

        ForkedError when it may not; `NewerFormatError`; errors as of `Transport`.
        """
        if self._lost is not None:
            raise self._lost
        await self._holder.ensure()
        position = self._position
        if position is None:
            raise ForkedError("what this machine has sent of its names is not known any more")
        await refuse_fork(self.index, position, self._known)


@asynccontextmanager
async def right_to_repair(
    volume: VolumeConfig, directory: Path, rows: ToldRows, transport: Transport, key: VolumeKey
) -> AsyncIterator[RepairRight]:
    """Hold the volume's lease inside the block. VOLUME_HELD when another machine has it; errors as of `Transport`.

    `directory` is where this machine keeps the volume's state, and `rows` its metadata.
    """
    position = rows.position()
    known = NO_STATE if position is None else position.device
    # Before its first mount it has no id yet: one that is the same each time, or a killed repair refuses the next one.
    device = place_here(directory) if known == NO_STATE else known
    # What is remembered of the lease stays as it is: a mount finds that its message is gone, and begins anew.
    origin = Origin(device, directory, rows.lease())
    holder = holder_of(volume, origin, key=key, transport=transport, remember=lambda _posted: None)
    index = IndexChannel(transport, volume.index_channel, key, volume.superblock.volume_id)
    right = RepairRight(holder, index, rows)
    try:
        await right.claim(volume.name)
        async with running_beside(partial(holder.run, right)):
            yield right
    finally:
        await give_back(holder)
