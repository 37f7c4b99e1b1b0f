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

from disfs.chunkstore.cuts import Cuts
from disfs.chunkstore.inode_chunks import InodeChunks
from disfs.chunkstore.states import IRREPLACEABLE, ChunkEvent, ChunkState
from disfs.errors import FilesystemError
from disfs.spans import chunk_range
from disfs.values import ChunkIndex, ChunkKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from disfs.chunkstore.transport.base import Buffer
    from disfs.values import InodeNumber, Revision

log = logging.getLogger(__name__)

_COPIED = frozenset({ChunkState.SENDING, ChunkState.RECORDED})
"""States in which a copy of the cached bytes counts, or soon will, as the newest content."""


class Cache(Cuts):
    """The cached chunks of a volume: contents here, room for them in `room`, cuts in `cuts`."""

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

    def drop_damaged(self, inode: InodeNumber) -> bool:
        """Forget a small content that turned out to be damaged; False where Discord does not have it."""
        record = self.map.inodes.get(inode)
        first = ChunkIndex(0)
        if record is None or not record.is_small or self.map.state(ChunkKey(inode, first)) is not ChunkState.CLEAN:
            return False
        self._drop(inode, first, ChunkEvent.EVICT)
        self._remove_if_empty(record)
        return True

    def content_length(self, key: ChunkKey) -> int:
        """How long the content of a present chunk is."""
        return max(0, min(self.map.chunk_bytes, self.map.inodes[key.inode].end - key.chunk * self.map.chunk_bytes))

    # -- writing ------------------------------------------------------------------------------------------------

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
        revision = self.small.write_new(record, content)
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

    def rewritten(self, key: ChunkKey) -> None:
        """A present chunk is dirty with a new revision, whatever is known of its copies."""
        revision = self._ledger.mark_dirty(key.inode, key.chunk, 1)
        self.map.wrote(key, revision, trio.current_time())

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
