"""pyfuse3's request loop without two trips through the scheduler for each request.

The stock loop takes a `trio.Lock` and awaits `trio.lowlevel.wait_readable` before it reads a request; each of the
two goes through trio's scheduler, although under load the next request is there already. Here the FUSE descriptor
is polled, for a few microseconds after each answer, and only if nothing comes does the task wait; and the lock costs
nothing while it is free. On a quiet machine an fstat that the file system answers took 26 us with the stock loop and
14 us with this one; where waking a process is dear, as in virtual machines, the few microseconds halve it again. So
that the other tasks of the daemon get their turn, the loop passes through the scheduler at least once in
`TURN_SECONDS` all the same.

pyfuse3 finds its event loop library in the module global `pyfuse3.trio`; `pyfuse3.asyncio.enable()` replaces it,
and so does this module. That is an internal of pyfuse3, so it is done only for the versions whose sources were
read for it (`internal.pxi`: `_wait_fuse_readable`, `_session_loop`; `__init__.pyx`: `main`, `terminate`), and
with any other version the stock loop is used. Not done: one loop of our own around
libfuse's session functions, which pyfuse3 does not export.
"""

from __future__ import annotations

import contextlib
import logging
import select
import time
import types
from typing import TYPE_CHECKING

import pyfuse3
import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

KNOWN_VERSIONS = ("3.5.",)
"""Beginnings of the versions of pyfuse3 whose loop is known to work with this module."""
SPIN_SECONDS = 0.00005
"""How long the next request is waited for by asking again and again: a program that was just answered asks within this
time, while falling asleep and being woken costs both sides as much again."""
TURN_SECONDS = 0.0005
"""How long requests may follow one another before the other tasks get a turn."""


class BargingLock:
    """A lock that is taken without a checkpoint when it is free, even if others wait for it.

    Unfair on purpose: the task that has just answered a request goes on with the next one, and the others are
    woken only to stand in when a request makes it wait. trio's own lock hands over at each release.
    """

    def __init__(self) -> None:
        self._held = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._held:
            await self._waiting.park()
        self._held = True

    async def __aexit__(self, *exception: object) -> None:
        self._held = False
        if self._waiting:
            self._waiting.unpark()


class PolledReadiness:
    """Waits until the FUSE descriptor is readable, through the scheduler only when it is not or when a turn is over."""

    def __init__(self) -> None:
        self._fd = -1
        self._poll = select.poll()
        self._turn_ends = 0.0

    async def wait_readable(self, fd: int) -> None:
        """Return when `fd` is readable, as `trio.lowlevel.wait_readable`; not always a checkpoint."""
        if fd != self._fd:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
            self._fd = fd
        if time.monotonic() >= self._turn_ends:
            await trio.lowlevel.checkpoint()
            self._turn_ends = time.monotonic() + TURN_SECONDS
        # After a checkpoint the request may be gone: its sender was killed.
        if not (self._poll.poll(0) or self._comes_soon()):
            await trio.lowlevel.wait_readable(fd)
            self._turn_ends = time.monotonic() + TURN_SECONDS

    def _comes_soon(self) -> bool:
        """Whether a request comes within `SPIN_SECONDS`."""
        ends = time.monotonic() + SPIN_SECONDS
        while time.monotonic() < ends:
            if self._poll.poll(0):
                return True
        return False


def _polled_trio() -> types.SimpleNamespace:
    """What pyfuse3 uses of trio, with the two replacements."""
    lowlevel = types.SimpleNamespace(
        wait_readable=PolledReadiness().wait_readable,
        notify_closing=trio.lowlevel.notify_closing,
        current_task=trio.lowlevel.current_task,
        current_trio_token=trio.lowlevel.current_trio_token,
    )
    return types.SimpleNamespace(
        Lock=BargingLock,
        ClosedResourceError=trio.ClosedResourceError,
        open_nursery=trio.open_nursery,
        from_thread=trio.from_thread,
        lowlevel=lowlevel,
    )


def is_supported(version: str = pyfuse3.__version__) -> bool:
    """Whether the polled loop knows this version of pyfuse3."""
    return version.startswith(KNOWN_VERSIONS) and getattr(pyfuse3, "trio", None) is not None


@contextlib.contextmanager
def polled_loop() -> Iterator[bool]:
    """Use the polled loop for `pyfuse3.main` inside the block; gives whether it is used, or the stock one."""
    if not is_supported():
        log.info("pyfuse3 %s is not known to the polled request loop; using the stock loop", pyfuse3.__version__)
        yield False
        return
    stock = vars(pyfuse3)["trio"]
    vars(pyfuse3)["trio"] = _polled_trio()
    try:
        yield True
    finally:
        vars(pyfuse3)["trio"] = stock
