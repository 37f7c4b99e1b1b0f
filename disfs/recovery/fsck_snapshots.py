"""Snapshots: each must be readable here, be whole in Discord, and have all its contents there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.chunkstore.codec import PackKind
from disfs.errors import CorruptDataError, MetadataDamagedError, NotFoundError
from disfs.metadata.snapshot_inspection import snapshot_inspected
from disfs.metadata.snapshots import DIRECTORY, SnapshotState
from disfs.recovery.absent import absent_messages
from disfs.recovery.fsck_findings import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from disfs.chunkstore.transport.base import Transport
    from disfs.metadata.inspection import Inspection
    from disfs.metadata.snapshots import SnapshotRecord
    from disfs.metadata.told import ToldRows
    from disfs.recovery.chain import Shipment
    from disfs.recovery.fsck_findings import Findings
    from disfs.recovery.index_channel import IndexChannel
    from disfs.values import ChannelId, MessageId, PackId


class SnapshotCheck:
    """One check. `local` first, then `remote`; `again`, `unreadable` and `sound` are what a repair needs."""

    def __init__(self, rows: ToldRows, inspection: Inspection, findings: Findings, directory: Path) -> None:
        """`directory` is where this machine keeps the volume's state."""
        self._rows = rows
        self._inspection = inspection
        self._findings = findings
        self._directory = directory
        self._records = rows.snapshots()
        self._wanted: dict[int, dict[ChannelId, list[MessageId]]] = {}
        self.unreadable: set[int] = set()
        """Numbers of the snapshots whose database here is of no use."""
        self.again: set[int] = set()
        """Numbers of those that can be read here, and are not whole in Discord."""
        self.not_held: set[int] = set()
        """Numbers of those of whose messages some may be deleted."""
        self.hopeless: set[str] = set()
        """Names of those of whose contents some are nowhere."""
        self.sound: dict[int, Shipment] = {}
        """What Discord has of the unreadable ones."""

    def file(self, snapshot: int) -> Path:
        """Where the rows of a snapshot are."""
        return self._directory / DIRECTORY / f"{snapshot}.db"

    def local(self) -> None:
        """Look whether each can be read here, and holds the messages that it refers to."""
        for record in self._records:
            try:
                with snapshot_inspected(self.file(record.snapshot)) as snapshot:
                    messages = snapshot.messages()
            except MetadataDamagedError as error:
                self.unreadable.add(record.snapshot)
                self._add(record, f"cannot be read on this machine: {error}")
                continue
            self._wanted[record.snapshot] = messages
            held = self._rows.held(record.snapshot)
            loose = [each for listed in messages.values() for each in listed if each not in held]
            if loose:
                self.not_held.add(record.snapshot)
                self._add(record, f"does not keep {len(loose)} of its messages from being deleted")

    async def remote(
        self,
        transport: Transport,
        index: IndexChannel,
        shipments: Sequence[Shipment],
        gone: Collection[PackId],
        on_progress: Callable[[int, int], None],
    ) -> None:
        """Look for the contents and the copy of each in Discord. Storage errors as of `Transport`.

        `shipments` are the snapshots in the index channel, `gone` the recorded packs that are not in Discord.
        """
        for done, record in enumerate(self._records):
            on_progress(done, len(self._records))
            whole = await self._whole_copy(record, index, shipments)
            if record.snapshot in self.unreadable:
                if whole is not None:
                    self.sound[record.snapshot] = whole
                continue
            if record.state is SnapshotState.SENT and whole is None:
                self.again.add(record.snapshot)
                self._add(record, "is not whole in Discord any more: a recovery would not bring it back")
            await self._look_for_contents(record, transport, gone)

    async def _whole_copy(
        self, record: SnapshotRecord, index: IndexChannel, shipments: Sequence[Shipment]
    ) -> Shipment | None:
        """What Discord has of it, if every byte of that is authentic."""
        of_it = [each for each in shipments if each.is_whole and each.header.sequence == record.snapshot]
        for shipment in sorted(of_it, key=lambda each: each.header.created_ns, reverse=True):
            if await _is_sound(index, shipment):
                return shipment
        return None

    async def _look_for_contents(self, record: SnapshotRecord, transport: Transport, gone: Collection[PackId]) -> None:
        unrecorded = {
            channel: [each for each in messages if not self._inspection.is_recorded(each)]
            for channel, messages in self._wanted[record.snapshot].items()
        }
        absent = await absent_messages(
            transport, {channel: some for channel, some in unrecorded.items() if some}, lambda count: None
        )
        if not gone and not absent:
            return
        name = record.name.decode("utf-8", "backslashreplace")
        with snapshot_inspected(self.file(record.snapshot)) as snapshot:
            for file in snapshot.files_in(gone, absent):
                path = f"/.snapshots/{name}" + (file.path or b"/(no name)").decode("utf-8", "backslashreplace")
                what = f"{path}: {file.chunk_count} of its chunks are not in Discord any more"
                self._findings.add(Kind.SNAPSHOT, what, path=path, chunks=file.chunk_count)
                self.hopeless.add(name)

    def _add(self, record: SnapshotRecord, what: str) -> None:
        if all(each.snapshot != record.snapshot for each in self._rows.snapshots()):
            return  # deleted meanwhile
        name = record.name.decode("utf-8", "backslashreplace")
        self._findings.add(Kind.SNAPSHOT, f"snapshot {name} {what}")


async def _is_sound(index: IndexChannel, shipment: Shipment) -> bool:
    rows = 0
    total: tuple[int, int] | None = None
    try:
        for part in range(len(shipment.parts)):
            reader = await index.read(shipment.parts[part])
            for _ in reader.blocks():
                pass
            rows += reader.rows
            total = reader.total
    except (CorruptDataError, NotFoundError):
        return False
    return shipment.kind is PackKind.SNAPSHOT and total == (len(shipment.parts), rows)
