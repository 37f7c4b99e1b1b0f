"""Where the contents of one file are: on this machine alone, on their way, in Discord; and how much is cached."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.states import ChunkState

if TYPE_CHECKING:
    from disfs.chunkstore.fetch import Fetcher
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.presence import ChunkMap
    from disfs.chunkstore.transfers import TransferTable
    from disfs.values import Attributes


class Whereabouts(enum.StrEnum):
    """Where a file's newest contents are; part of what `disfs ls --json` and `user.disfs.state` promise."""

    LOCAL = "local"
    """A part of them is on this machine only, and waits to be sent."""
    UPLOADING = "uploading"
    """The same, and some of it is being sent."""
    DISCORD = "discord"
    """All of them are in Discord."""
    DAMAGED = "damaged"
    """A part of them was asked for and could not be had, neither here nor from Discord."""


@dataclass(frozen=True, slots=True)
class ContentState:
    """What can be said of one file."""

    whereabouts: Whereabouts
    cached_percent: int
    """How much of what is no hole can be read without Discord: 100 only if all of it can."""
    pinned: bool
    sent_percent: int | None = None
    """How much of what has to be sent was; None when nothing has to be."""


class ContentStates:
    """Answers for any file; looks only."""

    def __init__(self, chunks: ChunkMap, ledger: ChunkLedger, transfers: TransferTable, fetcher: Fetcher) -> None:
        self._map = chunks
        self._ledger = ledger
        self._transfers = transfers
        self._fetcher = fetcher

    async def of(self, attributes: Attributes) -> ContentState:
        """How things stand with that file. Suspends for a damaged one at most. FilesystemError."""
        inode = attributes.inode
        cached = self._cached_percent(attributes)
        pinned = inode in self._map.recency.pinned
        if await self._is_damaged(attributes):
            return ContentState(Whereabouts.DAMAGED, cached, pinned)
        transfer = self._transfers.on_the_way(inode, trio.current_time())
        if transfer is None:
            return ContentState(Whereabouts.DISCORD, cached, pinned)
        sent = min(99, 100 * transfer.sent_bytes // max(1, transfer.total_bytes))
        where = Whereabouts.UPLOADING if transfer.sending else Whereabouts.LOCAL
        return ContentState(where, cached, pinned, sent)

    def _cached_percent(self, attributes: Attributes) -> int:
        chunks = self._map.inodes.get(attributes.inode)
        if not attributes.chunk_count:
            return 100
        present = 0 if chunks is None else chunks.count
        return min(100, 100 * present // attributes.chunk_count)

    async def _is_damaged(self, attributes: Attributes) -> bool:
        chunks = self._map.inodes.get(attributes.inode)
        entries = chunks.entries.values() if chunks is not None and self._map.lost_count else ()
        if any(entry.state is ChunkState.LOST for entry in entries):
            return True
        known = self._fetcher.damaged.get(attributes.inode)
        if known is None:
            return False
        for index, pack in list(known.items()):
            extents = await self._ledger.extents(attributes.inode, index, index)
            if any(extent.pack == pack for extent in extents):
                return True
            known.pop(index, None)  # it was written anew, or cut
        self._fetcher.damaged.pop(attributes.inode, None)
        return False
