"""The whole connection on the emulator with its limits on: no 429, bandwidth as set, and what a cancel gives back."""

from __future__ import annotations

import functools
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from transport.contract import location, new_nonce, send
from transport.worlds import world_of

from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.buckets import Pace
from disfs.chunkstore.transport.limits import Limits
from disfs.chunkstore.transport.stack import open_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.emulator import Emulator
    from transport.contract import World

    from disfs.chunkstore.transport.stack import Connection

CHANNELS = 3


@asynccontextmanager
async def connected(emulator: Emulator, limits: Limits | None = None) -> AsyncIterator[tuple[Connection, World]]:
    """A connection as a mount makes it."""
    async with open_connection(emulator.token, emulator.api_url, limits=limits or Limits()) as connection:
        yield connection, await world_of(emulator, connection.transport, connection.admin)


@pytest.mark.parametrize("mode", ["fixed", "sliding"])
@pytest.mark.parametrize(("limit", "seconds"), [(8, 0.5), (3, 0.2)])
async def test_burst_meets_no_429(emulator: Emulator, mode: str, limit: int, seconds: float) -> None:
    """Sixty sends at once on three channels are never refused, whatever the limit, and nearly as fast as it allows."""
    async with connected(emulator) as (_, world):
        category = await world.admin.create_category(world.guild, "burst")
        channels = [
            (await world.admin.create_channel(world.guild, f"data-{n}", parent=category.channel, topic="")).channel
            for n in range(CHANNELS)
        ]
        emulator.settings(
            rate_limits=True,
            rate_limit_mode=mode,
            limits={"create_message": {"limit": limit, "seconds": seconds}},
            latency_seconds=0.005,
            latency_jitter_seconds=0.02,
        )
        emulator.reset_counters()
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            for n in range(60):
                uploads = [Upload("a.bin", (b"x",))]
                nursery.start_soon(
                    functools.partial(world.transport.send, channels[n % CHANNELS], uploads, nonce=new_nonce())
                )
        took = time.monotonic() - began
        statistics = world.transport.statistics()
    assert 0 == statistics.rate_limited
    assert 60 == emulator.counts()["create_message"]
    assert {limit} == {view.limit for view in statistics.buckets}
    assert took < 4 * (60 / CHANNELS / limit) * seconds + 3  # a machine that does other things as well


async def test_lying_listings_meet_no_429(emulator: Emulator) -> None:
    """Listings keep below the limit that their headers do not tell."""
    async with connected(emulator, Limits(lists=Pace(3, 0.5))) as (_, world):
        listings = {"limit": 3, "seconds": 0.5, "advertised": 1000}
        emulator.settings(rate_limits=True, limits={"list_messages": listings})
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(world.transport.list_messages, world.channel)
        assert 0 == world.transport.statistics().rate_limited


async def test_lowered_limit_is_learnt(emulator: Emulator) -> None:
    """A limit that is lowered while sends are under way costs a 429 at most, and all sends succeed."""
    async with connected(emulator) as (_, world):
        emulator.settings(rate_limits=True, limits={"create_message": {"limit": 10, "seconds": 0.3}})
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(send, world, b"x")
                if n == 8:
                    await send(world, b"x")
                    emulator.settings(limits={"create_message": {"limit": 3, "seconds": 0.3}})
        assert 21 == len(await world.transport.list_messages(world.channel))
        assert world.transport.statistics().rate_limited <= 2


async def test_single_deletes_meet_no_429(emulator: Emulator) -> None:
    """Deleting one by one, where bulk is refused, keeps to the limits too."""
    async with connected(emulator) as (_, world):
        ids = [(await send(world, b"x")).message for _ in range(12)]
        emulator.fault(kind="missing_permissions", route="bulk_delete", count=None)
        emulator.settings(rate_limits=True)
        await world.transport.delete(world.channel, ids)
        assert [] == await world.transport.list_messages(world.channel)
        assert 0 == world.transport.statistics().rate_limited


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_bandwidth_is_limited(emulator: Emulator, direction: str) -> None:
    """All transfers of one direction together are as fast as allowed, and the limit can be changed while they run."""
    async with connected(emulator) as (connection, world):
        sent = [await send(world, bytes(400_000)) for _ in range(3)]
        rate = 2_000_000.0
        connection.limit_bandwidth(*((rate, None) if direction == "up" else (None, rate)))
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            for message in sent:
                if direction == "up":
                    nursery.start_soon(send, world, bytes(400_000))
                else:
                    nursery.start_soon(world.transport.fetch, location(message), 0, 400_000)
        took = time.monotonic() - began
        assert 0.5 < took < 3
        statistics = world.transport.statistics()
        limits = (statistics.up_limit_bytes_per_second, statistics.down_limit_bytes_per_second)
        assert ((rate, None) if direction == "up" else (None, rate)) == limits


async def test_lifted_bandwidth_limit_holds_at_once(emulator: Emulator) -> None:
    """A transfer that would take minutes ends when its limit is lifted, and is not cut off while it is slow."""
    async with connected(emulator) as (connection, world):
        message = await send(world, bytes(2_000_000))
        connection.limit_bandwidth(10_000.0, 10_000.0)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, world, bytes(2_000_000))
                nursery.start_soon(world.transport.fetch, location(message), 0, 2_000_000)
                await trio.sleep(0.3)
                connection.limit_bandwidth(None, None)
        assert 0 == world.transport.statistics().retries


async def test_cancelled_fetches_make_room_at_once(emulator: Emulator) -> None:
    """After a seek nobody waits for what was being fetched before: slots and connections are free immediately."""
    limits = Limits(fetches_in_flight=4, fetches_for_readers=0)
    async with connected(emulator, limits) as (_, world):
        message = await send(world, bytes(4_000_000))
        stalled = emulator.fault(kind="stall", route="cdn_get", when="before", seconds=30, count=None)
        for _ in range(12):
            with trio.move_on_after(0.05):
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(world.transport.fetch, location(message), 0, 4_000_000)
        emulator.control("DELETE", f"/faults/{stalled}")
        with trio.fail_after(5):
            assert bytes(10) == await world.transport.fetch(location(message), 0, 10)


async def test_ignored_ranges_are_shared(emulator: Emulator) -> None:
    """While the CDN ignores Range, small reads of one attachment cost one download, not one each; 206 ends that."""
    content = bytes(range(250)) * 8000
    async with connected(emulator) as (_, world):
        message = await send(world, content)
        emulator.settings(ignore_range=True)
        emulator.reset_counters()
        got = {}

        async def one(start: int) -> None:
            got[start] = await world.transport.fetch(location(message), start, 4096)

        await one(999_999)
        async with trio.open_nursery() as nursery:
            for start in range(0, 1_900_000, 100_000):
                nursery.start_soon(one, start)
        assert {start: content[start : start + 4096] for start in got} == got
        assert (1, 1) == (emulator.counts()["cdn_get"], world.transport.statistics().whole_downloads)
        emulator.settings(ignore_range=False)
        other = await send(world, content)
        await world.transport.fetch(location(other), 5, 5)
        await world.transport.fetch(location(message), 5, 5)
        assert (3, 1) == (emulator.counts()["cdn_get"], world.transport.statistics().whole_downloads)
