"""Snapshots in Discord: each is a shipment of its own in the index channel, whole, in the form of a checkpoint copy.

What was sent and not written down here, as a kill leaves it, is found again by looking through what came to the
channel since the snapshot was begun.

Before each deletion it is confirmed that nobody else has gone on with the volume: another machine may have recovered
the very snapshot, and count on it.
"""

from __future__ import annotations

import os
import tempfile
from typing import IO, TYPE_CHECKING, NamedTuple

import trio

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.transport.base import DELETE_LIMIT, Urgency
from disfs.errors import TooLargeError
from disfs.metadata.replicated import Block, Table
from disfs.metadata.shipping import ID_BYTES, NO_STATE, ShippedMessage
from disfs.metadata.snapshot_files import snapshot_read
from disfs.recovery.arrivals import ForkedError
from disfs.recovery.building import Built
from disfs.recovery.delivery import Delivery
from disfs.recovery.frames import COUNTERS, Header, write_parts
from disfs.recovery.index_channel import IndexChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import Transport
    from disfs.metadata.shipping import Shipping
    from disfs.metadata.snapshot import Snapshot
    from disfs.metadata.snapshots import SnapshotRecord
    from disfs.values import ChannelId, MessageId

_FLOOR_BYTES = 256 * 1024
_IN_MEMORY_BYTES = 1024 * 1024


class Place(NamedTuple):
    """Where a volume's snapshots go, and under which key."""

    transport: Transport
    channel: ChannelId
    key: VolumeKey
    volume: bytes


class SnapshotShipments:
    """Ships snapshots of one volume, and deletes what was shipped. Errors as of `Transport`."""

    def __init__(
        self,
        shipping: Shipping,
        place: Place,
        directory: Path,
        attachment_bytes: Callable[[], int],
        message_bytes: int,
        volume_name: str,
    ) -> None:
        """`directory` takes what waits to be sent."""
        self._shipping = shipping
        self._place = place
        self._directory = directory
        self._attachment_bytes = attachment_bytes
        self._delivery = Delivery(
            place.transport, place.channel, volume_name, message_bytes=message_bytes, on_message=lambda message: None
        )

    async def ship(self, record: SnapshotRecord, path: Path) -> None:
        """Return when Discord has acknowledged all of a snapshot, whose database is at `path`, and that is noted."""
        limit_bytes = self._attachment_bytes()
        device = self._shipping.position().device
        while True:
            built = await trio.to_thread.run_sync(self._build, record, path, device, limit_bytes)
            try:
                await self._delivery.send(built, Urgency.SYNC)
            except TooLargeError:
                if limit_bytes <= _FLOOR_BYTES:
                    raise
                limit_bytes = max(_FLOOR_BYTES, limit_bytes // 2)
                continue
            finally:
                built.spool.close()
            messages = sorted(set(built.messages.values()))
            self._shipping.note([ShippedMessage(each, PackKind.SNAPSHOT, record.snapshot) for each in messages])
            return

    async def delete(self, record: SnapshotRecord, *, looks_for_remains: bool) -> None:
        """Delete what Discord has of a snapshot. `looks_for_remains`: it may have what was never noted.

        ForkedError, and nothing more deleted, when another machine has gone on with the volume.
        """
        noted = [
            each.message
            for each in self._shipping.messages()
            if each.kind == PackKind.SNAPSHOT and each.sequence == record.snapshot
        ]
        found = await self._remains(record) if looks_for_remains else []
        doomed = sorted({*noted, *found})
        for position in range(0, len(doomed), DELETE_LIMIT):
            step = doomed[position : position + DELETE_LIMIT]
            if not await self.may_delete():
                raise ForkedError("this machine may not delete anything of the volume in Discord any more")
            await self._place.transport.delete(self._place.channel, step)
            self._shipping.forget_messages(step)

    async def may_delete(self) -> bool:
        """Look whether nobody else has gone on with the volume, so that what Discord has of a snapshot may go."""
        return await self._shipping.confirm_deletions()

    async def _remains(self, record: SnapshotRecord) -> Sequence[MessageId]:
        transport, channel, key, volume = self._place
        index = IndexChannel(transport, channel, key, volume, kinds=(PackKind.SNAPSHOT,))
        parts = await index.parts(await index.messages(record.sent_after))
        device = self._shipping.position().device
        return [
            part.location.message
            for part in parts
            if part.header.device == device and part.header.sequence == record.snapshot
        ]

    def _spool(self) -> IO[bytes]:
        return tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(self._directory))

    def _build(self, record: SnapshotRecord, path: Path, device: bytes, limit_bytes: int) -> Built:
        shipment = os.urandom(ID_BYTES)
        with snapshot_read(path) as (snapshot, counters):
            header = Header(
                volume=self._place.volume,
                device=device,
                shipment=shipment,
                state=shipment,
                previous=NO_STATE,
                sequence=record.snapshot,
                part=0,
                created_ns=record.created_ns,
                counters={name: counters[name] for name in COUNTERS},
            )
            spool = self._spool()
            parts = write_parts(
                spool, self._place.key, PackKind.SNAPSHOT, header, _blocks(snapshot, record), limit_bytes=limit_bytes
            )
        return Built(PackKind.SNAPSHOT, header, parts, spool, size_bytes=sum(part.size_bytes for part in parts))


def _blocks(snapshot: Snapshot, record: SnapshotRecord) -> Iterator[Block]:
    yield Block.of_rows(Table.SNAPSHOT, [(record.snapshot, record.created_ns, record.name)])
    yield from snapshot.everything()
