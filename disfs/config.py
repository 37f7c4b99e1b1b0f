"""Where disfs keeps things, and what its two kinds of configuration file say.

`config.toml` holds what all volumes share (the bot token, mostly); `volumes/NAME.toml` describes one volume as
this machine sees it. Both are TOML, mode 0600, replaced atomically. Everything read from them is
checked here and turned into frozen dataclasses; a file that makes no sense is a one-line `UserError`.

The cache lies under the *state* directory, not under ~/.cache: until writeback has sent it, it holds
the only copy of what was written, and ~/.cache is what cleaners wipe and backups skip. A CACHEDIR.TAG keeps
backup programs from copying it all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from disfs.errors import ExitCode, UserError
from disfs.private_files import explained, make_directory, why_not_private, write_text
from disfs.quantities import NO_LIMIT, parse_limits
from disfs.superblock import Superblock, SuperblockError
from disfs.toml_files import TableReader, read_table, toml_text
from disfs.values import ChannelId, GuildId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from disfs.quantities import Bandwidth, Timetable

MIB = 1024 * 1024
GIB = 1024 * MIB

CACHEDIR_TAG = """Signature: 8a477f597d28d172789f06886806bc55
# This directory is the cache of disfs mounts. Backup programs may skip it.
# It can be deleted while nothing is mounted and everything is in Discord (`disfs umount` says so).
"""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SETTING_TYPES = {
    "size_bytes": int,
    "cache_bytes": int,
    "dirty_limit_bytes": int,
    "writeback_delay_seconds": float,
    "message_bytes": int,
    "sweep_grace_seconds": float,
    "stray_grace_seconds": float,
    "readahead_bytes": int,
    "kernel_listings": bool,
    "kernel_cache_seconds": float,
    "has_acls": bool,
    "notifications": bool,
    "trash_days": float,
}


@dataclass(frozen=True, slots=True)
class Paths:
    """The three directories that everything of disfs lies in."""

    config: Path
    state: Path
    cache: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Paths:
        """`$DISFS_HOME/{config,state,cache}` where that is set, else the XDG directories."""
        home = environment.get("DISFS_HOME")
        if home:
            root = Path(home).expanduser().absolute()
            return cls(root / "config", root / "state", root / "cache")
        state = platformdirs.user_state_path("disfs")
        return cls(platformdirs.user_config_path("disfs"), state, state / "cache")

    @property
    def config_file(self) -> Path:
        """What all volumes share."""
        return self.config / "config.toml"

    @property
    def emulator_state(self) -> Path:
        """Where the emulator that disfs starts by itself keeps its messages."""
        return self.state / "emulator"

    @property
    def log_file(self) -> Path:
        """Where command lines log what they cannot explain in one line."""
        return self.state / "disfs.log"

    def volume_file(self, name: str) -> Path:
        """The description of one volume."""
        return self.config / "volumes" / f"{name}.toml"

    def passphrase_file(self, name: str) -> Path:
        """Where a passphrase that disfs made up itself is kept."""
        return self.config / "volumes" / f"{name}.passphrase"

    def key_file(self, name: str) -> Path:
        """Where an imported key is kept."""
        return self.config / "volumes" / f"{name}.key"

    def volume_state(self, name: str) -> Path:
        """Metadata, lock, control socket and log of one volume."""
        return self.state / "volumes" / name

    def volume_cache(self, name: str) -> Path:
        """The cached chunks of one volume."""
        return self.cache / name

    def make_volume_directories(self, name: str) -> None:
        """Make both directories of a volume, private, and tag the cache. STATE_UNUSABLE, STATE_FULL."""
        make_directory(self.volume_state(name))
        make_directory(self.volume_cache(name))
        tag = self.cache / "CACHEDIR.TAG"
        if not tag.exists():
            write_text(tag, CACHEDIR_TAG)


@dataclass(frozen=True, slots=True)
class VolumeSettings:
    """What a user may tune per volume. Every queue and cache of the daemon takes its bound from here."""

    size_bytes: int | None = None
    """How much all files together may take, holes left out, and what `df` shows; None: far more than anybody has."""
    cache_bytes: int = 10 * GIB
    """How much of the disk the cache may take."""
    dirty_limit_bytes: int | None = None
    """Above this much unsent data writers wait; None: half the cache."""
    writeback_delay_seconds: float = 5.0
    """How long a chunk must have been quiet before it is sent."""
    message_bytes: int = 24 * MIB
    """How much one message may carry: Discord documents 25 MiB per request."""
    sweep_grace_seconds: float = 60.0
    """How long a message stays in Discord after the last live byte in it is gone."""
    stray_grace_seconds: float = 600.0
    """How long a message of the volume that no record refers to is left alone before it is deleted."""
    readahead_bytes: int | None = None
    """How far a sequential reader is fetched ahead at most; 0: not at all, None: as the chunk store thinks best."""
    kernel_listings: bool = True
    """Whether the kernel may keep the listings of directories, where that is possible and it may remember at all."""
    bandwidth: Bandwidth | Timetable = NO_LIMIT
    """How fast contents may be sent and fetched, until `disfs bwlimit` changes it."""
    kernel_cache_seconds: float = 3600.0
    """How long the kernel believes names, absent names and attributes. Any time is right: all changes pass through it.
    0: it asks each time, and for contents at each open."""
    has_acls: bool = True
    """Whether the mount has POSIX ACLs. Without, `ls -l` has nothing to ask each file for."""
    notifications: bool = True
    """Whether the desktop is told of what must not wait."""
    trash_days: float = 1.0
    """How long what is deleted or replaced can be restored; 0: not at all."""

    def __post_init__(self) -> None:
        if not 0 <= self.trash_days <= 3650:
            raise ValueError("trash_days must lie between 0 and 3650")
        if self.size_bytes is not None and not MIB <= self.size_bytes <= 1 << 60:
            raise ValueError("size_bytes must lie between 1 MiB and 1024 PiB")
        if self.cache_bytes < 16 * MIB:
            raise ValueError("cache_bytes must be at least 16 MiB")
        if self.dirty_limit_bytes is not None and self.dirty_limit_bytes < MIB:
            raise ValueError("dirty_limit_bytes must be at least 1 MiB")
        if not 0 <= self.writeback_delay_seconds <= 3600:
            raise ValueError("writeback_delay_seconds must lie between 0 and 3600")
        if not MIB <= self.message_bytes <= 500 * MIB:
            raise ValueError("message_bytes must lie between 1 MiB and 500 MiB")
        if not 0 <= self.sweep_grace_seconds <= 10 * 24 * 3600:
            raise ValueError("sweep_grace_seconds must lie between 0 and 10 days: bulk deletion ends at 14")
        if not 10 <= self.stray_grace_seconds <= 24 * 3600:
            raise ValueError("stray_grace_seconds must lie between 10 seconds and a day")
        if self.readahead_bytes is not None and not 0 <= self.readahead_bytes <= GIB:
            raise ValueError("readahead_bytes must lie between 0 and 1 GiB")
        if not 0 <= self.kernel_cache_seconds <= 24 * 3600:
            raise ValueError("kernel_cache_seconds must lie between 0 and a day")


@dataclass(frozen=True, slots=True)
class VolumeConfig:
    """One volume as this machine sees it."""

    name: str
    guild: GuildId
    category: ChannelId
    index_channel: ChannelId
    superblock: Superblock
    """A copy of the volume's superblock: with it a passphrase can be checked, and a volume mounted, without Discord."""
    emulator: bool = False
    """The guild lives in the emulator that disfs runs itself; address and token are looked up at each mount."""
    api_url: str | None = None
    token_file: Path | None = None
    """Where this volume's bot token lies, when it is not the one of config.toml."""
    passphrase_file: Path | None = None
    key_file: Path | None = None
    """Where the volume's key itself lies, for mounts without a passphrase."""
    settings: VolumeSettings = field(default_factory=VolumeSettings)


@dataclass(frozen=True, slots=True)
class GlobalConfig:
    """What all volumes share."""

    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    api_url: str | None = None
    default_volume: str | None = None


def check_volume_name(name: str) -> str:
    """Return `name` if a volume may be called so: it becomes a file name, a category and a mount source."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot name a volume; use up to 64 of [A-Za-z0-9_.-] and begin with a letter or digit",
            ExitCode.USAGE,
        )
    return name


def load_global(paths: Paths) -> GlobalConfig:
    """Read config.toml; all defaults when there is none. CONFIG_INVALID, STATE_UNUSABLE."""
    table = read_table(paths.config_file) or {}
    reader = TableReader(paths.config_file, table)
    config = GlobalConfig(
        token=reader.get("token", str),
        token_file=reader.path("token_file"),
        api_url=reader.get("api_url", str),
        default_volume=reader.get("default_volume", str),
    )
    reader.finish()
    if config.token is not None and (problem := why_not_private(paths.config_file)):
        raise UserError(problem, ExitCode.CONFIG_INVALID)
    return config


def save_global(paths: Paths, config: GlobalConfig) -> None:
    """Write config.toml. STATE_UNUSABLE, STATE_FULL."""
    table: dict[str, Any] = {
        "token": config.token,
        "token_file": str(config.token_file) if config.token_file else None,
        "api_url": config.api_url,
        "default_volume": config.default_volume,
    }
    write_text(paths.config_file, toml_text(table))


def volume_names(paths: Paths) -> list[str]:
    """The names of all volumes that this machine knows, sorted."""
    directory = paths.config / "volumes"
    with explained(directory):
        return sorted(path.stem for path in directory.glob("*.toml") if _NAME.fullmatch(path.stem))


def load_volume(paths: Paths, name: str) -> VolumeConfig:
    """Read one volume's description. NO_SUCH_VOLUME, CONFIG_INVALID, STATE_UNUSABLE."""
    check_volume_name(name)
    path = paths.volume_file(name)
    table = read_table(path)
    if table is None:
        known = ", ".join(volume_names(paths))
        hint = f"known volumes: {known}" if known else "make one with 'disfs setup', or try 'disfs mount --emulator'"
        raise UserError(f"there is no volume {name!r} on this machine; {hint}", ExitCode.NO_SUCH_VOLUME)
    return _parse_volume(path, name, table)


def save_volume(paths: Paths, volume: VolumeConfig) -> None:
    """Write one volume's description. STATE_UNUSABLE, STATE_FULL."""
    defaults = VolumeSettings()
    changed = {
        setting.name: getattr(volume.settings, setting.name)
        for setting in fields(VolumeSettings)
        if getattr(volume.settings, setting.name) != getattr(defaults, setting.name)
    }
    if "bandwidth" in changed:
        changed["bandwidth"] = volume.settings.bandwidth.to_option()
    table: dict[str, Any] = {
        "guild_id": volume.guild,
        "category_id": volume.category,
        "index_channel_id": volume.index_channel,
        "emulator": volume.emulator,
        "api_url": volume.api_url,
        "token_file": str(volume.token_file) if volume.token_file else None,
        "passphrase_file": str(volume.passphrase_file) if volume.passphrase_file else None,
        "key_file": str(volume.key_file) if volume.key_file else None,
        "superblock": volume.superblock.to_json(),
        "settings": changed,
    }
    write_text(paths.volume_file(volume.name), toml_text(table))


def _parse_volume(path: Path, name: str, table: dict[str, Any]) -> VolumeConfig:
    reader = TableReader(path, table)
    try:
        superblock = Superblock.from_json(reader.need("superblock", str))
    except SuperblockError as error:
        raise reader.invalid(f"superblock: {error}") from error
    volume = VolumeConfig(
        name=name,
        guild=GuildId(reader.need("guild_id", int)),
        category=ChannelId(reader.need("category_id", int)),
        index_channel=ChannelId(reader.need("index_channel_id", int)),
        superblock=superblock,
        emulator=reader.get("emulator", bool) or False,
        api_url=reader.get("api_url", str),
        token_file=reader.path("token_file"),
        passphrase_file=reader.path("passphrase_file"),
        key_file=reader.path("key_file"),
        settings=_parse_settings(path, reader.get("settings", dict) or {}),
    )
    reader.finish()
    return volume


def _parse_settings(path: Path, table: dict[str, Any]) -> VolumeSettings:
    reader = TableReader(path, table)
    chosen: dict[str, Any] = {}
    for name, kind in _SETTING_TYPES.items():
        value = reader.get(name, kind)
        if value is not None:
            chosen[name] = value
    bandwidth = reader.get("bandwidth", str)
    reader.finish()
    try:
        if bandwidth is not None:
            chosen["bandwidth"] = parse_limits(bandwidth)
        return VolumeSettings(**chosen)
    except ValueError as error:
        raise reader.invalid(str(error)) from error
