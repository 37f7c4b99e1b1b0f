"""Put a volume's shipper together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.recovery.building import Builder, CopyRule
from disfs.recovery.index_channel import IndexChannel
from disfs.recovery.shipper import Shipper
from disfs.recovery.shipper_values import ShipperSettings, Surroundings
from disfs.recovery.snapshot_shipments import Place, SnapshotShipments

if TYPE_CHECKING:
    from pathlib import Path

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
        f"volume {volume.superblock.name}",
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
) -> Shipper:
    """What brings the metadata of a mounted volume to its index channel; `directory` takes what waits to be sent."""
    superblock = volume.superblock

    return Shipper(
        metadata.shipping,
        transport,
        volume.index_channel,
        IndexChannel(transport, volume.index_channel, key, superblock.volume_id),
        Builder(superblock.volume_id, key, directory, COPY_RULE),
        ShipperSettings(delay_seconds=settings.writeback_delay_seconds, message_bytes=settings.message_bytes),
        Surroundings(
            make_durable=chunks.make_ledger_durable,
            has_unsent=lambda: chunks.statistics().dirty_chunks > 0,
            attachment_bytes=lambda: chunks.statistics().writeback.attachment_limit_bytes,
        ),
        text=f"volume {superblock.name}",
    )
