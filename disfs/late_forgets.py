"""What the kernel forgets, worked off a moment later and many at once.

Nobody waits until a forget is dealt with, but the next request does; and when an orphan goes with it, that takes longer
than most requests. Many in a row take half the time of as many between other requests, which find the processor's
caches full of something else each time.

Until then the inodes count as known to the kernel: an orphan among them goes later, which whoever waits for its room
waits for too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

DELAY_SECONDS = 0.005
"""So long the first one waits for others."""
AT_ONCE = 48
"""So many are worked off in one step of the main thread: half a millisecond."""
MOST = 4096
"""More do not wait: they are worked off as they come."""


class LateForgets:
    """Stands in for the handler of forget requests; `run` must run."""

    def __init__(self, forget: Callable[[Sequence[tuple[int, int]]], Awaitable[None]]) -> None:
        self._forget = forget
        self._waiting: list[tuple[int, int]] = []
        self._some = trio.Event()

    async def put_off(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """As the handler, which is called later."""
        if len(self._waiting) >= MOST:
            await self._forget(inode_list)
            return
        self._waiting.extend(inode_list)
        self._some.set()

    async def run(self) -> None:
        """Work off what has come, until cancelled; what waits then does so no longer."""
        while True:
            await self._some.wait()
            await trio.sleep(DELAY_SECONDS)
            forgotten, self._waiting, self._some = self._waiting, [], trio.Event()
            for start in range(0, len(forgotten), AT_ONCE):
                await self._forget(forgotten[start : start + AT_ONCE])
                await trio.lowlevel.checkpoint()
