"""What has come to the index channel since the last look, and what that means for this machine.

    part of a shipment that is being sent      it has arrived: need not be sent again
    an attempt of this machine, whole          it arrived although nobody was told: it is the newest state now
    a copy of this machine, whole              counts as one
    other parts of this machine's attempts     remains, to be deleted with the next copy; so is whatever comes of an
                                               attempt that another state was acknowledged instead of
    anything else of this machine              its disk was put back to what it was: a fork
    anything of another machine                two machines have gone on from the same state: a fork
    another machine's lease that counts        the volume was taken over: as a fork

At a fork nothing is changed and nothing is counted as examined, so that the next look finds it again.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from disfs.chunkstore.codec import PackKind
from disfs.errors import PermanentStorageError
from disfs.metadata.shipping import ShippedMessage
from disfs.recovery.chain import gather

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from typing import TypeAlias

    from disfs.chunkstore.transport.base import StoredMessage
    from disfs.metadata.shipping import Position, Shipping
    from disfs.recovery.building import Built
    from disfs.recovery.chain import Shipment
    from disfs.recovery.index_channel import IndexChannel
    from disfs.values import MessageId

    Notice: TypeAlias = Callable[[Sequence[StoredMessage]], Awaitable[frozenset[MessageId]]]


class ForkedError(PermanentStorageError):
    """What is in Discord does not follow from what this machine has sent."""


class Arrivals:
    """Looks at the new messages of the index channel."""

    def __init__(self, shipping: Shipping, index: IndexChannel, notice: Notice | None = None) -> None:
        """`notice` hears of new messages, raises ForkedError for another machine's lease, and says which are leases."""
        self._shipping = shipping
        self._index = index
        self._notice = notice
        self._known: set[MessageId] | None = None

    def know(self, message: MessageId) -> None:
        """This machine has just sent it."""
        if self._known is not None:
            self._known.add(message)

    async def look(self, outgoing: Mapping[bytes, Built]) -> None:
        """Take in what is new. `outgoing`: what is being sent, by its shipment. ForkedError, NewerFormatError."""
        if self._known is None:
            self._known = {each.message for each in self._shipping.messages()}
        position = self._shipping.position()
        messages = await self._index.messages(position.examined)
        if not messages:
            return
        leases = await self._notice(messages) if self._notice is not None else frozenset()
        parts = await self._index.parts(
            [each for each in messages if each.message not in self._known and each.message not in leases]
        )
        unknown = []
        for shipment in gather(parts):
            built = outgoing.get(shipment.header.shipment)
            if built is not None:
                built.messages.update({index: part.location.message for index, part in shipment.parts.items()})
            else:
                unknown.append(shipment)
        for shipment in unknown:
            check_follows(shipment, position)
        self._take_in(unknown, position)
        newest = messages[-1].message
        self._known = {message for message in self._known if message > newest}
        self._shipping.examined(newest)

    def _take_in(self, shipments: Sequence[Shipment], position: Position) -> None:
        attempts = [each for each in shipments if each.header.state in position.attempts and each.is_whole]
        newest = max(attempts, key=lambda each: each.header.counters["revision"], default=None)
        remains: list[MessageId] = []
        for shipment in shipments:
            noted = [ShippedMessage(message, shipment.kind, shipment.header.sequence) for message in shipment.messages]
            is_copy = shipment.kind is PackKind.CHECKPOINT
            if shipment is newest:
                self._shipping.adopt(shipment.header.state, noted, as_copy=is_copy)
            elif is_copy and shipment.is_whole and shipment.header.state not in position.attempts | position.abandoned:
                self._shipping.note(noted)
            else:
                remains += shipment.messages
        self._shipping.note_remains(remains)


async def refuse_fork(index: IndexChannel, position: Position, known: Collection[MessageId]) -> None:
    """Raise ForkedError when something new in the channel was not sent by the machine at `position`; changes nothing.

    `known` are messages that it has sent. Errors as of `IndexChannel`.
    """
    messages = await index.messages(position.examined)
    for shipment in gather(await index.parts([each for each in messages if each.message not in known])):
        check_follows(shipment, position)


def check_follows(shipment: Shipment, position: Position) -> None:
    """Raise ForkedError unless the machine at `position` knows a shipment of the channel, or may have sent it."""
    header = shipment.header
    if header.device != position.device:
        when = datetime.datetime.fromtimestamp(header.created_ns / 1e9).astimezone()
        raise ForkedError(
            f"another machine has gone on with this volume (state {header.sequence} of {when:%Y-%m-%d %H:%M:%S}, "
            f"device {header.device.hex()[:8]}): nothing of this machine's names is sent any more, and nothing is "
            "deleted; unmount one of the two, and put the state directory of the one that is to give way aside"
        )
    if header.state in position.attempts | position.abandoned or header.state == position.state:
        return  # the newest state once more is what a repeated request may leave
    if shipment.kind is PackKind.CHECKPOINT and header.sequence <= position.sequence:
        return
    raise ForkedError(
        f"this volume had gone on to state {header.sequence} on this very machine, which knows it only up to "
        f"{position.sequence}: was its state directory put back from a backup? Nothing of its names is sent any more, "
        "and nothing is deleted; to go on from what is in Discord, unmount, put the state directory aside and run "
        "'disfs recover'"
    )
