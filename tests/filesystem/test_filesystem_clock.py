"""The clock of the kernel's own timestamps."""

from __future__ import annotations

import time

from disfs.kernel_clock import KernelClock


def test_time_is_coarse_and_rises() -> None:
    """It is never ahead of the fine clock, and never goes back."""
    clock = KernelClock()
    last = 0
    for _ in range(1000):
        now = clock.now_ns()
        assert last <= now <= time.time_ns()
        last = now


def test_time_that_was_seen_is_a_floor() -> None:
    """A time that somebody set to now is not behind what comes after it."""
    clock = KernelClock()
    for _ in range(1000):
        seen = time.time_ns()
        clock.saw(seen)
        assert seen <= clock.now_ns()


def test_future_times_are_not_believed() -> None:
    """A file from the future does not take the clock along."""
    clock = KernelClock()
    clock.saw(time.time_ns() + 10**12)
    clock.saw(None)
    assert clock.now_ns() <= time.time_ns()


def test_floor_of_before_a_step_back_is_dropped() -> None:
    """When the machine's clock is set back, the old floor holds nobody up."""
    clock = KernelClock()
    clock._floor_ns = time.time_ns() + 3600 * 10**9
    assert clock.now_ns() <= time.time_ns()
