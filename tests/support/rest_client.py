"""A blocking client for the emulator's REST API and CDN that shows exactly what came over the wire."""

from __future__ import annotations

import http.client
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from support.emulator import Emulator

USER_AGENT = "DiscordBot (https://example.invalid, 0)"
TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> int:
        """The error code of a JSON error."""
        return int(self.json["code"])


def http_request(
    url: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """One request on a connection of its own. What `http.client` raises is what happened to the connection."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body=body, headers=dict(headers or {}))
        with connection.getresponse() as response:
            return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


def multipart(
    files: Sequence[tuple[str, str, bytes]], payload: Any = None, *, payload_last: bool = False
) -> tuple[bytes, str]:
    """A multipart body of (part name, file name, content) and its content type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        for name, filename, content in files
    ]
    if payload is not None:
        part = b'Content-Disposition: form-data; name="payload_json"\r\n\r\n' + json.dumps(payload).encode()
        parts.insert(len(parts) if payload_last else 0, part)
    joined = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return joined + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


class RestClient:
    """Requests with the bot's token."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def __call__(
        self,
        method: str,
        path: str,
        payload: Any = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Ask the API; `payload` is sent as JSON. Headers of None drop one of the usual ones."""
        sent: dict[str, str] = {"Authorization": f"Bot {self._emulator.token}", "User-Agent": USER_AGENT}
        if payload is not None:
            body, sent["Content-Type"] = json.dumps(payload).encode(), "application/json"
        sent |= dict(headers or {})
        return http_request(self._emulator.api_url + path, method, body, sent)

    def new_channel(self, name: str = "data") -> str:
        """A fresh text channel's id."""
        reply = self("POST", f"/guilds/{self._emulator.guild_id}/channels", {"name": name})
        assert reply.status == 201, reply.body
        return str(reply.json["id"])

    def send(self, channel: str, *contents: bytes, **payload: Any) -> Reply:
        """Create a message with files `0.bin`, `1.bin`, ..."""
        files = [(f"files[{number}]", f"{number}.bin", content) for number, content in enumerate(contents)]
        body, content_type = multipart(files, payload)
        return self("POST", f"/channels/{channel}/messages", body=body, headers={"Content-Type": content_type})

    def messages(self, channel: str, query: str = "") -> list[str]:
        """The ids that listing gives."""
        reply = self("GET", f"/channels/{channel}/messages{query}")
        assert reply.status == 200, reply.body
        return [str(message["id"]) for message in reply.json]
