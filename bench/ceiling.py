"""What the emulator alone gives to a plain HTTP client: where disfs stays below this, the emulator is not to blame."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bench.shape import MIB

if TYPE_CHECKING:
    from bench.lab import Lab

MESSAGES = 4
ATTACHMENT_BYTES = 8 * MIB
FETCHES = 3
"""How often each attachment is fetched, all at once: enough for the latency not to show."""
_BOUNDARY = "bench"
_AGENT = {"User-Agent": "DiscordBot (bench, 1)"}


def measure(lab: Lab) -> dict[str, float]:
    """MB/s up and down, over the open network and in the shape, by several connections at once."""
    found = {}
    for label, prepare in (("open", lab.open_up), ("shaped", lab.shape_network)):
        prepare()
        client = _Client(lab)
        found[f"{label} up"] = _rate(client.send, client.channels())
        found[f"{label} down"] = _rate(client.fetch, client.urls * FETCHES)
    lab.open_up()
    return found


def _rate(work: object, arguments: list[str]) -> float:
    assert callable(work)
    threads = [threading.Thread(target=work, args=(argument,)) for argument in arguments]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(threads) * ATTACHMENT_BYTES / (time.perf_counter() - began) / 1e6


class _Client:
    """Sends messages and fetches what it sent."""

    def __init__(self, lab: Lab) -> None:
        self._api = urlsplit(lab.emulator["api_url"])
        self._guild = lab.emulator["guild_id"]
        self._headers = _AGENT | {"Authorization": f"Bot {lab.emulator['token']}"}
        self._content = os.urandom(ATTACHMENT_BYTES)
        self.urls: list[str] = []

    def channels(self) -> list[str]:
        """The channels that take messages, as many as are used."""
        found = json.loads(self._request("GET", f"{self._api.path}/guilds/{self._guild}/channels"))
        return [channel["id"] for channel in found if channel["type"] == 0][:MESSAGES]

    def send(self, channel: str) -> None:
        """Send one message with one attachment."""
        part = (
            f"--{_BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="files[0]"; filename="a.bin"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = part.encode() + self._content + f"\r\n--{_BOUNDARY}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        answer = json.loads(self._request("POST", f"{self._api.path}/channels/{channel}/messages", body, headers))
        self.urls.append(answer["attachments"][0]["url"])

    def fetch(self, url: str) -> None:
        """Fetch one attachment."""
        parts = urlsplit(url)
        self._request("GET", f"{parts.path}?{parts.query}")

    def _request(self, method: str, path: str, body: bytes | None = None, more: dict[str, str] | None = None) -> bytes:
        connection = http.client.HTTPConnection(self._api.hostname or "", self._api.port, timeout=120)
        try:
            connection.request(method, path, body, self._headers | (more or {}))
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise http.client.HTTPException(f"{method} {path} was answered {answer.status}")
        return raw
