"""Check a volume: its metadata, its cache, what Discord has of it, and, if wanted, every byte of that.

The check changes nothing, and runs beside a mounted volume too. It is a process of its own and blocks where it likes.
What it found stays open for a repair (`fsck_repair`), which asks the same questions again where it matters.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import trio

from disfs.errors import MetadataDamagedError, NotFoundError, UserError
from disfs.metadata.inspection import Inspection
from disfs.metadata.settings import VOLUME_ID
from disfs.metadata.told import ToldRows
from disfs.quantities import human_count
from disfs.recovery.frames import SHIPMENT_KINDS
from disfs.recovery.fsck_cache import SMALL_DAMAGED, UNSENT_LOST, CacheView, check_cache, check_small_contents
from disfs.recovery.fsck_data import DataCheck
from disfs.recovery.fsck_discord import DiscordCheck
from disfs.recovery.fsck_findings import Findings, Kind, shown_path
from disfs.recovery.fsck_index import IndexCheck, check_outbox
from disfs.recovery.fsck_snapshots import SnapshotCheck
from disfs.recovery.index_channel import KEEP_BYTES, IndexChannel
from disfs.spans import chunk_count
from disfs.volume import find_superblock
from disfs.volume_state import METADATA_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import Transport
    from disfs.config import VolumeConfig
    from disfs.metadata.inspected import BadRun, FileView
    from disfs.recovery.fsck_data import DataProgress, Subset
    from disfs.recovery.fsck_discord import Unreferenced
    from disfs.values import InodeNumber, PackId, SlotTable

NO_SLOTS = "the metadata do not know any more where it lies in Discord"
_ONLY_HERE = frozenset({UNSENT_LOST, SMALL_DAMAGED})
"""Causes of damage to chunks that were not sent: that they are dirty does not help them."""
_INDEX_DAMAGE = ("missing from index", "wrong # of entries in index", "non-unique entry in index")


@dataclass(frozen=True, slots=True)
class Scope:
    """What is checked."""

    volume: VolumeConfig
    state_directory: Path
    cache_directory: Path
    mounted: bool
    """Somebody serves it now: what is only in the daemon's hands is left to it."""
    lost_chunks: int = 0
    """How many unsent chunks the daemon says are not in its cache any more."""


class Judgement(NamedTuple):
    """What becomes of the damaged chunks of one file."""

    again: list[int]
    """Chunks of which the cache has a clean copy."""
    lost_count: int
    """How many nobody has."""
    causes: tuple[str, ...]


@dataclass(slots=True)
class Totals:
    """What was looked at."""

    inodes: int = 0
    messages: int = 0
    foreign_messages: int = 0
    packs_read: int = 0


@dataclass(slots=True)
class Check:
    """One check and what it found, in a context: what it noted is open as long as that."""

    scope: Scope
    on_step: Callable[[str, int, int], None] = lambda _what, _done, _total: None
    """Hears of each part how much of how much is done."""
    totals: Totals = field(default_factory=Totals)
    strays: list[Unreferenced] = field(default_factory=list)
    unknown: list[Unreferenced] = field(default_factory=list)
    slot_tables: dict[int, SlotTable] = field(default_factory=dict)
    """What packs say of their slots, where the metadata say something else."""
    superblock_missing: bool = False
    unreadable: bool = False
    """The database is damaged beyond its indexes: nothing of it is to be relied upon, or changed."""
    indexes_damaged: bool = False
    inspection: Inspection = field(init=False)
    rows: ToldRows = field(init=False)
    """What Discord was told, as the metadata have it."""
    snapshots: SnapshotCheck | None = field(init=False, default=None)
    findings: Findings = field(init=False)
    cache: CacheView | None = field(init=False, default=None)

    def __enter__(self) -> Self:
        path = self.scope.state_directory / METADATA_NAME
        self.inspection = Inspection.open(path)
        self.rows = ToldRows(path)
        self.findings = Findings(self.scope.state_directory)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.cache is not None:
            self.cache.close()
        self.rows.close()
        self.inspection.close()
        self.findings.__exit__()

    async def run(self, transport: Transport | None, key: VolumeKey | None, subset: Subset | None) -> None:
        """The whole check; Discord is left out without `transport`. Storage errors as of `Transport`."""
        await trio.lowlevel.checkpoint()
        self.local()
        if transport is not None and key is not None:
            await self.remote(transport, key, subset)
        self.conclude()

    # -- this machine -------------------------------------------------------------------------------------------

    def local(self) -> None:
        """Check the metadata by themselves, and the cache against them. Nothing is raised for damage."""
        self.on_step("metadata", 0, 1)
        for line in self.inspection.damage():
            index_only = any(mark in line for mark in _INDEX_DAMAGE)
            self.indexes_damaged |= index_only
            self.unreadable |= not index_only
            self.findings.add(Kind.DATABASE, f"the metadata database: {line}")
        if self.unreadable:
            return
        try:
            self._check_metadata()
        except (MetadataDamagedError, ValueError, TypeError, OverflowError) as error:
            self.unreadable = True
            self.findings.add(Kind.DATABASE, f"the metadata cannot be made out: {error}")

    def _check_metadata(self) -> None:
        superblock = self.scope.volume.superblock
        if self.inspection.setting(VOLUME_ID) != superblock.volume_id.hex():
            raise MetadataDamagedError("they belong to another volume than the configuration")
        if self.inspection.chunk_bytes != superblock.chunk_bytes:
            raise MetadataDamagedError("they say another chunk size than the superblock")
        with self.inspection.snapshot():
            self.totals.inodes = self.inspection.inode_count()
            for broken in self.inspection.check(lambda done, total: self.on_step("metadata", done, total)):
                what = f"{broken.sentence} ({broken.detail})"
                self.findings.add(Kind.METADATA, what, inode=broken.inode)
            self.inspection.note_unreadable_runs(NO_SLOTS)
            orphans = sum(1 for _ in self.inspection.orphans())
        check_outbox(self.rows, self.findings)
        self.snapshots = SnapshotCheck(self.rows, self.inspection, self.findings, self.scope.state_directory)
        self.snapshots.local()
        if orphans and not self.scope.mounted:
            self.findings.add(Kind.NOTE, f"{orphans} deleted files were open at a crash; the next mount removes them")
        self.on_step("cache", 0, 1)
        if self.scope.lost_chunks:
            lost = human_count(self.scope.lost_chunks, "unsent chunk is", "unsent chunks are")
            self.findings.add(Kind.CACHE, f"{lost} not in the cache any more; unmounted, a check names the files")
        if self.scope.mounted:
            for _ in check_small_contents(self.inspection, self.findings):
                pass
            return
        self.cache = CacheView(self.inspection, self.scope.cache_directory)
        check_cache(self.inspection, self.cache, self.findings)

    # -- Discord ------------------------------------------------------------------------------------------------

    async def remote(self, transport: Transport, key: VolumeKey, subset: Subset | None) -> None:
        """Check the metadata against Discord, and read the packs of `subset`. Storage errors as of `Transport`."""
        if self.unreadable:
            return
        await self._check_superblock(transport)
        listing = DiscordCheck(
            self.inspection,
            transport,
            key,
            self.findings,
            mounted=self.scope.mounted,
            on_progress=lambda done, total: self.on_step("messages", done, total),
        )
        await listing.run(self.scope.volume.superblock.data_channels)
        self.totals.messages = self.inspection.message_count()
        self.totals.foreign_messages = listing.foreign_count
        self.strays, self.unknown = listing.strays, listing.unknown
        self.slot_tables |= listing.slot_tables
        await self._check_index(transport, key, listing.gone_packs)
        if subset is not None:
            reading = DataCheck(self.inspection, transport, key, self.findings, self._on_data)
            self.totals.packs_read = await reading.run(subset)
            self.slot_tables |= reading.slot_tables

    async def _check_index(self, transport: Transport, key: VolumeKey, gone: Collection[PackId]) -> None:
        """The index channel: the names, as a recovery would bring them back, and the snapshots."""
        volume = self.scope.volume
        index = IndexChannel(
            transport,
            volume.index_channel,
            key,
            volume.superblock.volume_id,
            SHIPMENT_KINDS,
            keep_bytes=KEEP_BYTES,
        )
        names = IndexCheck(
            self.rows,
            index,
            self.findings,
            self.scope.state_directory,
            mounted=self.scope.mounted,
            on_progress=lambda done, total: self.on_step("names in Discord", done, total),
        )
        try:
            found = await names.run()
        except NotFoundError:
            return  # the channel is gone, and that was told
        assert self.snapshots is not None, "the local check has come before"
        await self.snapshots.remote(
            transport, index, found.snapshots, gone, lambda done, total: self.on_step("snapshots", done, total)
        )

    def _on_data(self, progress: DataProgress) -> None:
        self.on_step("data", progress.done_bytes, progress.total_bytes)

    async def _check_superblock(self, transport: Transport) -> None:
        volume = self.scope.volume
        try:
            found = await find_superblock(transport, volume.index_channel)
        except NotFoundError:
            self.findings.add(
                Kind.SUPERBLOCK, "the index channel was deleted: the volume cannot be recovered elsewhere"
            )
            return
        except UserError as error:
            self.findings.add(Kind.SUPERBLOCK, str(error))
            return
        if found is None:
            self.superblock_missing = True
            self.findings.add(Kind.SUPERBLOCK, "the message with the volume's superblock was deleted")
        elif replace(found, wrapped_key=volume.superblock.wrapped_key) != volume.superblock:
            # Another wrapped key is another passphrase, given to the same key on another machine.
            self.findings.add(Kind.SUPERBLOCK, "the superblock in Discord is not that of this volume")

    # -- what it comes to ---------------------------------------------------------------------------------------

    def conclude(self) -> None:
        """Say of every file what the damage means for it."""
        if self.unreadable:
            return
        for inode, runs in self.inspection.bad_files():
            file = self.inspection.file(inode)
            judgement = self.judge(inode, file, runs)
            path = shown_path(file.path, inode)
            if judgement.again:
                count = len(judgement.again)
                what = f"{path}: {count} of its chunks must be sent again: the cache has them, Discord lost them"
                self.findings.add(Kind.SEND_AGAIN, what, path=path, inode=inode, chunks=count)
            if judgement.lost_count:
                total = chunk_count(file.size_bytes, self.inspection.chunk_bytes)
                but = " (where the cache has no copy)" if self.scope.mounted else ""
                causes = "; ".join(judgement.causes)
                where = f"{path} (deleted)" if file.in_trash else path
                what = f"{where}: {judgement.lost_count} of {total} chunks cannot be read{but}: {causes}"
                kind = Kind.SET_ASIDE if file.set_aside else Kind.IN_TRASH if file.in_trash else Kind.DAMAGED_FILE
                self.findings.add(kind, what, path=path, inode=inode, chunks=judgement.lost_count)

    def judge(self, inode: InodeNumber, file: FileView, runs: Sequence[BadRun]) -> Judgement:
        """What of the noted damage really is some."""
        most = chunk_count(file.size_bytes, self.inspection.chunk_bytes)
        causes: dict[str, None] = {}
        lost_count = 0
        # Each of these is dirty, and so not counted below again.
        for run, chunks in _disjoint([run for run in runs if run.cause in _ONLY_HERE], most):
            lost_count += len(chunks)
            causes[run.cause] = None
        again: list[int] = []
        for run, chunks in _disjoint([run for run in runs if run.cause not in _ONLY_HERE], most):
            dirty = self.inspection.dirty_among(inode, chunks.start, len(chunks))
            cached = self.cache.clean_chunks(inode, chunks.start, len(chunks)) if self.cache is not None else []
            copies = [chunk for chunk in cached if chunk not in dirty]
            again += copies
            lost = len(chunks) - len(dirty) - len(copies)
            if lost > 0:
                lost_count += lost
                causes[run.cause] = None
        return Judgement(again, lost_count, tuple(causes))


def _disjoint(runs: Sequence[BadRun], most: int) -> Iterator[tuple[BadRun, range]]:
    """Runs, in order, and which of their chunks none before them had; none behind the end of the file."""
    position = 0
    for run in runs:
        first = max(run.first, position)
        end = min(run.first + run.chunk_count, max(most, first + 1))
        if first < end:
            position = end
            yield run, range(first, end)
