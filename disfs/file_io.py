"""Contents of regular files: open, read, write, truncate, sync, release. No names, no kernel.

How sizes and chunks stay in step. Many requests for one file are under way at once, and each may wait inside
the chunk store: for a fetch, for room below the dirty limit. So there is no moment when "the" size can be
computed in advance. What makes it right:

- `chunks.write` and `chunks.cut` do all their waiting first and change everything at their very end, in one
  step; they return without another checkpoint. `metadata.note_write` and `metadata.change_attributes` do not
  suspend (SQLite). So content, dirty marks and the size in the metadata, as well as the size that `OpenInode`
  remembers, change in one step and one transaction. Writes and truncates therefore take effect one after
  another, in the order of these last steps, and after each of them this holds: no byte beyond the size exists
  in the chunk store.
- A write does not look at the size at all: `note_write` grows it to the end of the data if it is smaller.
- A truncate looks at the size only to see whether it changes. If it does not, nothing is awaited between the look
  and the change of the times. If it does, the chunk store cuts, also for a longer file: what an earlier cut left behind
  may still lie there physically. When `cut` returns the size may be another one than before; that is harmless,
  because what `cut` did was true of the very step in which the size is set: nothing exists beyond it.
- A read takes the size before and after its wait and returns no more than the smaller allows, so bytes between
  an old end and a new one are never handed out. What it returns up to there is what the file held at some time
  while the read was under way, as POSIX asks.

A per-inode lock would do the same with longer waits: a reader or writer of one end of a file would wait
for the fetch that a truncate of the other end needs. The kernel serialises write(2) and truncate(2) of one inode
itself, but not the writeback of mapped pages, and other doors may come.

O_APPEND is the kernel's: it computes the offset under its inode lock from a size that only it changes.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final, Protocol

import trio

from disfs.callers import mode_after_change
from disfs.errors import FilesystemError
from disfs.metadata.base import Atime, read_moves_atime
from disfs.store_failures import while_it_works
from disfs.values import FIRST_VIEW_INODE, AttributeChanges, is_report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from disfs.callers import Caller
    from disfs.chunkstore.content_state import ContentState
    from disfs.chunkstore.readahead import Readahead
    from disfs.handles import HandleTable, OpenInode
    from disfs.kernel_clock import KernelClock
    from disfs.metadata.base import MetadataStore
    from disfs.values import Attributes, InodeNumber

MAX_FILE_BYTES = 1 << 60
"""A longer file is EFBIG. Less than the 2**63-1 of the kernel, so that the volume's total stays a 64-bit number."""
CAPABILITY_XATTR: Final = b"security.capability"
ATIME_INTERVAL_NS = 1_000_000_000
"""A file that is read all the time offers its atime to the metadata store no more often than this."""


ROOM_SECONDS = 0.3
"""How long a write that finds no room waits for the room of deleted files: the kernel tells of their end a moment
after rm and close have returned."""


class FileChunks(Protocol):
    """What file contents need of the chunk store; `ChunkStore` says what each method promises."""

    async def read(self, inode: InodeNumber, offset: int, length: int, readahead: Readahead | None = None) -> bytes:
        """Exactly `length` bytes; holes, and what lies beyond the last write, are zeros."""
        ...

    async def write(self, inode: InodeNumber, offset: int, data: bytes) -> None:
        """Wait for room and for what is partly covered, then change everything in one last step."""
        ...

    async def cut(self, inode: InodeNumber, size_bytes: int) -> None:
        """Wait for the chunk at the boundary, then forget everything from `size_bytes` on in one last step.

        For every change of size that is not a write, also to a longer file.
        """
        ...

    async def shrink(self, inode: InodeNumber) -> None:
        """Make the following `discard` of an inode that nobody can reach a short step, however large it is."""
        ...

    def discard(self, inode: InodeNumber) -> None:
        """Forget everything of an inode that is gone for good."""
        ...

    def went_to_trash(self, inode: InodeNumber) -> None:
        """The inode is in the trash: its contents stay, but nobody needs them here."""
        ...

    def inherit_pin(self, parent: InodeNumber, inode: InodeNumber) -> None:
        """A new inode was made in a directory: it is pinned if the directory is. Never fails."""
        ...

    async def sync(self, inode: InodeNumber) -> None:
        """Return when what was written to the inode would survive a loss of power, the metadata apart."""
        ...

    async def drain_file(self, inode: InodeNumber) -> None:
        """Return when everything written to the inode so far is in Discord. EIO when that is refused for good."""
        ...

    async def sync_all(self) -> None:
        """As `sync`, for every inode."""
        ...

    async def sync_overlaid(self) -> None:
        """To be called before the metadata alone are made durable; `sync` includes it."""
        ...

    async def content_state(self, attributes: Attributes) -> ContentState:
        """Where the contents of a file are."""
        ...

    def new_readahead(self) -> Readahead:
        """What detects one handle's sequential reads."""
        ...


async def _nothing_to_ship() -> None:
    """Nobody ships metadata: they are durable on this machine, and that is all that can be had."""


def _nothing_to_report(inode: InodeNumber) -> bytes:
    """Nobody says how things are."""
    return b""


class FileIo:
    """Reads and writes open files; see the module's docstring for what keeps sizes right."""

    def __init__(
        self,
        metadata: MetadataStore,
        chunks: FileChunks,
        handles: HandleTable,
        clock: KernelClock,
        *,
        has_orphans: Callable[[], bool] = lambda: False,
        atime: Atime = Atime.RELATIVE,
    ) -> None:
        self._atime = atime
        self._has_orphans = has_orphans
        self._room_returned = trio.lowlevel.ParkingLot()
        self._metadata = metadata
        self._chunks = chunks
        self._handles = handles
        self.ship: Callable[[], Awaitable[None]] = _nothing_to_ship
        """Returns when the metadata as they are now are in Discord too; whoever ships them sets it."""
        self.report: Callable[[InodeNumber], bytes] = _nothing_to_report
        """What a file below `.disfs` says now; whoever knows sets it. Answers at once."""
        self._clock = clock
        self._distrusted: set[InodeNumber] = set()
        """Open files with a write that failed: the kernel's page cache may hold what the file does not."""

    async def open(self, inode: InodeNumber, flags: int, caller: Caller | None = None) -> int:
        """Open a regular file and return the number of its handle; O_TRUNC empties it. ESTALE, EISDIR, EINVAL.

        Without a caller it is the daemon itself that opens.
        """
        if inode >= FIRST_VIEW_INODE and (flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC):
            raise FilesystemError(errno.EROFS)
        empties = bool(flags & os.O_TRUNC)
        if empties:
            emptied = await self.truncate(inode, AttributeChanges(size_bytes=0))
            # The same step as the end of truncate.
            await self._take_privileges(emptied, caller)
        attributes = await self._metadata.attributes(inode)
        if not stat.S_ISREG(attributes.mode):
            raise FilesystemError(errno.EISDIR if stat.S_ISDIR(attributes.mode) else errno.EINVAL)
        fh = self._handles.open_file(attributes, flags)
        handle = self._handles.file(fh)
        if empties:
            handle.opened.lacks_capability = True
        if is_report(inode):
            handle.report = self.report(inode)
        elif flags & os.O_ACCMODE != os.O_WRONLY and not handle.keeps_atime:
            handle.wants_reads = read_moves_atime(self._atime, attributes, self._clock.now_ns())
        return fh

    def open_new(self, made: Attributes, flags: int) -> int:
        """As `open`, for a regular file that was made in this very step."""
        return self._handles.open_file(made, flags, is_new=True)

    def keeps_page_cache(self, fh: int) -> bool:
        """Whether what the kernel has cached of the file is what the file holds.

        Every change passes through this one kernel, so it is, but after a write that failed. Not kept either where the
        next read moves the atime: one that the kernel answers by itself is not seen here, and the atime tells
        programs such as mail readers whether what is new was read.
        """
        handle = self._handles.file(fh)
        inode = handle.opened.inode
        if inode in self._distrusted:
            self._distrusted.discard(inode)
            return False
        return not handle.wants_reads

    def is_report(self, fh: int) -> bool:
        """Whether every read has to come here: the size says nothing of what there is to read."""
        return self._handles.file(fh).report is not None

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end of the file. EBADF, and what fetching raises."""
        handle = self._handles.file(fh)
        opened = handle.opened
        asked, length = length, min(length, opened.size_bytes - offset)
        if length <= 0:
            return b"" if handle.report is None else handle.report[offset : offset + asked]
        if handle.readahead is None:
            handle.readahead = self._chunks.new_readahead()
        data = await self._chunks.read(opened.inode, offset, length, handle.readahead)
        assert len(data) == length
        if not handle.keeps_atime and self._is_atime_due(opened):
            await self._note_read(opened)
        if offset + length > opened.size_bytes:
            return data[: max(0, opened.size_bytes - offset)]
        return data

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset` and return its length. EBADF, EFBIG, ENOSPC, and what fetching raises."""
        handle = self._handles.file(fh)
        opened = handle.opened
        end = offset + len(data)
        if end > MAX_FILE_BYTES:
            # Not a part of it, though POSIX would like that: the kernel makes EIO of a short answer to O_DIRECT.
            raise FilesystemError(errno.EFBIG)
        try:
            try:
                await self._chunks.write(opened.inode, offset, data)
            except FilesystemError as error:
                await self._write_when_room(opened.inode, offset, data, error)
            # The same step as the end of chunks.write: see the module's docstring.
            await self._metadata.note_write(opened.inode, end, self._clock.now_ns())
        except BaseException:
            self._distrusted.add(opened.inode)
            raise
        opened.size_bytes = max(opened.size_bytes, end)
        opened.atime_noted_ns = 0
        if handle.syncs_writes:
            await self.sync(opened.inode)
        return len(data)

    async def _write_when_room(self, inode: InodeNumber, offset: int, data: bytes, error: FilesystemError) -> None:
        """Once more, if it was for want of room; no checkpoint follows the change, as in the chunk store."""
        await self._wait_for_room(error)
        await self._chunks.write(inode, offset, data)

    async def _wait_for_room(self, error: FilesystemError) -> None:
        """Return when files that were deleted have given back what they took; else raise `error`, the reason to ask."""
        if error.errno != errno.ENOSPC or not self._has_orphans():
            raise error
        with trio.move_on_after(ROOM_SECONDS) as waiting:
            await self._wait_for_orphans()
        if waiting.cancelled_caught:
            raise error

    async def _wait_for_orphans(self) -> None:
        """Return when none is left."""
        while self._has_orphans():
            await self._room_returned.park()

    async def truncate(self, inode: InodeNumber, changes: AttributeChanges) -> Attributes:
        """Make the file `changes.size_bytes` long, together with the other changes.

        ESTALE, EISDIR, EINVAL, EFBIG; ENOSPC when it grows within its last chunk and the volume is full.
        """
        try:
            return await self._truncate(inode, changes)
        except FilesystemError as error:
            await self._wait_for_room(error)
            return await self._truncate(inode, changes)

    async def _truncate(self, inode: InodeNumber, changes: AttributeChanges) -> Attributes:
        """No checkpoint follows the change, as in the chunk store."""
        size_bytes = changes.size_bytes
        assert size_bytes is not None
        if size_bytes > MAX_FILE_BYTES:
            raise FilesystemError(errno.EFBIG)
        before = await self._metadata.attributes(inode)
        if inode >= FIRST_VIEW_INODE:
            raise FilesystemError(errno.EROFS)
        if stat.S_ISREG(before.mode) and size_bytes != before.size_bytes:
            await self._chunks.cut(inode, size_bytes)
        # The same step as the end of chunks.cut: see the module's docstring.
        after = await self._metadata.change_attributes(inode, changes, self._clock.now_ns())
        opened = self._handles.opened(inode)
        if opened is not None:
            opened.size_bytes = after.size_bytes
            opened.atime_noted_ns = 0
        return after

    async def fsync(self, fh: int) -> None:
        """Return when contents and attributes of the file would survive a loss of power. EBADF."""
        await self.sync(self._handles.file(fh).opened.inode)

    async def send(self, fh: int) -> None:
        """As `fsync`, and would survive the loss of this machine, as far as Discord is told of it. EBADF, EIO."""
        await self.send_inode(self._handles.file(fh).opened.inode)

    async def send_inode(self, inode: InodeNumber) -> None:
        """As `send`, for any inode."""
        await self.sync(inode)
        await while_it_works(self._metadata, lambda: self._chunks.drain_file(inode))
        await self.send_names()

    async def send_names(self) -> None:
        """Return when the metadata as they are now are in Discord, as far as somebody ships them there. EIO."""
        await while_it_works(self._metadata, self.ship)

    async def sync_everything(self) -> None:
        """As `fsync`, for all files and names of the volume; the daemon calls it every few seconds.

        Contents first, then what names them: after a power cut no name leads to bytes that are not there.
        """
        try:
            await self._chunks.sync_all()
        finally:
            # One file that the cache's disk does not take is no reason to lose the names of all the others.
            await self._metadata.make_durable()

    def close(self, fh: int) -> InodeNumber:
        """Close a handle and say whose it was. EBADF."""
        return self._handles.close_file(fh)

    def forget(self, inode: InodeNumber) -> None:
        """The inode is about to go: drop what is remembered of it."""
        self._distrusted.discard(inode)

    def room_returned(self) -> None:
        """An inode is gone, and with it what it took: whoever waits for room may look."""
        if self._room_returned:
            self._room_returned.unpark_all()

    async def sync(self, inode: InodeNumber) -> None:
        """As `fsync`, for any inode."""
        # Contents first: durable metadata must not promise chunks that are not.
        await self._chunks.sync(inode)
        await self._metadata.make_durable()

    def _is_atime_due(self, opened: OpenInode) -> bool:
        if self._atime is Atime.RELATIVE:
            return self._clock.now_ns() - opened.atime_noted_ns >= ATIME_INTERVAL_NS
        return self._atime is Atime.STRICT

    async def _take_privileges(self, changed: Attributes, caller: Caller | None) -> None:
        """Set-id bits and capability go with a change of contents; the kernel sees to it, but not at O_TRUNC."""
        now_ns = self._clock.now_ns()
        mode = changed.mode if caller is None else mode_after_change(changed.mode, changed.gid, caller)
        if mode != changed.mode:
            await self._metadata.change_attributes(changed.inode, AttributeChanges(mode=mode), now_ns)
        try:
            await self._metadata.remove_xattr(changed.inode, CAPABILITY_XATTR, now_ns)
        except FilesystemError as error:
            if error.errno != errno.ENODATA:
                raise

    async def _note_read(self, opened: OpenInode) -> None:
        now_ns = self._clock.now_ns()
        await self._metadata.note_read(opened.inode, now_ns, self._atime)
        opened.atime_noted_ns = now_ns
