"""Signed URLs, ranges and what becomes of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.rest_client import RestClient, http_request

from disfs.emulator.cdn import UnsatisfiableRangeError, parse_range

if TYPE_CHECKING:
    from support.emulator import Emulator

CONTENT = bytes(range(256)) * 5000
GONE = (404, b"This content is no longer available.")


def attachment_url(rest: RestClient, channel: str, content: bytes = CONTENT) -> str:
    return str(rest.send(channel, content).json["attachments"][0]["url"])


def test_whole_attachment_streams_with_its_length(rest: RestClient, channel: str) -> None:
    """Without a range the CDN sends everything, tells the length, and gives no rate limits and no Via."""
    reply = http_request(attachment_url(rest, channel))

    assert (200, CONTENT, str(len(CONTENT))) == (reply.status, reply.body, reply.headers["Content-Length"])
    assert ("bytes", "application/octet-stream", "1") == (
        reply.headers["Accept-Ranges"],
        reply.headers["Content-Type"],
        reply.headers["X-Emulator"],
    )
    assert not [name for name in reply.headers if name.lower().startswith(("x-ratelimit", "via"))]


def test_head_tells_the_length_without_the_bytes(rest: RestClient, channel: str) -> None:
    """HEAD has the headers of GET."""
    reply = http_request(attachment_url(rest, channel), "HEAD")

    assert (200, b"", str(len(CONTENT))) == (reply.status, reply.body, reply.headers["Content-Length"])


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=300000-700000", 300_000, 700_001), ("bytes=1279000-", 1_279_000, 1_280_000)],
)
def test_range_gives_exactly_those_bytes(rest: RestClient, channel: str, asked: str, start: int, end: int) -> None:
    """206 with the range that was sent and the size of the whole."""
    reply = http_request(attachment_url(rest, channel), headers={"Range": asked})

    assert (206, CONTENT[start:end]) == (reply.status, reply.body)
    assert f"bytes {start}-{end - 1}/{len(CONTENT)}" == reply.headers["Content-Range"]


def test_range_after_the_end_is_416(rest: RestClient, channel: str) -> None:
    """The answer names the real size."""
    reply = http_request(attachment_url(rest, channel), headers={"Range": "bytes=1280000-"})

    assert (416, "bytes */1280000") == (reply.status, reply.headers["Content-Range"])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("bytes=-", None),
        ("items=0-1", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("bytes=2-", (2, 8)),
        ("bytes=2-3", (2, 2)),
        ("bytes=2-99", (2, 8)),
        ("bytes=-3", (7, 3)),
        ("bytes=-99", (0, 10)),
    ],
)
def test_parse_range_of_ten_bytes(header: str | None, expected: tuple[int, int] | None) -> None:
    """One range is understood, in its three forms; anything else is as if there were none."""
    assert expected == parse_range(header, 10)


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-11", "bytes=-0"])
def test_parse_range_beyond_the_end(header: str) -> None:
    """A range without a single byte cannot be satisfied."""
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, 10)


def test_empty_attachment_can_be_fetched(rest: RestClient, channel: str) -> None:
    """Zero bytes are a file too."""
    assert (200, b"") == ((reply := http_request(attachment_url(rest, channel, b""))).status, reply.body)


def test_url_is_the_same_within_its_rounding(rest: RestClient, channel: str) -> None:
    """Reading a message twice gives one URL, as with Discord."""
    sent = rest.send(channel, b"x").json
    again = rest("GET", f"/channels/{channel}/messages/{sent['id']}").json

    assert sent["attachments"][0]["url"] == again["attachments"][0]["url"]


def test_altered_or_unsigned_url_is_gone(rest: RestClient, channel: str) -> None:
    """Another expiry, another name or no signature at all: the same 404 in text."""
    url = attachment_url(rest, channel)
    head, _, query = url.partition("?")
    expiry = query.partition("&")[0]
    altered = [head, url.replace(expiry, "ex=ffffffff"), url.replace("0.bin", "1.bin"), head + "?ex=&is=&hm="]

    assert [GONE] * 4 == [(reply.status, reply.body) for reply in map(http_request, altered)]


def test_url_expires_and_a_read_renews_it(own_emulator: Emulator) -> None:
    """After its lifetime a URL is dead; fetching the message again gives one that works."""
    rest = RestClient(own_emulator)
    channel = rest.new_channel()
    sent = rest.send(channel, b"x").json
    own_emulator.shift_clock(86_401)
    fresh = rest("GET", f"/channels/{channel}/messages").json[0]["attachments"][0]["url"]

    assert GONE == ((reply := http_request(sent["attachments"][0]["url"])).status, reply.body)
    assert b"x" == http_request(fresh).body


def test_deleted_attachment_stays_for_its_grace(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """A deleted message's file is readable a while longer, and not after that."""
    sent = rest.send(channel, b"x").json
    rest("DELETE", f"/channels/{channel}/messages/{sent['id']}")
    url = sent["attachments"][0]["url"]

    assert b"x" == http_request(url).body
    emulator.settings(delete_grace_seconds=0.0)
    assert GONE == ((reply := http_request(url)).status, reply.body)


def test_range_can_be_ignored(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """The switch makes the CDN answer 200 with everything."""
    emulator.settings(ignore_range=True)
    reply = http_request(attachment_url(rest, channel), headers={"Range": "bytes=1-2"})

    assert (200, CONTENT) == (reply.status, reply.body)


def test_large_attachment_stays_out_of_memory(own_emulator: Emulator) -> None:
    """Thirty megabytes go up and down while the process grows by far less."""
    own_emulator.settings(attachment_limit_bytes=64 * 2**20)
    rest = RestClient(own_emulator)
    content = hashlib.shake_256(b"seed").digest(2**20) * 30
    url = attachment_url(rest, rest.new_channel(), b"warm up" * 100_000)
    http_request(url)
    before = _peak_kib(own_emulator.pid)
    received = http_request(attachment_url(rest, rest.new_channel(), content)).body

    assert content == received
    assert _peak_kib(own_emulator.pid) - before < 16 * 1024


def _peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
