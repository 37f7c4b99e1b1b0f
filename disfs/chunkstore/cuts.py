"""What leaves the cache because a file was shortened, and what waits until the ledger is durable.

The rules that are named by number stand in `cache`.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.room import Room
from disfs.chunkstore.states import ChunkEvent, ChunkState
from disfs.errors import FilesystemError
from disfs.spans import chunk_count
from disfs.values import ChunkIndex, ChunkKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from disfs.chunkstore.files import CacheFiles
    from disfs.chunkstore.inode_chunks import InodeChunks
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.presence import ChunkMap
    from disfs.chunkstore.room import CacheLimits
    from disfs.chunkstore.small import SmallContents
    from disfs.values import InodeNumber, Revision

log = logging.getLogger(__name__)

_SETTLE_CUTS_AT_ONCE = 8
_SETTLE_CHUNKS_AT_ONCE = 100


class Cuts(Room):
    """The part of `Cache` that destroys content. `settle` and `settle_cut` suspend; all else is one step."""

    def __init__(
        self,
        files: CacheFiles,
        small: SmallContents,
        chunks: ChunkMap,
        limits: CacheLimits,
        ledger: ChunkLedger,
        make_durable: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(files, small, chunks, limits)
        self.unsettled = trio.lowlevel.ParkingLot()
        """Unparked when `settle` has something to do."""
        self._ledger = ledger
        self._make_durable = make_durable
        self._doomed: dict[InodeNumber, int] = {}
        self._stuck: dict[InodeNumber, int] = {}
        """Of these, those whose bytes the disk did not let go of, with the cut's number."""
        self._leaving: set[InodeNumber] = set()
        """Of these, those that are gone from the metadata."""
        self._cut_number = 0
        self._recorded: dict[ChunkKey, Revision] = {}

    def needs_settling(self, inode: InodeNumber, end: int) -> bool:
        """Whether content up to `end` would lie over bytes that were cut and are not gone yet: `settle` first."""
        record = self.map.inodes.get(inode)
        return record is not None and record.doomed and end > record.end

    def cut(self, inode: InodeNumber, size_bytes: int) -> None:
        """The file is now `size_bytes` long. Records the cut in the ledger, and what is left of the boundary chunk.

        FilesystemError, with nothing changed, when the ledger has no room for the boundary chunk.
        """
        chunk_bytes = self.map.chunk_bytes
        first = chunk_count(size_bytes, chunk_bytes)
        boundary = ChunkIndex(size_bytes // chunk_bytes)
        record = self.map.inodes.get(inode)
        shortened = record is not None and record.has(boundary) and boundary < first and record.end > size_bytes
        # What may be refused comes first: a file that keeps its size must keep its tail.
        revision = self._mark_shortened(record, boundary, size_bytes) if shortened and record is not None else None
        self._ledger.cut_chunks(inode, ChunkIndex(first))
        if record is None:
            return
        weight = record.weight
        was_doomed = not record.is_small and (record.doomed or self.map.irreplaceable(inode, boundary))
        gone = [index for index in record.indices(first) if index >= first]
        gone += [index for index in record.entries if index >= first and not record.has(index)]
        for index in gone:
            self._recorded.pop(ChunkKey(inode, index), None)
            self.map.move(ChunkKey(inode, index), ChunkEvent.CUT)
        if record.is_small and not size_bytes:
            self.small.remove(record)
        record.end = min(record.end, size_bytes)
        if revision is not None:
            self.map.wrote(ChunkKey(inode, boundary), revision, trio.current_time())
        self._shorten(record, weight, at_once=not was_doomed)
        if self.changed:
            self.changed.unpark_all()

    def discard(self, inode: InodeNumber) -> None:
        """`cut` to nothing, of an inode that the caller removes from the metadata in this very step."""
        record = self.map.inodes.get(inode)
        self.vanished.discard(inode)
        if record is None or not record.is_small:
            self._leaving.add(inode)
            self.cut(inode, 0)
            if inode not in self._doomed:
                self._leaving.discard(inode)
            return
        # Most files are small, and many go before they were sent.
        self._ledger.discard(inode)
        if self._recorded:
            self._recorded.pop(ChunkKey(inode, ChunkIndex(0)), None)
        if self.map.discard_unsent(record):
            self.small.discarded(record)
            self._needs_no_sync(inode)
            if self.changed:
                self.changed.unpark_all()
        else:
            self.cut(inode, 0)

    def _mark_shortened(self, record: InodeChunks, boundary: ChunkIndex, size_bytes: int) -> Revision:
        if record.is_small:
            return self.small.shorten(record, size_bytes)
        revision = self._ledger.mark_dirty(record.inode, boundary, 1)
        self.unsynced.add(record.inode)
        self.overlaid.add(record.inode)
        return revision

    def _shorten(self, record: InodeChunks, weight: int, *, at_once: bool) -> None:
        self.map.reweigh(record)
        if record.disk_end > record.end and not (at_once and self._destroy_tail(record)):
            record.doomed_bytes += max(0, weight - record.weight)
            self._cut_number += 1
            self._doomed[record.inode] = self._cut_number
            self.unsettled.unpark_all()
            self.map.reweigh(record)
        self._remove_if_empty(record)

    def _destroy_tail(self, record: InodeChunks) -> bool:
        """Whether the disk let go of the bytes; if not they stay doomed, and the next `settle` tries again."""
        inode = record.inode
        try:
            if record.count or record.end:
                self.files.truncate(inode, record.end)
            else:
                self.files.remove(inode)
                self.vanished.add(inode)
        except FilesystemError as error:
            if inode not in self._stuck:
                log.warning("what was cut from inode %d stays in the cache: %s", inode, error)
            return False
        if inode in self._leaving:
            self.vanished.discard(inode)
            self._needs_no_sync(inode)
        else:
            self.unsynced.add(inode)
            self.overlaid.add(inode)
        record.disk_end = record.end
        record.doomed_bytes = 0
        self.map.reweigh(record)
        return True

    # -- what waits for durability ------------------------------------------------------------------------------

    def recorded(self, key: ChunkKey) -> None:
        """The chunk's pack was recorded just now; it may be evicted once that is durable."""
        entry = self.map.entry(key)
        assert entry is not None
        self._recorded[key] = entry.revision
        self.unsettled.unpark_all()

    @property
    def settle_count(self) -> int:
        """How many cuts and records wait for `settle`, and are not known to wait in vain."""
        return len(self._doomed) - len(self._stuck) + len(self._recorded)

    async def settle_cut(self, inode: InodeNumber) -> None:
        """Settle, so that the file can grow again; FilesystemError(EIO) if the disk does not let go of what was cut."""
        number = self._doomed.get(inode)
        await self.settle()
        if number is not None and self._stuck.get(inode) == number:
            raise FilesystemError(errno.EIO, f"what was cut from inode {inode} cannot be removed from the cache")

    async def settle(self) -> None:
        """Make the ledger durable; then destroy what was cut before, and free for eviction what was recorded before.

        Thousands of small files come and go at once, so this is done in short steps, each of which looks anew.
        """
        doomed, recorded = dict(self._doomed), dict(self._recorded)
        await self._make_durable()
        for count, (inode, number) in enumerate(doomed.items(), 1):
            if count % _SETTLE_CUTS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            # A later cut of the same file is not durable yet: the next settle does both.
            if self._doomed.get(inode) == number:
                record = self.map.inodes[inode]
                if not self._destroy_tail(record):
                    self._stuck[inode] = number
                    continue
                del self._doomed[inode]
                self._leaving.discard(inode)
                self._stuck.pop(inode, None)
                self._remove_if_empty(record)
        for count, (key, revision) in enumerate(recorded.items(), 1):
            if count % _SETTLE_CHUNKS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if self._recorded.get(key) == revision:
                del self._recorded[key]
                entry = self.map.entry(key)
                if entry is not None and entry.state is ChunkState.RECORDED and entry.revision == revision:
                    self.map.move(key, ChunkEvent.SETTLE)
        self.changed.unpark_all()
