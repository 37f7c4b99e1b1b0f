"""A volume's description, for tests that need one and no volume."""

from __future__ import annotations

from disfs.config import VolumeConfig
from disfs.superblock import Superblock
from disfs.values import ChannelId, GuildId

VOLUME = VolumeConfig(
    name="photos",
    guild=GuildId(7),
    category=ChannelId(8),
    index_channel=ChannelId(9),
    superblock=Superblock(bytes(16), "photos", "2024", 131072, (ChannelId(10),), b"wrapped"),
)
