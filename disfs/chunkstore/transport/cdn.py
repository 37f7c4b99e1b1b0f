"""Ranged downloads from Discord's CDN, over connections of our own.

discord.py's own download holds whole attachments in memory, knows no Range and takes every status but 200 for an
error. The bot token is not sent here: the signature in the URL is all that the CDN wants. Nothing but exactly the
bytes asked for ever leaves this module; whatever else comes is an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import aiohttp
import yarl

from disfs.chunkstore.transport.answers import error_of_failure
from disfs.errors import CorruptDataError, NotFoundError, PermanentStorageError, TransientStorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.errors import StorageError

_CONNECTIONS = 32
_CONNECT_SECONDS = 15.0
_SILENCE_SECONDS = 30.0
_PIECE_BYTES = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_WHAT = "GET attachment"


class CdnClient:
    """Fetches byte ranges of signed URLs. Made inside a running loop; `close` ends it."""

    def __init__(self, on_rate_limited: Callable[[], None]) -> None:
        self._on_rate_limited = on_rate_limited
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def fetch(self, url: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`.

        `NotFoundError` means that the URL is of no use (any more), `CorruptDataError` that the range lies
        outside of what the URL holds.
        """
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        try:
            # `encoded`: a signed URL must travel as it was written.
            async with self._session.get(yarl.URL(url, encoded=True), headers=headers) as response:
                skip = self._check(response, start, length)
                return await _read_exactly(response, skip, length)
        except (aiohttp.ClientError, OSError) as error:
            raise error_of_failure(_WHAT, error) from error

    def _check(self, response: aiohttp.ClientResponse, start: int, length: int) -> int:
        """How many bytes of the body come before those that were asked for; raises when they are not there."""
        if response.status == 429:
            self._on_rate_limited()
        if response.status not in (200, 206):
            raise _error_of_status(response)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise TransientStorageError(f"{_WHAT}: came encoded, although that was not asked for")
        if response.status == 206:
            _check_range(response, start, length)
            return 0
        # The whole attachment came, and its length shows whether the range lies in it.
        if response.content_length is not None and start + length > response.content_length:
            raise CorruptDataError(f"{_WHAT}: the range lies outside the attachment")
        return start


def _check_range(response: aiohttp.ClientResponse, start: int, length: int) -> None:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        raise TransientStorageError(f"{_WHAT}: a partial answer that does not say which part")
    first, last, total = match.groups()
    if total != "*" and start + length > int(total):
        raise CorruptDataError(f"{_WHAT}: the range lies outside the attachment")
    if (int(first), int(last)) != (start, start + length - 1):
        raise TransientStorageError(f"{_WHAT}: another range came than was asked for")
    if response.content_length not in (None, length):
        raise TransientStorageError(f"{_WHAT}: the length of the answer contradicts its range")


async def _read_exactly(response: aiohttp.ClientResponse, skip: int, length: int) -> bytes:
    """The `length` bytes after the first `skip`; what comes behind them is not read."""
    pieces: list[bytes] = []
    missing = length
    async for piece in response.content.iter_chunked(_PIECE_BYTES):
        if skip >= len(piece):
            skip -= len(piece)
            continue
        wanted = piece[skip : skip + missing]
        skip = 0
        pieces.append(wanted)
        missing -= len(wanted)
        if missing == 0:
            break
    if missing:
        raise TransientStorageError(f"{_WHAT}: the answer ended too early")
    if not response.content.at_eof():
        # The rest of a whole attachment would have to be read before the connection could serve again.
        response.close()
    return b"".join(pieces)


def _error_of_status(response: aiohttp.ClientResponse) -> StorageError:
    status = response.status
    if status == 404:
        return NotFoundError(f"{_WHAT}: not there, or the signature has expired")
    if status == 416:
        return CorruptDataError(f"{_WHAT}: the range lies outside the attachment")
    if status == 429 or status >= 500 or status == 408:
        return TransientStorageError(f"{_WHAT}: status {status}", retry_after_seconds=_retry_after(response))
    if status == 403:
        # Seen when the CDN refuses a whole network for a while; a wrong signature is a 404.
        return TransientStorageError(f"{_WHAT}: the CDN refuses this machine (403)")
    return PermanentStorageError(f"{_WHAT}: status {status}")


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
