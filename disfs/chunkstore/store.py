"""The chunk store: what the filesystem reads, writes and cuts, whatever is cached, in Discord, or on its way.

The facade over reads, writes, cache, writeback and sweep, and the place where they are put together.

Start order: `start`, then `run` in the daemon's nursery. Stop order: `drain` (or not), cancel `run`, `stop`.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from disfs.chunkstore.cache import Cache
from disfs.chunkstore.compaction import Compactor
from disfs.chunkstore.content_state import ContentStates
from disfs.chunkstore.fetch import Fetcher
from disfs.chunkstore.files import CacheFiles
from disfs.chunkstore.naming import name_of
from disfs.chunkstore.neighbours import Neighbours
from disfs.chunkstore.presence import ChunkMap
from disfs.chunkstore.readahead import Readahead, ReadaheadBudget
from disfs.chunkstore.reads import Reads
from disfs.chunkstore.reclaim import Reclaimer
from disfs.chunkstore.recovery import note_clean_stop, recover
from disfs.chunkstore.room import CacheLimits
from disfs.chunkstore.settings import ChunkStoreSettings
from disfs.chunkstore.small import SmallContents
from disfs.chunkstore.store_values import ChunkStoreStatistics
from disfs.chunkstore.strays import Strays
from disfs.chunkstore.sweep import Sweeper
from disfs.chunkstore.syncing import CacheSync
from disfs.chunkstore.transfers import TransferTable
from disfs.chunkstore.underway import SendsUnderway
from disfs.chunkstore.warming import Warmer
from disfs.chunkstore.writeback import Writeback
from disfs.chunkstore.writes import Writes
from disfs.errors import DisfsError, FilesystemError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Coroutine, Iterable, Sequence
    from pathlib import Path

    from disfs.chunkstore.content_state import ContentState
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.reclaim import Reclaimed
    from disfs.chunkstore.recovery import CacheMarks
    from disfs.chunkstore.sweep import Copies
    from disfs.chunkstore.transport.base import Buffer, Transport
    from disfs.values import Attributes, ChannelId, InodeNumber

log = logging.getLogger(__name__)

_CUT_AT_ONCE = 256
"""Chunks of a huge file that go in one step: about a millisecond of the main thread."""


class ChunkStore:
    """The contents of a volume's files. Call it on trio's main thread."""

    def __init__(
        self,
        *,
        ledger: ChunkLedger,
        transport: Transport,
        channels: Sequence[ChannelId],
        volume_key: VolumeKey,
        cache_directory: Path,
        settings: ChunkStoreSettings | None = None,
        message_text: str = "disfs: data of a volume, do not delete",
        copies: Copies | None = None,
        taken_bytes: Callable[[str], int] = lambda nonce: 0,
    ) -> None:
        """`copies`: see `Sweeper`; `taken_bytes`: see `TransferTable`."""
        self._settings = settings = settings or ChunkStoreSettings()
        self._chunk_bytes = settings.chunk_bytes
        self._ledger = ledger
        self._files = CacheFiles(cache_directory, settings.open_files)
        self._map = ChunkMap(settings.chunk_bytes)
        self._small = SmallContents(ledger, self._files, settings.small_bytes, settings.small_limit_bytes)
        self._cache = Cache(
            self._files,
            self._small,
            self._map,
            CacheLimits(settings.cache_bytes, settings.min_free_bytes, settings.pinned_bytes),
            ledger,
            self.make_ledger_durable,
        )
        self._sync = CacheSync(self._cache)
        self._fetcher = Fetcher(ledger, transport, self._cache, volume_key, settings)
        underway = SendsUnderway(ledger)
        self._writeback = Writeback(
            ledger, transport, self._cache, volume_key, channels, settings, message_text, underway
        )
        self.transfers = TransferTable(self._map, self._writeback.messages, taken_bytes)
        """What is on its way to Discord, file by file."""
        self._states = ContentStates(self._map, ledger, self.transfers, self._fetcher)
        self._neighbours = Neighbours(ledger, self._fetcher, settings)
        self._reads = Reads(self._cache, self._fetcher, self._neighbours, settings.chunk_bytes)
        self._readahead_budget = ReadaheadBudget(settings.readahead_bytes, settings.cache_bytes // 4)
        self._warmer = Warmer(ledger, self._cache, self._fetcher, self._neighbours, settings)
        self._writes = Writes(ledger, self._cache, self._fetcher, self._writeback, settings)
        self._reclaimer = Reclaimer(ledger, transport, volume_key, channels)
        strays = Strays(ledger, transport, volume_key, channels, underway, after_seconds=settings.stray_seconds)
        self._sweeper = Sweeper(ledger, self.make_ledger_durable, transport, strays, settings, copies)
        self._compactor = Compactor(
            ledger,
            transport,
            self._cache,
            volume_key,
            channels,
            settings,
            message_text,
            underway=underway,
            is_busy=lambda: self._writeback.busy,
            budget=self._upload_limits,
        )

    # -- life ---------------------------------------------------------------------------------------------------

    async def reclaim(self, within_seconds: float) -> Reclaimed:
        """Record what had arrived in Discord before a crash without being written down; once, before `start`.

        Discord that does not answer is no error: what is not recorded is sent again. FilesystemError.
        """
        found = await self._reclaimer.reclaim(within_seconds)
        if found.messages:
            # What is dirty must not become durable before its bytes; the cache is not known yet, so all of it.
            await trio.to_thread.run_sync(self._files.sync_disk)
            await self._ledger.make_durable()
        return found

    async def start(
        self, size_of: Callable[[InodeNumber], Awaitable[int | None]], marks: CacheMarks | None = None
    ) -> CacheMarks:
        """Take over the cache directory; once, before anything else.

        `size_of` gives an inode's recorded size, None for one that is unknown. `marks` is what the last `start` or
        `stop` returned; None, or marks without a clean stop, make clean cached data be dropped. The caller stores
        the returned marks beside the ledger before the first write is made durable.
        """
        dirty = self._ledger.dirty_chunks()
        sizes = {inode: await size_of(inode) for inode in {row.key.inode for row in dirty}}
        for inode in self._ledger.pinned_inodes():
            self._map.set_pinned(inode, True)
        marks, lost = recover(self._files, self._small, self._map, dirty, sizes, marks)
        for inode, count in sorted(Counter(key.inode for key in lost).items()):
            name = await name_of(self._ledger, inode)
            log.error("%d chunks of %s were not sent and are not in the cache any more: lost", count, name)
        await self._sync_what_is_left()
        while self._map.weight > self._settings.cache_bytes and self._cache.evict(1):
            pass  # the budget was made smaller since the last run
        return marks

    async def adjust(self, changed: ChunkStoreSettings) -> None:
        """Keep to another cache size, dirty limit, writeback delay and readahead from now on; all else stays as it was.

        Returns when what is too much is evicted, as far as it may be: what is dirty is sent first, in its time.
        """
        self._settings = settings = replace(
            self._settings,
            cache_bytes=changed.cache_bytes,
            dirty_limit_bytes=changed.dirty_limit_bytes,
            writeback_delay_seconds=changed.writeback_delay_seconds,
            readahead_bytes=changed.readahead_bytes,
        )
        self._cache.resize(CacheLimits(settings.cache_bytes, settings.min_free_bytes, settings.pinned_bytes))
        self._readahead_budget.resize(settings.readahead_bytes, settings.cache_bytes // 4)
        self._writes.adjust(settings)
        self._writeback.adjust(settings)
        while self._map.weight > self._settings.cache_bytes and self._cache.evict(1):
            await trio.lowlevel.checkpoint()

    async def _sync_what_is_left(self) -> None:
        """Nobody knows whether what survived a crash of this process would survive one of the machine.

        Marks that are committed become durable with the next sync of the ledger, so their bytes must be before it. One
        sync of the disk takes less than one of each file.
        """
        in_files = [inode for inode, record in self._map.inodes.items() if record.disk_end]
        if not in_files:
            return
        try:
            await trio.to_thread.run_sync(self._files.sync_disk)
        except FilesystemError as error:
            log.warning("what is unsent cannot be synced at once, trying it file by file: %s", error)
            self._cache.unsynced.update(in_files)
            self._cache.overlaid.update(in_files)

    async def run(self, *, tidies: bool = True) -> None:
        """Send, settle, and carry fetches, until cancelled; and sweep and compact, but not without `tidies`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fetcher.run)
            nursery.start_soon(self._writeback.run)
            if tidies:
                nursery.start_soon(self._sweeper.run)
                nursery.start_soon(self._compactor.run)
            nursery.start_soon(self._settle_now_and_then)

    async def stop(self) -> CacheMarks:
        """Leave a note of what is cached, and close; after `run` has ended. The caller stores the marks.

        What is still dirty stays in the cache for the next start.
        """
        try:
            await self._cache.settle()
            return await trio.to_thread.run_sync(note_clean_stop, self._files, self._map)
        finally:
            self.close()

    def close(self) -> None:
        """Close the cache files without a note, as a crash would; closing twice is harmless."""
        self._files.close()

    async def _settle_now_and_then(self) -> None:
        while True:
            if not self._cache.settle_count:
                await self._cache.unsettled.park()
            await trio.sleep(self._settings.settle_seconds)
            try:
                await self._cache.settle()
            except DisfsError:
                log.exception("the metadata cannot be made durable; what was cut or sent keeps its place in the cache")

    # -- reading ------------------------------------------------------------------------------------------------

    def new_readahead(self) -> Readahead:
        """Sequential detection for one handle; close it with the handle."""
        return Readahead(self._fetcher, self._chunk_bytes, self._readahead_budget)

    def read(
        self, inode: InodeNumber, offset: int, length: int, readahead: Readahead | None = None
    ) -> Coroutine[Any, Any, bytes]:
        """Exactly `length` bytes; holes are zeros, and so is what lies past the end: the caller clips.

        No checkpoint if all of it is cached. FilesystemError(EIO) if any of it cannot be had; the log names the file.
        """
        return self._reads.read(inode, offset, length, readahead)

    async def warm(self, inode: InodeNumber, size_bytes: int, on_bytes: Callable[[int], None]) -> None:
        """Bring what is absent of the first `size_bytes` of a file; `on_bytes` hears how much more is there now.

        FilesystemError: ENOSPC when it cannot stay beside pinned and dirty data and some room for work, EIO when a
        chunk cannot be had. A cancel or an error leaves in the cache what has come.
        """
        await self._warmer.warm(inode, size_bytes, on_bytes)

    def set_pinned(self, inodes: Iterable[InodeNumber], pinned: bool) -> None:
        """Keep what is, or will be, cached of these inodes; or cease to. Remembered until the inode goes.

        Three quarters of the cache may be pinned. More is noted too, but what exceeds that may be evicted rather than
        making writes wait; `warm` refuses to bring it.
        """
        inodes = tuple(inodes)
        self._ledger.set_pinned(inodes, pinned)
        for inode in inodes:
            self._map.set_pinned(inode, pinned)

    def inherit_pin(self, parent: InodeNumber, inode: InodeNumber) -> None:
        """A new inode was made in a directory: it is pinned if the directory is. Never fails."""
        if parent not in self._map.recency.pinned:
            return
        try:
            self.set_pinned((inode,), True)
        except FilesystemError as error:
            # The file is there, and whoever made it must not hear that it is not.
            log.warning("inode %d was made in a pinned directory and is not pinned: %s", inode, error)

    @property
    def pinned(self) -> frozenset[InodeNumber]:
        """The pinned inodes."""
        return frozenset(self._map.recency.pinned)

    @property
    def pinned_inodes(self) -> Container[InodeNumber]:
        """The same to look into, without a copy."""
        return self._map.recency.pinned

    # -- writing ------------------------------------------------------------------------------------------------

    def write(self, inode: InodeNumber, offset: int, data: Buffer) -> Coroutine[Any, Any, None]:
        """Take `data` into the cache as dirty content: durable after `sync`, in Discord after writeback.

        Waits while too much is dirty; FilesystemError(ENOSPC), with nothing written, when waiting is pointless or the
        volume would become larger than it may be. No checkpoint follows its last change, so what the caller does next
        belongs to the same step.
        """
        return self._writes.write(inode, offset, data)

    async def cut(self, inode: InodeNumber, size_bytes: int) -> None:
        """The file is now `size_bytes` long, shorter or longer: nothing past that offset ever comes back.

        Call it for every change of size that is not a write. No checkpoint follows its last change.
        """
        await self._writes.cut(inode, size_bytes)

    async def shrink(self, inode: InodeNumber) -> None:
        """Cut most of an inode that is about to be discarded, from its end, in steps that nobody notices.

        For a file that nobody can reach any more. What breaks off here can be begun again.
        """
        while first := self._ledger.cut_point(inode, _CUT_AT_ONCE):
            self._cache.cut(inode, first * self._chunk_bytes)
            await trio.lowlevel.checkpoint()

    def discard(self, inode: InodeNumber) -> None:
        """The inode is gone for good: so are its contents, sent or not."""
        self._writes.discard(inode)
        self._map.set_pinned(inode, False)

    def went_to_trash(self, inode: InodeNumber) -> None:
        """The inode can be reached no more, but may be one day: what is unsent is sent, what is cached may go."""
        self._map.set_pinned(inode, False)

    async def forget_between(self, first: InodeNumber, end: InodeNumber) -> None:
        """`discard` whatever is cached of inodes from `first` to `end`, end excluded, which are gone for good."""
        for inode in [inode for inode in self._map.inodes if first <= inode < end]:
            self._cache.discard(inode)
            await trio.lowlevel.checkpoint()

    @property
    def has_unsent(self) -> bool:
        """Whether any chunk is dirty."""
        return self._map.dirty_count > 0

    # -- making safe --------------------------------------------------------------------------------------------

    async def sync(self, inode: InodeNumber) -> None:
        """Return when everything written to the inode so far would survive a power loss, as far as the cache goes.

        Includes `sync_overlaid`: the ledger may be made durable next.
        """
        self._small.promise(inode)
        await self._sync.sync(inode)
        await self._sync.sync_overlaid()

    async def sync_all(self) -> None:
        """`sync` for every inode; an error of one is raised when all others are synced."""
        self._small.promise_all()
        await self._sync.sync_all()

    async def sync_overlaid(self) -> None:
        """`sync` for every inode whose dirty chunks have an older content in Discord; no error is raised.

        To be called before the ledger is made durable: a power cut must not find a chunk dirty without its bytes.
        """
        await self._sync.sync_overlaid()

    async def make_ledger_durable(self) -> None:
        """Make what is recorded power-safe, and before that the contents that it needs; see `sync_overlaid`."""
        await self._sync.sync_overlaid()
        await self._ledger.make_durable()

    async def drain(self) -> None:
        """Return when every chunk that is dirty now is in Discord, and durably recorded as such.

        Waits for ever while Discord does not take it; `statistics` says why. Cancelling loses nothing.
        """
        await self._writeback.drain()

    async def drain_file(self, inode: InodeNumber) -> None:
        """Return when every chunk of the inode that is dirty now is in Discord, and durably recorded as such.

        Waits as long as that may still come about; FilesystemError(EIO) when Discord refuses it for good. What is
        dirty stays so, and cancelling loses nothing.
        """
        await self._writeback.drain_file(inode)

    def pause(self) -> None:
        """Begin no further upload. What is on its way arrives; reads go on; `drain` waits, and so do writers at the
        dirty limit, until `resume`: nothing is lost, and nothing is refused."""
        self._writeback.pause()

    def resume(self) -> None:
        """Upload again."""
        self._writeback.resume()

    @property
    def paused(self) -> bool:
        """Whether uploads are paused."""
        return self._writeback.paused

    def offer_attachment_limit(self, limit_bytes: int) -> None:
        """The guild's tier allows attachments of that size; to be told whenever that was asked of Discord."""
        self._writeback.offer_attachment_limit(limit_bytes)

    async def sweep(self) -> None:
        """Delete garbage in Discord now, as far as its grace time is over."""
        await self._sweeper.sweep()

    async def compact(self) -> bool:
        """Rewrite one message's worth of mostly dead messages now; False when that is not worth it, or not the time."""
        return await self._compactor.compact()

    def evict_all(self) -> None:
        """Evict everything that Discord has too; reads fetch it again."""
        self._cache.evict_all()

    def statistics(self) -> ChunkStoreStatistics:
        """Everything that a person may want to see."""
        return ChunkStoreStatistics(
            cache_bytes=self._map.weight,
            cache_limit_bytes=self._settings.cache_bytes,
            dirty_bytes=self._map.dirty_bytes,
            dirty_chunks=self._map.dirty_count,
            dirty_limit_bytes=self._settings.dirty_bytes,
            lost_chunks=self._map.lost_count,
            evicted_chunks=self._cache.evicted_count,
            pinned_bytes=self._map.pinned_weight,
            pinned_limit_bytes=self._cache.pinned_limit_bytes,
            pinned_inodes=len(self._map.recency.pinned),
            open_files=self._files.open_count,
            unsettled=self._cache.settle_count,
            writeback=self._writeback.statistics(),
            reads=self._reads.statistics(),
            fetch=self._fetcher.statistics(),
            sweep=self._sweeper.statistics(),
            compaction=self._compactor.statistics(),
        )

    async def content_state(self, attributes: Attributes) -> ContentState:
        """Where the contents of a file are. Suspends for a damaged one at most. FilesystemError."""
        return await self._states.of(attributes)

    def listen_damage(self, listener: Callable[[InodeNumber], None]) -> None:
        """`listener` hears of the inode of each chunk that can neither be had here nor from Discord. Must not raise."""
        self._fetcher.on_damage = listener

    def listen_sent(self, listener: Callable[[InodeNumber, int], None]) -> None:
        """`listener` hears of each inode that has become wholly Discord's, and how many bytes were sent for that.

        In the middle of recording: it must be quick and must not raise.
        """
        self._map.on_sent = listener

    def _upload_limits(self) -> tuple[int, int]:
        now = self._writeback.statistics()
        return now.attachment_limit_bytes, now.message_limit_bytes
