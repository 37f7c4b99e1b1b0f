"""Put a volume's shipper together, and its claim to the lease."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from disfs.message_texts import lease_text
from disfs.metadata.settings import LEASE
from disfs.metadata.shipping import ID_BYTES
from disfs.recovery.arrivals import refuse_fork
from disfs.recovery.building import Builder, CopyRule
from disfs.recovery.holding import LeaseHolder
from disfs.recovery.index_channel import IndexChannel
from disfs.recovery.lease import Lease, Posted, place_of
from disfs.recovery.shipper import Shipper
from disfs.recovery.shipper_values import ShipperSettings, Surroundings
from disfs.recovery.snapshot_shipments import Place, SnapshotShipments
from disfs.values import MessageId

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.store import ChunkStore
    from disfs.chunkstore.transport.base import Transport
    from disfs.config import VolumeConfig, VolumeSettings
    from disfs.metadata.store import SqliteMetadataStore

COPY_RULE = CopyRule(floor_bytes=256 * 1024, share=0.5, journal_count=500)


def make_snapshot_shipments(
    volume: VolumeConfig,
    settings: VolumeSettings,
    *,
    key: VolumeKey,
    metadata: SqliteMetadataStore,
    chunks: ChunkStore,
    transport: Transport,
    directory: Path,
) -> SnapshotShipments:
    """What brings snapshots of a mounted volume to its index channel; arguments as of `make_shipper`."""
    return SnapshotShipments(
        metadata.shipping,
        Place(transport, volume.index_channel, key, volume.superblock.volume_id),
        directory,
        lambda: chunks.statistics().writeback.attachment_limit_bytes,
        settings.message_bytes,
        volume.superblock.name,
    )


def make_shipper(
    volume: VolumeConfig,
    settings: VolumeSettings,
    *,
    key: VolumeKey,
    metadata: SqliteMetadataStore,
    chunks: ChunkStore,
    transport: Transport,
    directory: Path,
    holder: LeaseHolder,
) -> Shipper:
    """What brings the metadata of a mounted volume to its index channel; `directory` takes what waits to be sent."""
    superblock, shipping = volume.superblock, metadata.shipping
    index = IndexChannel(transport, volume.index_channel, key, superblock.volume_id)

    async def refuse_takeover() -> None:
        await refuse_fork(index, shipping.position(), {each.message for each in shipping.messages()})

    holder.before_late_takeover = refuse_takeover
    return Shipper(
        shipping,
        transport,
        volume.index_channel,
        index,
        Builder(superblock.volume_id, key, directory, COPY_RULE),
        ShipperSettings(delay_seconds=settings.writeback_delay_seconds, message_bytes=settings.message_bytes),
        Surroundings(
            make_durable=chunks.make_ledger_durable,
            has_unsent=lambda: chunks.statistics().dirty_chunks > 0,
            attachment_bytes=lambda: chunks.statistics().writeback.attachment_limit_bytes,
            hold_lease=holder.ensure,
            notice=holder.notice,
        ),
        volume_name=superblock.name,
    )


class Origin(NamedTuple):
    """Which state of a volume somebody claims the lease for."""

    device: bytes
    directory: Path
    """Where this machine keeps it."""
    remembered: str | None
    """The setting with this machine's newest lease."""


def make_holder(
    volume: VolumeConfig, *, key: VolumeKey, metadata: SqliteMetadataStore, transport: Transport, directory: Path
) -> LeaseHolder:
    """The claim of a mount to the lease; `directory` is where this machine keeps the volume's state."""

    def remember(posted: Posted | None) -> None:
        metadata.settings.set(LEASE, f"{posted.message} {posted.first} {posted.takeover}" if posted else "")

    origin = Origin(metadata.shipping.position().device, directory, metadata.settings.get(LEASE))
    return holder_of(volume, origin, key=key, transport=transport, remember=remember)


def holder_of(
    volume: VolumeConfig,
    origin: Origin,
    *,
    key: VolumeKey,
    transport: Transport,
    remember: Callable[[Posted | None], None],
) -> LeaseHolder:
    """The claim of a mount, or of a repair, to the lease; `remember` as of `LeaseHolder`."""
    host = os.uname().nodename
    lease = Lease(
        volume=volume.superblock.volume_id,
        device=origin.device,
        place=place_here(origin.directory),
        session=os.urandom(ID_BYTES),
        host=host,
    )
    return LeaseHolder(
        transport,
        volume.index_channel,
        key,
        lease,
        remember=remember,
        remembered=_remembered(origin.remembered, lease),
        text=lease_text(volume.superblock.name),
        now=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    )


def place_here(directory: Path) -> bytes:
    """What names this machine's state directory of a volume in a lease."""
    return place_of(os.uname().nodename, _machine(), str(directory.resolve()))


def _remembered(text: str | None, lease: Lease) -> Posted | None:
    """The last lease of this state, from what was written down of it."""
    try:
        message, first, takeover = (MessageId(int(number)) for number in (text or "").split())
    except ValueError:
        return None
    # Its own message stands for the one before it, so that it counts as a chain that is not interrupted.
    return Posted(message, replace(lease, first=first, previous=message, takeover=takeover))


def _machine() -> str:
    """What tells this machine from others; not every system has it."""
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
