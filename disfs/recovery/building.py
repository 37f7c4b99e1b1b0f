"""Read a state from the metadata store and write it into a spool as sealed parts. Runs in a worker thread.

The spool is a file without a name in the state directory: whatever ends this process takes it along, and a copy of a
large volume takes no memory.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING

from disfs.chunkstore.codec import PackKind
from disfs.errors import MetadataDamagedError
from disfs.metadata.shipping import ID_BYTES, ShippedMessage
from disfs.recovery.frames import Header, write_parts

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.chunkstore.keys import VolumeKey
    from disfs.metadata.shipping import Begun, Position
    from disfs.metadata.snapshot import Snapshot
    from disfs.recovery.frames import Part
    from disfs.values import MessageId

_IN_MEMORY_BYTES = 1024 * 1024
"""A shorter shipment needs no file."""


@dataclass(slots=True, eq=False)
class Built:
    """A shipment that is ready to be sent, and how far that is."""

    kind: PackKind
    header: Header
    parts: list[Part]
    spool: IO[bytes]
    messages: dict[int, MessageId] = field(default_factory=dict)
    """Which message has which part."""
    size_bytes: int = 0

    @property
    def is_sent(self) -> bool:
        """Whether Discord has acknowledged all of it."""
        return len(self.messages) == len(self.parts)

    @property
    def shipped_messages(self) -> list[ShippedMessage]:
        """What is to be written down of it once it is sent, and deleted one day."""
        return [
            ShippedMessage(message, self.kind, self.header.sequence) for message in sorted(set(self.messages.values()))
        ]

    def read(self, part: Part) -> bytes:
        """A part's bytes. Blocks."""
        self.spool.seek(part.offset)
        return self.spool.read(part.size_bytes)


@dataclass(frozen=True, slots=True)
class CopyRule:
    """When a checkpoint copy goes along with a journal: as soon as the journals since the last one are more than

    that `share` of it, but not before they have `floor_bytes`; or when they are `journal_count`, each of which is a
    request for whoever reads them.
    """

    floor_bytes: int
    share: float
    journal_count: int

    def is_due(self, position: Position, journal_bytes: int) -> bool:
        """Whether the journals since the last copy are so long that a rebuild should not have to read them all."""
        most = max(self.floor_bytes, int(position.copy_bytes * self.share))
        return position.journal_bytes + journal_bytes > most or position.journal_count + 1 >= self.journal_count


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds the shipments of one volume."""

    volume: bytes
    key: VolumeKey
    directory: Path
    rule: CopyRule

    def build(
        self, snapshot: Snapshot, begun: Begun, position: Position, limit_bytes: int, may_copy: bool
    ) -> tuple[Built, Built | None]:
        """What leads to the state that was begun, and with `may_copy` the copy of it that is due, if one is.

        A journal; or, where there is nothing that a journal could follow, a copy alone. FilesystemError, ValueError.
        """
        if not position.needs_copy:
            try:
                journal = self._journal(snapshot, begun, position, limit_bytes)
            except MetadataDamagedError:
                pass  # what has changed is not known: so everything goes
            else:
                if not (may_copy and self.rule.is_due(position, journal.size_bytes)):
                    return journal, None
                of_the_same = replace(journal.header, shipment=os.urandom(ID_BYTES))
                return journal, self._copy(snapshot, of_the_same, limit_bytes)
        shipment = os.urandom(ID_BYTES)
        return self._copy(snapshot, self._header(begun, position, shipment), limit_bytes), None

    def _journal(self, snapshot: Snapshot, begun: Begun, position: Position, limit_bytes: int) -> Built:
        header = self._header(begun, position, os.urandom(ID_BYTES))
        spool = self._spool()
        parts = write_parts(
            spool, self.key, PackKind.JOURNAL, header, snapshot.changes(begun.last), limit_bytes=limit_bytes
        )
        return _built(PackKind.JOURNAL, header, parts, spool)

    def _copy(self, snapshot: Snapshot, header: Header, limit_bytes: int) -> Built:
        spool = self._spool()
        parts = write_parts(
            spool, self.key, PackKind.CHECKPOINT, header, snapshot.everything(), limit_bytes=limit_bytes
        )
        return _built(PackKind.CHECKPOINT, header, parts, spool)

    def _header(self, begun: Begun, position: Position, shipment: bytes) -> Header:
        return Header(
            volume=self.volume,
            device=position.device,
            shipment=shipment,
            state=shipment,
            previous=position.state,
            sequence=position.sequence + 1,
            part=0,
            created_ns=time.time_ns(),
            counters=begun.counters,
            superseded=position.superseded,
        )

    def _spool(self) -> IO[bytes]:
        return tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(self.directory))


def _built(kind: PackKind, header: Header, parts: list[Part], spool: IO[bytes]) -> Built:
    return Built(kind, header, parts, spool, size_bytes=sum(part.size_bytes for part in parts))
