"""Repair what a check found: first as a plan that a person can read, then step by step.

A copy of the metadata is kept first. Each step is one transaction, and whatever breaks off in between leaves a volume
that can be mounted, and checked and repaired again. Bytes are never destroyed: files that lost some are moved aside,
and of messages only those are deleted that nothing refers to.

A chunk that is nowhere is not marked where its place in Discord is still recorded: reading it is an error by itself
then, here and on every machine that recovers the volume. Only what lost its place is marked as lost, because it would
read as zeros.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING

from disfs.chunkstore.transport.base import DELETE_LIMIT, Urgency
from disfs.errors import CorruptDataError, NotFoundError
from disfs.metadata.inspection import Inspection
from disfs.metadata.repairs import Repairs
from disfs.quantities import human_count
from disfs.recovery.arrivals import ForkedError
from disfs.recovery.fsck import NO_SLOTS
from disfs.recovery.fsck_findings import Kind
from disfs.recovery.rebuild_snapshots import Volume, rebuild_one
from disfs.volume import send_superblock
from disfs.volume_state import METADATA_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from disfs.chunkstore.transport.base import Transport
    from disfs.recovery.fsck import Check
    from disfs.recovery.fsck_discord import Unreferenced
    from disfs.recovery.index_channel import IndexChannel
    from disfs.recovery.repair_right import RepairRight
    from disfs.values import ChannelId, ChunkKey, InodeNumber, MessageId

COPY_NAME = "metadata.db.before-fsck"
_FILES_AT_ONCE = 256
_SHOWN_MOVES = 20
_SHOWN_ERRORS = 10


class Repair:
    """What is to be done about a finished check; nobody else has the volume open."""

    def __init__(self, check: Check, *, online: bool, delete_unknown: bool) -> None:
        self._check = check
        self._online = online
        self._doomed: Sequence[Unreferenced] = ()
        self._without_place: set[InodeNumber] = set()
        """Files with chunks that were marked as lost."""
        if online:
            self._doomed = [*check.strays, *(check.unknown if delete_unknown else ())]

    def plan(self) -> list[str]:
        """What `run` would do, a line each; empty when there is nothing to do, or nothing that can be done."""
        if self._check.unreadable:
            return []
        counts = self._check.findings.counts
        files, messages = counts[Kind.DAMAGED_FILE], len(self._doomed)
        lines = (
            (self._check.indexes_damaged, "build the indexes of the metadata anew"),
            (counts[Kind.METADATA], f"put the metadata in order at {human_count(counts[Kind.METADATA], 'place')}"),
            (
                len(self._check.slot_tables),
                f"take the slot tables of {human_count(len(self._check.slot_tables), 'pack')} from Discord",
            ),
            (
                counts[Kind.CACHE],
                f"drop {human_count(counts[Kind.CACHE], 'damaged copy', 'damaged copies')} in the cache",
            ),
            (
                counts[Kind.SEND_AGAIN],
                f"send again what the cache has of {human_count(counts[Kind.SEND_AGAIN], 'file')}, at the next mount",
            ),
            (files, f"move {human_count(files, 'damaged file')} to lost+found/damaged; what is left of them stays"),
            (messages, f"delete {human_count(messages, 'message')} that nothing refers to"),
            (
                counts[Kind.OUTBOX] or counts[Kind.COPY],
                "send a whole copy of the names to Discord, at the next mount",
            ),
            *self._plan_of_snapshots(),
            (
                self._check.superblock_missing and self._online,
                "send the superblock again, from this machine's copy",
            ),
        )
        return [line for wanted, line in lines if wanted]

    def _plan_of_snapshots(self) -> Iterator[tuple[int, str]]:
        found = self._check.snapshots
        if found is not None:
            yield len(found.again), f"send {human_count(len(found.again), 'snapshot')} again, at the next mount"
            yield len(found.sound), f"take the names of {human_count(len(found.sound), 'snapshot')} from Discord"
            yield len(found.not_held), f"keep the messages of {human_count(len(found.not_held), 'snapshot')} again"

    async def run(self, transport: Transport | None, right: RepairRight | None, on_line: Callable[[str], None]) -> None:
        """Do it; `on_line` hears what was done. `transport` and `right` are there if it is `online`.

        UserError, FilesystemError, and storage errors as of `Transport`.
        """
        path = self._check.scope.state_directory / METADATA_NAME
        copy = _new_name(path)
        repairs = Repairs.begin(path, copy)
        try:
            on_line(f"a copy of the metadata is kept as {copy}")
            self._repair_metadata(repairs, on_line)
            self._repair_files(repairs, on_line)
            self._repair_replication(repairs, on_line)
        finally:
            repairs.close()
        if transport is not None and right is not None:
            try:
                await self._fetch_snapshots(right.index, on_line)
                await self._repair_discord(transport, right, on_line)
            except ForkedError as error:
                on_line(f"in Discord nothing is changed any more: {error}")

    def _repair_metadata(self, repairs: Repairs, on_line: Callable[[str], None]) -> None:
        repairs.raise_counters()
        if self._check.indexes_damaged:
            repairs.rebuild_indexes()
            on_line("indexes built anew")
        for number, table in self._check.slot_tables.items():
            repairs.restore_slots(number, table)
        self._lose_unreadable(repairs, on_line)
        self._drop_small_contents(repairs)
        for count, what in repairs.put_in_order():
            on_line(f"{count} {what}")

    def _lose_unreadable(self, repairs: Repairs, on_line: Callable[[str], None]) -> None:
        """Chunks that lie in no slots: sent again where the cache has them, else lost.

        The cache notes first that they are lost: a dirty chunk without that note would be looked for in it.
        """
        inspection, cache = self._check.inspection, self._check.cache
        again: list[ChunkKey] = []
        lost: list[ChunkKey] = []
        for key in repairs.unreadable_chunks():
            if inspection.dirty_among(key.inode, key.chunk, 1):
                continue
            (again if cache is not None and cache.clean_chunks(key.inode, key.chunk, 1) else lost).append(key)
        if not again and not lost:
            return
        for key in again:
            repairs.mark_dirty(key.inode, [key.chunk], repairs.new_revision())
        revision = repairs.new_revision()
        if cache is not None:
            cache.note_lost((key, revision) for key in lost)
        repairs.lose(lost, revision)
        self._without_place = {key.inode for key in lost}
        if lost:
            on_line(f"{human_count(len(lost), 'chunk')} marked as lost: reading them is an error, not zeros")

    def _drop_small_contents(self, repairs: Repairs) -> None:
        cache = self._check.cache
        if cache is None or not cache.bad_small:
            return
        cache.note_lost(repairs.damaged_small_contents(cache.bad_small))
        repairs.drop_small_contents(cache.bad_small)

    def _repair_files(self, repairs: Repairs, on_line: Callable[[str], None]) -> None:
        damaged = self._judged(repairs, on_line)
        moved = 0
        while batch := list(islice(damaged, _FILES_AT_ONCE)):
            for inode, path in repairs.set_aside(batch):
                moved += 1
                if moved <= _SHOWN_MOVES:
                    on_line(f"inode {inode} is now {path.decode('utf-8', 'backslashreplace')}")
        if moved > _SHOWN_MOVES:
            on_line(f"{moved - _SHOWN_MOVES} more were moved")
        for _ in repairs.put_in_order():
            pass  # link counts of what has moved

    def _judged(self, repairs: Repairs, on_line: Callable[[str], None]) -> Iterator[InodeNumber]:
        """Mark what the cache has as dirty, file by file; yields the files of which something is nowhere."""
        inspection = self._check.inspection
        chunks = 0
        for inode, runs in inspection.bad_files():
            file = inspection.file(inode)
            # What lay in no slots has been seen to; what a restored slot table made readable is no damage any more.
            judgement = self._check.judge(inode, file, [run for run in runs if run.cause != NO_SLOTS])
            if judgement.again:
                repairs.mark_dirty(inode, judgement.again, repairs.new_revision())
                chunks += len(judgement.again)
            is_damaged = judgement.lost_count or inode in self._without_place
            if is_damaged and not (file.set_aside or file.in_trash):
                yield inode
        if chunks:
            on_line(f"{human_count(chunks, 'chunk')} marked as unsent; the next mount sends them")

    def _repair_replication(self, repairs: Repairs, on_line: Callable[[str], None]) -> None:
        counts = self._check.findings.counts
        if counts[Kind.OUTBOX] or counts[Kind.COPY]:
            repairs.ship_all()
            on_line("the next mount sends a whole copy of the names")
        found = self._check.snapshots
        if found is None:
            return
        for number in sorted(found.not_held):
            on_line(f"snapshot {number} keeps {repairs.hold(number, found.file(number))} messages again")
        if found.again:
            repairs.ship_snapshots(found.again)
            on_line(f"the next mount sends {human_count(len(found.again), 'snapshot')} again")

    async def _fetch_snapshots(self, index: IndexChannel, on_line: Callable[[str], None]) -> None:
        """What cannot be read here and is whole in Discord comes from there; the old file stays beside it."""
        found = self._check.snapshots
        if found is None:
            return
        superblock = self._check.scope.volume.superblock
        for number, shipment in sorted(found.sound.items()):
            file = found.file(number)
            unfinished = file.with_name(f"{file.name}.new")
            unfinished.unlink(missing_ok=True)
            file.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                await rebuild_one(index, shipment, unfinished, Volume(superblock.volume_id, superblock.chunk_bytes))
            except (CorruptDataError, NotFoundError) as error:
                on_line(f"the names of snapshot {number} cannot be had from Discord: {error}")
                continue
            if file.exists():
                file.replace(file.with_name(f"{file.name}.damaged"))
            unfinished.replace(file)
            on_line(f"the names of snapshot {number} were taken from Discord")

    async def _repair_discord(self, transport: Transport, right: RepairRight, on_line: Callable[[str], None]) -> None:
        volume = self._check.scope.volume
        if self._check.superblock_missing:
            await right.confirm()
            await send_superblock(transport, volume.index_channel, volume.superblock)
            on_line("the superblock was sent again")
        by_channel: dict[ChannelId, list[MessageId]] = defaultdict(list)
        for doomed in self._doomed:
            by_channel[doomed.channel].append(doomed.message)
        for channel, messages in by_channel.items():
            for start in range(0, len(messages), DELETE_LIMIT):
                await right.confirm()
                await transport.delete(channel, messages[start : start + DELETE_LIMIT], urgency=Urgency.SWEEP)
        if self._doomed:
            on_line(f"{human_count(len(self._doomed), 'message')} deleted")

    def errors_left(self) -> list[str]:
        """What the metadata still contradict themselves in after `run`, and what no repair can put right."""
        inspection = Inspection.open(self._check.scope.state_directory / METADATA_NAME)
        try:
            left = list(islice(inspection.damage(), _SHOWN_ERRORS))
            if not left:
                broken = islice(inspection.check(lambda _done, _total: None), _SHOWN_ERRORS)
                left = [f"{each.sentence} ({each.detail})" for each in broken]
        finally:
            inspection.close()
        return [*left, *self._beyond_repair()]

    def _beyond_repair(self) -> Iterator[str]:
        yield from (finding.what for finding in self._check.findings if finding.kind is Kind.FORK)
        if self._check.findings.counts[Kind.SUPERBLOCK] and not (self._check.superblock_missing and self._online):
            yield "the superblock in Discord"
        found = self._check.snapshots
        if found is not None:
            lost = len(found.unreadable - found.sound.keys())
            if lost:
                yield f"the names of {human_count(lost, 'snapshot')}"
            for name in sorted(found.hopeless):
                yield f"contents of snapshot {name}; 'disfs snapshot delete' ends that"


def _new_name(path: Path) -> Path:
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1000):
        candidate = path.with_name(f"{COPY_NAME}-{stamp}" + (f".{number}" if number else ""))
        if not candidate.exists():
            return candidate
    raise AssertionError("a thousand repairs in one second")
