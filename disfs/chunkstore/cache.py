"""The local cache: sparse files and small contents, what they hold, and the budget. All but `settle` is one step.

Rules that keep data whole, where it lies in a file (what lies in a row has the ledger's transactions: see `small`):

1. A region that is not present is a hole of the cache file, or lies in `[end, disk_end)` (rule 3). So one pread serves
   a range whose absent chunks are holes.
2. Content is destroyed at once only if a crash could not miss it: holes, clean chunks. What an older, still
   durable record of the ledger may name as the only copy waits for `settle`, which makes the ledger durable first.
   Without this, `mv new old` and a crash could bring `old` back without its unsent bytes.
3. Bytes that were cut and wait lie in `[end, disk_end)` of their inode: they are never shown, never sent, and the
   file does not grow over them before they are gone (`needs_preparing`).
4. Sizes are reserved before bytes are written: the budget and the free space of the disk hold at every moment.
5. Pinned inodes keep their chunks, up to `pinned_limit_bytes` together. What they have beyond that, because they grew,
   is evicted when nothing else can be: a file that does not stay whole here is better than a write that fails.

Rejected: renaming the old file aside at a truncate (recovery would have to tell the generations apart by
revision), and committing inside `cut` (the caller's new size belongs to the same transaction and is not in it yet).
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.free_space import FreeSpace
from disfs.chunkstore.presence import InodeChunks
from disfs.chunkstore.states import IRREPLACEABLE, ChunkEvent, ChunkState
from disfs.errors import FilesystemError
from disfs.spans import chunk_count, chunk_range
from disfs.values import ChunkIndex, ChunkKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from disfs.chunkstore.files import CacheFiles
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.presence import ChunkMap
    from disfs.chunkstore.small import SmallContents
    from disfs.chunkstore.transport.base import Buffer
    from disfs.values import InodeNumber, Revision

log = logging.getLogger(__name__)

_COPIED = frozenset({ChunkState.SENDING, ChunkState.RECORDED})
"""States in which a copy of the cached bytes counts, or soon will, as the newest content."""
_SETTLE_CUTS_AT_ONCE = 8
_SETTLE_CHUNKS_AT_ONCE = 100
_EVICT_AT_ONCE = 8
"""Chunks that an eviction takes at least: a system call for each single chunk would cost more than it saves."""


class Cache:
    """The cached chunks of a volume. `changed` is unparked when waiting for room can have become pointless."""

    def __init__(
        self,
        files: CacheFiles,
        small: SmallContents,
        chunks: ChunkMap,
        ledger: ChunkLedger,
        make_durable: Callable[[], Awaitable[None]],
        *,
        limit_bytes: int,
        min_free_bytes: int,
        pinned_limit_bytes: int,
    ) -> None:
        self.files = files
        self.small = small
        self.map = chunks
        self.changed = trio.lowlevel.ParkingLot()
        self.bulk_step = trio.Lock()
        """Held for one short step by whoever brings many chunks in or out. It is handed over from one round of the
        scheduler to the next, so at most one such step keeps the kernel's requests waiting."""
        self.unsettled = trio.lowlevel.ParkingLot()
        """Unparked when `settle` has something to do."""
        self.unsynced: set[InodeNumber] = set()
        self.overlaid: set[InodeNumber] = set()
        """Those of them with new content in chunks whose older content is elsewhere: in Discord, or in a row until they
        spilled. That they are dirty must not become durable before their bytes: after a power cut the older
        content, fsynced long ago, would be gone too."""
        self.evicted_count = 0
        self._ledger = ledger
        self._make_durable = make_durable
        self._limit_bytes = limit_bytes
        self._free_space = FreeSpace(files, min_free_bytes)
        self.pinned_limit_bytes = pinned_limit_bytes
        self._doomed: dict[InodeNumber, int] = {}
        self._stuck: dict[InodeNumber, int] = {}
        """Of these, those whose bytes the disk did not let go of, with the cut's number."""
        self._cut_number = 0
        self._recorded: dict[ChunkKey, Revision] = {}

    def has_all(self, inode: InodeNumber, chunks: range) -> bool:
        """Whether every one of `chunks` is present."""
        record = self.map.inodes.get(inode)
        return record is not None and record.has_all(chunks)

    def read(self, inode: InodeNumber, offset: int, length: int, chunks: range | None = None) -> bytes:
        """Exactly `length` bytes; whatever is not present reads as zeros, so ask `has_all` or the ledger before.

        `chunks` are those that the bytes lie in, for a caller that has computed them.
        """
        data = self.content(inode, offset, length)
        self.map.recency.used(inode, chunk_range(offset, length, self.map.chunk_bytes) if chunks is None else chunks)
        return data if len(data) == length else data + bytes(length - len(data))

    def content(self, inode: InodeNumber, offset: int, length: int) -> bytes:
        """As `read`, but cut off where the cached content ends. A chunk's content is what is sealed."""
        record = self.map.inodes.get(inode)
        if record is None or (wanted := min(offset + length, record.end) - offset) <= 0:
            return b""
        if record.is_small:
            return self.small.read(record)[offset : offset + wanted]
        data = self.files.read(inode, offset, wanted)
        if len(data) != wanted:
            raise FilesystemError(errno.EIO, f"the cache file of inode {inode} was shortened by somebody else")
        return data

    def content_length(self, key: ChunkKey) -> int:
        """How long the content of a present chunk is."""
        return max(0, min(self.map.chunk_bytes, self.map.inodes[key.inode].end - key.chunk * self.map.chunk_bytes))

    # -- room ---------------------------------------------------------------------------------------------------

    def growth(self, inode: InodeNumber, chunks: range, end: int) -> int:
        """How many bytes the cache would grow by if `chunks` became present and the content reached `end`."""
        chunk_bytes = self.map.chunk_bytes
        record = self.map.inodes.get(inode)
        if record is None:
            last_bytes = end - (chunks.stop - 1) * chunk_bytes
            return (len(chunks) - 1) * chunk_bytes + min(chunk_bytes, -(-last_bytes // 4096) * 4096)
        end = max(end, record.end)
        more = sum(not record.has(index) for index in chunks)
        in_chunks = (end - 1) // chunk_bytes in chunks
        return record.weight_of(chunk_bytes, more=more, end=end, last_present=in_chunks) - record.weight

    def reserve(self, inode: InodeNumber, chunks: range, end: int) -> bool:
        """Evict until that growth fits into the budget and on the disk; False when it cannot be made to.

        The eviction may take chunks of the same inode, so look at presence after it, not before.
        """
        while (shortage := self._shortage(self.growth(inode, chunks, end))) > 0:
            if not self.evict(shortage):
                return False
        return True

    def has_room(self, inode: InodeNumber, chunks: range, end: int) -> bool:
        """Whether that growth fits as things are, without evicting."""
        return self._shortage(self.growth(inode, chunks, end)) <= 0

    def has_room_for_new(self, length: int) -> bool:
        """Whether a content of that length, of an inode that is not cached, may be a row as things are."""
        return self.small.takes_new(length) and self._shortage(-(-length // 4096) * 4096) <= 0

    def _shortage(self, growth: int) -> int:
        if growth <= 0:
            return 0
        over_budget = self.map.weight + growth - self._limit_bytes
        return over_budget if over_budget > 0 else self._free_space.shortage(growth)

    def evict(self, shortage: int) -> bool:
        """Evict of the longest unused group as much as helps, and a little more; False if nothing may be evicted."""
        found = self.map.evictable()
        if found is None and self.map.pinned_weight > self.pinned_limit_bytes:
            found = self.map.evictable(pinned=True)
        if found is None:
            return False
        inode, clean = found
        chunk_bytes = self.map.chunk_bytes
        try:
            for index in clean[: max(_EVICT_AT_ONCE, -(-shortage // chunk_bytes))]:
                self._drop(inode, index, ChunkEvent.EVICT)
                self.evicted_count += 1
        except FilesystemError as error:
            # One file that the disk does not let us touch must not stop everybody who needs room.
            log.warning("the cache file of inode %d keeps its place: %s", inode, error)
            self.map.pass_over(inode, clean[0])
        self._remove_if_empty(self.map.inodes[inode])
        return True

    def evict_all(self) -> None:
        """Evict whatever may be evicted."""
        while self.evict(1 << 62):
            pass

    def _drop(self, inode: InodeNumber, index: ChunkIndex, event: ChunkEvent) -> None:
        chunk_bytes = self.map.chunk_bytes
        record = self.map.inodes[inode]
        if record.is_small:
            self.small.remove(record)
            self.map.move(ChunkKey(inode, index), event)
            return
        # The hole first: a chunk must not be called absent while its bytes are still there (rule 1).
        self.files.punch(inode, index * chunk_bytes, chunk_bytes)
        self.map.move(ChunkKey(inode, index), event)

    def _remove_if_empty(self, record: InodeChunks) -> None:
        # What the disk could not read once, it may read after a restart.
        if record.count or record.doomed or any(e.state is ChunkState.LOST for e in record.entries.values()):
            return
        if record.disk_end:
            try:
                self.files.remove(record.inode)
            except FilesystemError as error:
                log.warning("the empty cache file of inode %d stays: %s", record.inode, error)
                return
            record.end = record.disk_end = 0
            self.map.reweigh(record)
        self._needs_no_sync(record.inode)
        self.map.forget_if_empty(record.inode)

    def _needs_no_sync(self, inode: InodeNumber) -> None:
        self.unsynced.discard(inode)
        self.overlaid.discard(inode)

    # -- writing ------------------------------------------------------------------------------------------------

    def needs_settling(self, inode: InodeNumber, end: int) -> bool:
        """Whether content up to `end` would lie over bytes that were cut and are not gone yet: `settle` first."""
        record = self.map.inodes.get(inode)
        return record is not None and record.doomed and end > record.end

    def needs_preparing(self, inode: InodeNumber, end: int) -> bool:
        """Whether content cannot be written up to `end` before `prepare`: it needs settling, or would make a small
        content spill that a power cut must not take."""
        record = self.map.inodes.get(inode)
        if record is None:
            return False
        if record.is_small:
            if self.small.takes(record, max(end, record.end)) or self.small.is_safe(inode):
                return False
            return self.map.irreplaceable(inode, 0)
        return record.doomed and end > record.end

    async def prepare(self, inode: InodeNumber) -> None:
        """Make what `needs_preparing` asks for, and ask it again.

        FilesystemError if the disk does not let go of what was cut, or does not take the copy of what is to spill.
        """
        record = self.map.inodes.get(inode)
        if record is not None and record.is_small:
            await self.small.make_safe(record)
        else:
            await self.settle_cut(inode)

    def write(self, inode: InodeNumber, offset: int, data: Buffer, fills: Mapping[ChunkIndex, bytes]) -> None:
        """Take new content: `fills` (what Discord has of partly covered chunks) below it, all chunks dirty.

        Room has been made. Raises FilesystemError with nothing changed but, perhaps, the very range in dirty chunks.
        """
        end = offset + len(data)
        for filled, plain in fills.items():
            end = max(end, filled * self.map.chunk_bytes + len(plain))
        assert not self.needs_preparing(inode, end)
        chunks = chunk_range(offset, len(data), self.map.chunk_bytes)
        record = self.map.at(inode)
        if self.small.takes(record, max(end, record.end)):
            revision = self._write_small(record, offset, data, fills)
        else:
            revision = self._write_file(record, offset, data, fills)
            # Chunks without an entry are absent or clean.
            if fills or any(record.has(index) and ChunkIndex(index) not in record.entries for index in chunks):
                self.overlaid.add(inode)
            self._reach(record, end)
            self.unsynced.add(inode)
        self._free_space.took(len(data))
        now = trio.current_time()
        for index in chunks:
            self.map.wrote(ChunkKey(inode, ChunkIndex(index)), revision, now)

    def write_new(self, inode: InodeNumber, content: bytes) -> None:
        """`write` where `has_room_for_new`: `content` is all that the inode has. FilesystemError, nothing changed."""
        record = InodeChunks(inode)
        revision = self.small.write(record, 0, content, b"")
        self._free_space.took(len(content))
        self.map.wrote_new(record, revision, trio.current_time())

    def dirty_record(self, inode: InodeNumber, chunks: range, end: int) -> InodeChunks | None:
        """The inode's record, if content of `chunks` up to `end` would replace unsent content of a file and nothing
        else: such a write takes no room, needs no fetch, and leaves no copy that would have to be disowned."""
        record = self.map.inodes.get(inode)
        # Neither a small content nor one of which something was cut: both ends are one.
        if record is None or record.end != record.disk_end or end > record.end:
            return None
        entries = record.entries
        for index in chunks:
            entry = entries.get(ChunkIndex(index))
            if entry is None or entry.state is not ChunkState.DIRTY:
                return None
        return record

    def rewrite(self, record: InodeChunks, offset: int, data: Buffer, chunks: range) -> None:
        """`write` where `dirty_record` gave the record. FilesystemError, with at most the range changed."""
        inode = record.inode
        self.files.write(inode, offset, data, create=False)
        revision = self._ledger.renew_dirty(inode, ChunkIndex(chunks.start), len(chunks))
        self.unsynced.add(inode)
        self._free_space.took(len(data))  # a chunk may have had holes
        self.map.rewrote(record, chunks, revision, trio.current_time())

    def _write_small(
        self, record: InodeChunks, offset: int, data: Buffer, fills: Mapping[ChunkIndex, bytes]
    ) -> Revision:
        try:
            return self.small.write(record, offset, bytes(data), b"".join(fills.values()))
        except BaseException:
            self.map.forget_if_empty(record.inode)
            raise

    def _write_file(
        self, record: InodeChunks, offset: int, data: Buffer, fills: Mapping[ChunkIndex, bytes]
    ) -> Revision:
        inode = record.inode
        chunks = chunk_range(offset, len(data), self.map.chunk_bytes)
        try:
            self._disown_copies(record, chunks)
            create = self._begin_file(record)
            for filled, plain in fills.items():
                self.files.write(inode, filled * self.map.chunk_bytes, plain, create=create)
                create = False
            self.files.write(inode, offset, data, create=create)
            revision = self._ledger.mark_dirty(inode, ChunkIndex(chunks.start), len(chunks))
            self._has_spilled(record)
        except BaseException:
            self._undo(record, chunks)
            raise
        return revision

    def _begin_file(self, record: InodeChunks) -> bool:
        """Whether the first write is to create the cache file. A small content is copied into it before."""
        if not record.is_small:
            return not record.disk_end
        self.small.begin_spill(record)
        return False

    def _has_spilled(self, record: InodeChunks) -> None:
        """If there is a row, the file replaces it."""
        if record.is_small:
            self.small.end_spill(record)
            self._free_space.took(record.end)
            self.unsynced.add(record.inode)
            self.overlaid.add(record.inode)
            self._reach(record, record.end)

    def _disown_copies(self, record: InodeChunks, chunks: range) -> None:
        """Before bytes change: whose copy is on its way or was recorded is dirty anew.

        A write that fails half-way may leave new bytes here, and a copy of the old ones must not pass for them.
        """
        for index in map(ChunkIndex, chunks):
            entry = record.entries.get(index)
            if entry is not None and entry.state in _COPIED:
                self.rewritten(ChunkKey(record.inode, index))

    def fill(self, key: ChunkKey, plain: bytes) -> bool:
        """Keep what a fetch brought; False (and nothing changed) if there is no place for it now."""
        chunk_bytes = self.map.chunk_bytes
        start = key.chunk * chunk_bytes
        end = start + len(plain)
        chunks = range(key.chunk, key.chunk + 1)
        try:
            if not plain or self.needs_preparing(key.inode, end) or not self.reserve(key.inode, chunks, end):
                return False
            record = self.map.at(key.inode)
            if not self._fill_small(record, key, plain):
                self._fill_file(record, key, plain)
        except FilesystemError as error:
            log.warning("fetched data could not be cached: %s", error)
            return False
        self._free_space.took(len(plain))
        self.map.move(key, ChunkEvent.FETCHED)
        return True

    def _fill_small(self, record: InodeChunks, key: ChunkKey, plain: bytes) -> bool:
        """Whether it became a row: a ledger that has no room is no reason not to keep it at all."""
        if record.is_small or key.chunk or not self.small.takes(record, len(plain)):
            return False
        try:
            self.small.keep(record, plain)
        except FilesystemError as error:
            log.debug("fetched data of inode %d is not kept as a small content: %s", key.inode, error)
            return False
        return True

    def _fill_file(self, record: InodeChunks, key: ChunkKey, plain: bytes) -> None:
        start = key.chunk * self.map.chunk_bytes
        try:
            create = self._begin_file(record)
            self.files.write(key.inode, start, plain, create=create)
            self._has_spilled(record)
        except FilesystemError:
            self._undo(record, range(key.chunk, key.chunk + 1))
            raise
        self._reach(record, start + len(plain))

    def _reach(self, record: InodeChunks, end: int) -> None:
        record.end = max(record.end, end)
        record.disk_end = max(record.disk_end, record.end)

    def _undo(self, record: InodeChunks, chunks: range) -> None:
        """After a write that failed half-way: make holes again, and drop clean chunks that it may have touched."""
        if not record.disk_end:
            self.small.give_up_spill(record.inode)
            self.files.remove(record.inode)
            self.map.forget_if_empty(record.inode)
            return
        for index in map(ChunkIndex, chunks):
            state = self.map.state(ChunkKey(record.inode, index))
            if state is ChunkState.CLEAN:
                self._drop(record.inode, index, ChunkEvent.EVICT)
            elif state not in IRREPLACEABLE:
                self.files.punch(record.inode, index * self.map.chunk_bytes, self.map.chunk_bytes)
        self.files.truncate(record.inode, record.disk_end)
        self._remove_if_empty(record)

    # -- cutting ------------------------------------------------------------------------------------------------

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
        if record is None or not record.is_small:
            self.cut(inode, 0)
            return
        # Most files are small, and many go before they were sent.
        self._ledger.discard(inode)
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

    def rewritten(self, key: ChunkKey) -> None:
        """A present chunk is dirty with a new revision, whatever is known of its copies."""
        revision = self._ledger.mark_dirty(key.inode, key.chunk, 1)
        self.map.wrote(key, revision, trio.current_time())

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
                self.unsynced.add(inode)
            else:
                self.files.remove(inode)
                self._needs_no_sync(inode)
        except FilesystemError as error:
            if inode not in self._stuck:
                log.warning("what was cut from inode %d stays in the cache: %s", inode, error)
            return False
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
