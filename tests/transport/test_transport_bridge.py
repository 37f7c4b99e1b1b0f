"""The bridge carries calls, results, errors and cancels between trio and asyncio, and never hangs or leaks."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from disfs.chunkstore.transport.bridge import Bridge
from disfs.errors import PermanentStorageError, TransientStorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from disfs.chunkstore.transport.bridge import Publish


class Service:
    """What the tests call on the asyncio side."""

    def __init__(self, publish: Publish) -> None:
        self.publish = publish
        self.seen: list[str] = []
        self.closed = False

    async def echo(self, value: object, *, times: int = 1) -> object:
        await asyncio.sleep(0)
        return [value] * times

    async def fail(self, error: BaseException) -> None:
        raise error

    async def hang(self) -> None:
        self.publish("hanging")
        try:
            await asyncio.Event().wait()
        finally:
            self.publish("let go")

    async def finish_anyway(self) -> str:
        self.publish("hanging")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done all the same"
        raise AssertionError


@asynccontextmanager
async def open_service(publish: Publish) -> AsyncIterator[Service]:
    service = Service(publish)
    yield service
    publish("closed")


@pytest.fixture(autouse=True)
def no_thread_left() -> AsyncIterator[None]:  # type: ignore[misc] # a plain generator, in a module whose fixtures are async
    before = set(threading.enumerate())
    yield
    assert set() == {t for t in threading.enumerate() if t.name == "disfs-transport"} - before


async def published(bridge: Bridge, value: object) -> None:
    """Wait until the service has published `value`."""
    while bridge.published != value:  # noqa: ASYNC110 - what comes from a real thread sets no event
        await trio.sleep(0.001)


async def test_call_returns_the_value() -> None:
    """A call passes its arguments and returns what the service returns."""
    async with Bridge(open_service) as bridge:
        assert ["x", "x"] == await bridge.call("echo", "x", times=2)


async def test_many_calls_run_at_once() -> None:
    """Calls overlap, and each gets its own answer."""
    got: dict[int, object] = {}
    async with Bridge(open_service) as bridge, trio.open_nursery() as nursery:

        async def one(n: int) -> None:
            got[n] = await bridge.call("echo", n)

        for n in range(50):
            nursery.start_soon(one, n)
    assert {n: [n] for n in range(50)} == got


async def test_error_crosses_without_its_cause() -> None:
    """An error of ours arrives as raised, without the foreign cause, which may name a signed URL."""
    error = TransientStorageError("the network", retry_after_seconds=3, maybe_done=True)
    error.__cause__ = OSError("https://cdn/?hm=secret")
    async with Bridge(open_service) as bridge:
        with pytest.raises(TransientStorageError) as caught:
            await bridge.call("fail", error)
    assert (3, True, None) == (caught.value.retry_after_seconds, caught.value.maybe_done, caught.value.__cause__)


async def test_bug_over_there_is_raised_here() -> None:
    """An error that nobody foresaw is raised to the caller, and the bridge goes on."""
    async with Bridge(open_service) as bridge:
        with pytest.raises(ZeroDivisionError):
            await bridge.call("fail", ZeroDivisionError())
        with pytest.raises(AttributeError):
            await bridge.call("no_such_method")
        assert [1] == await bridge.call("echo", 1)


async def test_cancel_is_passed_on() -> None:
    """A cancelled caller returns once the asyncio task has ended, and not before."""
    async with Bridge(open_service) as bridge, trio.open_nursery() as nursery:
        nursery.start_soon(bridge.call, "hang")
        await published(bridge, "hanging")
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught
    assert "closed" == bridge.published


async def test_cancelled_before_it_began_is_cancelled() -> None:
    """A call whose cancel overtakes its start ends as cancelled and does not hang."""
    async with Bridge(open_service) as bridge:
        with trio.move_on_after(0):
            await bridge.call("hang")
        with trio.CancelScope() as scope:
            trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel)
            await bridge.call("hang")
        assert scope.cancelled_caught


async def test_result_that_was_reached_survives_the_cancel() -> None:
    """When the service finished although it was asked to stop, the caller gets the result."""
    got = []
    async with Bridge(open_service) as bridge, trio.open_nursery() as nursery:

        async def one() -> None:
            got.append(await bridge.call("finish_anyway"))

        nursery.start_soon(one)
        await published(bridge, "hanging")
        nursery.cancel_scope.cancel()
    assert ["done all the same"] == got


async def test_death_of_the_loop_is_an_error() -> None:
    """When the asyncio side dies, those who wait and those who come later get an error, not silence."""
    async with Bridge(open_service) as bridge:
        errors = []

        async def hang() -> None:
            with pytest.raises(PermanentStorageError) as caught:
                await bridge.call("hang")
            errors.append(str(caught.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang)
            await published(bridge, "hanging")
            with pytest.raises(PermanentStorageError, match="has stopped: SystemExit"):
                await bridge.call("fail", SystemExit(3))
        with pytest.raises(PermanentStorageError, match="has stopped: SystemExit"):
            await bridge.call("echo", 1)
    assert 1 == len(errors)


async def test_leaving_ends_calls_that_still_run() -> None:
    """Whoever still waits when the bridge closes gets an error."""
    async with trio.open_nursery() as nursery:

        async def hang() -> None:
            with pytest.raises(PermanentStorageError):
                await bridge.call("hang")

        async with Bridge(open_service) as bridge:
            nursery.start_soon(hang)
            await published(bridge, "hanging")


async def test_service_that_cannot_open_raises_at_entry() -> None:
    """What the service raises while it opens reaches the caller, and the thread is gone."""

    @asynccontextmanager
    async def broken(publish: Publish | None) -> AsyncIterator[object]:
        if publish is not None:
            raise OSError("no")
        yield None

    with pytest.raises(OSError, match="no"):
        async with Bridge(broken):
            pass


async def test_closing_while_cancelled_still_closes() -> None:
    """A bridge that is left by a cancel closes its service and joins its thread."""
    with trio.CancelScope() as scope:
        async with Bridge(open_service) as bridge:
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert "closed" == bridge.published


class Thing:
    """Something to be let go of."""


async def test_failed_call_keeps_no_argument() -> None:
    """An error that the caller keeps does not keep the arguments alive."""
    async with Bridge(open_service) as bridge:
        thing = Thing()
        gone = weakref.ref(thing)

        async def one(thing: Thing) -> BaseException:
            with pytest.raises(TypeError) as caught:
                await bridge.call("hang", thing)
            return caught.value

        error = await one(thing)
        del thing
        error.__traceback__ = None
        gc.collect()
        assert gone() is None
