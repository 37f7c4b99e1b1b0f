"""Wait for Discord no longer than the metadata store works: once it has stopped, nothing that arrives can be recorded.

Such a stop comes once in the life of a mount at most, so it is looked for now and then instead of being told of.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Protocol

import trio

from disfs.errors import DisfsError, FilesystemError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_LOOK_SECONDS = 1.0


class CanStop(Protocol):
    """The metadata store, as far as it is needed here."""

    @property
    def failure(self) -> str | None:
        """Why it has stopped for good; None while it works."""
        ...


async def while_it_works(metadata: CanStop, wait: Callable[[], Awaitable[None]]) -> None:
    """Await `wait`, cancelled when the store stops, and then FilesystemError(EIO). Errors of `wait` are passed on."""
    trouble: DisfsError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_stopped, metadata, nursery.cancel_scope)
        try:
            await wait()
        except DisfsError as error:
            trouble = error  # raised outside: the nursery would make a group of it
        nursery.cancel_scope.cancel()
    if metadata.failure is not None:
        raise FilesystemError(errno.EIO, f"the metadata store has stopped: {metadata.failure}")
    if trouble is not None:
        raise trouble


async def _cancel_when_stopped(metadata: CanStop, waiting: trio.CancelScope) -> None:
    while metadata.failure is None:  # noqa: ASYNC110 - see above: no event is kept
        await trio.sleep(_LOOK_SECONDS)
    waiting.cancel()
