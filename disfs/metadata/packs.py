"""Packs and their messages: where they lie, how much of them is live, which messages are dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.metadata.batches import rows_of
from disfs.values import (
    AttachmentId,
    ChannelId,
    DeadMessage,
    Location,
    MessageId,
    PackId,
    PackRecord,
    Revision,
    SlotTable,
    SparseMessage,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from disfs.metadata.counters import Counter
    from disfs.metadata.database import Database
    from disfs.metadata.outbox import Outbox
    from disfs.values import ChunkIndex, InodeNumber

_REMEMBERED_PACKS = 512
"""Slot tables kept decoded: about 10 KiB each for packs of 10 MiB."""

_RECORDED = 0
"""packs.state of a pack that Discord has acknowledged."""

_MOVE_MESSAGE = (
    "UPDATE messages SET live_bytes = live_bytes + ?1,"
    " dead_since = CASE WHEN live_bytes + ?1 = 0 THEN ?2 ELSE NULL END"
    " WHERE message = (SELECT message FROM packs WHERE pack = ?3)"
)
_FIND_NUMBERS = (
    "WITH wanted (pack_id) AS (VALUES {values}) SELECT packs.pack, packs.pack_id"
    " FROM wanted CROSS JOIN packs ON packs.pack_id = wanted.pack_id"
)
_FIND_MESSAGES = (
    "WITH wanted (message) AS (VALUES {values}) SELECT messages.message"
    " FROM wanted CROSS JOIN messages ON messages.message = wanted.message"
)
# The sums alone would do. But what they are asked for is destroyed, so the extents have the last word.
_DEAD = (
    "SELECT channel, message, dead_since FROM messages WHERE dead_since IS NOT NULL AND held = 0"
    " AND NOT EXISTS (SELECT 1 FROM packs CROSS JOIN extents ON extents.pack = packs.pack"
    " WHERE packs.message = messages.message)"
    " ORDER BY dead_since, message LIMIT ?"
)
_SPARSE = (
    "SELECT channel, message, stored_bytes, live_bytes FROM messages"
    " WHERE live_bytes > 0 AND live_bytes * 2 < stored_bytes AND held = 0"
    " ORDER BY stored_bytes - live_bytes DESC LIMIT ?"
)
_FREED = (
    "(SELECT {owner} AS owner, sum(extents.stored_bytes) AS freed_bytes"
    " FROM extents JOIN packs AS freed_packs ON freed_packs.pack = extents.pack"
    " WHERE extents.inode = ?1 AND extents.first_chunk >= ?2 GROUP BY {owner}) AS freed"
)
_RELEASE_PACKS = (
    "UPDATE packs SET live_bytes = live_bytes - freed.freed_bytes"  # noqa: S608 - constants of this module
    f" FROM {_FREED.format(owner='freed_packs.pack')} WHERE packs.pack = freed.owner"
)
_RELEASE_MESSAGES = (
    "UPDATE messages SET live_bytes = live_bytes - freed.freed_bytes,"  # noqa: S608 - constants of this module
    " dead_since = CASE WHEN live_bytes - freed.freed_bytes = 0 THEN ?3 ELSE NULL END"
    f" FROM {_FREED.format(owner='freed_packs.message')} WHERE messages.message = freed.owner"
)


class Packs:
    """The packs and messages. Methods that change rows must be called inside a change."""

    def __init__(self, database: Database, outbox: Outbox, numbers: Counter, revisions: Counter) -> None:
        self._database = database
        self._outbox = outbox
        self._numbers = numbers
        self._revisions = revisions
        self._slots: dict[int, SlotTable] = {}
        self._moved: dict[int, int] = {}
        """What `settle` will add to the live bytes, by pack."""
        database.after_rollback.append(self._slots.clear)
        database.after_rollback.append(self._moved.clear)
        database.after_refusal.append(self._moved.clear)

    def is_recorded(self, pack: PackId) -> bool:
        """Whether a pack is known."""
        return self._database.row("SELECT 1 FROM packs WHERE pack_id = ?", (pack,)) is not None

    def record(self, pack: PackId) -> PackRecord:
        """See ChunkLedger.pack."""
        row = self._database.row(
            "SELECT packs.pack, messages.channel, messages.message, packs.attachment, packs.size_bytes"
            " FROM packs JOIN messages ON messages.message = packs.message WHERE packs.pack_id = ?",
            (pack,),
        )
        if row is None:
            raise KeyError(pack)
        number, channel, message, attachment, size_bytes = row
        location = Location(ChannelId(channel), MessageId(message), AttachmentId(attachment))
        return PackRecord(pack, location, size_bytes, self.slots(number))

    def of_message(self, message: MessageId) -> list[PackId]:
        """See ChunkLedger.packs_of_message."""
        rows = self._database.rows("SELECT pack_id FROM packs WHERE message = ? ORDER BY pack", (message,))
        return [PackId(row[0]) for row in rows]

    def slots(self, number: int) -> SlotTable:
        """The slot table of a pack that is known."""
        table = self._slots.get(number)
        if table is None:
            row = self._database.row("SELECT slots FROM packs WHERE pack = ?", (number,))
            assert row is not None, "extents name packs that are known"
            table = SlotTable.from_bytes(row[0])
            self._remember(number, table)
        return table

    def add(self, record: PackRecord) -> int:
        """A new pack, with nothing live in it yet; returns the number by which extents name it. Inside a change."""
        location = record.location
        self._database.write(
            "INSERT INTO messages (message, channel, live_bytes, dead_since, stored_bytes) VALUES (?, ?, 0, ?, ?)"
            " ON CONFLICT (message) DO UPDATE SET stored_bytes = stored_bytes + excluded.stored_bytes",
            (location.message, location.channel, self._revisions.take(), record.slots.offset(len(record.slots))),
        )
        number = self._numbers.take()
        self._outbox.note_packs([number])
        self._database.write(
            "INSERT INTO packs (pack, pack_id, message, attachment, size_bytes, slots, live_bytes, state)"
            " VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
            (
                number,
                record.pack,
                location.message,
                location.attachment,
                record.size_bytes,
                record.slots.to_bytes(),
                _RECORDED,
            ),
        )
        self._remember(number, record.slots)
        return number

    def add_live(self, number: int, delta_bytes: int) -> None:
        """The live bytes of a pack, and of its message, move by `delta_bytes` at the next `settle`. Inside a change."""
        self._moved[number] = self._moved.get(number, 0) + delta_bytes

    def settle(self) -> None:
        """Write down what `add_live` collected. Belongs to the same change: each that calls `add_live` ends with it."""
        for number, delta_bytes in self._moved.items():
            if delta_bytes:
                self._database.write(
                    "UPDATE packs SET live_bytes = live_bytes + ? WHERE pack = ?", (delta_bytes, number)
                )
                self._database.write(_MOVE_MESSAGE, (delta_bytes, self._revisions.take(), number))
        self._moved.clear()

    def release_from(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """What the runs of an inode that begin at `first` or later refer to is garbage from now on."""
        self._database.write(_RELEASE_PACKS, (inode, first))
        self._database.write(_RELEASE_MESSAGES, (inode, first, self._revisions.take()))

    def numbers(self, packs: Iterable[PackId]) -> dict[PackId, int]:
        """By which numbers extents name those of `packs` that are known."""
        return {
            PackId(pack): number
            for number, pack in rows_of(self._database, _FIND_NUMBERS, [(pack,) for pack in packs], width=1)
        }

    def unknown_messages(self, messages: Sequence[MessageId]) -> frozenset[MessageId]:
        """See ChunkLedger."""
        known = rows_of(self._database, _FIND_MESSAGES, [(message,) for message in messages], width=1)
        return frozenset(messages) - {MessageId(row[0]) for row in known}

    def sparse_messages(self, limit: int) -> list[SparseMessage]:
        """See ChunkLedger."""
        rows = self._database.rows(_SPARSE, (limit,))
        return [SparseMessage(ChannelId(c), MessageId(m), stored, live) for c, m, stored, live in rows]

    def dead_messages(self, limit: int) -> Sequence[DeadMessage]:
        """See ChunkLedger."""
        rows = self._database.rows(_DEAD, (limit,))
        return [
            self._dead_message(ChannelId(channel), MessageId(message), Revision(since))
            for channel, message, since in rows
        ]

    def forget(self, messages: Sequence[DeadMessage]) -> None:
        """See ChunkLedger.forget_messages. Leaves alone what has live bytes."""
        with self._database.changing:
            for dead in messages:
                self._outbox.note_packs(self.numbers(dead.packs).values())
                for pack in dead.packs:
                    self._database.write("DELETE FROM packs WHERE pack_id = ? AND live_bytes = 0", (pack,))
                self._database.write(
                    "DELETE FROM messages WHERE message = ?1"
                    " AND NOT EXISTS (SELECT 1 FROM packs WHERE packs.message = ?1)",
                    (dead.location.message,),
                )

    def _dead_message(self, channel: ChannelId, message: MessageId, since: Revision) -> DeadMessage:
        rows = self._database.rows("SELECT pack_id, attachment FROM packs WHERE message = ? ORDER BY pack", (message,))
        location = Location(channel, message, AttachmentId(rows[0][1]))
        return DeadMessage(location, tuple(PackId(row[0]) for row in rows), since)

    def _remember(self, number: int, table: SlotTable) -> None:
        if len(self._slots) >= _REMEMBERED_PACKS:
            del self._slots[next(iter(self._slots))]
        self._slots[number] = table
