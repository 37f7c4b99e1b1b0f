"""Contents as Discord has them: fetch packs and authenticate every slot that is some chunk's place.

A pack is fetched whole: requests are scarce, bandwidth is not. What does not authenticate is fetched again, as it may
have been damaged on its way. A slot must also hold the chunk that the metadata expect there, or a reader would get
another file's bytes.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.codec import PackCipher
from disfs.chunkstore.packer import open_directory
from disfs.chunkstore.transport.base import Urgency
from disfs.errors import CorruptDataError, NotFoundError, StorageError
from disfs.recovery.fsck_discord import slots_of
from disfs.recovery.fsck_findings import Kind
from disfs.values import ChunkIndex, ChunkKey, may_be_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.packer import PackDirectory
    from disfs.chunkstore.transport.base import Transport
    from disfs.metadata.inspected import KnownPack, LiveRun
    from disfs.metadata.inspection import Inspection
    from disfs.recovery.fsck_findings import Findings
    from disfs.values import InodeNumber, PackId, SlotTable

FETCHES = 3
"""How many packs are held in memory at once."""
_ATTEMPTS = 3
UNAUTHENTIC = "what Discord has of it fails authentication"
OLDER = "its place in Discord holds a chunk of another inode"
"""As it may, if the inode is renumbered."""
ANOTHERS = "its place in Discord holds another chunk"
GONE = "what holds it in Discord is gone"

_PART = re.compile(r"(\d{1,6})/(\d{1,6})")
_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,4})?)%")


@dataclass(frozen=True, slots=True)
class Subset:
    """Which packs are read: those of part `number` of `parts`, or each with a probability."""

    number: int = 1
    parts: int = 1
    share: float = 1.0

    def takes(self, pack: PackId) -> bool:
        """Whether a pack is read. Parts never change: reading each of them once reads everything that stays."""
        if self.parts > 1:
            return int.from_bytes(pack[:8], "big") % self.parts == self.number - 1
        return self.share >= 1.0 or random.random() < self.share  # noqa: S311 - a sample, no secret


ALL = Subset()


def parse_subset(text: str) -> Subset:
    """`2/5` or `10%`; ValueError otherwise."""
    part, percentage = _PART.fullmatch(text.strip()), _PERCENTAGE.fullmatch(text.strip())
    if part is not None and 1 <= int(part[1]) <= int(part[2]):
        return Subset(number=int(part[1]), parts=int(part[2]))
    if percentage is not None and 0 < float(percentage[1]) <= 100:
        return Subset(share=float(percentage[1]) / 100)
    raise ValueError(f"{text!r} is neither a part such as 1/5 nor a percentage such as 10%")


@dataclass(slots=True)
class DataProgress:
    """How much of it is done."""

    done_bytes: int = 0
    total_bytes: int = 0
    packs: int = 0


class DataCheck:
    """Reads packs and notes what is damaged in them."""

    def __init__(
        self,
        inspection: Inspection,
        transport: Transport,
        key: VolumeKey,
        findings: Findings,
        on_progress: Callable[[DataProgress], None],
    ) -> None:
        self._inspection = inspection
        self._transport = transport
        self._key = key
        self._findings = findings
        self._on_progress = on_progress
        self._progress = DataProgress()
        self.slot_tables: dict[int, SlotTable] = {}
        """By the number of a pack: what its own directory says, where the metadata say something else."""

    async def run(self, subset: Subset) -> int:
        """Read the packs of the subset; returns how many there were. Storage errors as of `Transport.fetch`."""
        packs = (pack for pack in self._inspection.packs() if pack.number not in self._inspection.bad_packs)
        chosen = {pack.number: pack.record.size_bytes for pack in packs if subset.takes(pack.record.pack)}
        self._progress.total_bytes = sum(chosen.values())
        limiter = trio.CapacityLimiter(FETCHES)
        refused: StorageError | None = None
        try:
            async with trio.open_nursery() as nursery:
                for pack in self._inspection.packs():
                    if pack.number in chosen:
                        await limiter.acquire_on_behalf_of(pack.number)
                        nursery.start_soon(self._check_pack, pack, limiter)
        except* StorageError as group:
            refused = _first(group)
        if refused is not None:
            raise refused
        return self._progress.packs

    async def _check_pack(self, pack: KnownPack, limiter: trio.CapacityLimiter) -> None:
        try:
            await self._check(pack)
        finally:
            limiter.release_on_behalf_of(pack.number)
        self._progress.packs += 1
        self._progress.done_bytes += pack.record.size_bytes
        self._on_progress(self._progress)

    async def _check(self, pack: KnownPack) -> None:
        runs = self._inspection.live_runs(pack.number)
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                raw = await self._transport.fetch(
                    pack.record.location, 0, pack.record.size_bytes, urgency=Urgency.SWEEP
                )
            except NotFoundError:
                self._note(pack, GONE)
                return
            except CorruptDataError:
                if last:
                    self._note(pack, UNAUTHENTIC)
                continue
            verdict = await trio.to_thread.run_sync(self._open, pack, runs, raw, self._inspection.chunk_bytes)
            verdict = self._without_renumbered(verdict)
            if verdict.is_sound or last:
                self._conclude(pack, verdict)
                return

    def _without_renumbered(self, verdict: _Verdict) -> _Verdict:
        bad = (each for each in verdict.bad if each[2] != OLDER or not self._inspection.is_renumbered(each[0]))
        return replace(verdict, bad=tuple(bad))

    def _note(self, pack: KnownPack, cause: str) -> None:
        # Asked again: a mounted volume may have moved all of it elsewhere meanwhile, and deleted the pack.
        runs = self._inspection.live_runs(pack.number)
        if not runs:
            return
        for run in runs:
            self._inspection.note_bad_chunks(run.inode, run.first, run.chunk_count, cause)
        self._add(pack, f"pack {pack.number}: {cause}")

    def _add(self, pack: KnownPack, what: str, kind: Kind = Kind.DAMAGED_PACK) -> None:
        location = pack.record.location
        if self._inspection.is_recorded(location.message):
            self._findings.add(kind, what, channel=location.channel, message=location.message)

    def _conclude(self, pack: KnownPack, verdict: _Verdict) -> None:
        if verdict.is_sound and verdict.own_slots is None:
            return
        runs = self._inspection.live_runs(pack.number)
        live = {(run.inode, run.first + index) for run in runs for index in range(run.chunk_count)}
        bad = [each for each in verdict.bad if each[:2] in live]
        for inode, chunk, cause in bad:
            self._inspection.note_bad_chunks(inode, chunk, 1, cause)
        if verdict.own_slots is not None:
            self.slot_tables[pack.number] = verdict.own_slots
            what = f"pack {pack.number}: the metadata say of its slots what it does not say itself"
            self._add(pack, what, Kind.METADATA)
        elif bad:
            self._add(pack, f"pack {pack.number}: {len(bad)} of its chunks cannot be read")
        elif verdict.directory_damaged:
            self._add(pack, f"pack {pack.number}: its directory is damaged; its chunks are sound")

    def _open(self, pack: KnownPack, runs: list[LiveRun], raw: bytes, chunk_bytes: int) -> _Verdict:
        """Runs in a worker thread; reads nothing but its arguments and the key."""
        directory: PackDirectory | None
        try:
            directory = open_directory(self._key, raw)
        except CorruptDataError:
            directory = None
        if directory is not None and directory.pack != pack.record.pack:
            directory = None
        table = pack.record.slots if directory is None else slots_of(directory)
        cipher = PackCipher(self._key, pack.record.pack)
        bad: list[tuple[InodeNumber, int, str]] = []
        for run in runs:
            for index in range(run.chunk_count):
                slot, key = run.first_slot + index, ChunkKey(run.inode, ChunkIndex(run.first + index))
                if not _opens(cipher, table, memoryview(raw), slot, chunk_bytes):
                    bad.append((*key, UNAUTHENTIC))
                elif directory is not None and directory.entries[slot].key != key:
                    bad.append((*key, OLDER if may_be_of(directory.entries[slot].key, key) else ANOTHERS))
        return _Verdict(tuple(bad), directory is None, None if table == pack.record.slots else table)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What the bytes of a pack are."""

    bad: tuple[tuple[InodeNumber, int, str], ...]
    """Chunks that cannot be had from it, and why."""
    directory_damaged: bool
    own_slots: SlotTable | None
    """Its own slot table, if that is not the one that is recorded."""

    @property
    def is_sound(self) -> bool:
        """Whether fetching it again could not make it better."""
        return not (self.bad or self.directory_damaged)


def _first(group: BaseExceptionGroup[StorageError]) -> StorageError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _opens(cipher: PackCipher, table: SlotTable, raw: memoryview, slot: int, chunk_bytes: int) -> bool:
    if not 0 <= slot < len(table):
        return False
    stored = raw[table.offset(slot) : table.offset(slot + 1)]
    try:
        cipher.unseal(slot, stored, compressed=table.is_compressed(slot), max_bytes=chunk_bytes)
    except CorruptDataError:
        return False
    return True
