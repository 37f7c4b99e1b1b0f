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
from disfs.chunkstore.transport.throttle import Throttle
from disfs.chunkstore.transport.whole import WholeAnswers
from disfs.errors import CorruptDataError, NotFoundError, PermanentStorageError, TransientStorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.errors import StorageError

_CONNECTIONS = 32
_CONNECT_SECONDS = 15.0
_SILENCE_SECONDS = 30.0
_PIECE_BYTES = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
"""Content types that no attachment of ours has. The superblock is JSON."""
_WHAT = "GET attachment"


class CdnClient:
    """Fetches byte ranges of signed URLs. Made inside a running loop; `close` ends it."""

    def __init__(self, on_rate_limited: Callable[[], None], on_whole: Callable[[], None]) -> None:
        self._on_rate_limited = on_rate_limited
        self._on_whole = on_whole
        self.throttle = Throttle()
        self._whole = WholeAnswers()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_PIECE_BYTES,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def fetch(self, url: str, start: int, length: int, size_bytes: int) -> bytes:
        """Exactly `length` bytes from `start` of an attachment that Discord says is `size_bytes` long.

        `NotFoundError` means that the URL is of no use (any more), `CorruptDataError` that the range lies
        outside of the attachment.
        """
        if start + length > size_bytes:
            raise CorruptDataError(f"{_WHAT}: the range lies outside the attachment")
        async with self._whole.alone(url):
            kept = self._whole.find(url, start, length)
            return kept if kept is not None else await self._download(url, start, length, size_bytes)

    async def _download(self, url: str, start: int, length: int, size_bytes: int) -> bytes:
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        try:
            # `encoded`: a signed URL must travel as it was written.
            async with self._session.get(yarl.URL(url, encoded=True), headers=headers) as response:
                if response.status == 429:
                    self._on_rate_limited()
                _check(response, start, length, size_bytes)
                if response.status == 206:
                    self._whole.range_was_obeyed()
                    return await self._read(response, 0, length)
                return await self._cut(url, response, start, length, size_bytes)
        except (aiohttp.ClientError, OSError) as error:
            raise error_of_failure(_WHAT, error) from error

    async def _cut(self, url: str, response: aiohttp.ClientResponse, start: int, length: int, size_bytes: int) -> bytes:
        """What was asked for, of an answer that is the whole attachment."""
        self._on_whole()
        if not self._whole.may_keep(size_bytes):
            return await self._read(response, start, length)
        whole = await self._read(response, 0, size_bytes)
        self._whole.keep(url, whole)
        return whole[start : start + length]

    async def _read(self, response: aiohttp.ClientResponse, skip: int, length: int) -> bytes:
        """The `length` bytes after the first `skip`; what comes behind them is not read."""
        pieces: list[bytes] = []
        missing = length
        while missing:
            piece = await response.content.read(self.throttle.piece_bytes(_PIECE_BYTES))
            if not piece:
                raise TransientStorageError(f"{_WHAT}: the answer ended too early")
            await self.throttle.take(len(piece))
            if skip >= len(piece):
                skip -= len(piece)
                continue
            wanted = piece[skip : skip + missing] if skip or len(piece) > missing else piece
            skip = 0
            pieces.append(wanted)
            missing -= len(wanted)
        if not response.content.at_eof():
            # The rest of a whole attachment would have to be read before the connection could serve again.
            response.close()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check(response: aiohttp.ClientResponse, start: int, length: int, size_bytes: int) -> None:
    """Raise unless the answer is the range, or the whole attachment."""
    if response.status not in (200, 206):
        raise _error_of_status(response)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise TransientStorageError(f"{_WHAT}: came encoded, although that was not asked for")
    if response.content_type in _PAGES:
        # What we upload is stored as opaque bytes: this is somebody's error page, whatever its status says.
        raise TransientStorageError(f"{_WHAT}: a web page came in its place")
    if response.status == 206:
        _check_range(response, start, length, size_bytes)
    elif response.content_length not in (None, size_bytes):
        raise TransientStorageError(f"{_WHAT}: what came is not as long as the attachment")


def _check_range(response: aiohttp.ClientResponse, start: int, length: int, size_bytes: int) -> None:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        raise TransientStorageError(f"{_WHAT}: a partial answer that does not say which part")
    first, last, total = match.groups()
    if total not in ("*", str(size_bytes)):
        raise TransientStorageError(f"{_WHAT}: a part of something of another length came")
    if (int(first), int(last)) != (start, start + length - 1):
        raise TransientStorageError(f"{_WHAT}: another range came than was asked for")
    if response.content_length not in (None, length):
        raise TransientStorageError(f"{_WHAT}: the length of the answer contradicts its range")


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
