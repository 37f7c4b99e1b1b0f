"""The metadata store on SQLite: one facade over the components, answering MetadataStore and ChunkLedger.

Everything but `run` and `make_durable` answers without suspending. All calls must come from the thread that opened
the store.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import trio

from disfs.errors import FilesystemError
from disfs.metadata.acls import Acls
from disfs.metadata.base import DEFAULT_CAPACITY_BYTES, Atime
from disfs.metadata.counters import COOKIES, INODES, PACKS, REVISIONS, SNAPSHOTS, Counter
from disfs.metadata.database import Database
from disfs.metadata.dentries import Dentries
from disfs.metadata.dirty import Dirty
from disfs.metadata.durability import Checkpointer, SharedSync, WalFile, sync_error
from disfs.metadata.extents import Extents
from disfs.metadata.inodes import Inodes
from disfs.metadata.names import Names
from disfs.metadata.opening import NewVolume, cannot_open, connect, create_volume, damaged, open_connection
from disfs.metadata.outbox import Outbox
from disfs.metadata.packs import Packs
from disfs.metadata.pins import Examined, Pins, SentPacks
from disfs.metadata.recording import Recording
from disfs.metadata.rename import Renames
from disfs.metadata.settings import CHUNK_BYTES, CLEAN_SHUTDOWN, Settings
from disfs.metadata.shipping import Shipping
from disfs.metadata.small_contents import SmallContents
from disfs.metadata.snapshot import Snapshot
from disfs.metadata.snapshots import Snapshots
from disfs.metadata.totals import Totals
from disfs.metadata.trash import Trash
from disfs.metadata.upkeep import checkpoint_regularly, commit_regularly, look_for_damage
from disfs.metadata.xattrs import Xattrs
from disfs.spans import DEFAULT_CHUNK_BYTES
from disfs.values import FIRST_VIEW_INODE, ROOT_INODE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from disfs.metadata.base import RenameMode, Unlinked, VolumeUsage, XattrMode
    from disfs.posix_acl import Acl, AclKind
    from disfs.values import (
        AttributeChanges,
        Attributes,
        ChannelId,
        ChunkIndex,
        ChunkKey,
        DeadMessage,
        DirectoryEntry,
        DirtyChunk,
        Extent,
        InodeNumber,
        LiveChunk,
        MessageId,
        NewInode,
        PackId,
        PackRecord,
        Recorded,
        Revision,
        SentPack,
        SparseMessage,
    )

DEFAULT_RESERVE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class MetadataStatistics:
    """What the metadata store does and how it is, for status."""

    inode_count: int
    logical_bytes: int
    allocated_bytes: int
    """What all files take, holes left out: what statfs counts as used."""
    capacity_bytes: int
    """How much of that there may be."""
    trash_count: int
    """What was deleted or replaced and can be restored; none of it counts above."""
    trash_bytes: int
    commit_count: int
    sync_count: int
    checkpoint_count: int
    wal_bytes: int
    low_space: bool
    """Below its reserve: nothing new is accepted."""
    damage: str | None
    """What could not be made out in the database; None while nothing was found."""
    failure: str | None
    """Why the store has stopped; None while it works."""


class SqliteMetadataStore:
    """One volume's metadata in one SQLite file. Made by `open`."""

    def __init__(
        self,
        path: Path,
        database: Database,
        checkpointer: Checkpointer,
        snapshot: Snapshot,
        wal: WalFile,
        sync: SharedSync,
        *,
        chunk_bytes: int,
        capacity_bytes: int,
        trash_seconds: float,
    ):
        self._path = path
        self.chunk_bytes = chunk_bytes
        """Fixed when the volume was made."""
        self._database = database
        self._checkpointer = checkpointer
        self._wal = wal
        self._sync = sync
        self._closed = False
        self._synced_commits = 0
        self.settings = Settings(database)
        """Facts about the volume, see settings.py for the keys."""
        self._counters = {kind.name: Counter(database, kind) for kind in (INODES, COOKIES, REVISIONS, PACKS, SNAPSHOTS)}
        revisions = self._counters[REVISIONS.name]
        self._totals = Totals(database, self.settings, chunk_bytes, capacity_bytes)
        outbox = Outbox(database)
        acls = Acls(database, outbox, self.settings)
        self._inodes = Inodes(database, outbox, self._counters[INODES.name], self._totals, acls)
        self._dentries = Dentries(database, outbox, self._inodes, self._counters[COOKIES.name])
        self._names = Names(database, self._inodes, self._dentries)
        self._renames = Renames(database, self._inodes, self._dentries)
        self._xattrs = Xattrs(database, outbox, self._inodes, acls)
        self._dirty = Dirty(database, revisions)
        self._packs = Packs(database, outbox, self._counters[PACKS.name], revisions)
        self._extents = Extents(database, outbox, self._packs, chunk_bytes)
        self.trash = Trash(database, outbox, self._inodes, self._dentries, self._dirty, self._extents, trash_seconds)
        """What was deleted or replaced and can be restored."""
        self._small = SmallContents(database)
        self._recording = Recording(
            database,
            outbox,
            self._inodes,
            self._dirty,
            self._extents,
            self._packs,
            self._small,
            self._totals,
            self.trash,
            chunk_bytes,
        )
        self._pins = Pins(database)
        self._examined = Examined(database)
        self._sent_packs = SentPacks(database)
        self._snapshot = snapshot
        self.shipping = Shipping(database, outbox, self.settings, self._counters, snapshot)
        """What of all this is in Discord."""
        self.snapshots = Snapshots(database, self._counters[SNAPSHOTS.name], revisions, self._inodes.views, path)
        """Its snapshots, which are shown once `show` was called."""
        self.was_clean = self.settings.get(CLEAN_SHUTDOWN) is True
        """Whether the last user of the volume closed it; if not, it crashed and the newest moments may be missing."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        create: bool = False,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
        root_uid: int | None = None,
        root_gid: int | None = None,
        now_ns: int | None = None,
        reserve_bytes: int = DEFAULT_RESERVE_BYTES,
        capacity_bytes: int = DEFAULT_CAPACITY_BYTES,
        trash_seconds: float = 0,
        sync: Callable[[], None] | None = None,
        free_bytes: Callable[[], int] | None = None,
    ) -> Self:
        """Open the volume at `path`; with `create`, make it first (UserError when it exists).

        A new root directory belongs to `root_uid` and `root_gid`, by default this process's. `capacity_bytes` is how
        much all files together may take, `trash_seconds` how long what is deleted can be restored. `sync` stands in
        for the fsync of the log, and `free_bytes` for the free
        space of the disk, in tests. UserError when the file is
        missing, damaged, newer, or cannot be written.
        """
        if create:
            uid = os.getuid() if root_uid is None else root_uid
            gid = os.getgid() if root_gid is None else root_gid
            create_volume(path, NewVolume(chunk_bytes, uid, gid, time.time_ns() if now_ns is None else now_ns))
        path = path.resolve()  # the log lies beside the file, not beside a link to it
        wal = WalFile(path)
        database = Database(open_connection(path), free_bytes or _free_bytes_of(path.parent), reserve_bytes)
        checkpointer = Checkpointer(connect(path, for_worker=True))
        snapshot = Snapshot(connect(path, for_worker=True))
        try:
            store = cls(
                path,
                database,
                checkpointer,
                snapshot,
                wal,
                SharedSync(sync or wal.sync),
                chunk_bytes=_known(Settings(database).get(CHUNK_BYTES), path),
                capacity_bytes=capacity_bytes,
                trash_seconds=trash_seconds,
            )
            if not store._inodes.is_directory(ROOT_INODE):
                raise damaged(path, "it has no root directory")
            store._begin()
        except BaseException as error:
            checkpointer.close()
            snapshot.close()
            database.close()
            if isinstance(error, FilesystemError):
                raise cannot_open(path, error) from error
            raise
        return store

    def close(self) -> None:
        """Commit, copy the whole log into the database, mark the stop as clean, close. Blocks; once is enough.

        FilesystemError when something could not be kept; the store is closed all the same.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._database.failure is None:
                with self._database.changing:
                    for counter in self._counters.values():
                        counter.give_back()
                    self.settings.put(CLEAN_SHUTDOWN, True)
                self._database.commit(last_chance=True)
                self._snapshot.end()
                self._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._inodes.views.close()
            self._checkpointer.close()
            self._snapshot.close()
            self._wal.close()
            self._database.close()

    async def run(self) -> None:
        """Group commits, checkpoints, and after a crash a look for damage, until cancelled.

        Cancelling loses nothing; `close` commits the rest.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit_regularly, self._database)
            nursery.start_soon(checkpoint_regularly, self._database, self._checkpointer)
            if not self.was_clean:
                nursery.start_soon(look_for_damage, self._database, self._path)

    def statistics(self) -> MetadataStatistics:
        """How the store is."""
        usage = self._totals.usage()
        return MetadataStatistics(
            inode_count=usage.inode_count,
            logical_bytes=usage.logical_bytes,
            allocated_bytes=usage.allocated_bytes,
            capacity_bytes=self._totals.capacity_bytes,
            trash_count=self.trash.totals[0],
            trash_bytes=self.trash.totals[1],
            commit_count=self._database.commit_count,
            sync_count=self._sync.count,
            checkpoint_count=self._checkpointer.count,
            wal_bytes=self._wal.size_bytes(),
            low_space=self._database.low_space,
            damage=self._database.damage,
            failure=self._database.failure,
        )

    # MetadataStore: inodes

    async def attributes(self, inode: InodeNumber) -> Attributes:
        """See MetadataStore."""
        return self._inodes.attributes(inode)

    async def change_attributes(self, inode: InodeNumber, changes: AttributeChanges, now_ns: int) -> Attributes:
        """See MetadataStore."""
        return self._inodes.change_attributes(inode, changes, now_ns)

    async def note_write(self, inode: InodeNumber, end: int, now_ns: int) -> None:
        """See MetadataStore."""
        self._inodes.note_write(inode, end, now_ns)

    async def note_read(self, inode: InodeNumber, now_ns: int, rule: Atime = Atime.RELATIVE) -> None:
        """See MetadataStore."""
        self._inodes.note_read(inode, now_ns, rule)

    async def symlink_target(self, inode: InodeNumber) -> bytes:
        """See MetadataStore."""
        return self._inodes.symlink_target(inode)

    async def usage(self) -> VolumeUsage:
        """See MetadataStore."""
        return self._totals.usage()

    async def orphans(self) -> Sequence[InodeNumber]:
        """See MetadataStore."""
        return self._inodes.orphans()

    async def remove_orphan(self, inode: InodeNumber) -> None:
        """See MetadataStore."""
        self._inodes.remove_orphan(inode)

    async def trash_orphan(self, inode: InodeNumber, now_ns: int) -> bool:
        """See MetadataStore."""
        return self.trash.take_orphan(inode, now_ns)

    # MetadataStore: names

    async def lookup(self, parent: InodeNumber, name: bytes) -> Attributes:
        """See MetadataStore."""
        return self._dentries.lookup(parent, name)

    async def list_directory(self, inode: InodeNumber, after_cookie: int, limit: int) -> Sequence[DirectoryEntry]:
        """See MetadataStore."""
        return self._dentries.list_directory(inode, after_cookie, limit)

    async def parent_of(self, directory: InodeNumber) -> InodeNumber:
        """See MetadataStore."""
        return self._dentries.parent_of(directory)

    async def paths(self, inode: InodeNumber) -> Sequence[bytes]:
        """See ChunkLedger."""
        return self._dentries.paths(inode)

    async def make_inode(self, parent: InodeNumber, name: bytes, new: NewInode, now_ns: int) -> Attributes:
        """See MetadataStore."""
        return self._names.make_inode(parent, name, new, now_ns)

    async def link(self, inode: InodeNumber, parent: InodeNumber, name: bytes, now_ns: int) -> Attributes:
        """See MetadataStore."""
        return self._names.link(inode, parent, name, now_ns)

    async def unlink(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        """See MetadataStore."""
        return self._names.unlink(parent, name, now_ns)

    async def rmdir(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        """See MetadataStore."""
        return self._names.rmdir(parent, name, now_ns)

    async def rename(
        self,
        parent: InodeNumber,
        name: bytes,
        new_parent: InodeNumber,
        new_name: bytes,
        mode: RenameMode,
        now_ns: int,
    ) -> Unlinked | None:
        """See MetadataStore."""
        return self._renames.rename(parent, name, new_parent, new_name, mode, now_ns)

    # MetadataStore: extended attributes

    async def get_xattr(self, inode: InodeNumber, name: bytes) -> bytes:
        """See MetadataStore."""
        return self._xattrs.get(inode, name)

    async def set_xattr(self, inode: InodeNumber, name: bytes, value: bytes, mode: XattrMode, now_ns: int) -> None:
        """See MetadataStore."""
        self._xattrs.set(inode, name, value, mode, now_ns)

    async def set_acl(
        self, inode: InodeNumber, kind: AclKind, acl: Acl, now_ns: int, *, clears_setgid: bool = False
    ) -> None:
        """See MetadataStore."""
        self._xattrs.set_acl(inode, kind, acl, now_ns, clears_setgid=clears_setgid)

    async def list_xattrs(self, inode: InodeNumber) -> Sequence[bytes]:
        """See MetadataStore."""
        return self._xattrs.list(inode)

    async def remove_xattr(self, inode: InodeNumber, name: bytes, now_ns: int) -> None:
        """See MetadataStore."""
        self._xattrs.remove(inode, name, now_ns)

    # ChunkLedger

    def is_empty(self, inode: InodeNumber) -> bool:
        """See ChunkLedger."""
        return self._inodes.attributes(inode).size_bytes == 0

    def check_room(self, inode: InodeNumber, offset: int, length: int) -> None:
        """See ChunkLedger."""
        self._recording.check_room(inode, offset, length)

    def mark_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> Revision:
        """See ChunkLedger."""
        return self._recording.mark_dirty(inode, first, count)

    def renew_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> Revision:
        """See ChunkLedger."""
        return self._recording.renew_dirty(inode, first, count)

    def dirty_chunks(self) -> Sequence[DirtyChunk]:
        """See ChunkLedger."""
        return self._dirty.all()

    def write_small(self, inode: InodeNumber, content: bytes) -> Revision:
        """See ChunkLedger."""
        return self._recording.write_small(inode, content)

    def keep_small(self, inode: InodeNumber, content: bytes) -> None:
        """See ChunkLedger."""
        self._small.keep(inode, content)

    def remove_small(self, inode: InodeNumber) -> None:
        """See ChunkLedger."""
        self._small.remove(inode)

    def small_content(self, inode: InodeNumber) -> bytes:
        """See ChunkLedger."""
        return self._small.content(inode)

    def small_lengths(self) -> Sequence[tuple[InodeNumber, int]]:
        """See ChunkLedger."""
        return self._small.lengths()

    def cut_chunks(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """See ChunkLedger."""
        self._recording.cut_chunks(inode, first)

    def discard(self, inode: InodeNumber) -> None:
        """See ChunkLedger."""
        self._recording.discard(inode)

    def cut_point(self, inode: InodeNumber, count: int) -> ChunkIndex:
        """See ChunkLedger."""
        return self._recording.cut_point(inode, count)

    async def extents(self, inode: InodeNumber, first: ChunkIndex, last: ChunkIndex) -> Sequence[Extent]:
        """See ChunkLedger."""
        if inode >= FIRST_VIEW_INODE:
            return self._inodes.views.extents(inode, first, last)
        return self._extents.find(inode, first, last)

    async def pack(self, pack: PackId) -> PackRecord:
        """See ChunkLedger."""
        return self._packs.record(pack)

    async def record_packs(self, packs: Sequence[SentPack]) -> Recorded:
        """See ChunkLedger."""
        return self._recording.record_packs(packs)

    async def record_in_steps(self, packs: Sequence[SentPack], on_step: Callable[[Recorded], None]) -> None:
        """See ChunkLedger."""
        await self._recording.record_in_steps(packs, on_step)

    async def record_moved(self, packs: Sequence[SentPack], origins: Mapping[ChunkKey, tuple[PackId, int]]) -> int:
        """See ChunkLedger."""
        return await self._recording.record_moved(packs, origins)

    async def sparse_messages(self, limit: int) -> Sequence[SparseMessage]:
        """See ChunkLedger."""
        found = self._packs.sparse_messages(limit)
        return [sparse for sparse in found if not self._recording.is_underway(sparse.message)]

    async def packs_of_message(self, message: MessageId) -> Sequence[PackId]:
        """See ChunkLedger."""
        return self._packs.of_message(message)

    async def chunks_of_pack(self, pack: PackId, first_slot: int, count: int) -> Sequence[LiveChunk]:
        """See ChunkLedger."""
        return self._extents.of_slots(pack, first_slot, count)

    async def unknown_messages(self, messages: Sequence[MessageId]) -> frozenset[MessageId]:
        """See ChunkLedger."""
        return self._packs.unknown_messages(messages)

    def note_sending(self, packs: Sequence[PackId]) -> None:
        """See ChunkLedger."""
        self._sent_packs.note(packs)

    def has_sent(self, pack: PackId) -> bool:
        """See ChunkLedger."""
        return self._sent_packs.has(pack)

    def examined(self, channel: ChannelId) -> MessageId:
        """See ChunkLedger."""
        return self._examined.get(channel)

    def set_examined(self, channel: ChannelId, message: MessageId) -> None:
        """See ChunkLedger."""
        self._examined.set(channel, message)

    def pinned_inodes(self) -> frozenset[InodeNumber]:
        """See ChunkLedger."""
        return self._pins.all()

    def set_pinned(self, inodes: Iterable[InodeNumber], pinned: bool) -> None:
        """See ChunkLedger."""
        self._pins.set(inodes, pinned)

    async def dead_messages(self, limit: int) -> Sequence[DeadMessage]:
        """See ChunkLedger."""
        return [
            dead for dead in self._packs.dead_messages(limit) if not self._recording.is_underway(dead.location.message)
        ]

    async def forget_messages(self, messages: Sequence[DeadMessage]) -> None:
        """See ChunkLedger."""
        self._packs.forget(messages)

    # Durability

    def prepare_checkpoints(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """A checkpoint makes all commits durable that came before it: `prepare` is awaited before each."""
        self._checkpointer.before_pass.append(prepare)

    async def commit(self) -> None:
        """See MetadataStore."""
        self._database.commit()

    async def make_durable(self) -> None:
        """See MetadataStore. A log that cannot be synced stops the store: nobody knows what of it is on the disk."""
        self._database.commit()
        commits = self._database.commit_count
        if commits == self._synced_commits:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._sync.wait()
        except OSError as error:
            self._database.fail(f"the write-ahead log cannot be synced: {error}")
            raise sync_error(error) from error
        self._synced_commits = max(self._synced_commits, commits)

    def _begin(self) -> None:
        """Note durably, before anything else, that the volume is in use; after a crash, skip numbers."""
        self._database.rows("PRAGMA synchronous = FULL")
        with self._database.changing:
            if not self.was_clean:
                for counter in self._counters.values():
                    counter.skip_gap()
            self.settings.put(CLEAN_SHUTDOWN, False)
        self._database.commit()
        self._database.rows("PRAGMA synchronous = NORMAL")


def _known(chunk_bytes: int | None, path: Path) -> int:
    if chunk_bytes is None or chunk_bytes <= 0:
        raise damaged(path, "it has no chunk size")
    return chunk_bytes


def _free_bytes_of(directory: Path) -> Callable[[], int]:
    def free_bytes() -> int:
        try:
            figures = os.statvfs(directory)
        except OSError as error:
            raise FilesystemError(errno.EIO, f"cannot ask for the free space of {directory}: {error}") from error
        return figures.f_bavail * figures.f_frsize

    return free_bytes
