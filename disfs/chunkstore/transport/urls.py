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

    from disfs.values import AttachmentId

MARGIN_SECONDS = 300.0
"""How long before its end a URL counts as expired: a slow download must still begin in time, and clocks differ."""
GRACE_SECONDS = 60.0
"""How long a URL counts as good from when we got it, whatever it says: Discord does not make a better one on request,
and should our clock be far ahead, every fetch would ask for one."""
URL_LIMIT = 20_000
"""How many URLs are remembered, some 500 bytes each."""


def expiry_of(url: str) -> float | None:
    """The Unix time at which a signed URL ends; None when it does not say."""
    values = parse_qs(urlsplit(url).query).get("ex", [])
    try:
        return float(int(values[0], 16))
    except (IndexError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class _Signed:
    """A URL and when we got it."""

    url: str
    obtained_at: float


class UrlCache:
    """The newest URL of each attachment, the least recently used ones dropped first."""

    def __init__(
        self,
        *,
        limit: int = URL_LIMIT,
        margin_seconds: float = MARGIN_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._limit = limit
        self._margin_seconds = margin_seconds
        self._now = now
        self._urls: OrderedDict[AttachmentId, _Signed] = OrderedDict()

    def __len__(self) -> int:
        return len(self._urls)

    def remember(self, attachment: AttachmentId, url: str) -> None:
        """Take note of a URL that Discord has just handed out."""
        self._urls[attachment] = _Signed(url, self._now())
        self._urls.move_to_end(attachment)
        while len(self._urls) > self._limit:
            self._urls.popitem(last=False)

    def usable(self, attachment: AttachmentId) -> str | None:
        """A URL that is good for a while yet, or None."""
        signed = self._urls.get(attachment)
        if signed is None:
            return None
        expiry = expiry_of(signed.url)
        now = self._now()
        is_new = 0 <= now - signed.obtained_at < GRACE_SECONDS
        if not is_new and expiry is not None and expiry - self._margin_seconds <= now:
            return None
        self._urls.move_to_end(attachment)
        return signed.url

    def forget(self, attachment: AttachmentId) -> None:
        """The URL turned out to be of no use."""
        self._urls.pop(attachment, None)
