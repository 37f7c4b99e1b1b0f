"""The polled request loop's two parts, without a kernel."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pyfuse3
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from disfs.polled_loop import BargingLock, PolledReadiness, is_supported, polled_loop

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Read end and write end."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def test_lock_excludes() -> None:
    """Never two inside, and everybody gets in."""
    lock, inside, entered = BargingLock(), 0, 0

    async def enter() -> None:
        nonlocal inside, entered
        for _ in range(10):
            async with lock:
                inside += 1
                assert 1 == inside
                await trio.lowlevel.checkpoint()
                inside -= 1
            entered += 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(enter)
    assert 50 == entered


async def test_free_lock_is_taken_without_a_checkpoint() -> None:
    """Taking and giving back a free lock does not pass through the scheduler."""
    ran = False

    async def other() -> None:
        nonlocal ran
        ran = True

    lock = BargingLock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        async with lock:
            pass
        assert not ran


async def test_lock_survives_the_cancellation_of_a_waiter() -> None:
    """A waiter that is cancelled leaves the lock to the others."""
    lock = BargingLock()
    entered = trio.Event()

    async def enter() -> None:
        async with lock:
            entered.set()

    async with trio.open_nursery() as nursery:
        async with lock:
            with trio.CancelScope() as scope:
                nursery.start_soon(enter)
                await wait_all_tasks_blocked()
                scope.cancel()
        await entered.wait()


async def test_waiting_ends_when_there_is_something(pipe: tuple[int, int]) -> None:
    """It returns once the descriptor is readable, not before, and again and again."""
    readiness = PolledReadiness()
    for _ in range(3):
        returned = trio.Event()

        async def wait(returned: trio.Event = returned) -> None:
            await readiness.wait_readable(pipe[0])
            returned.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert not returned.is_set()
            os.write(pipe[1], b"x")
        assert b"x" == os.read(pipe[0], 1)
        assert [] == select.select([pipe[0]], [], [], 0)[0]


async def test_others_get_their_turn(pipe: tuple[int, int]) -> None:
    """A descriptor that is always readable does not keep the other tasks from running."""
    os.write(pipe[1], b"x")
    readiness = PolledReadiness()
    ran = False

    async def other() -> None:
        nonlocal ran
        ran = True

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            while not ran:
                await readiness.wait_readable(pipe[0])


async def test_waiting_can_be_cancelled_although_there_is_always_something(pipe: tuple[int, int]) -> None:
    """Cancellation is noticed between requests."""
    os.write(pipe[1], b"x")
    readiness = PolledReadiness()
    with trio.move_on_after(0.01) as scope:
        while True:
            await readiness.wait_readable(pipe[0])
    assert scope.cancelled_caught


async def test_closing_ends_the_wait(pipe: tuple[int, int]) -> None:
    """`pyfuse3.terminate` wakes the waiter with ClosedResourceError, as with the stock loop."""
    readiness = PolledReadiness()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await readiness.wait_readable(pipe[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        trio.lowlevel.notify_closing(pipe[0])


def test_hook_is_taken_out_again() -> None:
    """Only inside the block does pyfuse3 see the polled loop."""
    stock = vars(pyfuse3)["trio"]
    with polled_loop() as used:
        assert used
        assert stock is not vars(pyfuse3)["trio"]
    assert stock is vars(pyfuse3)["trio"]


@pytest.mark.parametrize(("version", "supported"), [("3.5.0", True), ("3.5.9", True), ("3.6.0", False), ("4.0", False)])
def test_only_known_versions_are_hooked(version: str, supported: bool) -> None:
    """A version of pyfuse3 that nobody has read the sources of keeps its stock loop."""
    assert supported == is_supported(version)
