"""Signed, expiring attachment URLs."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from disfs.emulator.clock import Clock
    from disfs.emulator.model import Attachment
    from disfs.emulator.settings import Settings


class UrlSigner:
    """Makes and checks the query `ex` (expiry), `is` (issue), `hm` (signature over both and the path)."""

    def __init__(self, key: bytes, settings: Settings, clock: Clock) -> None:
        self._key = key
        self._settings = settings
        self._clock = clock
        self.base = ""
        """Scheme, host and port, set once the port is known."""

    def url(self, attachment: Attachment) -> str:
        """A URL valid from now on. Two calls within the rounding give the same one, as Discord does."""
        path = f"/attachments/{attachment.channel}/{attachment.id}/{quote(attachment.filename)}"
        lifetime = max(1, self._settings.url_seconds)
        rounding = max(1, min(self._settings.url_rounding_seconds, lifetime // 2))
        issued = int(self._clock.now()) // rounding * rounding
        expires = issued + lifetime
        signature = self._signature(path, f"{expires:x}", f"{issued:x}")
        return f"{self.base}{path}?ex={expires:x}&is={issued:x}&hm={signature}&"

    def valid(self, path: str, query: Mapping[str, str]) -> bool:
        """Whether a path (still quoted) was signed and has not expired."""
        expires, issued = query.get("ex", ""), query.get("is", "")
        expected = self._signature(path, expires, issued)
        if not hmac.compare_digest(query.get("hm", "").encode(), expected.encode()):
            return False
        return self._clock.now() < int(expires, 16)

    def _signature(self, path: str, expires: str, issued: str) -> str:
        text = f"{path}\n{expires}\n{issued}".encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()
