"""Scripted faults: which request they hit, and what it looks like from the client's side."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING

import pytest
from support.rest_client import http_request

from disfs.emulator.faults import Fault, FaultPlan

if TYPE_CHECKING:
    from support.emulator import Emulator
    from support.rest_client import RestClient

CONTENT = bytes(range(256)) * 4000


def test_rule_fires_at_the_nth_match_and_count_times() -> None:
    """Requests before the nth and after the count pass, and so do other routes."""
    plan = FaultPlan()
    plan.add(Fault("reset", route="create_message", nth=2, count=2))
    hits = [
        plan.pick(route, "api", None) is not None for route in ["create_message", "get_me", *["create_message"] * 3]
    ]

    assert [False, False, True, True, False] == hits


def test_rules_match_by_name_pattern_group_and_channel() -> None:
    """A route may be a pattern or a group; a channel narrows it."""
    assert Fault("reset", route="*_message").matches("edit_message", "api", "1")
    assert Fault("reset", route="cdn").matches("cdn_get", "cdn", "1")
    assert not Fault("reset", route="cdn").matches("get_me", "api", None)
    assert not Fault("reset", channel_id="2").matches("get_channel", "api", "1")


def test_probability_is_repeatable() -> None:
    """The same seed picks the same requests."""

    def picks(seed: int) -> list[bool]:
        plan = FaultPlan()
        plan.add(Fault("reset", count=None, probability=0.5, seed=seed))
        return [plan.pick("get_me", "api", None) is not None for _ in range(64)]

    assert picks(1) == picks(1) != picks(2)
    assert 16 < sum(picks(1)) < 48


def test_first_rule_that_fires_wins() -> None:
    """A request is hit once; a later rule does not even see it."""
    plan = FaultPlan()
    plan.add(Fault("reset"))
    second = plan.add(Fault("close"))
    kinds = [fault.kind for _ in range(2) if (fault := plan.pick("get_me", "api", None))]

    assert ["reset", "close"] == kinds
    assert [1, 1] == [rule["fired"] for rule in plan.as_json()]
    assert plan.remove(second)
    assert not plan.remove(second)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("unauthorized", 401, 0),
        ("missing_access", 403, 50001),
        ("missing_permissions", 403, 50013),
        ("unknown_channel", 404, 10003),
        ("unknown_message", 404, 10008),
        ("too_large", 413, 40005),
        ("server_error", 500, 0),
    ],
)
def test_named_errors(emulator: Emulator, rest: RestClient, channel: str, kind: str, status: int, code: int) -> None:
    """Each named kind answers with Discord's status and code, once, and nothing is stored."""
    emulator.fault(kind=kind, route="create_message")
    reply = rest.send(channel, b"x")

    assert (status, code, "application/json") == (reply.status, reply.code, reply.headers["Content-Type"])
    assert [] == rest.messages(channel)
    assert 200 == rest.send(channel, b"x").status


@pytest.mark.parametrize("status", [502, 503, 504, 520, 524])
def test_proxy_errors_are_text_before_and_after_the_commit(
    emulator: Emulator, rest: RestClient, channel: str, status: int
) -> None:
    """A gateway's answer is text; whether the message exists depends on the stage alone."""
    emulator.fault(kind="status", status=status, route="create_message")
    emulator.fault(kind="status", status=status, route="create_message", when="after")
    before = rest.send(channel, b"x")
    stored_before = rest.messages(channel)
    after = rest.send(channel, b"x")

    assert [status] * 2 == [before.status, after.status]
    assert before.headers["Content-Type"].startswith("text/plain")
    assert [0, 1] == [len(stored_before), len(rest.messages(channel))]


@pytest.mark.parametrize("kind", ["reset", "close"])
def test_lost_answer_leaves_exactly_one_message(emulator: Emulator, rest: RestClient, channel: str, kind: str) -> None:
    """Cut after the commit, the client knows nothing; the same nonce finds the message."""
    emulator.fault(kind=kind, route="create_message", when="after")
    expected = ConnectionResetError if kind == "reset" else http.client.RemoteDisconnected
    with pytest.raises(expected) as caught:
        rest.send(channel, b"x", nonce=f"lost-{kind}", enforce_nonce=True)
    again = rest.send(channel, b"x", nonce=f"lost-{kind}", enforce_nonce=True)

    assert kind == "close" or not isinstance(caught.value, http.client.RemoteDisconnected)
    assert [again.json["id"]] == rest.messages(channel)


@pytest.mark.parametrize(("when", "size"), [("before", 10), ("during", 3_000_000)])
def test_cut_before_the_commit_leaves_nothing(
    emulator: Emulator, rest: RestClient, channel: str, when: str, size: int
) -> None:
    """Neither message nor file stays behind when the connection breaks earlier."""
    emulator.fault(kind="reset", route="create_message", when=when, bytes=1_000_000)
    with pytest.raises(ConnectionError):
        rest.send(channel, b"x" * size)

    assert [] == rest.messages(channel)
    assert [] == list((emulator.data_dir / "incoming").iterdir())
    assert {"0": 1} == emulator.counters()["statuses"]["create_message"]


def test_stall_ends_in_a_closed_connection(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """A stalled request says nothing and is closed at its time."""
    emulator.fault(kind="stall", route="create_message", when="after", seconds=0.1)
    started = time.monotonic()
    with pytest.raises(http.client.RemoteDisconnected):
        rest.send(channel, b"x")

    assert time.monotonic() - started >= 0.1
    assert 1 == len(rest.messages(channel))


def test_delay_only_delays(emulator: Emulator, rest: RestClient) -> None:
    """The real answer comes, later."""
    emulator.fault(kind="delay", route="get_me", seconds=0.1)
    started = time.monotonic()

    assert 200 == rest("GET", "/users/@me").status
    assert time.monotonic() - started >= 0.1


@pytest.mark.parametrize("scope", ["user", "shared", "global"])
def test_scripted_rate_limit_tells_its_scope(emulator: Emulator, rest: RestClient, scope: str) -> None:
    """429 with the headers that go with its scope."""
    emulator.fault(kind="rate_limit", route="get_me", scope=scope, retry_after=2.5, remaining=3)
    reply = rest("GET", "/users/@me")

    assert (429, scope, "2") == (reply.status, reply.headers["X-RateLimit-Scope"], reply.headers["Retry-After"])
    assert (2.5, scope == "global") == (reply.json["retry_after"], reply.json["global"])
    assert reply.headers["X-RateLimit-Remaining"] == (None if scope == "global" else "3")


def test_rate_limit_without_headers(emulator: Emulator, rest: RestClient) -> None:
    """The body alone tells how long to wait."""
    emulator.fault(kind="rate_limit", route="get_me", headers=False)
    reply = rest("GET", "/users/@me")

    assert (429, 1.0, "1.1 google") == (reply.status, reply.json["retry_after"], reply.headers["Via"])
    assert not [name for name in reply.headers if name.lower().startswith(("x-ratelimit", "retry"))]


def test_cloudflare_answers_in_text_without_via(emulator: Emulator, rest: RestClient) -> None:
    """The ban page does not come from Discord's own proxy."""
    emulator.fault(kind="cloudflare", route="get_me", retry_after=60)
    reply = rest("GET", "/users/@me")

    assert (429, b"error code: 1015", "60", None) == (
        reply.status,
        reply.body,
        reply.headers["Retry-After"],
        reply.headers["Via"],
    )


def test_stale_read_misses_fresh_messages(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """One listing does not know the last minute, the next one does."""
    message = rest.send(channel, content="x").json["id"]
    emulator.fault(kind="stale", route="list_messages", seconds=60)

    assert [] == rest.messages(channel)
    assert [message] == rest.messages(channel)


def attachment_url(rest: RestClient, channel: str) -> str:
    return str(rest.send(channel, CONTENT).json["attachments"][0]["url"])


def test_truncated_download_ends_early(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """The promised length does not come; what came is right."""
    url = attachment_url(rest, channel)
    emulator.fault(kind="truncate", route="cdn", bytes=300_000)
    with pytest.raises(http.client.IncompleteRead) as caught:
        http_request(url)

    assert CONTENT[:300_000] == caught.value.partial


@pytest.mark.parametrize("kind", ["reset", "close"])
def test_download_breaks_in_the_middle(emulator: Emulator, rest: RestClient, channel: str, kind: str) -> None:
    """A download cut after some bytes fails, the next one works."""
    url = attachment_url(rest, channel)
    emulator.fault(kind=kind, route="cdn_get", when="during", bytes=300_000)
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        http_request(url)

    assert CONTENT == http_request(url).body


def test_corrupt_download_has_one_wrong_byte(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """Status, length and all other bytes are as they should be."""
    url = attachment_url(rest, channel)
    emulator.fault(kind="corrupt", route="cdn", bytes=500_000)
    body = http_request(url).body

    wrong = [at for at, (got, real) in enumerate(zip(body, CONTENT, strict=True)) if got != real]
    assert [500_000] == wrong


def test_ranges_can_be_ignored_or_mislabelled_once(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """200 instead of 206, or a Content-Range that is off by one."""
    url = attachment_url(rest, channel)
    emulator.fault(kind="ignore_range", route="cdn")
    emulator.fault(kind="wrong_range", route="cdn")
    replies = [http_request(url, headers={"Range": "bytes=10-19"}) for _ in range(3)]

    assert [200, 206, 206] == [reply.status for reply in replies]
    assert "bytes 11-20/1024000" == replies[1].headers["Content-Range"]
    assert "bytes 10-19/1024000" == replies[2].headers["Content-Range"]


@pytest.mark.parametrize("least", [0, 500_000])
def test_html_page_comes_with_200_in_the_place_of_the_range(
    emulator: Emulator, rest: RestClient, channel: str, least: int
) -> None:
    """Somebody between us and the CDN answers with a page of his own; the next request gets the bytes."""
    url = attachment_url(rest, channel)
    emulator.fault(kind="html", route="cdn", bytes=least)
    page, real = (http_request(url, headers={"Range": "bytes=10-19"}) for _ in range(2))

    assert (200, 206, CONTENT[10:20]) == (page.status, real.status, real.body)
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.body.startswith(b"<!DOCTYPE html>")
    assert len(page.body) >= least


@pytest.mark.parametrize(
    ("status", "text"), [(404, b"This content is no longer available."), (403, b"error code: 403")]
)
def test_cdn_errors_are_text(emulator: Emulator, rest: RestClient, channel: str, status: int, text: bytes) -> None:
    """The CDN does not speak JSON."""
    url = attachment_url(rest, channel)
    emulator.fault(kind="status", status=status, route="cdn")

    assert (status, text) == ((reply := http_request(url)).status, reply.body)


def test_fault_can_be_taken_back(emulator: Emulator, rest: RestClient) -> None:
    """Removed by its id a fault hits nothing any more; an unknown id is an error."""
    number = emulator.fault(kind="server_error", count=None)
    first = rest("GET", "/users/@me").status
    emulator.control("DELETE", f"/faults/{number}")

    assert [500, 200] == [first, rest("GET", "/users/@me").status]
    with pytest.raises(RuntimeError):
        emulator.control("DELETE", f"/faults/{number}")


def test_refused_request_does_not_use_a_fault_up(emulator: Emulator, rest: RestClient) -> None:
    """Faults count the requests that got past token and limits."""
    emulator.fault(kind="server_error", route="get_me")
    refused = rest("GET", "/users/@me", headers={"Authorization": "Bot x"}).status

    assert [401, 500] == [refused, rest("GET", "/users/@me").status]


def test_client_that_hangs_up_leaves_nothing(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """An upload whose sender vanishes is dropped, and the emulator goes on."""
    connection = http.client.HTTPConnection("127.0.0.1", int(emulator.api_url.split(":")[2].split("/")[0]))
    connection.putrequest("POST", f"/api/v10/channels/{channel}/messages")
    for name, value in {
        "Authorization": f"Bot {emulator.token}",
        "User-Agent": "DiscordBot (x, 0)",
        "Content-Type": "multipart/form-data; boundary=b",
        "Content-Length": "1000000",
    }.items():
        connection.putheader(name, value)
    connection.endheaders(b'--b\r\nContent-Disposition: form-data; name="files[0]"; filename="x"\r\n\r\nhalf')
    _wait_until(lambda: emulator.counters()["received_bytes"] > 0)
    connection.close()
    _wait_until(lambda: "create_message" in emulator.counters()["statuses"])

    assert {"0": 1} == emulator.counters()["statuses"]["create_message"]
    assert [] == list((emulator.data_dir / "incoming").iterdir())
    assert [] == rest.messages(channel)


def _wait_until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_bandwidth_is_capped_both_ways(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """A transfer takes as long as its bytes need at the set rate; several share the line."""
    emulator.settings(upload_bytes_per_second=10_000_000.0, download_bytes_per_second=5_000_000.0)
    started = time.monotonic()
    url = attachment_url(rest, channel)
    sent = time.monotonic()
    body = http_request(url).body
    received = time.monotonic()

    assert body == CONTENT
    assert sent - started >= len(CONTENT) / 10_000_000
    assert received - sent >= len(CONTENT) / 5_000_000


def test_latency_and_slow_start_take_their_time(emulator: Emulator, rest: RestClient, channel: str) -> None:
    """Every request waits for the latency; a transfer doubles its window each round trip."""
    emulator.settings(latency_seconds=0.05)
    started = time.monotonic()
    rest("GET", "/users/@me")
    waited = time.monotonic() - started
    emulator.settings(latency_seconds=0.0)
    url = attachment_url(rest, channel)
    emulator.settings(slow_start=True, slow_start_bytes=128_000, slow_start_round_trip_seconds=0.05)
    started = time.monotonic()
    http_request(url)
    ramped = time.monotonic() - started

    assert waited >= 0.05
    assert ramped >= 0.15  # 128 + 256 + 512 thousand bytes, then the rest
