"""What `-o` may say: our own settings, the kernel's flags, and what fstab adds. Pure."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disfs.errors import ExitCode, UserError
from disfs.metadata.base import Atime
from disfs.quantities import Bandwidth, Timetable, parse_limits, parse_size, written_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.config import VolumeSettings

KERNEL_FLAGS = frozenset(
    {"allow_other", "allow_root", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "noatime"}
    | {"sync", "async", "dirsync"}
)
"""Passed on to the mount as they are; `Behaviour` says which of them the daemon honours too."""
OUR_FLAGS = frozenset({"atime", "relatime", "norelatime", "strictatime", "nostrictatime", "diratime", "nodiratime"})
"""Who decides about atime is the daemon, and libfuse takes none of these words."""
FSTAB_WORDS = frozenset(
    {
        "defaults",
        "auto",
        "noauto",
        "user",
        "nouser",
        "users",
        "group",
        "owner",
        "nofail",
        "_netdev",
        "_rnetdev",
        "silent",
        "loud",
    }
    | {"mand", "nomand", "lazytime", "nolazytime", "iversion", "noiversion"}
)
"""Meant for mount(8), systemd or other file systems, not for us."""
FSTAB_NAMES = frozenset({"user", "uhelper", "helper", "comment"})
"""The same, with a value: `user=joe` says who mounted it."""
_ALTERNATIVES = (
    {"ro", "rw"},
    {"suid", "nosuid"},
    {"dev", "nodev"},
    {"exec", "noexec"},
    {"sync", "async"},
    {"atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime"},
    {"diratime", "nodiratime"},
)
"""Of each of these the last one counts, as for mount(8)."""


@dataclass(frozen=True, slots=True)
class Shown:
    """As whose, and with which mode, everything appears, whatever is stored; None: as it is stored."""

    uid: int | None = None
    gid: int | None = None
    permissions: int | None = None
    """The lower nine bits of each mode: what a `umask=` leaves of 0777."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the flags ask of the daemon itself."""

    read_only: bool = False
    """Nothing of the volume is changed: no atime, no removal of what a crash left, nothing deleted in Discord."""
    atime: Atime = Atime.RELATIVE
    directory_atime: Atime = Atime.RELATIVE
    syncs_names: bool = False
    """A change of names is durable on this machine before it is answered."""
    syncs_everything: bool = False
    """So is every other change."""
    syncs_remotely: bool = False
    """What is synced is also in Discord before that is answered."""
    shown: Shown | None = None
    """Owners and modes are not shown as they are stored."""

    @property
    def keeps_listings(self) -> bool:
        """Whether the kernel may list a directory by itself: not where the daemon has to see each listing."""
        return self.directory_atime is not Atime.STRICT


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What `-o` asked for."""

    flags: frozenset[str] = frozenset()
    """Those words of KERNEL_FLAGS and OUR_FLAGS that count."""
    changes: tuple[tuple[str, Any], ...] = ()
    """Fields of `VolumeSettings` that are different at this mount."""
    syncs_remotely: bool = False
    """fsync waits for Discord."""
    shown: Shown | None = None
    """Owners and modes that are shown in the place of those that are stored."""

    @property
    def kernel_flags(self) -> frozenset[str]:
        """For the kernel."""
        return self.flags & KERNEL_FLAGS

    @property
    def behaviour(self) -> Behaviour:
        """For the daemon."""
        flags = self.flags
        atime = Atime.STRICT if "strictatime" in flags else Atime.RELATIVE
        if flags & {"ro", "noatime"}:
            atime = Atime.NEVER
        return Behaviour(
            read_only="ro" in flags,
            atime=atime,
            directory_atime=Atime.NEVER if "nodiratime" in flags else atime,
            syncs_names=bool(flags & {"sync", "dirsync"}),
            syncs_everything="sync" in flags,
            syncs_remotely=self.syncs_remotely,
            shown=self.shown,
        )

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


def changed_setting(settings: VolumeSettings, name: str, value: str | None) -> VolumeSettings:
    """The settings with one of them, by its option's name, as a person has typed it; None: the default. USAGE."""
    if name not in SETTINGS:
        known = ", ".join(sorted(SETTINGS))
        raise UserError(f"there is no setting {name!r}; there are {known}", ExitCode.USAGE)
    field, read = SETTINGS[name]
    defaults: dict[str, Any] = {each.name: each.default for each in dataclasses.fields(settings)}
    try:
        return dataclasses.replace(settings, **{field: defaults[field] if value is None else read(value)})
    except ValueError as error:
        raise UserError(f"{name}: {_as_typed(str(error))}; 'disfs mount --help' says more", ExitCode.USAGE) from error


def written_setting(settings: VolumeSettings, name: str) -> str:
    """A setting as one would type it; `default` where it has no value of its own."""
    field, read = SETTINGS[name]
    match getattr(settings, field):
        case None:
            return "default"
        case bool(is_on):
            return "on" if is_on else "off"
        case int(number) if read is parse_size:
            return written_size(number)
        case float(number):
            return f"{number:.15g}"
        case value:
            return value.to_option() if isinstance(value, Bandwidth | Timetable) else str(value)


def _as_typed(complaint: str) -> str:
    """A complaint about a setting, with the name that the option has."""
    for option, (setting, _) in _SETTINGS.items():
        complaint = complaint.replace(setting, option)
    return complaint


def parse_options(texts: tuple[str, ...]) -> MountOptions:
    """Read the values of all `-o` options, each a list with commas. USAGE for what nobody knows."""
    flags: set[str] = set()
    changes: dict[str, Any] = {}
    syncs_remotely = False
    shown: dict[str, int] = {}
    for word in (word.strip() for text in texts for word in text.split(",")):
        name, has_value, value = word.partition("=")
        if not has_value and word in KERNEL_FLAGS | OUR_FLAGS:
            flags = _with_flag(flags, word)
        elif word in _WORDS:
            changes.update([_WORDS[word]])
        elif name == "fsync" and has_value:
            syncs_remotely = _read_value(f"-o {word}", value, _read_sync)
        elif name in _SHOWN and has_value:
            field, read_shown = _SHOWN[name]
            shown[field] = _read_value(f"-o {word}", value, read_shown)
        elif name in _SETTINGS and has_value:
            setting, read = _SETTINGS[name]
            changes[setting] = _read_value(f"-o {word}", value, read)
        elif word and not _is_for_others(word):
            raise UserError(f"-o {word} is not known; 'disfs mount --help' lists the options", ExitCode.USAGE)
    if flags >= {"allow_other", "allow_root"}:
        raise UserError("-o allow_other and -o allow_root exclude one another; choose one", ExitCode.USAGE)
    if shown and changes.setdefault("has_acls", False):
        raise UserError("-o acl excludes uid, gid and umask: an ACL would say otherwise; choose one", ExitCode.USAGE)
    return MountOptions(frozenset(flags), tuple(changes.items()), syncs_remotely, Shown(**shown) if shown else None)


def _with_flag(flags: set[str], word: str) -> set[str]:
    """Add a word, and drop what it revokes."""
    revoked = next((alternatives for alternatives in _ALTERNATIVES if word in alternatives), set())
    return {*(flags - revoked), word}


def _is_for_others(word: str) -> bool:
    name, has_value, _ = word.partition("=")
    return word in FSTAB_WORDS or bool(has_value and name in FSTAB_NAMES) or word.lower().startswith("x-")


def _read_value(word: str, value: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise UserError(f"{word}: {error}; see 'disfs mount --help'", ExitCode.USAGE) from error


def _read_switch(text: str) -> bool:
    if text not in _SWITCH:
        raise ValueError("say on or off")
    return _SWITCH[text]


def _read_sync(text: str) -> bool:
    if text not in ("local", "remote"):
        raise ValueError("say local or remote")
    return text == "remote"


def _read_id(text: str) -> int:
    if not (text.isdecimal() and int(text) < _NO_ID):
        raise ValueError("say a number, as 'id -u' and 'id -g' print it")
    return int(text)


def _read_umask(text: str) -> int:
    if re.fullmatch("0*[0-7]{1,3}", text) is None:
        raise ValueError("say an octal number such as 022")
    return 0o777 & ~int(text, 8)


_NO_ID = (1 << 32) - 1
"""chown(2) has a meaning of its own for it."""
_SHOWN: dict[str, tuple[str, Callable[[str], int]]] = {
    "uid": ("uid", _read_id),
    "gid": ("gid", _read_id),
    "umask": ("permissions", _read_umask),
}
_SWITCH = {"on": True, "off": False}
_WORDS = {
    "acl": ("has_acls", True),
    "noacl": ("has_acls", False),
    "notify": ("notifications", True),
    "nonotify": ("notifications", False),
}
"""Settings that are on or off; ACLs are named as for other file systems."""
_SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "size": ("size_bytes", parse_size),
    "cache_size": ("cache_bytes", parse_size),
    "dirty_limit": ("dirty_limit_bytes", parse_size),
    "message_size": ("message_bytes", parse_size),
    "readahead": ("readahead_bytes", parse_size),
    "bwlimit": ("bandwidth", parse_limits),
    "writeback_delay": ("writeback_delay_seconds", float),
    "sweep_grace": ("sweep_grace_seconds", float),
    "stray_grace": ("stray_grace_seconds", float),
    "kernel_listings": ("kernel_listings", _read_switch),
    "kernel_cache": ("kernel_cache_seconds", float),
    "trash_days": ("trash_days", float),
}
SETTINGS = _SETTINGS | {"acl": ("has_acls", _read_switch), "notifications": ("notifications", _read_switch)}
"""What a volume remembers, by the names that people use: the field of `VolumeSettings`, and what reads a value."""
LIVE_SETTINGS = frozenset({"bwlimit", "cache_size", "dirty_limit", "writeback_delay", "readahead", "trash_days"})
"""Those of them that a mount can change while it is up."""
