"""The metadata store on SQLite, answering MetadataStore and ChunkLedger: its opening, its life and its end.

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
from disfs.metadata.base import DEFAULT_CAPACITY_BYTES
from disfs.metadata.counters import REVISIONS, SNAPSHOTS
from disfs.metadata.database import Database
from disfs.metadata.disk_room import DiskRoom
from disfs.metadata.durability import Checkpointer, SharedSync, WalFile, sync_error
from disfs.metadata.ledger import Ledger
from disfs.metadata.namespace import Namespace
from disfs.metadata.opening import NewVolume, cannot_open, connect, create_volume, damaged, open_connection
from disfs.metadata.settings import CHUNK_BYTES, CLEAN_SHUTDOWN, Settings
from disfs.metadata.shipping import Shipping
from disfs.metadata.snapshot import Snapshot
from disfs.metadata.snapshots import Snapshots
from disfs.metadata.upkeep import checkpoint_regularly, commit_regularly, look_for_damage
from disfs.spans import DEFAULT_CHUNK_BYTES
from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from disfs.metadata.opening import VolumeFacts

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


class SqliteMetadataStore(Namespace, Ledger):
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
        super().__init__(database, chunk_bytes=chunk_bytes, capacity_bytes=capacity_bytes, trash_seconds=trash_seconds)
        self._path = path
        self._checkpointer = checkpointer
        self._wal = wal
        self._sync = sync
        self._closed = False
        self._synced_commits = 0
        self._snapshot = snapshot
        self.shipping = Shipping(database, self._outbox, self.settings, self._counters, snapshot)
        """What of all this is in Discord."""
        self.snapshots = Snapshots(
            database, self._counters[SNAPSHOTS.name], self._counters[REVISIONS.name], self._inodes.views, path
        )
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
        is_ours: Callable[[VolumeFacts], bool] | None = None,
        sync: Callable[[], None] | None = None,
        free_bytes: Callable[[], int] | None = None,
    ) -> Self:
        """Open the volume at `path`; with `create`, make it first (UserError when it exists).

        A new root directory belongs to `root_uid` and `root_gid`, by default this process's. `capacity_bytes` is how
        much all files together may take, `trash_seconds` how long what is deleted can be restored. `is_ours` says
        whether it is the right volume, before it is changed in any way. `sync` stands in for the fsync of the log, and
        `free_bytes` for the free space of the disk, in tests. UserError when the file is missing, damaged, newer, of
        another volume, or cannot be written.
        """
        if create:
            uid = os.getuid() if root_uid is None else root_uid
            gid = os.getgid() if root_gid is None else root_gid
            create_volume(path, NewVolume(chunk_bytes, uid, gid, time.time_ns() if now_ns is None else now_ns))
        path = path.resolve()  # the log lies beside the file, not beside a link to it
        wal = WalFile(path)
        database = Database(
            open_connection(path, is_ours), DiskRoom(free_bytes or _free_bytes_of(path.parent), reserve_bytes)
        )
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

    @property
    def failure(self) -> str | None:
        """See MetadataStore."""
        return self._database.failure

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
            low_space=self._database.room.is_low,
            damage=self._database.damage,
            failure=self._database.failure,
        )

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
        """Note durably, before anything else, that the volume is in use; after a crash, skip numbers and be careful."""
        self._database.rows("PRAGMA synchronous = FULL")
        self._database.guards_changes = not self.was_clean
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
