"""What `-o` may say: our own settings, the kernel's flags, and what fstab adds. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disfs.errors import ExitCode, UserError
from disfs.quantities import parse_bandwidth, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.config import VolumeSettings

KERNEL_FLAGS = frozenset(
    {"allow_other", "allow_root", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "noatime", "sync"}
)
"""Passed on to the mount as they are."""
FSTAB_WORDS = frozenset({"defaults", "auto", "noauto", "user", "users", "nofail", "_netdev", "owner"})
"""Meant for mount(8) and systemd, not for us."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What `-o` asked for."""

    flags: frozenset[str] = frozenset()
    """For the kernel."""
    changes: tuple[tuple[str, Any], ...] = ()
    """Fields of `VolumeSettings` that are different at this mount."""

    def apply(self, settings: VolumeSettings) -> VolumeSettings:
        """The settings of this mount. USAGE when a value makes no sense."""
        try:
            return dataclasses.replace(settings, **dict(self.changes))
        except ValueError as error:
            raise UserError(f"-o {_as_typed(str(error))}; see 'disfs mount --help'", ExitCode.USAGE) from error

    def overruled(self, name: str, value: str) -> MountOptions:
        """The same with the setting that an option such as --cache-size has of its own. USAGE."""
        setting, read = _SETTINGS[name.removeprefix("--").replace("-", "_")]
        return dataclasses.replace(self, changes=(*self.changes, (setting, _read_value(name, value, read))))


def _as_typed(complaint: str) -> str:
    """A complaint about a setting, with the name that the option has."""
    for option, (setting, _) in _SETTINGS.items():
        complaint = complaint.replace(setting, option)
    return complaint


def parse_options(texts: tuple[str, ...]) -> MountOptions:
    """Read the values of all `-o` options, each a list with commas. USAGE for what nobody knows."""
    flags: set[str] = set()
    changes: dict[str, Any] = {}
    for word in (word.strip() for text in texts for word in text.split(",")):
        name, has_value, value = word.partition("=")
        if not has_value and word in KERNEL_FLAGS:
            flags.add(word)
        elif word in _SWITCHES:
            setting, switched = _SWITCHES[word]
            changes[setting] = switched
        elif name in _SETTINGS and has_value:
            setting, read = _SETTINGS[name]
            changes[setting] = _read_value(f"-o {word}", value, read)
        elif word and word not in FSTAB_WORDS and not word.startswith("x-"):
            raise UserError(f"-o {word} is not known; 'disfs mount --help' lists the options", ExitCode.USAGE)
    return MountOptions(frozenset(flags), tuple(changes.items()))


def _read_value(word: str, value: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise UserError(f"{word}: {error}; see 'disfs mount --help'", ExitCode.USAGE) from error


_SWITCHES = {"acl": ("has_acls", True), "noacl": ("has_acls", False)}
"""Named as for other file systems."""
_SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "cache_size": ("cache_bytes", parse_size),
    "dirty_limit": ("dirty_limit_bytes", parse_size),
    "message_size": ("message_bytes", parse_size),
    "readahead": ("readahead_bytes", parse_size),
    "bwlimit": ("bandwidth", parse_bandwidth),
    "writeback_delay": ("writeback_delay_seconds", float),
    "sweep_grace": ("sweep_grace_seconds", float),
    "stray_grace": ("stray_grace_seconds", float),
    "kernel_cache": ("kernel_cache_seconds", float),
}
