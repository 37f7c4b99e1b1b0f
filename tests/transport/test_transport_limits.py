"""The limits wrapper: never faster than allowed, in order, at no cost for those who are cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.faults import Fault, FaultyTransport
from disfs.chunkstore.transport.limits import LimitedTransport, Limits, Pace, Pacer
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.errors import TooLargeError
from disfs.values import Location

if TYPE_CHECKING:
    from disfs.values import ChannelId

OPEN = Pace(1000, 1.0)


async def starts(pacer: Pacer, count: int) -> list[float]:
    """When `count` callers that come together are let through."""
    began: list[float] = []

    async def one() -> None:
        await pacer.wait()
        began.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return began


async def test_pace_is_kept_in_every_window(autojump_clock: trio.testing.MockClock) -> None:
    """Any window of five seconds sees at most five starts."""
    assert [0] * 5 + [5] * 5 + [10] * 2 == await starts(Pacer(Pace(5, 5.0)), 12)


async def test_window_slides(autojump_clock: trio.testing.MockClock) -> None:
    """A start becomes free again when it is as old as the window, no earlier."""
    pacer = Pacer(Pace(2, 5.0))
    await pacer.wait()
    await trio.sleep(3)
    await pacer.wait()
    await pacer.wait()
    assert 5 == trio.current_time()
    await pacer.wait()
    assert 8 == trio.current_time()


async def test_first_come_first_served(autojump_clock: trio.testing.MockClock) -> None:
    """Callers are let through in the order in which they came."""
    pacer = Pacer(Pace(1, 1.0))
    order: list[int] = []

    async def one(n: int) -> None:
        await pacer.wait()
        order.append(n)

    async with trio.open_nursery() as nursery:
        for n in range(10):
            nursery.start_soon(one, n)
            await trio.testing.wait_all_tasks_blocked()
    assert list(range(10)) == order


async def test_cancelled_caller_uses_nothing_up(autojump_clock: trio.testing.MockClock) -> None:
    """Somebody who is cancelled in the queue does not delay those behind."""
    pacer = Pacer(Pace(1, 10.0))
    await pacer.wait()
    with trio.move_on_after(5):
        await pacer.wait()
    await pacer.wait()
    assert 10 == trio.current_time()


class Setting:
    """A fake Discord behind limits."""

    def __init__(self, limits: Limits) -> None:
        self.memory = MemoryTransport()
        self.faulty = FaultyTransport(self.memory)
        self.limited = LimitedTransport(self.faulty, limits)

    async def send(self, channel: ChannelId, nonce: str) -> Location:
        stored = await self.limited.send(channel, [Upload("a.bin", (b"x",))], nonce=nonce)
        return Location(channel, stored.message, stored.attachments[0].attachment)


async def test_channels_do_not_wait_for_each_other(autojump_clock: trio.testing.MockClock) -> None:
    """Each channel has its own pace for sends."""
    setting = Setting(Limits(OPEN, sends=Pace(1, 10.0)))
    for n in range(4):
        await setting.send(setting.memory.add_channel(), f"n{n}")
    assert 0 == trio.current_time()


async def test_all_channels_share_the_global_limit(autojump_clock: trio.testing.MockClock) -> None:
    """All API requests together keep to the bot's own limit, whatever their kind."""
    setting = Setting(Limits(requests=Pace(2, 1.0)))
    channels = [setting.memory.add_channel() for _ in range(3)]
    for n, channel in enumerate(channels):
        await setting.send(channel, f"n{n}")
        await setting.limited.list_messages(channel)
    await setting.limited.delete(channels[0], [setting.memory.messages(channels[0])[0].message])
    assert 3 == trio.current_time()


async def test_fetches_do_not_count_as_requests(autojump_clock: trio.testing.MockClock) -> None:
    """Downloads are the CDN's, and are only bounded in number at a time."""
    setting = Setting(Limits(requests=Pace(1, 1000.0)))
    there = await setting.send(setting.memory.add_channel(), "n")
    for _ in range(10):
        await setting.limited.fetch(there, 0, 1)
    assert 0 == trio.current_time()


@pytest.mark.parametrize("method", ["send", "fetch"])
async def test_in_flight_is_bounded(autojump_clock: trio.testing.MockClock, method: str) -> None:
    """No more calls are under way at once than allowed; the next one starts when one ends."""
    setting = Setting(Limits(OPEN, OPEN, OPEN, OPEN, sends_in_flight=2, fetches_in_flight=2))
    channel = setting.memory.add_channel()
    there = await setting.send(channel, "first")
    go = trio.Event()
    before = setting.faulty.calls[method]
    async with trio.open_nursery() as nursery:
        for n in range(5):
            if method == "send":
                setting.faulty.plan("send", n + 1, Fault(hold=go))
                nursery.start_soon(setting.send, channel, f"n{n}")
            else:
                setting.faulty.plan("fetch", n + 1, Fault(hold=go))
                nursery.start_soon(setting.limited.fetch, there, 0, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert 2 == setting.faulty.calls[method] - before
        go.set()
    assert 5 == setting.faulty.calls[method] - before


async def test_failed_and_cancelled_calls_give_their_place_back(autojump_clock: trio.testing.MockClock) -> None:
    """A call that fails or is cancelled frees its place."""
    setting = Setting(Limits(OPEN, OPEN, OPEN, OPEN, sends_in_flight=1))
    channel = setting.memory.add_channel()
    setting.faulty.plan("send", 1, Fault(before=TooLargeError("x")))
    setting.faulty.plan("send", 2, Fault(hold=trio.Event()))
    with pytest.raises(TooLargeError):
        await setting.send(channel, "a")
    with trio.move_on_after(1) as scope:
        await setting.send(channel, "b")
    assert scope.cancelled_caught
    await setting.send(channel, "c")
    assert 1 == len(setting.memory.messages(channel))
