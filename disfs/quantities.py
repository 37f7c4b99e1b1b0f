"""Sizes, rates and times as people write and read them. Pure."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

_AGO = re.compile(r"(\d{1,9})\s*([smhdw])", re.IGNORECASE)
_AGO_SECONDS = {"s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60, "w": 7 * 24 * 60 * 60}
_SIZE = re.compile(r"(\d{1,15})\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_DAY_MINUTES = 24 * 60
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_TIMED = re.compile(rf"(?:({'|'.join(_DAYS)})-)?(\d{{1,2}}):(\d\d)[,=](.+)", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}

MIN_BYTES_PER_SECOND = 1024
"""Slower than this a message would take hours, and who wants that wants uploads to pause."""
MAX_BYTES_PER_SECOND = 1 << 50


def parse_size(text: str) -> int:
    """The bytes that a person means by 4096, 512K, 20M, 1G, 1GiB; ValueError otherwise."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 500M or 2G")
    return int(match[1]) * _UNITS[match[2].upper()]


def written_size(size_bytes: int) -> str:
    """The shortest form that `parse_size` reads back equal: `1572864` as `1536K`."""
    for unit in "PTGMK":
        if size_bytes and size_bytes % _UNITS[unit] == 0:
            return f"{size_bytes // _UNITS[unit]}{unit}"
    return str(size_bytes)


def parse_moment(text: str, now: datetime.datetime) -> datetime.datetime:
    """The moment that a person means by 2h (before `now`; s, m, h, d, w) or by 2026-11-25, 2026-11-25 10:00.

    A date without a zone is one of here. ValueError otherwise, and for what lies in the future.
    """
    match = _AGO.fullmatch(text.strip())
    try:
        if match is not None:
            moment = now - datetime.timedelta(seconds=int(match[1]) * _AGO_SECONDS[match[2].lower()])
        else:
            moment = datetime.datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a time such as 2h, 3d or '2026-11-25 10:00'") from error
    if moment > now:
        raise ValueError(f"{text!r} lies in the future")
    return moment


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """The most that is sent and fetched in a second, in bytes; None: no limit. ValueError out of bounds."""

    up_bytes_per_second: int | None = None
    down_bytes_per_second: int | None = None

    def __post_init__(self) -> None:
        for limit in (self.up_bytes_per_second, self.down_bytes_per_second):
            if limit is not None and not MIN_BYTES_PER_SECOND <= limit <= MAX_BYTES_PER_SECOND:
                raise ValueError("a bandwidth limit is at least 1K bytes a second, or off")

    def __str__(self) -> str:
        if self == NO_LIMIT:
            return "no limit"
        up, down = (_rate_or_none(n) for n in (self.up_bytes_per_second, self.down_bytes_per_second))
        return f"up {up}, down {down}"

    def to_option(self) -> str:
        """The form that `parse_bandwidth` reads back equal."""
        limits = (self.up_bytes_per_second, self.down_bytes_per_second)
        up, down = ("off" if limit is None else written_size(limit) for limit in limits)
        return up if up == down else f"{up}:{down}"


NO_LIMIT = Bandwidth()


def parse_bandwidth(text: str) -> Bandwidth:
    """What a person means by 10M (each way), 512K:4M (up:down), off:4M, off; bytes a second. ValueError otherwise."""
    up, has_down, down = text.partition(":")
    limits = [_parse_rate(word, text) for word in ((up, down) if has_down else (up, up))]
    return Bandwidth(*limits)


@dataclass(frozen=True, slots=True)
class Timetable:
    """Bandwidth limits by the time of the week. Each entry holds from its minute on, until the next one's."""

    entries: tuple[tuple[int, Bandwidth], ...]
    """(minutes since Monday 00:00, limit), in that order; at least one."""

    def at(self, minute: int) -> Bandwidth:
        """What holds at a minute of the week: before the first entry what the last one said."""
        return next((limit for start, limit in reversed(self.entries) if start <= minute), self.entries[-1][1])

    def to_option(self) -> str:
        """The form that `parse_limits` reads back equal, and that may stand in fstab."""
        limits = dict(self.entries)
        written = []
        for minute in sorted({start % _DAY_MINUTES for start in limits}):
            found = [limits.get(day * _DAY_MINUTES + minute) for day in range(7)]
            clock = f"{minute // 60:02}:{minute % 60:02}"
            if found[0] is not None and found.count(found[0]) == 7:
                written.append(f"{clock}={found[0].to_option()}")
                continue
            days = zip(_DAYS, found, strict=True)
            written += [f"{day}-{clock}={limit.to_option()}" for day, limit in days if limit is not None]
        return ";".join(written)


def parse_limits(text: str) -> Bandwidth | Timetable:
    """A limit as of `parse_bandwidth`, or a timetable: `08:00,512K:4M 18:00,off`, also with `=` and `;` for fstab.

    Each entry may begin with a day, as in `Sat-08:00,off`; without one it is for every day. ValueError otherwise.
    """
    entries: dict[int, Bandwidth] = {}
    words = text.replace(";", " ").split()
    matches = [_TIMED.fullmatch(word) for word in words]
    if not any(matches):
        return parse_bandwidth(text)
    for word, match in zip(words, matches, strict=True):
        if match is None or int(match[2]) > 23 or int(match[3]) > 59:
            raise ValueError(f"{word!r} is not an entry of a timetable such as 08:00,512K:4M or Sat-18:30,off")
        days = range(7) if match[1] is None else [_DAYS.index(match[1].capitalize())]
        for day in days:
            minute = day * _DAY_MINUTES + int(match[2]) * 60 + int(match[3])
            # What is said for one day counts before what is said for all.
            if match[1] is not None or minute not in entries:
                entries[minute] = parse_bandwidth(match[4])
    return Timetable(tuple(sorted(entries.items(), key=lambda entry: entry[0])))


def _parse_rate(word: str, text: str) -> int | None:
    if word.strip().lower() == "off":
        return None
    try:
        return parse_size(word)
    except ValueError:
        raise ValueError(f"{text!r} is not a bandwidth limit such as 10M, 512K:4M or off") from None


def _rate_or_none(bytes_per_second: int | None) -> str:
    return "no limit" if bytes_per_second is None else human_rate(bytes_per_second)


def human_size(size_bytes: float) -> str:
    """`1536` as `1.5 KiB`."""
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_rate(bytes_per_second: float) -> str:
    """`1536` as `1.5 KiB/s`."""
    return f"{human_size(bytes_per_second)}/s"


def human_duration(seconds: float) -> str:
    """How long something takes, as one says it: `40 s`, `3 min`, `2 h 5 min`, `3 days`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(hours / 24)} days"


def human_count(count: int, noun: str, plural: str | None = None) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"
