"""What Discord answered, and the one table that turns failures into errors of ours.

No token, no signed URL and no foreign page ever gets into a message: an answer is quoted only when it is Discord's
own JSON, and a failed connection only by the kind of failure.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import discord

from disfs.errors import (
    NotFoundError,
    PermanentStorageError,
    PermissionMissingError,
    TokenRejectedError,
    TooLargeError,
    TransientStorageError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from disfs.errors import (
        StorageError,
    )

MISSING_ACCESS = 50001
TOO_OLD_FOR_BULK_DELETE = 50034

_TOO_LARGE_CODES = {40005, 50045}
_BUSY_CODES = {
    20028,  # channel write rate limit
    20029,  # server write rate limit
    40004,  # sending messages is disabled for the moment
    40006,  # this feature is disabled for the moment
    40062,  # service resource is being rate limited
    130000,  # API resource is overloaded
}
_REFUSED_BEFORE_PERMISSIONS = {40333}
"""403 for reasons that no permission cures: the User-Agent."""

# What each request needs. A 403 names no permission; the request that was refused tells.
_PERMISSIONS = {
    ("POST", "/channels/{channel_id}/messages"): "Send Messages, Attach Files",
    ("GET", "/channels/{channel_id}/messages"): "View Channel, Read Message History",
    ("GET", "/channels/{channel_id}/messages/{message_id}"): "View Channel, Read Message History",
    ("POST", "/channels/{channel_id}/messages/bulk-delete"): "Manage Messages",
    ("POST", "/guilds/{guild_id}/channels"): "Manage Channels",
    ("PATCH", "/channels/{channel_id}"): "Manage Channels",
    ("DELETE", "/channels/{channel_id}"): "Manage Channels",
}
_VIEW_CHANNEL = "View Channel"


@dataclass(frozen=True, slots=True)
class Request:
    """The method and path template of a request to the API, such as GET /channels/{channel_id}/messages."""

    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of the API."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def succeeded(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body, decoded when it says that it is JSON; None otherwise, or when it is not after all."""
        if not self.headers.get("Content-Type", "").startswith("application/json"):
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def details(self) -> dict[str, Any]:
        """Discord's error object; empty when the answer is a page by somebody on the way."""
        decoded = self.json()
        return decoded if isinstance(decoded, dict) else {}

    @property
    def code(self) -> int:
        """Discord's error code, 0 when there is none."""
        code = self.details.get("code", 0)
        return code if isinstance(code, int) else 0

    @property
    def retry_after_seconds(self) -> float | None:
        """How long a 429 asks to wait: the body is exact, the header is rounded up and may stand alone."""
        for value in (self.details.get("retry_after"), self.headers.get("Retry-After")):
            try:
                return max(0.0, float(value))  # type: ignore[arg-type] # whatever float() refuses is skipped below
            except (TypeError, ValueError):
                continue
        return None


class RefusedError(Exception):
    """An answer that is not a 2xx, as it travels inside the transport; `storage_error` is what leaves it."""

    def __init__(self, request: Request, answer: Answer) -> None:
        super().__init__(f"{request}: {answer.status}")
        self.request = request
        self.answer = answer

    @property
    def storage_error(self) -> StorageError:
        """The same as an error of ours."""
        return error_of(self.request, self.answer)


def error_of(request: Request, answer: Answer) -> StorageError:
    """The error for an answer that is not a 2xx."""
    status, code = answer.status, answer.code
    said = str(answer.details.get("message", "no explanation"))[:200]
    text = f"{request}: {status}, code {code}: {said}"
    if status == 429 or code in _BUSY_CODES:
        return TransientStorageError(f"rate limited: {text}", retry_after_seconds=answer.retry_after_seconds)
    if status >= 500 or status == 408:
        # An error page says nothing about whether the request behind it was carried out.
        return TransientStorageError(f"Discord failed: {text}", maybe_done=True)
    if status == 413 or code in _TOO_LARGE_CODES:
        return TooLargeError(f"larger than Discord takes: {text}")
    if status == 401:
        return TokenRejectedError("Discord rejected the bot token")
    if status == 403:
        return _forbidden(request, answer, text)
    if status == 404:
        return NotFoundError(text)
    return PermanentStorageError(f"Discord refused {text}")


def _forbidden(request: Request, answer: Answer, text: str) -> StorageError:
    if not answer.details:
        return TransientStorageError(f"refused on the way to Discord: {text}")
    if answer.code in _REFUSED_BEFORE_PERMISSIONS:
        return PermanentStorageError(f"Discord refused {text}")
    needed = _PERMISSIONS.get((request.method, request.path), _VIEW_CHANNEL)
    if answer.code == MISSING_ACCESS:
        needed = _VIEW_CHANNEL
    return PermissionMissingError(f"the bot lacks the permission {needed} ({text})", needed)


_NEVER_REACHED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
)
"""Failures that happen before the first byte of a request is sent."""

FOREIGN_ERRORS = (aiohttp.ClientError, discord.DiscordException, OSError)
"""What a request may raise; a timeout is an OSError."""


def error_of_failure(request: Request | str, failure: Exception) -> StorageError:
    """The error for a request that got no answer: one of FOREIGN_ERRORS."""
    kind = type(failure).__name__
    if isinstance(failure, aiohttp.InvalidURL):
        return PermanentStorageError(f"{request}: the address is not a URL")
    if isinstance(failure, discord.RateLimited):
        return TransientStorageError(f"{request}: rate limited", retry_after_seconds=failure.retry_after)
    if isinstance(failure, discord.HTTPException):
        answer = Answer(failure.status, dict(failure.response.headers), b"")
        return (
            error_of(request, answer) if isinstance(request, Request) else PermanentStorageError(f"{request}: {kind}")
        )
    if isinstance(failure, OSError) and failure.errno:
        kind = f"{kind}, {os.strerror(failure.errno)}"
    reached = not isinstance(failure, _NEVER_REACHED)
    return TransientStorageError(f"no answer from Discord: {request}: {kind}", maybe_done=reached)
