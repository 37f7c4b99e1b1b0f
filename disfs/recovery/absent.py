"""Which of the messages that a recovered state refers to are in Discord no more.

An older state than the newest one may name what was swept since, and people delete messages. What is not told now is
an error when somebody reads the file, a year later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.chunkstore.transport.base import LIST_LIMIT, Urgency
from disfs.errors import NotFoundError
from disfs.values import MessageId

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from disfs.chunkstore.transport.base import Transport
    from disfs.values import ChannelId


async def absent_messages(
    transport: Transport, wanted: Mapping[ChannelId, Sequence[MessageId]], on_found: Callable[[int], None]
) -> list[MessageId]:
    """Those of `wanted` that two listings do not show; a channel that is gone has none. Errors as of `Transport`.

    `on_found` hears how many more were looked for. A hundred messages are a request, and what lies between those that
    are wanted is skipped.
    """
    absent: list[MessageId] = []
    for channel, messages in wanted.items():
        missing = sorted(messages)
        for _ in range(2):  # one listing may be stale
            missing = await _not_listed(transport, channel, missing)
        absent += missing
        on_found(len(messages))
    return absent


class Contents:
    """Looks for messages with contents; what was looked for once is remembered: snapshots share most of theirs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._seen: set[MessageId] = set()
        self._absent: set[MessageId] = set()

    async def absent(
        self, wanted: Mapping[ChannelId, Sequence[MessageId]], on_found: Callable[[int], None] = lambda count: None
    ) -> list[MessageId]:
        """See `absent_messages`."""
        new = {
            channel: left
            for channel, messages in wanted.items()
            if (left := [each for each in messages if each not in self._seen])
        }
        self._absent.update(await absent_messages(self._transport, new, on_found))
        self._seen.update(*new.values())
        return [each for messages in wanted.values() for each in messages if each in self._absent]


async def _not_listed(transport: Transport, channel: ChannelId, wanted: Sequence[MessageId]) -> list[MessageId]:
    """Which of `wanted`, in ascending order, a listing does not show."""
    missing: list[MessageId] = []
    position = 0
    while position < len(wanted):
        try:
            page = await transport.list_messages(channel, after=MessageId(wanted[position] - 1), urgency=Urgency.SYNC)
        except NotFoundError:
            return [*missing, *wanted[position:]]
        shown = {each.message for each in page}
        last = max(shown) if len(page) == LIST_LIMIT else wanted[-1]
        while position < len(wanted) and wanted[position] <= last:
            if wanted[position] not in shown:
                missing.append(wanted[position])
            position += 1
    return missing
