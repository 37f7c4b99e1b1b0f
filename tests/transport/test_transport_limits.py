"""The limits wrapper: never faster than Discord says, the most urgent first, at no cost for those who are cancelled."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import pytest
import trio

from disfs.chunkstore.transport.base import Upload, Urgency
from disfs.chunkstore.transport.buckets import Pace
from disfs.chunkstore.transport.faults import Fault, FaultyTransport
from disfs.chunkstore.transport.limits import LimitedTransport, Limits
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.chunkstore.transport.pacer import HANDICAP_SECONDS, LONGEST_WAIT_SECONDS, Pacer, Slots
from disfs.chunkstore.transport.routes import ApiRoute, Observation, Scope
from disfs.errors import TooLargeError, TransientStorageError
from disfs.values import ChannelId, Location

if TYPE_CHECKING:
    from disfs.chunkstore.transport.base import StoredMessage

OPEN = Pace(1000, 1.0)
HERE, THERE = ChannelId(1), ChannelId(2)


def seen(
    limit: int,
    remaining: int,
    reset_after: float,
    *,
    route: ApiRoute = ApiRoute.SEND,
    channel: ChannelId = HERE,
    bucket: str = "b",
) -> Observation:
    """What an answer said."""
    return Observation(route, channel, 0.0, bucket, limit, remaining, reset_after)


def refusal(scope: Scope, retry_after: float, *, route: ApiRoute = ApiRoute.SEND) -> Observation:
    """What a 429 said."""
    return Observation(route, HERE, 0.0, refused=scope, retry_after_seconds=retry_after, says_nothing=True)


class Paced:
    """A pacer and requests that go through it."""

    def __init__(self, everything: Pace = OPEN, lists: Pace = OPEN, sends_in_flight: int = 5) -> None:
        self.pacer = Pacer(everything, lists, sends_in_flight)
        self.starts: list[tuple[float, object]] = []

    async def request(
        self,
        name: object = None,
        urgency: Urgency = Urgency.WRITEBACK,
        *,
        channel: ChannelId = HERE,
        route: ApiRoute = ApiRoute.SEND,
        takes: float = 0.0,
        says: Observation | None = None,
    ) -> None:
        """One request that takes some time, and whose answer says something."""
        async with self.pacer.turn(route, channel, urgency):
            self.starts.append((trio.current_time(), name))
            await trio.sleep(takes)
            if says is not None:
                self.pacer.observe(says)

    def begin(self, nursery: trio.Nursery, *arguments: Any, **options: Any) -> None:
        """A request in the background."""
        nursery.start_soon(functools.partial(self.request, *arguments, **options))

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.starts]

    @property
    def order(self) -> list[object]:
        return [name for _, name in self.starts]


async def test_first_request_of_a_bucket_is_alone(autojump_clock: trio.testing.MockClock) -> None:
    """Until an answer has named the limit, one request at a time is under way in each channel."""
    paced = Paced()
    async with trio.open_nursery() as nursery:
        for channel in (HERE, HERE, HERE, THERE):
            paced.begin(nursery, channel=channel, takes=1)
        await trio.testing.wait_all_tasks_blocked()
        assert 2 == len(paced.starts)
        nursery.cancel_scope.cancel()


async def test_announced_limit_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    """As many start as the answer leaves, the next ones when the window is over."""
    paced = Paced()
    await paced.request(says=seen(3, 2, 10.0))
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(paced.request)
    assert [0, 0, 0, 10, 10, 10, 20] == paced.times


async def test_more_generous_header_is_used(autojump_clock: trio.testing.MockClock) -> None:
    """A limit that has grown lets more through at once."""
    paced = Paced()
    await paced.request(says=seen(1, 0, 10.0))
    await paced.request(says=seen(5, 4, 10.0))
    for _ in range(4):
        await paced.request()
    assert [0, 10, 10, 10, 10, 10] == paced.times


async def test_stricter_header_is_obeyed(autojump_clock: trio.testing.MockClock) -> None:
    """When others have used the bucket up as well, what the answer leaves counts."""
    paced = Paced()
    await paced.request(says=seen(5, 4, 10.0))
    await paced.request(says=seen(5, 0, 10.0))
    await paced.request()
    assert [0, 0, 10] == paced.times


async def test_no_limit_announced(autojump_clock: trio.testing.MockClock) -> None:
    """A bucket whose answers name no limit holds nothing back."""
    paced = Paced()
    await paced.request(says=Observation(ApiRoute.SEND, HERE, 0.0))
    for _ in range(20):
        await paced.request()
    assert 0 == trio.current_time()


async def test_routes_of_one_bucket_share_it(autojump_clock: trio.testing.MockClock) -> None:
    """Two routes that Discord counts in the same bucket wait for each other."""
    paced = Paced()
    await paced.request(route=ApiRoute.GET, says=seen(2, 1, 10.0, route=ApiRoute.GET))
    await paced.request(route=ApiRoute.DELETE, says=seen(2, 0, 10.0, route=ApiRoute.DELETE))
    await paced.request(route=ApiRoute.GET)
    assert [0, 0, 10] == paced.times


async def test_lying_listings_have_a_ceiling(autojump_clock: trio.testing.MockClock) -> None:
    """However many listings the headers promise, no more start than we allow ourselves."""
    paced = Paced(lists=Pace(5, 5.0))
    async with trio.open_nursery() as nursery:
        for _ in range(12):
            paced.begin(nursery, route=ApiRoute.LIST, says=seen(1000, 999, 5.0, route=ApiRoute.LIST))
    assert [0] * 5 + [5] * 5 + [10] * 2 == paced.times


async def test_refusal_lowers_the_ceiling_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    """After a 429 in spite of the ceiling, listings come slower; later they are as fast as before."""
    paced = Paced(lists=Pace(1, 4.0))
    listing = ApiRoute.LIST
    await paced.request(route=listing, says=refusal(Scope.USER, 2.0, route=listing))
    await paced.request(route=listing, says=seen(1000, 999, 4.0, route=listing))
    await paced.request(route=listing)
    assert [0, 5, 10] == pytest.approx(paced.times, abs=0.2)
    for _ in range(100):
        await paced.request(route=listing, says=seen(1000, 999, 4.0, route=listing))
    assert 4.0 == pytest.approx(paced.times[-1] - paced.times[-2], abs=0.01)


@pytest.mark.parametrize(("scope", "elsewhere"), [(Scope.USER, 0), (Scope.SHARED, 0), (Scope.GLOBAL, 7)])
async def test_refusal_holds_back_what_it_is_about(
    autojump_clock: trio.testing.MockClock, scope: Scope, elsewhere: float
) -> None:
    """After a 429 nothing starts in that channel before the time it names, and elsewhere only if it was global."""
    paced = Paced()
    await paced.request(says=refusal(scope, 7.0))
    await paced.request("elsewhere", channel=THERE)
    await paced.request("here")
    assert [(0, None), (elsewhere, "elsewhere"), (7, "here")] == paced.starts
    assert 1 == paced.pacer.refusals[scope]


async def test_long_refusal_is_an_error(autojump_clock: trio.testing.MockClock) -> None:
    """Who would have to wait for longer than anybody should is told when to come again, those who wait already too."""
    paced = Paced()
    errors: list[TransientStorageError] = []

    async def refused() -> None:
        with pytest.raises(TransientStorageError) as caught:
            await paced.request()
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        paced.begin(nursery, takes=1, says=refusal(Scope.USER, LONGEST_WAIT_SECONDS * 2))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(refused)
    await refused()
    assert [LONGEST_WAIT_SECONDS * 2] * 2 == [error.retry_after_seconds for error in errors]
    assert (1, 1) == (len(paced.starts), trio.current_time())


async def test_everything_shares_the_global_limit(autojump_clock: trio.testing.MockClock) -> None:
    """No more than the global limit start within its time, whatever their channel and route."""
    paced = Paced(everything=Pace(3, 1.0))
    async with trio.open_nursery() as nursery:
        for n, route in enumerate((ApiRoute.GET, ApiRoute.DELETE, ApiRoute.BULK_DELETE, ApiRoute.SEND, ApiRoute.LIST)):
            paced.begin(nursery, channel=ChannelId(n), route=route)
    assert [0, 0, 0, 1, 1] == paced.times


async def test_most_urgent_first(autojump_clock: trio.testing.MockClock) -> None:
    """Those who wait go in the order of their urgency, and of their coming among equals."""
    paced = Paced(everything=Pace(1, 0.1))
    channels = map(ChannelId, itertools.count(1))
    async with trio.open_nursery() as nursery:
        await paced.request("first", channel=next(channels))
        for name, urgency in (
            ("c", Urgency.SWEEP),
            ("b1", Urgency.WRITEBACK),
            ("b2", Urgency.WRITEBACK),
            ("a", Urgency.READER),
        ):
            paced.begin(nursery, name, urgency, channel=next(channels))
            await trio.testing.wait_all_tasks_blocked()
    assert ["first", "a", "b1", "b2", "c"] == paced.order


async def test_nobody_starves(autojump_clock: trio.testing.MockClock) -> None:
    """Under readers that never cease, a sweep starts when it has waited for its handicap."""
    paced = Paced(everything=Pace(1, 0.1))
    async with trio.open_nursery() as nursery:
        paced.begin(nursery, "sweep", Urgency.SWEEP, channel=ChannelId(10**6))
        for n in range(100):
            paced.begin(nursery, n, Urgency.READER, channel=ChannelId(n))
            await trio.sleep(0.1)
    began = next(at for at, name in paced.starts if name == "sweep")
    assert began <= Urgency.SWEEP * HANDICAP_SECONDS + 0.2


async def test_one_channel_does_not_block_another(autojump_clock: trio.testing.MockClock) -> None:
    """Who waits for a full bucket lets those behind it pass whose bucket has room."""
    paced = Paced()
    await paced.request(says=seen(1, 0, 10.0))
    async with trio.open_nursery() as nursery:
        paced.begin(nursery, "full", Urgency.READER)
        await trio.testing.wait_all_tasks_blocked()
        await paced.request("free", Urgency.SWEEP, channel=THERE)
    assert [None, "free", "full"] == paced.order


async def test_cancelled_in_the_queue_uses_nothing_up(autojump_clock: trio.testing.MockClock) -> None:
    """Somebody who is cancelled while waiting does not delay those behind."""
    paced = Paced()
    await paced.request(says=seen(1, 0, 10.0))
    with trio.move_on_after(5):
        await paced.request()
    await paced.request()
    assert [0, 10] == paced.times


async def test_sends_in_flight_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """No more sends of one channel are under way at once than allowed."""
    paced = Paced(sends_in_flight=2)
    await paced.request(says=seen(100, 99, 10.0))
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            paced.begin(nursery, takes=1)
    assert [0, 0, 0, 1, 1, 2, 2] == paced.times


async def test_send_delay_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """How long a send would wait follows from what was announced, and from those who wait already."""
    paced = Paced()
    assert 0 == paced.pacer.send_delay_seconds(HERE)
    await paced.request(says=seen(2, 1, 10.0))
    assert 0 == paced.pacer.send_delay_seconds(HERE)
    await trio.sleep(4)
    await paced.request()
    assert (6, 0) == (paced.pacer.send_delay_seconds(HERE), paced.pacer.send_delay_seconds(THERE))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(paced.request)
        await trio.testing.wait_all_tasks_blocked()
        assert 10 == paced.pacer.send_delay_seconds(HERE)


async def test_buckets_are_shown(autojump_clock: trio.testing.MockClock) -> None:
    """The statistics show each bucket's limit and what is left of it, and how long was waited."""
    paced = Paced()
    await paced.request(says=seen(2, 1, 10.0))
    await paced.request()
    (view,) = paced.pacer.views()
    assert (HERE, "send", 2, 0, 10) == (view.channel, view.route, view.limit, view.remaining, view.wait_seconds)
    await paced.request()
    assert 10 == paced.pacer.waited_seconds


async def test_slots_go_to_readers_first(autojump_clock: trio.testing.MockClock) -> None:
    """A reader gets the next free slot before others, and the reserved ones are its alone."""
    slots = Slots(2, reserved=1)
    order: list[str] = []

    async def one(name: str, urgency: Urgency, seconds: float) -> None:
        async with slots.hold(urgency):
            order.append(name)
            await trio.sleep(seconds)

    async with trio.open_nursery() as nursery:
        for name, urgency, seconds in (
            ("w1", Urgency.WRITEBACK, 10),
            ("w2", Urgency.WRITEBACK, 1),
            ("r1", Urgency.READER, 4),
            ("r2", Urgency.READER, 4),
        ):
            nursery.start_soon(one, name, urgency, seconds)
            await trio.testing.wait_all_tasks_blocked()
        assert ["w1", "r1"] == order
    assert ["w1", "r1", "r2", "w2"] == order
    assert 11 == trio.current_time()


async def test_cancelled_slots_are_free_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Who is cancelled, waiting or holding, leaves its slot to the next one at that moment."""
    slots = Slots(1)
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(hold_for_ever, slots)
    async with slots.hold(Urgency.SWEEP):
        assert 1 == trio.current_time()


async def hold_for_ever(slots: Slots) -> None:
    """Until cancelled."""
    async with slots.hold(Urgency.READER):
        await trio.sleep_forever()


class Setting:
    """A fake Discord behind limits."""

    def __init__(self, limits: Limits) -> None:
        self.memory = MemoryTransport()
        self.faulty = FaultyTransport(self.memory)
        self.limited = LimitedTransport(self.faulty, limits)

    async def send(self, channel: ChannelId, nonce: str) -> StoredMessage:
        return await self.limited.send(channel, [Upload("a.bin", (b"x",))], nonce=nonce)


def there(stored: StoredMessage) -> Location:
    """Where its attachment lies."""
    return Location(stored.channel, stored.message, stored.attachments[0].attachment)


async def test_fetches_do_not_count_as_requests(autojump_clock: trio.testing.MockClock) -> None:
    """Downloads are the CDN's, and are only bounded in number at a time."""
    setting = Setting(Limits(requests=Pace(1, 1000.0)))
    location = there(await setting.send(setting.memory.add_channel(), "n"))
    for _ in range(10):
        await setting.limited.fetch(location, 0, 1)
    assert 0 == trio.current_time()


async def test_fetches_in_flight_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """No more fetches are under way at once than allowed; the next one starts when one ends."""
    setting = Setting(Limits(fetches_in_flight=2, fetches_for_readers=0))
    location = there(await setting.send(setting.memory.add_channel(), "first"))
    go = trio.Event()
    async with trio.open_nursery() as nursery:
        for n in range(5):
            setting.faulty.plan("fetch", n + 1, Fault(hold=go))
            nursery.start_soon(setting.limited.fetch, location, 0, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert 2 == setting.faulty.calls["fetch"]
        go.set()
    assert 5 == setting.faulty.calls["fetch"]


async def test_failed_and_cancelled_calls_give_their_place_back(autojump_clock: trio.testing.MockClock) -> None:
    """A call that fails or is cancelled frees its place."""
    setting = Setting(Limits(sends_in_flight=1))
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
