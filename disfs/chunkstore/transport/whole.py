"""What to do while the CDN ignores Range and answers each request with the whole attachment.

To fetch 4 KiB would cost a download of many MiB each time, so a whole answer is kept for a while, in bounded memory,
and those who want something of an attachment that is just coming wait for it. Every download still asks for its range:
the first 206 ends it all. No I/O here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BUDGET_BYTES = 32 * 1024 * 1024
"""How much is kept: one attachment of the largest ordinary size and its neighbours. A larger one is not kept."""


class WholeAnswers:
    """The last attachments that came whole, by URL; and whether that is what the CDN does these days."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._coming: dict[str, asyncio.Event] = {}
        """Set when the download of that URL is over, well or not."""
        self._is_usual = False

    def find(self, url: str, start: int, length: int) -> bytes | None:
        """A part of an attachment that is kept; None when it is not."""
        whole = self._kept.get(url)
        if whole is None:
            return None
        self._kept.move_to_end(url)
        return whole[start : start + length]

    def may_keep(self, size_bytes: int) -> bool:
        """Whether an attachment of this size is worth reading to its end. To be asked when one comes whole."""
        self._is_usual = True
        return size_bytes <= self._budget_bytes

    def keep(self, url: str, whole: bytes) -> None:
        """Keep an attachment, in place of those that were not used for longest."""
        self._kept[url] = whole
        while sum(map(len, self._kept.values())) > self._budget_bytes:
            self._kept.popitem(last=False)

    def range_was_obeyed(self) -> None:
        """A 206 came: the CDN is well again, and nothing needs to be kept."""
        self._is_usual = False
        self._kept.clear()

    @asynccontextmanager
    async def alone(self, url: str) -> AsyncIterator[None]:
        """While whole answers are usual, let one download at a time ask for a URL; otherwise do nothing."""
        while self._is_usual and (coming := self._coming.get(url)) is not None:
            await coming.wait()
        if not self._is_usual:
            yield
            return
        over = self._coming[url] = asyncio.Event()
        try:
            yield
        finally:
            del self._coming[url]
            over.set()
