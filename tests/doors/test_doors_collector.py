"""The garbage collector keeps out of the way of the kernel's requests."""

from __future__ import annotations

import gc

import trio
import trio.testing

from disfs import collector


async def test_collects_in_a_quiet_moment(autojump_clock: trio.testing.MockClock) -> None:
    """While requests come in, the look through all objects is put off until a second passes without one."""
    requests, seconds = 0, list[float]()

    async def ask() -> None:
        nonlocal requests
        with trio.move_on_after(collector.INTERVAL_SECONDS + 4.5):
            while True:
                requests += 1
                await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(collector.collect_when_quiet, lambda: requests, lambda: seconds.append(trio.current_time()))
        begun = trio.current_time()
        await trio.sleep(2 * collector.INTERVAL_SECONDS)
        nursery.cancel_scope.cancel()
    assert [6] == [round(second - begun - collector.INTERVAL_SECONDS) for second in seconds]


async def test_collects_even_if_it_is_never_quiet(autojump_clock: trio.testing.MockClock) -> None:
    """A mount that is busy all day is not left without."""
    requests, collections = 0, 0

    def ask() -> int:
        nonlocal requests
        requests += 1
        return requests

    def collect() -> None:
        nonlocal collections
        collections += 1

    with trio.move_on_after(3 * (collector.INTERVAL_SECONDS + collector.PATIENCE * collector.QUIET_SECONDS) + 1):
        await collector.collect_when_quiet(ask, collect)
    assert 3 == collections


def test_python_does_not_look_through_everything_by_itself() -> None:
    """However much is made and kept, no collection of all objects begins; young garbage is found all the same."""
    before = gc.get_threshold()
    try:
        collector.keep_collections_short()
        full = gc.get_stats()[2]["collections"]
        kept = [[number] for number in range(300_000)]
        assert (full, 300_000) == (gc.get_stats()[2]["collections"], len(kept))
        young = gc.get_stats()[0]["collections"]
        for _ in range(30_000):
            cycle: list[object] = []
            cycle.append(cycle)
        assert gc.get_stats()[0]["collections"] > young
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
