"""A chunk store in bytearrays that can be told to wait where the real one would, and to fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import trio

from disfs.chunkstore.content_state import ContentState, Whereabouts
from disfs.spans import DEFAULT_CHUNK_BYTES, chunk_count, chunk_range
from disfs.values import ChunkIndex

if TYPE_CHECKING:
    from disfs.chunkstore.readahead import Readahead
    from disfs.values import Attributes, InodeNumber

PAGE_BYTES = 4096


class ChunkCounter(Protocol):
    """What of a ChunkLedger shows in an inode's attributes."""

    def check_room(self, inode: InodeNumber, offset: int, length: int) -> None:
        """See ChunkLedger."""
        ...

    def mark_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> object:
        """See ChunkLedger."""
        ...

    def cut_chunks(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """See ChunkLedger."""
        ...


class NoReadahead:
    """Stands in for a `Readahead`; only whether it is closed matters here."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


class MemoryChunks:
    """Answers `FileChunks`. As in the real store, all waiting comes first and the change is the last step.

    With a `ledger`, it is told of the chunks as by the real store.

    `hold()` makes the calls from then on wait, each before its change, until its event is set.
    """

    def __init__(self, ledger: ChunkCounter | None = None) -> None:
        self._ledger = ledger
        self._pages: dict[InodeNumber, dict[int, bytearray]] = {}
        self._held: list[trio.Event] | None = None
        self.fails_with: Exception | None = None
        self.discarded: list[InodeNumber] = []
        self.synced: list[InodeNumber | None] = []
        self.drained: list[InodeNumber] = []
        self.readaheads: list[NoReadahead] = []

    def hold(self) -> list[trio.Event]:
        """From now on each call adds an event to the returned list, and goes on when it is set."""
        self._held = []
        return self._held

    def let_go(self) -> None:
        """Calls wait no longer; those that wait already still do."""
        self._held = None

    def has_data(self, inode: InodeNumber) -> bool:
        """Whether anything of the inode is kept."""
        return inode in self._pages

    async def _wait(self) -> None:
        if self._held is not None:
            event = trio.Event()
            self._held.append(event)
            await event.wait()
        if self.fails_with is not None:
            raise self.fails_with

    async def read(self, inode: InodeNumber, offset: int, length: int, readahead: Readahead | None = None) -> bytes:
        await self._wait()
        pages = self._pages.get(inode, {})
        first, last = offset // PAGE_BYTES, (offset + length - 1) // PAGE_BYTES
        whole = b"".join(bytes(pages.get(n, bytes(PAGE_BYTES))) for n in range(first, last + 1))
        return whole[offset - first * PAGE_BYTES :][:length]

    async def write(self, inode: InodeNumber, offset: int, data: bytes) -> None:
        await self._wait()
        if self._ledger is not None:
            self._ledger.check_room(inode, offset, len(data))
        pages = self._pages.setdefault(inode, {})
        done = 0
        while done < len(data):
            number, start = divmod(offset + done, PAGE_BYTES)
            part = data[done : done + PAGE_BYTES - start]
            pages.setdefault(number, bytearray(PAGE_BYTES))[start : start + len(part)] = part
            done += len(part)
        if self._ledger is not None and data:
            chunks = chunk_range(offset, len(data), DEFAULT_CHUNK_BYTES)
            self._ledger.mark_dirty(inode, ChunkIndex(chunks.start), len(chunks))

    async def cut(self, inode: InodeNumber, size_bytes: int) -> None:
        await self._wait()
        pages = self._pages.get(inode, {})
        last, start = divmod(size_bytes, PAGE_BYTES)
        for number in [n for n in pages if n > last or (n == last and start == 0)]:
            del pages[number]
        if last in pages:
            pages[last][start:] = bytes(PAGE_BYTES - start)
        self._cut_ledger(inode, size_bytes)

    async def shrink(self, inode: InodeNumber) -> None:
        """Discarding takes no time here; but as in the real store, others may run meanwhile."""
        await trio.lowlevel.checkpoint()

    def discard(self, inode: InodeNumber) -> None:
        self._pages.pop(inode, None)
        self.discarded.append(inode)
        self._cut_ledger(inode, 0)

    def went_to_trash(self, inode: InodeNumber) -> None:
        """Nothing is ever evicted here."""

    def inherit_pin(self, parent: InodeNumber, inode: InodeNumber) -> None:
        """Nothing is ever evicted here."""

    async def content_state(self, attributes: Attributes) -> ContentState:
        """Nothing is ever sent from here."""
        return ContentState(Whereabouts.LOCAL, 100, pinned=False, sent_percent=0)

    def _cut_ledger(self, inode: InodeNumber, size_bytes: int) -> None:
        if self._ledger is not None:
            self._ledger.cut_chunks(inode, ChunkIndex(chunk_count(size_bytes, DEFAULT_CHUNK_BYTES)))

    async def sync(self, inode: InodeNumber) -> None:
        await self._wait()
        self.synced.append(inode)

    async def drain_file(self, inode: InodeNumber) -> None:
        await self._wait()
        self.drained.append(inode)

    async def sync_all(self) -> None:
        await self._wait()
        self.synced.append(None)

    async def sync_overlaid(self) -> None:
        """There is never anything that only this would sync."""

    def new_readahead(self) -> Readahead:
        self.readaheads.append(NoReadahead())
        return cast("Readahead", self.readaheads[-1])
