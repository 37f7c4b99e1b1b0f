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

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.presence import InodeChunks
    from disfs.values import InodeNumber, Revision


class SmallContents:
    """The rows, by the records of their inodes: `InodeChunks.is_small` tells whose content is one."""

    def __init__(self, ledger: ChunkLedger, each_bytes: int, limit_bytes: int) -> None:
        self._ledger = ledger
        self._each_bytes = each_bytes
        self._limit_bytes = limit_bytes
        self.total_bytes = 0
        """How long all of them are together."""
        self._fresh: set[InodeNumber] = set()
        """Written from nothing, and nobody was promised since that anything of it is durable."""

    def takes(self, record: InodeChunks, end: int) -> bool:
        """Whether a content that ends at `end` may be a row from now on, or stay one."""
        if record.disk_end or end > self._each_bytes:
            return False
        return self.total_bytes - record.end + end <= self._limit_bytes

    def write(self, record: InodeChunks, content: bytes) -> Revision:
        """`content` is all there is of the inode, and dirty. FilesystemError, with nothing changed."""
        revision = self._ledger.write_small(record.inode, content)
        self._became(record, len(content))
        return revision

    def write_first(self, record: InodeChunks, content: bytes) -> Revision:
        """`write`, where there was nothing before, here or in Discord, that a power cut could take."""
        self._fresh.add(record.inode)
        return self.write(record, content)

    def promise(self, inode: InodeNumber) -> None:
        """What the inode has now will be durable; to be called before it is."""
        self._fresh.discard(inode)

    def promise_all(self) -> None:
        """`promise` for every inode."""
        self._fresh.clear()

    def is_promised(self, inode: InodeNumber) -> bool:
        """Whether somebody may have been promised that something of it is durable."""
        return inode not in self._fresh

    def keep(self, record: InodeChunks, content: bytes) -> None:
        """`content` is all there is of the inode, and Discord has it. FilesystemError, with nothing changed."""
        self._ledger.keep_small(record.inode, content)
        self._became(record, len(content))

    def read(self, record: InodeChunks) -> bytes:
        """All of it."""
        return self._ledger.small_content(record.inode)

    def remove(self, record: InodeChunks) -> None:
        """Nothing of the inode is cached any more; its record is weighed by the caller."""
        self._ledger.remove_small(record.inode)
        self._became(record, 0)

    def spilled(self, record: InodeChunks) -> None:
        """The cache file has all of it, up to the end or beyond; the caller sets the ends."""
        self._ledger.remove_small(record.inode)
        self.total_bytes -= record.end
        self._fresh.discard(record.inode)

    def found(self, record: InodeChunks, length: int) -> None:
        """At the start: there is such a row."""
        self._became(record, length)

    def lengths(self) -> Sequence[tuple[InodeNumber, int]]:
        """Every row of the ledger; at the start."""
        return self._ledger.small_lengths()

    def _became(self, record: InodeChunks, end: int) -> None:
        self.total_bytes += end - record.end
        record.end = end
        if not end:
            self._fresh.discard(record.inode)


def overwritten(content: bytes, offset: int, data: bytes) -> bytes:
    """What `content` is after `data` was written at `offset`."""
    if not offset and len(data) >= len(content):
        return data
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]
