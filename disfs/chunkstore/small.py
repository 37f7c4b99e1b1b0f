"""Small contents: rows of the ledger instead of cache files of their own.

Making and removing a file costs the disk's file system far more than a row of a transaction that is open anyway (ext4
scans the inodes that were deleted last: 19 to 850 us, against 12 for a row of 4 KiB). So the cached content of an inode
that ends within `each_bytes`, and so lies in chunk 0, is a row.

Rules:

1. A row, its dirty mark and the file's size are one transaction: after a crash they agree. So the rules of `cache`
   about files do not apply: a row may be cut and written anew at once, sent or not, and there is nothing to sync but
   the ledger.
2. What grows beyond `each_bytes` *spills* into a cache file, and stays one until nothing of it is cached. The row is
   removed in the transaction that makes the file count. Of an inode that has both, the row counts: a crash came between
   spill and commit, or a power cut brought a file back that was removed before the row was written.
3. Once the row's removal is durable the file's bytes must be: a spilled inode is `overlaid`; and if the row was
   promised to be durable, and Discord does not have it, the file is on the disk before the row goes (see `spilling`).
4. Together they take no more than `limit_bytes`, because SQLite's file never shrinks. What is over it is a file.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from disfs.chunkstore.spilling import SpillCopies
from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.files import CacheFiles
    from disfs.chunkstore.inode_chunks import InodeChunks
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.values import InodeNumber, Revision


class SmallContents:
    """The rows, by the records of their inodes: `InodeChunks.is_small` tells whose content is one.

    Raises FilesystemError with nothing changed where nothing else is said.
    """

    def __init__(self, ledger: ChunkLedger, files: CacheFiles, each_bytes: int, limit_bytes: int) -> None:
        self._ledger = ledger
        self._files = files
        self._copies = SpillCopies(files)
        self._each_bytes = each_bytes
        self._limit_bytes = limit_bytes
        self.total_bytes = 0
        """How long all of them are together."""
        self._fresh: set[InodeNumber] = set()
        """Written from nothing, and nobody was promised since that anything of it is durable."""

    def lengths(self) -> Sequence[tuple[InodeNumber, int]]:
        """Every row of the ledger; at the start."""
        return self._ledger.small_lengths()

    def found(self, record: InodeChunks, length: int) -> None:
        """At the start: there is such a row."""
        self._became(record, length)

    def takes(self, record: InodeChunks, end: int) -> bool:
        """Whether a content that ends at `end` may be a row from now on, or stay one."""
        if record.disk_end or end > self._each_bytes:
            return False
        return self.total_bytes - record.end + end <= self._limit_bytes

    def takes_new(self, length: int) -> bool:
        """`takes` for a content of an inode that is not cached."""
        return length <= self._each_bytes and self.total_bytes + length <= self._limit_bytes

    def is_covered(self, record: InodeChunks, start: int, end: int) -> bool:
        """Whether bytes from `start` to `end` lie over all of it."""
        return record.is_small and not start and end >= record.end

    def read(self, record: InodeChunks) -> bytes:
        """All of it."""
        content = self._ledger.small_content(record.inode)
        if len(content) != record.end:
            raise FilesystemError(errno.EIO, f"the small content of inode {record.inode} was changed by somebody else")
        return content

    # -- changing -----------------------------------------------------------------------------------------------

    def write(self, record: InodeChunks, offset: int, data: bytes, fill: bytes) -> Revision:
        """Write `data` over what there is: a row, or `fill` from Discord, or nothing. It is dirty then."""
        if record.is_small:
            # Nothing of what there was is looked at where nothing of it stays: it may be damaged.
            old = b"" if self.is_covered(record, offset, offset + len(data)) else self.read(record)
            return self._rewrite(record, overwritten(old, offset, data))
        if fill:
            return self._rewrite(record, overwritten(fill, offset, data))
        return self.write_new(record, overwritten(b"", offset, data))

    def write_new(self, record: InodeChunks, content: bytes) -> Revision:
        """`content` is all there is of the inode, which has no row. It is dirty then."""
        revision = self._ledger.write_small(record.inode, content)
        record.end = len(content)
        self.total_bytes += record.end
        self._fresh.add(record.inode)
        return revision

    def shorten(self, record: InodeChunks, size_bytes: int) -> Revision:
        """Keep the first `size_bytes`, at least one; they are dirty then."""
        return self._rewrite(record, self.read(record)[:size_bytes])

    def _rewrite(self, record: InodeChunks, content: bytes) -> Revision:
        self._copies.drop(record.inode)
        revision = self._ledger.write_small(record.inode, content)
        self._became(record, len(content))
        return revision

    def keep(self, record: InodeChunks, content: bytes) -> None:
        """`content` is all there is of the inode, and Discord has it."""
        self._ledger.keep_small(record.inode, content)
        self._became(record, len(content))

    def remove(self, record: InodeChunks) -> None:
        """Nothing of the inode is cached any more; its record is weighed by the caller."""
        self._copies.drop(record.inode)
        self._ledger.remove_small(record.inode)
        self._became(record, 0)

    def discarded(self, record: InodeChunks) -> None:
        """`remove`, where the ledger has discarded the whole inode, and the caller drops its record."""
        self._copies.drop(record.inode)
        self._fresh.discard(record.inode)
        self.total_bytes -= record.end

    def _became(self, record: InodeChunks, end: int) -> None:
        self.total_bytes += end - record.end
        record.end = end
        if not end:
            self._fresh.discard(record.inode)

    # -- spilling -----------------------------------------------------------------------------------------------

    def promise(self, inode: InodeNumber) -> None:
        """What the inode has now will be durable; to be called before it is."""
        self._fresh.discard(inode)

    def promise_all(self) -> None:
        """`promise` for every inode."""
        self._fresh.clear()

    def is_safe(self, inode: InodeNumber) -> bool:
        """Whether the row may go as soon as a file has what it has: nothing of it was promised, or it is copied."""
        return inode in self._fresh or self._copies.has(inode)

    async def make_safe(self, record: InodeChunks) -> None:
        """Copy the row durably; what changes meanwhile is not safe again, so ask."""
        await self._copies.make(record.inode, self.read(record))

    def begin_spill(self, record: InodeChunks) -> None:
        """The cache file has what the row has; the row counts. What fails half-way is for `give_up_spill`."""
        if not self._copies.has(record.inode):
            self._files.write(record.inode, 0, self.read(record), create=True)

    def end_spill(self, record: InodeChunks) -> None:
        """The file counts from now on; the caller notes how long it is."""
        self._copies.take(record.inode)
        self._ledger.remove_small(record.inode)
        self.total_bytes -= record.end
        self._fresh.discard(record.inode)

    def give_up_spill(self, inode: InodeNumber) -> None:
        """The caller removes the file; the row counts, if there is one."""
        self._copies.take(inode)


def overwritten(content: bytes, offset: int, data: bytes) -> bytes:
    """What `content` is after `data` was written at `offset`."""
    if not offset and len(data) >= len(content):
        return data
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]
