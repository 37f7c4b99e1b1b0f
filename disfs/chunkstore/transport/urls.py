"""Signed download addresses: how long one is good for, and a bounded memory of them.

A URL is opaque and never stored outside this process's memory. What any listing or message showed is good until the
time in its `ex`; how far that lies ahead is Discord's business and has changed before.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.values import AttachmentId, Location

MARGIN_SECONDS = 300.0
"""How long before its end a URL counts as expired: a slow download must still begin in time, and clocks differ."""
GRACE_SECONDS = 60.0
"""How long a URL counts as good from when we got it, whatever it says: Discord does not make a better one on request,
and should our clock be far ahead, every fetch would ask for one."""
AHEAD_SECONDS = 900.0
"""How long before its end, margin included, a URL that is in use ought to be renewed, so that nobody has to wait."""
URL_LIMIT = 20_000
"""How many URLs are remembered, some 500 bytes each."""


def expiry_of(url: str) -> float | None:
    """The Unix time at which a signed URL ends; None when it does not say."""
    values = parse_qs(urlsplit(url).query).get("ex", [])
    try:
        return float(int(values[0], 16))
    except (IndexError, ValueError):
        return None


def since_boot() -> float:
    """A clock that only goes forward, also while the machine sleeps: a URL from before that is not new."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class KnownUrl:
    """Where an attachment can be downloaded, and how long it is."""

    url: str
    size_bytes: int
    obtained_at: float
    """By a clock that only goes forward: the other one may jump."""
    ends_at: float | None
    """None when the URL does not say."""


@dataclass(frozen=True, slots=True)
class UrlEnding:
    """The URL of an attachment that is being read ends soon; published for whoever renews it."""

    location: Location


class UrlCache:
    """The newest URL of each attachment, the least recently used ones dropped first."""

    def __init__(
        self,
        *,
        limit: int = URL_LIMIT,
        margin_seconds: float = MARGIN_SECONDS,
        ahead_seconds: float = AHEAD_SECONDS,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = since_boot,
    ) -> None:
        self._limit = limit
        self._margin_seconds = margin_seconds
        self._ahead_seconds = ahead_seconds
        self._now = now
        self._monotonic = monotonic
        self._urls: OrderedDict[AttachmentId, KnownUrl] = OrderedDict()

    def __len__(self) -> int:
        return len(self._urls)

    def remember(self, attachment: AttachmentId, url: str, size_bytes: int) -> None:
        """Take note of a URL that Discord has just handed out."""
        self._urls[attachment] = KnownUrl(url, size_bytes, self._monotonic(), expiry_of(url))
        self._urls.move_to_end(attachment)
        while len(self._urls) > self._limit:
            self._urls.popitem(last=False)

    def usable(self, attachment: AttachmentId) -> KnownUrl | None:
        """A URL that is good for a while yet, or None."""
        known = self._urls.get(attachment)
        if known is None:
            return None
        is_new = self._monotonic() - known.obtained_at < GRACE_SECONDS
        if not is_new and known.ends_at is not None and known.ends_at - self._margin_seconds <= self._now():
            return None
        self._urls.move_to_end(attachment)
        return known

    def is_ending(self, known: KnownUrl) -> bool:
        """Whether it is time to renew a URL that can still be used."""
        return known.ends_at is not None and known.ends_at - self._ahead_seconds <= self._now()

    def forget(self, attachment: AttachmentId) -> None:
        """The URL turned out to be of no use."""
        self._urls.pop(attachment, None)
