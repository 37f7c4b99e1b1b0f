"""What goes wrong between us and Discord, provoked on the emulator: no second message, no wrong bytes, no hang."""

from __future__ import annotations

import gc
import logging
import socket
import time
import weakref
from typing import TYPE_CHECKING

import pytest
import trio
from transport.contract import location, new_nonce, send
from transport.worlds import bare_world, make_bridge, unlimited, world_of

from disfs.chunkstore.transport import rest
from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.buckets import Pace
from disfs.chunkstore.transport.discord import DiscordAdmin
from disfs.chunkstore.transport.limits import Limits
from disfs.chunkstore.transport.retry import Retries, RetryPolicy
from disfs.chunkstore.transport.stack import open_connection
from disfs.errors import (
    NotFoundError,
    PermanentStorageError,
    PermissionMissingError,
    TokenRejectedError,
    TooLargeError,
    TransientStorageError,
)
from disfs.values import GuildId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from support.emulator import Emulator
    from transport.contract import World

QUICK = RetryPolicy(attempts=5, first_delay_seconds=0.01)
FAST = Limits(Pace(1000, 1), Pace(1000, 1))
AN_ANSWER_SECONDS = 2.0
"""More than any answer takes here, less than any of discord.py's waits and sleeps that matter."""


@pytest.fixture
async def bare(emulator: Emulator) -> AsyncIterator[World]:
    """The Discord transport alone."""
    async with bare_world(emulator) as world:
        yield world


@pytest.fixture
async def stacked(emulator: Emulator) -> AsyncIterator[World]:
    """The whole stack, with quick retries."""
    retries = Retries(sends=QUICK, others=QUICK)
    async with open_connection(emulator.token, emulator.api_url, limits=FAST, retries=retries) as connection:
        yield await world_of(emulator, connection.transport, connection.admin)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset", "when": "after"},
        {"kind": "close", "when": "after"},
        {"kind": "reset", "when": "during"},
        {"kind": "close", "when": "during"},
        {"kind": "reset", "when": "before"},
        {"kind": "server_error", "when": "after"},
        {"kind": "status", "status": 502, "when": "after"},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 520},
        {"kind": "rate_limit", "retry_after": 0.1},
        {"kind": "rate_limit", "retry_after": 0.1, "headers": False},
        {"kind": "rate_limit", "retry_after": 0.1, "scope": "shared", "remaining": 3},
        {"kind": "rate_limit", "retry_after": 0.1, "scope": "global"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
async def test_exactly_one_message(stacked: World, emulator: Emulator, fault: dict[str, object]) -> None:
    """Whatever happens to a send and its answer, one message is stored, and it is the one that is returned."""
    emulator.fault(route="create_message", **fault)
    message = await send(stacked, b"x" * 3_000_000, b"y")
    assert [message] == await stacked.transport.list_messages(stacked.channel)
    assert b"xx" == await stacked.transport.fetch(location(message), 2_999_998, 2)
    assert [1] == [f["fired"] for f in emulator.faults()]


@pytest.mark.parametrize("kind", ["reset", "close"])
async def test_lost_answer_may_have_been_done(bare: World, emulator: Emulator, kind: str) -> None:
    """A lost answer is a transient error that says that the message may exist, and it comes at once."""
    emulator.fault(kind=kind, route="create_message", when="after")
    began = time.monotonic()
    with pytest.raises(TransientStorageError) as caught:
        await send(bare, b"x")
    assert caught.value.maybe_done
    assert time.monotonic() - began < AN_ANSWER_SECONDS
    assert 1 == len(await bare.transport.list_messages(bare.channel))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 524])
async def test_failing_server_answers_at_once(bare: World, emulator: Emulator, status: int) -> None:
    """A 5xx is raised without discord.py's own sleeps of up to 25 s, as a transient error of unknown effect."""
    emulator.fault(kind="status", status=status, route="create_message", count=None)
    began = time.monotonic()
    with pytest.raises(TransientStorageError, match=str(status)) as caught:
        await send(bare, b"x")
    assert caught.value.maybe_done
    assert time.monotonic() - began < AN_ANSWER_SECONDS
    assert 1 == emulator.counts()["create_message"]


async def test_silent_server_times_out(bare: World, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that keeps its answer to itself is given up on, as a transient error."""
    monkeypatch.setattr(rest, "SILENCE_SECONDS", 0.2)
    async with make_bridge(emulator) as bridge:
        emulator.fault(kind="stall", route="create_message", when="after", seconds=30)
        with pytest.raises(TransientStorageError) as caught:
            await unlimited(bridge).send(bare.channel, [Upload("a.bin", (b"x",))], nonce=new_nonce())
    assert caught.value.maybe_done


@pytest.mark.parametrize("scope", ["user", "shared", "global"])
async def test_429_is_waited_for_and_counted(stacked: World, emulator: Emulator, scope: str) -> None:
    """A 429 is waited for as long as it asks, and shows in the statistics by its scope."""
    emulator.fault(kind="rate_limit", route="list_messages", retry_after=0.1, count=2, scope=scope)
    assert [] == await stacked.transport.list_messages(stacked.channel)
    statistics = stacked.transport.statistics()
    assert (2, 2) == (statistics.rate_limited, getattr(statistics, f"rate_limited_{scope}"))


async def test_429_is_raised_with_what_it_asks_for(bare: World, emulator: Emulator) -> None:
    """A 429 comes at once as an error that says how long to wait: the pacer has to know, and nothing is held."""
    emulator.fault(kind="rate_limit", route="create_message", retry_after=300)
    began = time.monotonic()
    with pytest.raises(TransientStorageError) as caught:
        await send(bare, b"x")
    assert (300, False) == (caught.value.retry_after_seconds, caught.value.maybe_done)
    assert time.monotonic() - began < AN_ANSWER_SECONDS


async def test_429_of_a_guild_request_is_waited_for(bare: World, emulator: Emulator) -> None:
    """Requests about guilds, which no pacer sees, are repeated after a 429 by themselves."""
    emulator.fault(kind="rate_limit", route="get_guild", retry_after=0.1)
    assert bare.guild == (await bare.admin.guild(bare.guild)).guild
    assert 1 == bare.transport.statistics().rate_limited


async def test_cloudflare_block(bare: World, emulator: Emulator) -> None:
    """Cloudflare's own 429, a page without Via, is raised at once with its Retry-After."""
    emulator.fault(kind="cloudflare", route="list_messages", retry_after=77)
    with pytest.raises(TransientStorageError) as caught:
        await bare.transport.list_messages(bare.channel)
    assert (77, 1) == (caught.value.retry_after_seconds, bare.transport.statistics().rate_limited)


async def test_used_up_bucket_does_not_delay_the_answer(bare: World, emulator: Emulator) -> None:
    """The send that uses a bucket up returns when Discord acknowledged it, not when the bucket is full again."""
    emulator.settings(rate_limits=True)
    began = time.monotonic()
    for _ in range(5):
        await send(bare, b"x")
    assert time.monotonic() - began < AN_ANSWER_SECONDS


async def test_closing_does_not_wait_for_buckets(emulator: Emulator) -> None:
    """A connection closes at once although discord.py waits for a used up bucket behind the scenes."""
    emulator.settings(rate_limits=True)
    async with bare_world(emulator) as world:
        for _ in range(5):
            await send(world, b"x")
        began = time.monotonic()
    assert time.monotonic() - began < AN_ANSWER_SECONDS


class Buffer(bytearray):
    """A buffer whose end can be observed."""


@pytest.mark.parametrize("fault", [None, "reset", "too_large"])
async def test_buffers_are_let_go(bare: World, emulator: Emulator, fault: str | None) -> None:
    """When send is over nothing holds its buffers, without a garbage collection, whether it worked or not."""
    gc.collect()
    gc.disable()
    try:
        if fault:
            emulator.fault(kind=fault, route="create_message")
        buffer = Buffer(1_000_000)
        gone = weakref.ref(buffer)
        try:
            await bare.transport.send(bare.channel, [Upload("a.bin", (buffer,))], nonce=new_nonce())
        except (TransientStorageError, PermanentStorageError) as error:
            error.__traceback__ = None
        buffer.extend(b"resizable again")  # a BufferError while anybody holds a view
        del buffer
        await bare.transport.list_messages(bare.channel)  # the other thread has been round its loop by then
        assert gone() is None
    finally:
        gc.enable()


async def test_cancelled_send_lets_go_of_its_buffers(bare: World, emulator: Emulator) -> None:
    """When a cancelled send returns, its buffers are the caller's again."""
    emulator.fault(kind="stall", route="create_message", seconds=30)
    buffer = Buffer(8_000_000)
    with trio.move_on_after(0.2) as scope:
        await bare.transport.send(bare.channel, [Upload("a.bin", (buffer,))], nonce=new_nonce())
    assert scope.cancelled_caught
    buffer.extend(b"resizable again")


@pytest.mark.parametrize("kind", ["truncate", "wrong_range", "reset", "close"])
async def test_torn_download_is_transient(bare: World, emulator: Emulator, kind: str) -> None:
    """A download that breaks off, or brings another range, is an error to be tried again and never data."""
    message = await send(bare, bytes(range(250)) * 4000)
    emulator.fault(kind=kind, route="cdn_get", when="during", bytes=1000)
    with pytest.raises(TransientStorageError):
        await bare.transport.fetch(location(message), 1000, 500_000)


@pytest.mark.parametrize("status", [403, 429, 500, 503])
async def test_failing_cdn_is_transient(bare: World, emulator: Emulator, status: int) -> None:
    """What the CDN answers instead of bytes is never data."""
    message = await send(bare, b"0123456789")
    emulator.fault(kind="status", status=status, route="cdn_get")
    with pytest.raises(TransientStorageError):
        await bare.transport.fetch(location(message), 0, 10)


async def test_regression_json_is_no_page(bare: World) -> None:
    """An attachment that Discord serves as JSON, as it does the superblock, is data like any other."""
    message = await bare.transport.send(bare.channel, [Upload("superblock.json", (b"{}",))], nonce=new_nonce())
    assert b"{}" == await bare.transport.fetch(location(message), 0, 2)


async def test_page_instead_of_an_attachment(stacked: World, emulator: Emulator) -> None:
    """An HTML page with status 200 is never data, however long it is; the next try brings the bytes."""
    message = await send(stacked, b"0123456789" * 1000)
    emulator.fault(kind="html", route="cdn_get", count=2)
    assert b"789" == await stacked.transport.fetch(location(message), 7, 3)
    assert 2 == stacked.transport.statistics().retries


async def test_torn_download_is_repeated(stacked: World, emulator: Emulator) -> None:
    """The stack tries a torn download again and returns the bytes."""
    message = await send(stacked, b"0123456789" * 100_000)
    emulator.fault(kind="truncate", route="cdn_get", bytes=100, count=2)
    assert b"9012345678" * 100 == await stacked.transport.fetch(location(message), 9, 1000)
    assert 2 == stacked.transport.statistics().retries


async def test_whole_answer_to_a_range_is_cut(bare: World, emulator: Emulator) -> None:
    """A CDN that ignores Range is understood: the bytes asked for are cut out."""
    content = bytes(range(256)) * 4000
    message = await send(bare, content)
    emulator.settings(ignore_range=True)
    for start, length in ((0, 10), (700_001, 100_000), (len(content) - 1, 1), (0, len(content))):
        assert content[start : start + length] == await bare.transport.fetch(location(message), start, length)


async def test_expired_urls_are_refreshed_together(bare: World, emulator: Emulator) -> None:
    """URLs that have ended bring one listing for all neighbours, and the bytes."""
    sent = [await send(bare, bytes([n]) * 10) for n in range(5)]
    emulator.shift_clock(3 * 86_400)
    emulator.reset_counters()
    got = {}

    async def one(n: int) -> None:
        got[n] = await bare.transport.fetch(location(sent[n]), 0, 10)

    async with trio.open_nursery() as nursery:
        for n in range(5):
            nursery.start_soon(one, n)
    assert {n: bytes([n]) * 10 for n in range(5)} == got
    assert 1 == emulator.counts()["list_messages"]


async def test_unknown_urls_are_found_by_listing(emulator: Emulator, bare: World) -> None:
    """A connection that has never seen a message finds its attachment by location."""
    message = await send(bare, b"0123456789")
    async with make_bridge(emulator) as bridge:
        assert b"345" == await unlimited(bridge).fetch(location(message), 3, 3)


async def test_vanished_attachment_is_not_found(bare: World, emulator: Emulator) -> None:
    """When message and URL are both gone, one refresh is tried, and then it is NotFoundError."""
    message = await send(bare, b"x")
    await bare.transport.delete(bare.channel, [message.message])
    emulator.settings(delete_grace_seconds=0)
    with pytest.raises(NotFoundError):
        await bare.transport.fetch(location(message), 0, 1)


async def test_late_listing_is_not_the_end(bare: World, emulator: Emulator) -> None:
    """A listing that does not show the message yet is checked by asking for the message itself."""
    message = await send(bare, b"x")
    emulator.fault(kind="stale", route="list_messages", seconds=3600)
    async with make_bridge(emulator) as bridge:
        assert b"x" == await unlimited(bridge).fetch(location(message), 0, 1)


async def test_nonce_of_a_deleted_message(bare: World, stacked: World) -> None:
    """Discord refuses the nonce of a deleted message for ever; the stack takes a new one."""
    first = await send(bare, b"x", nonce="deleted-and-again")
    await bare.transport.delete(bare.channel, [first.message])
    with pytest.raises(NotFoundError):
        await send(bare, b"x", nonce="deleted-and-again")
    uploads = [Upload("pack-0.bin", (b"x",))]
    second = await stacked.transport.send(bare.channel, uploads, nonce="deleted-and-again")
    assert [second] == await bare.transport.list_messages(bare.channel)


async def test_bulk_delete_without_permission(bare: World, emulator: Emulator) -> None:
    """Without Manage Messages several messages are deleted one by one, and bulk is not tried again."""
    ids = [(await send(bare, b"x")).message for _ in range(5)]
    emulator.fault(kind="missing_permissions", route="bulk_delete", count=None)
    await bare.transport.delete(bare.channel, ids[:2])
    await bare.transport.delete(bare.channel, ids[2:])
    assert [] == await bare.transport.list_messages(bare.channel)
    assert (1, 5) == (emulator.counts()["bulk_delete"], emulator.counts()["delete_message"])


async def test_old_messages_are_deleted_one_by_one(bare: World, emulator: Emulator) -> None:
    """Messages too old for a bulk delete are deleted all the same."""
    ids = [(await send(bare, b"x")).message for _ in range(3)]
    emulator.shift_clock(20 * 86_400)
    await bare.transport.delete(bare.channel, ids)
    assert [] == await bare.transport.list_messages(bare.channel)


async def test_lost_answer_of_a_delete(stacked: World, emulator: Emulator) -> None:
    """A delete whose answer was lost succeeds when it is repeated."""
    message = await send(stacked, b"x")
    emulator.fault(kind="reset", route="delete_message", when="after", count=1)
    await stacked.transport.delete(stacked.channel, [message.message])
    assert [] == await stacked.transport.list_messages(stacked.channel)


@pytest.mark.parametrize(
    ("route", "kind", "permission"),
    [
        ("create_message", "missing_permissions", "Send Messages, Attach Files"),
        ("create_message", "missing_access", "View Channel"),
        ("list_messages", "missing_permissions", "View Channel, Read Message History"),
        ("create_channel", "missing_permissions", "Manage Channels"),
    ],
)
async def test_missing_permission_is_named(
    bare: World, emulator: Emulator, route: str, kind: str, permission: str
) -> None:
    """A 403 names the permission that the refused request needs."""
    emulator.fault(kind=kind, route=route)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "create_message": lambda: send(bare, b"x"),
        "list_messages": lambda: bare.transport.list_messages(bare.channel),
        "create_channel": lambda: bare.admin.create_category(bare.guild, "x"),
    }
    with pytest.raises(PermissionMissingError) as caught:
        await calls[route]()
    assert permission == caught.value.permission
    assert permission in str(caught.value)


async def test_wrong_token(emulator: Emulator) -> None:
    """A wrong token is TokenRejectedError from the first call on, and stands in no message and no repr."""
    async with make_bridge(emulator, token="wrong-secret") as bridge:
        for _ in range(2):
            with pytest.raises(TokenRejectedError) as caught:
                await DiscordAdmin(bridge).account()
            assert "wrong-secret" not in repr(caught.value) + repr(bridge) + repr(bridge._service)


async def test_revoked_token(bare: World, emulator: Emulator) -> None:
    """A token that is revoked while we run is TokenRejectedError too."""
    emulator.settings(token_revoked=True)
    with pytest.raises(TokenRejectedError):
        await send(bare, b"x")


async def test_unreachable_discord(emulator: Emulator) -> None:
    """With nobody listening the connection opens all the same; calls fail as transient and not done."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with make_bridge(emulator, api_url=url) as bridge:
            for _ in range(2):
                with pytest.raises(TransientStorageError) as caught:
                    await DiscordAdmin(bridge).guild(GuildId(1))
                assert not caught.value.maybe_done


async def test_login_is_repeated_and_shared(emulator: Emulator) -> None:
    """A login that failed is tried again by the next call, and those who come together share one."""
    emulator.fault(kind="status", status=503, route="get_me")
    async with make_bridge(emulator) as bridge:
        admin = DiscordAdmin(bridge)
        with pytest.raises(TransientStorageError):
            await admin.guild(GuildId(emulator.guild_id))
        emulator.reset_counters()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(admin.guild, GuildId(emulator.guild_id))
        assert 1 == emulator.counts()["get_me"]


async def test_address_that_is_no_url(emulator: Emulator) -> None:
    """A nonsensical address is a permanent error, not a crash."""
    async with make_bridge(emulator, api_url="nonsense") as bridge:
        with pytest.raises(PermanentStorageError):
            await DiscordAdmin(bridge).account()


async def test_logs_hold_no_secret(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """With everything logged at DEBUG, neither the token nor a signed URL is written."""
    caplog.set_level(logging.DEBUG)
    async with bare_world(emulator) as world:
        message = await send(world, b"x")
        emulator.shift_clock(3 * 86_400)
        await world.transport.fetch(location(message), 0, 1)
        emulator.fault(kind="reset", route="cdn_get", count=None)
        with pytest.raises(TransientStorageError) as caught:
            await world.transport.fetch(location(message), 0, 1)
    written = caplog.text + repr(caught.value) + str(caught.value.__cause__)
    assert emulator.token not in written
    assert "hm=" not in written


async def test_far_too_large_is_still_told_apart(bare: World, emulator: Emulator) -> None:
    """An upload far above the limit raises TooLargeError also when Discord answers before it has read it all."""
    emulator.settings(attachment_limit_bytes=1_000_000)
    with pytest.raises(TooLargeError):
        await send(bare, bytes(24_000_000))


async def test_send_is_not_repeated_for_who_looks_first(emulator: Emulator) -> None:
    """Journals: another machine may have gone on meanwhile, so the caller looks before each repeat."""
    async with open_connection(emulator.token, emulator.api_url, limits=FAST) as connection:
        world = await world_of(emulator, connection.sending_once, connection.admin)
        emulator.fault(kind="status", status=503, route="create_message")
        with pytest.raises(TransientStorageError):
            await send(world, b"x")
        assert 1 == emulator.counts()["create_message"]
        await send(world, b"x")
