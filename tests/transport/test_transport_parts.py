"""The small parts of the Discord transport, each alone: readers, payloads, URLs, answers, downloads, addresses."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import discord
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from disfs.chunkstore.transport.answers import Answer, Request, error_of, error_of_failure
from disfs.chunkstore.transport.base import StoredAttachment, StoredMessage, Upload
from disfs.chunkstore.transport.cdn import CdnClient
from disfs.chunkstore.transport.decode import account_of, channel_of, guild_of, message_of
from disfs.chunkstore.transport.parts import PIECE_BYTES, PartsPayload, PartsReader
from disfs.chunkstore.transport.service import _as_sent
from disfs.chunkstore.transport.stack import with_api_path
from disfs.chunkstore.transport.urls import GRACE_SECONDS, UrlCache, expiry_of
from disfs.errors import (
    CorruptDataError,
    PermanentStorageError,
    PermissionMissingError,
    StorageError,
    TokenRejectedError,
    TooLargeError,
    TransientStorageError,
)
from disfs.values import AttachmentId, ChannelId, MessageId

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

buffers = st.lists(st.binary(max_size=40), max_size=6)


@given(buffers, st.lists(st.tuples(st.integers(0, 250), st.integers(-1, 60)), max_size=8))
def test_reader_reads_as_a_file(parts: list[bytes], steps: list[tuple[int, int]]) -> None:
    """Seeking and reading give what a BytesIO of the joined parts gives."""
    reader, model = PartsReader(parts), io.BytesIO(b"".join(parts))
    for position, size in steps:
        position = min(position, reader.size_bytes)
        assert model.seek(position) == reader.seek(position)
        assert model.read(size) == reader.read(size)
        assert model.tell() == reader.tell()
    assert reader.size_bytes == reader.seek(0, io.SEEK_END)


def test_pieces_are_views() -> None:
    """What is sent is the caller's memory itself, in pieces that do not stall the loop."""
    part = bytearray(PIECE_BYTES * 2 + 1)
    pieces = list(PartsReader([b"ab", part]).pieces())
    assert [2, PIECE_BYTES, PIECE_BYTES, 1] == [len(piece) for piece in pieces]
    assert all(piece.obj is part for piece in pieces[1:])


def test_released_reader_reads_no_more() -> None:
    """After release the buffers are free, and an upload that still reads fails instead of sending less."""
    part = bytearray(10)
    reader = PartsReader([part])
    assert b"\0" == reader.read(1)
    reader.release()
    part.append(0)
    with pytest.raises(OSError, match="given back"):
        reader.read(1)
    assert 10 == reader.size_bytes


def test_library_takes_the_reader() -> None:
    """discord.File accepts it, and aiohttp sends it by our payload, with its length."""
    reader = PartsReader([b"abc", b"de"])
    file = discord.File(reader, "a.bin")  # type: ignore[arg-type] # asks for a buffered file, any seekable reader will do
    payload = aiohttp.payload.get_payload(file.fp)
    assert isinstance(payload, PartsPayload)
    assert 5 == payload.size


async def stalled_write() -> None:
    """Send to somebody who takes nothing."""

    class Writer:
        async def write(self, piece: memoryview) -> None:
            await asyncio.Event().wait()

    await PartsPayload(PartsReader([b"x"])).write(Writer())  # type: ignore[arg-type] # all that is used of a writer


def test_stalled_upload_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload of which the other side takes nothing any more ends with a timeout."""
    monkeypatch.setattr(PartsPayload, "STALL_SECONDS", 0.01)
    with pytest.raises(TimeoutError):
        asyncio.run(stalled_write())


def signed(ex: float) -> str:
    """A URL that says when it ends."""
    return f"https://cdn/attachments/1/2/a.bin?ex={int(ex):x}&is=1&hm=ff&"


def url_in(cache: UrlCache, n: int) -> str | None:
    """The URL that may be used for an attachment."""
    known = cache.usable(AttachmentId(n))
    return known.url if known else None


def test_url_is_used_until_shortly_before_its_end() -> None:
    """A URL is good until its `ex` minus the margin, read from the URL itself."""
    now = 1000.0
    cache = UrlCache(margin_seconds=300, now=lambda: now, monotonic=lambda: now)
    cache.remember(AttachmentId(1), signed(2000), 10)
    now = 1699
    assert signed(2000) == url_in(cache, 1)
    now = 1700
    assert cache.usable(AttachmentId(1)) is None


def test_new_url_is_used_whatever_it_says() -> None:
    """A URL that was got just now is used even if it has ended by our clock, for there is no better one."""
    now = 5000.0
    cache = UrlCache(now=lambda: now, monotonic=lambda: now)
    cache.remember(AttachmentId(1), signed(2000), 10)
    assert signed(2000) == url_in(cache, 1)
    now += GRACE_SECONDS
    assert cache.usable(AttachmentId(1)) is None


def test_url_cache_is_bounded() -> None:
    """The URL that was not used for longest goes first."""
    cache = UrlCache(limit=2)
    for n in (1, 2):
        cache.remember(AttachmentId(n), f"u{n}", 10)
    assert "u1" == url_in(cache, 1)
    cache.remember(AttachmentId(3), "u3", 10)
    assert [True, False, True] == [cache.usable(AttachmentId(n)) is not None for n in (1, 2, 3)]


@pytest.mark.parametrize("url", ["https://cdn/a", "https://cdn/a?ex=", "https://cdn/a?ex=zz", ""])
def test_url_without_end(url: str) -> None:
    """A URL that does not say when it ends has no known end."""
    assert expiry_of(url) is None


SEND = Request("POST", "/channels/{channel_id}/messages")


def answer(status: int, code: int | None = None, **more: Any) -> Answer:
    """An answer in Discord's own JSON, or a page when there is no code."""
    if code is None:
        return Answer(status, {"Content-Type": "text/html"}, b"<html>secret page</html>")
    body = json.dumps({"code": code, "message": "said", **more}).encode()
    return Answer(status, {"Content-Type": "application/json"}, body)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (answer(401, 0), TokenRejectedError),
        (answer(403, 50013), PermissionMissingError),
        (answer(403, 40333), PermanentStorageError),
        (answer(403), TransientStorageError),
        (answer(413, 40005), TooLargeError),
        (answer(413), TooLargeError),
        (answer(400, 50045), TooLargeError),
        (answer(400, 50035), PermanentStorageError),
        (answer(400, 40004), TransientStorageError),
        (answer(429, 20028), TransientStorageError),
        (answer(429), TransientStorageError),
        (answer(408), TransientStorageError),
        (answer(503), TransientStorageError),
        (answer(503, 130000), TransientStorageError),
    ],
)
def test_table_of_errors(given: Answer, kind: type[StorageError]) -> None:
    """Each answer becomes the error that says what can be done, and quotes no foreign page."""
    error = error_of(SEND, given)
    assert kind is type(error)
    assert "secret page" not in str(error)


def test_retry_after_prefers_the_exact_one() -> None:
    """The body's retry_after is exact, the header rounded; either may be missing or nonsense."""
    both = Answer(429, {"Content-Type": "application/json", "Retry-After": "65"}, b'{"retry_after": 64.57}')
    assert 64.57 == both.retry_after_seconds
    assert 9 == Answer(429, {"Retry-After": "9"}, b"<html>").retry_after_seconds
    assert Answer(429, {"Retry-After": "soon"}, b"").retry_after_seconds is None


@pytest.mark.parametrize(
    ("failure", "maybe_done"),
    [
        (aiohttp.ConnectionTimeoutError(), False),
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientOSError(104, "x"), True),
        (aiohttp.ClientPayloadError("https://cdn/?hm=secret"), True),
        (TimeoutError(), True),
        (discord.RateLimited(99.0), False),
    ],
)
def test_failure_without_an_answer(failure: Exception, maybe_done: bool) -> None:
    """A lost connection is transient, says whether the request may have arrived, and quotes no URL."""
    error = error_of_failure(SEND, failure)
    assert isinstance(error, TransientStorageError)
    assert maybe_done == error.maybe_done
    assert "secret" not in str(error)


def test_discord_may_answer_in_another_order() -> None:
    """Attachments are put into the order of the uploads by their names."""
    message = StoredMessage(
        ChannelId(1),
        MessageId(2),
        "",
        (StoredAttachment(AttachmentId(3), "b.bin", 1), StoredAttachment(AttachmentId(4), "a.bin", 2)),
    )
    sent = _as_sent(message, [Upload("a.bin", (b"xx",)), Upload("b.bin", (b"x",))])
    assert [4, 3] == [a.attachment for a in sent.attachments]


@pytest.mark.parametrize("uploads", [[Upload("a.bin", (b"xy",))], [Upload("a.bin", (b"x",)), Upload("b.bin", (b"x",))]])
def test_other_attachments_than_sent(uploads: list[Upload]) -> None:
    """An acknowledgement of another size or number is an error, not a success; another name is none."""
    message = StoredMessage(ChannelId(1), MessageId(2), "", (StoredAttachment(AttachmentId(3), "renamed", 1),))
    with pytest.raises(CorruptDataError):
        _as_sent(message, uploads)
    assert message == _as_sent(message, [Upload("a.bin", (b"x",))])


@pytest.mark.parametrize("raw", [None, "page", [], {}, {"id": "x"}], ids=repr)
def test_answer_that_is_none(raw: Any) -> None:
    """JSON that is not what was asked for is transient: something in between answered."""
    for decode in (message_of, guild_of, channel_of, account_of):
        with pytest.raises(TransientStorageError):
            decode(raw)


def test_boost_tiers() -> None:
    """The first guess of the attachment limit follows the guild's boost tier."""
    limits = [guild_of({"id": "1", "name": "x", "premium_tier": t}).attachment_limit_bytes >> 20 for t in (0, 1, 2, 3)]
    assert [10, 10, 50, 100] == limits


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("http://127.0.0.1:80", "http://127.0.0.1:80/api/v10"),
        ("http://127.0.0.1:80/", "http://127.0.0.1:80/api/v10"),
        ("https://proxy/discord/api/v10", "https://proxy/discord/api/v10"),
    ],
)
def test_api_path_is_added(given: str, wanted: str) -> None:
    """An address without a path means the API of version 10 there."""
    assert wanted == with_api_path(given)


async def download(
    reply: Callable[[web.Request], Awaitable[web.StreamResponse]], start: int, length: int, size_bytes: int = 10
) -> bytes:
    """Fetch from a CDN that answers in its own way."""
    application = web.Application()
    application.router.add_get("/a", reply)
    runner = web.AppRunner(application)
    await runner.setup()
    cdn = CdnClient(lambda: None, lambda: None)
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return await cdn.fetch(f"http://127.0.0.1:{runner.addresses[0][1]}/a?hm=%2Bx%2F", start, length, size_bytes)
    finally:
        await cdn.close()
        await runner.cleanup()


def test_download_sends_no_token_and_the_url_as_it_is() -> None:
    """The CDN gets a Range and the signature untouched, and neither a token nor an offer of encodings."""
    seen: list[web.Request] = []

    async def reply(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(status=206, body=b"345", headers={"Content-Range": "bytes 3-5/10"})

    assert b"345" == asyncio.run(download(reply, 3, 3))
    assert ("bytes=3-5", "identity") == (seen[0].headers["Range"], seen[0].headers["Accept-Encoding"])
    assert "Authorization" not in seen[0].headers
    assert "hm=%2Bx%2F" == seen[0].raw_path.partition("?")[2]


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind"),
    [
        (206, {}, b"345", TransientStorageError),
        (206, {"Content-Range": "bytes 0-2/10"}, b"012", TransientStorageError),
        (206, {"Content-Range": "bytes 3-5/10"}, b"34", TransientStorageError),
        (206, {"Content-Range": "bytes 3-5/10"}, b"3456", TransientStorageError),
        (206, {"Content-Range": "bytes 3-5/11"}, b"345", TransientStorageError),
        (206, {"Content-Range": "bytes 3-5/10", "Content-Encoding": "gzip"}, b"345", TransientStorageError),
        (200, {}, b"01234", TransientStorageError),
        (200, {}, b"0123456789ab", TransientStorageError),
        (200, {"Content-Type": "text/html"}, b"<h1>oops!\n", TransientStorageError),
        (
            206,
            {"Content-Type": "text/html; charset=utf-8", "Content-Range": "bytes 3-5/10"},
            b"345",
            TransientStorageError,
        ),
        (416, {}, b"", CorruptDataError),
        (403, {}, b"error", TransientStorageError),
        (418, {}, b"error", PermanentStorageError),
        (429, {"Retry-After": "5"}, b"error", TransientStorageError),
        (503, {}, b"error", TransientStorageError),
    ],
)
def test_download_is_exact_or_an_error(
    status: int, headers: dict[str, str], body: bytes, kind: type[StorageError]
) -> None:
    """Whatever comes instead of exactly bytes 3 to 5 is an error of the right kind, and never data."""

    async def reply(_: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, body=body)

    with pytest.raises(StorageError) as caught:
        asyncio.run(download(reply, 3, 3))
    assert kind is type(caught.value)


def test_whole_answer_without_a_length() -> None:
    """A whole attachment that comes in chunks, without a length, is cut; when it ends too early it is transient."""

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in (b"01", b"23", b"45", b"67"):
            await response.write(piece)
        return response

    assert b"345" == asyncio.run(download(reply, 3, 3, size_bytes=8))
    with pytest.raises(TransientStorageError):
        asyncio.run(download(reply, 6, 3, size_bytes=9))
