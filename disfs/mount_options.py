"""What `-o` may say: our own settings, the kernel's flags, and what fstab adds. Pure."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disfs.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.config import VolumeSettings

KERNEL_FLAGS = frozenset(
    {"allow_other", "allow_root", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "noatime", "sync"}
)
"""Passed on to the mount as they are."""
FSTAB_WORDS = frozenset({"defaults", "auto", "noauto", "user", "users", "nofail", "_netdev", "owner"})
"""Meant for mount(8) and systemd, not for us."""

_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


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


def _as_typed(complaint: str) -> str:
    """A complaint about a setting, with the name that the option has."""
    for option, (setting, _) in _SETTINGS.items():
        complaint = complaint.replace(setting, option)
    return complaint


def parse_size(text: str) -> int:
    """The bytes that a person means by 4096, 512K, 20M, 1G, 1GiB; ValueError otherwise."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 500M or 2G")
    return int(match[1]) * _UNITS[match[2].upper()]


def parse_options(texts: tuple[str, ...]) -> MountOptions:
    """Read the values of all `-o` options, each a list with commas. USAGE for what nobody knows."""
    flags: set[str] = set()
    changes: dict[str, Any] = {}
    for word in (word.strip() for text in texts for word in text.split(",")):
        name, has_value, value = word.partition("=")
        if not has_value and word in KERNEL_FLAGS:
            flags.add(word)
        elif name in _SETTINGS and has_value:
            setting, read = _SETTINGS[name]
            changes[setting] = _read_value(word, value, read)
        elif word and word not in FSTAB_WORDS and not word.startswith("x-"):
            raise UserError(f"-o {word} is not known; 'disfs mount --help' lists the options", ExitCode.USAGE)
    return MountOptions(frozenset(flags), tuple(changes.items()))


def _read_value(word: str, value: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise UserError(f"-o {word}: {error}; see 'disfs mount --help'", ExitCode.USAGE) from error


_SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "cache_size": ("cache_bytes", parse_size),
    "dirty_limit": ("dirty_limit_bytes", parse_size),
    "message_size": ("message_bytes", parse_size),
    "writeback_delay": ("writeback_delay_seconds", float),
    "sweep_grace": ("sweep_grace_seconds", float),
}
