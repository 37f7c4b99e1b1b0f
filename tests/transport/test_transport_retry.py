"""The retry wrapper: when it tries again, how long it waits, and how it keeps one message one message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from disfs.chunkstore.transport.base import Upload, Urgency
from disfs.chunkstore.transport.faults import Fault, FaultyTransport
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.chunkstore.transport.retry import ASKED_SECONDS, Retries, RetryingTransport, RetryPolicy
from disfs.errors import NotFoundError, TooLargeError, TransientStorageError
from disfs.values import ChannelId, Location

if TYPE_CHECKING:
    from disfs.chunkstore.transport.base import StoredMessage

BUSY = TransientStorageError("busy")
LOST = TransientStorageError("lost answer", maybe_done=True)


class Setting:
    """A fake Discord, faults, and the wrapper without jitter."""

    def __init__(self, retries: Retries | None = None) -> None:
        self.memory = MemoryTransport(nonce_window_seconds=180)
        self.faulty = FaultyTransport(self.memory)
        self.retrying = RetryingTransport(self.faulty, retries or Retries(), random=lambda: 1.0)
        self.channel = self.memory.add_channel()

    async def send(self, *names: str, nonce: str = "n") -> StoredMessage:
        uploads = [Upload(name, (name.encode(),)) for name in names or ("pack.bin",)]
        return await self.retrying.send(self.channel, uploads, nonce=nonce)

    def stored(self) -> list[StoredMessage]:
        return self.memory.messages(self.channel)


async def test_waits_grow(autojump_clock: trio.testing.MockClock) -> None:
    """The waits double up to the longest one."""
    setting = Setting(Retries(sends=RetryPolicy(first_delay_seconds=1, longest_delay_seconds=5)))
    for n in range(1, 6):
        setting.faulty.plan("send", n, Fault(before=BUSY))
    await setting.send()
    assert 1 + 2 + 4 + 5 + 5 == trio.current_time()
    assert 5 == setting.retrying.statistics().retries


async def test_waits_as_long_as_asked(autojump_clock: trio.testing.MockClock) -> None:
    """What Discord asks for is waited for, also beyond the longest wait of our own."""
    setting = Setting()
    asked = TransientStorageError("slow down", retry_after_seconds=600)
    setting.faulty.plan("list_messages", 1, Fault(before=TransientStorageError("slow down", retry_after_seconds=7)))
    setting.faulty.plan("send", 1, Fault(before=asked))
    await setting.retrying.list_messages(setting.channel)
    assert 7 == trio.current_time()
    await setting.send()
    assert 607 == trio.current_time()


async def test_sends_never_give_up(autojump_clock: trio.testing.MockClock) -> None:
    """Without a bound a send outlives a day without Discord."""
    setting = Setting()
    for n in range(1, 1500):
        setting.faulty.plan("send", n, Fault(before=BUSY))
    await setting.send()
    assert trio.current_time() > 86_000


async def test_readers_give_up(autojump_clock: trio.testing.MockClock) -> None:
    """A fetch stops within its time, with the last error."""
    setting = Setting(Retries(others=RetryPolicy(total_seconds=30)))
    message = await setting.send()
    for n in range(1, 100):
        setting.faulty.plan("fetch", n, Fault(before=BUSY))
    there = Location(setting.channel, message.message, message.attachments[0].attachment)
    with pytest.raises(TransientStorageError, match="busy"):
        await setting.retrying.fetch(there, 0, 1)
    assert 15 < trio.current_time() <= 30


async def test_waits_that_discord_asks_for_are_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """A reader outwaits a rate limit that is longer than its patience with failures, but not any number of them."""
    setting = Setting(Retries(others=RetryPolicy(total_seconds=30)))
    asked = TransientStorageError("slow down", retry_after_seconds=40)
    setting.faulty.plan("list_messages", 1, Fault(before=asked))
    assert [] == await setting.retrying.list_messages(setting.channel)
    assert 40 == trio.current_time()
    for n in range(1, 20):
        setting.faulty.plan("list_messages", n, Fault(before=asked))
    with pytest.raises(TransientStorageError):
        await setting.retrying.list_messages(setting.channel)
    assert trio.current_time() <= 40 + 30 + ASKED_SECONDS


async def test_urgency_is_passed_on(autojump_clock: trio.testing.MockClock) -> None:
    """A send, its repeats and the search for it are as urgent as the caller says."""
    urgencies = []

    class Noting(FaultyTransport):
        async def send(self, *arguments: Any, urgency: Urgency = Urgency.WRITEBACK, **options: Any) -> StoredMessage:
            urgencies.append(urgency)
            return await super().send(*arguments, urgency=urgency, **options)

        async def list_messages(self, *arguments: Any, urgency: Urgency = Urgency.READER, **options: Any) -> Any:
            urgencies.append(urgency)
            return await super().list_messages(*arguments, urgency=urgency, **options)

    memory = MemoryTransport()
    noting = Noting(memory)
    noting.plan("send", 1, Fault(before=TransientStorageError("x", retry_after_seconds=1000, maybe_done=True)))
    retrying = RetryingTransport(noting, Retries())
    uploads = [Upload("a.bin", (b"x",))]
    await retrying.send(memory.add_channel(), uploads, nonce="n", urgency=Urgency.SYNC)
    assert [Urgency.SYNC] * 3 == urgencies


async def test_attempts_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """A policy of three attempts makes three."""
    setting = Setting(Retries(others=RetryPolicy(attempts=3)))
    for n in range(1, 10):
        setting.faulty.plan("delete", n, Fault(before=BUSY))
    with pytest.raises(TransientStorageError):
        await setting.retrying.delete(setting.channel, [(await setting.send()).message])
    assert 3 == setting.faulty.calls["delete"]


async def test_permanent_errors_pass_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """What cannot get better is not tried again."""
    setting = Setting()
    setting.faulty.plan("send", 1, Fault(before=TooLargeError("too large")))
    with pytest.raises(TooLargeError):
        await setting.send()
    with pytest.raises(NotFoundError):
        await setting.retrying.list_messages(ChannelId(1))
    assert (0, 1) == (trio.current_time(), setting.faulty.calls["send"])


async def test_lost_answer_within_the_window(autojump_clock: trio.testing.MockClock) -> None:
    """A repeat soon after keeps its nonce: one message, no listing."""
    setting = Setting()
    for n in (1, 2, 3):
        setting.faulty.plan("send", n, Fault(after=LOST))
    assert [await setting.send()] == setting.stored()
    assert 0 == setting.faulty.calls["list_messages"]


async def test_lost_answer_beyond_the_window(autojump_clock: trio.testing.MockClock) -> None:
    """When Discord may have forgotten the nonce, the channel is searched, and what is found is the message."""
    setting = Setting()
    await setting.send("other.bin", nonce="other")
    setting.faulty.plan(
        "send", 1, Fault(after=TransientStorageError("lost", retry_after_seconds=1000, maybe_done=True))
    )
    message = await setting.send("z.bin", "a.bin")
    assert message == setting.stored()[1]
    assert (2, 2) == (len(setting.stored()), setting.faulty.calls["send"])


async def test_nothing_found_beyond_the_window(autojump_clock: trio.testing.MockClock) -> None:
    """When the search finds nothing, the message is sent with a new nonce."""
    setting = Setting()
    setting.faulty.plan("send", 1, Fault(before=TransientStorageError("x", retry_after_seconds=1000, maybe_done=True)))
    assert [await setting.send()] == setting.stored()
    assert (2, 1) == (setting.faulty.calls["send"], setting.faulty.calls["list_messages"])


async def test_search_goes_back_to_what_was_known(autojump_clock: trio.testing.MockClock) -> None:
    """The search turns pages until it meets a message that was acknowledged before the lost one was sent."""
    setting = Setting()
    await setting.send("first.bin", nonce="first")
    setting.faulty.plan("send", 1, Fault(after=TransientStorageError("x", retry_after_seconds=1000, maybe_done=True)))
    found = []

    async def lost() -> None:
        found.append(await setting.send("lost.bin", nonce="lost"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lost)
        await trio.testing.wait_all_tasks_blocked()
        for n in range(250):
            await setting.send(f"later-{n}.bin", nonce=f"later-{n}")
    assert [setting.stored()[1]] == found
    assert (252, 3) == (len(setting.stored()), setting.faulty.calls["list_messages"])


async def test_failures_before_the_effect_do_not_age_the_nonce(autojump_clock: trio.testing.MockClock) -> None:
    """While nothing can have been stored there is nothing to search for, however long it takes."""
    setting = Setting()
    for n in range(1, 20):
        setting.faulty.plan("send", n, Fault(before=BUSY))
    assert [await setting.send()] == setting.stored()
    assert trio.current_time() > 180
    assert 0 == setting.faulty.calls["list_messages"]


async def test_deleted_message_is_sent_anew(autojump_clock: trio.testing.MockClock) -> None:
    """A nonce whose message was deleted is replaced once; a channel that is gone stays gone."""
    setting = Setting()
    first = await setting.send()
    await setting.memory.delete(setting.channel, [first.message])
    second = await setting.send()
    assert [second] == setting.stored()
    setting.memory.remove_channel(setting.channel)
    with pytest.raises(NotFoundError):
        await setting.send()


async def test_trouble_is_shown_while_it_lasts(autojump_clock: trio.testing.MockClock) -> None:
    """While a call is being repeated the statistics say why, and no longer."""
    setting = Setting()
    setting.faulty.plan("send", 1, Fault(before=BUSY))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting.send)
        await trio.testing.wait_all_tasks_blocked()
        assert "busy" == setting.retrying.statistics().trouble
    assert setting.retrying.statistics().trouble is None


@pytest.mark.parametrize(("asked", "troubles"), [((5.0, 5.0), [None, "429"]), ((600.0,), ["429"])])
async def test_short_rate_limit_is_no_trouble(
    autojump_clock: trio.testing.MockClock, asked: tuple[float, ...], troubles: list[str | None]
) -> None:
    """That Discord asks to wait some seconds is told as trouble only when the wait did not help."""
    setting = Setting()
    for number, seconds in enumerate(asked, 1):
        setting.faulty.plan("send", number, Fault(before=TransientStorageError("429", retry_after_seconds=seconds)))
    seen = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting.send)
        for seconds in asked:
            await trio.testing.wait_all_tasks_blocked()
            seen.append(setting.retrying.statistics().trouble)
            await trio.sleep(seconds)
    assert troubles == seen


async def test_cancelled_wait_leaves_no_trouble(autojump_clock: trio.testing.MockClock) -> None:
    """A call that is cancelled while it waits is gone from the statistics."""
    setting = Setting()
    setting.faulty.plan("send", 1, Fault(before=BUSY))
    with trio.move_on_after(0.1):
        await setting.send()
    assert setting.retrying.statistics().trouble is None


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_delay_stays_in_its_bounds(failures: int, chance: float) -> None:
    """However many failures, the wait is at least half the first and at most the longest delay."""
    policy = RetryPolicy(first_delay_seconds=0.5, longest_delay_seconds=60)
    assert 0.25 <= policy.delay(failures, chance) <= 60


@given(st.lists(st.sampled_from(["before", "lost", "done-lost", "long"]), max_size=6))
def test_always_exactly_one_message(failures: list[str]) -> None:
    """Whatever sequence of failures meets a send, one message is left, and it is the one returned."""

    async def run() -> None:
        setting = Setting()
        for n, kind in enumerate(failures, 1):
            wait = 500 if kind == "long" else 1
            error = TransientStorageError(kind, retry_after_seconds=wait, maybe_done=kind != "before")
            after = kind in ("done-lost", "long")
            setting.faulty.plan("send", n, Fault(after=error) if after else Fault(before=error))
        assert [await setting.send("a.bin", "b.bin")] == setting.stored()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
