"""What a daemon is to do, found out and checked before it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from disfs.desktop import Desktop
from disfs.metadata.base import DEFAULT_CAPACITY_BYTES
from disfs.service_manager import ServiceManager

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.chunkstore.keys import VolumeKey
    from disfs.config import VolumeConfig, VolumeSettings
    from disfs.mount_options import Behaviour
    from disfs.volume_state import VolumeLock

DAY_SECONDS = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class MountPlan:
    """Everything that a daemon needs to know, found out and checked before it starts."""

    volume: VolumeConfig
    mountpoint: Path
    kernel_options: frozenset[str]
    behaviour: Behaviour
    settings: VolumeSettings
    state_directory: Path
    cache_directory: Path
    key: VolumeKey
    token: str = field(repr=False)
    api_url: str | None
    lock: VolumeLock
    takes_over: bool = False
    """The volume is taken over from a machine that has it mounted."""
    service: ServiceManager = field(default_factory=ServiceManager)
    """Who started us and wants to hear how we are."""
    desktop: Desktop = field(default_factory=Desktop)
    """Who is told of what must not wait."""

    @property
    def trash_seconds(self) -> float:
        """How long deleted files stay restorable."""
        return self.settings.trash_days * DAY_SECONDS

    @property
    def capacity_bytes(self) -> int:
        """How large the volume claims to be, and may become."""
        chosen = self.settings.size_bytes
        return DEFAULT_CAPACITY_BYTES if chosen is None else chosen
