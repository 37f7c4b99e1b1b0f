"""Which inodes are pinned, which packs were sent, how far channels were examined: facts of this machine alone."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError
from disfs.values import InodeNumber, MessageId, PackId

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from disfs.metadata.database import Database
    from disfs.values import ChannelId

_NEWEST_PACKS = 512
"""More than can be on their way at a time."""
_REMEMBERED_PACKS = 20_000
"""Less than a megabyte, for some hundred gigabytes that were sent."""


class Pins:
    """The pinned inodes. `Inodes.remove_orphan` removes an inode's pin with it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> frozenset[InodeNumber]:
        """See ChunkLedger.pinned_inodes."""
        self._database.flush()
        return frozenset(InodeNumber(row[0]) for row in self._database.rows("SELECT inode FROM pins"))

    def set(self, inodes: Iterable[InodeNumber], pinned: bool) -> None:
        """See ChunkLedger.set_pinned."""
        rows = [(inode,) for inode in inodes]
        self._database.flush()  # an inode that is being pinned may be new
        if pinned:
            with self._database.growing:
                self._database.write_all(
                    "INSERT INTO pins (inode) SELECT inode FROM inodes WHERE inode = ? ON CONFLICT (inode) DO NOTHING",
                    rows,
                )
        else:
            with self._database.changing:
                self._database.write_all("DELETE FROM pins WHERE inode = ?", rows)


class Examined:
    """How far each data channel was looked through for messages that nobody knows of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, channel: ChannelId) -> MessageId:
        """See ChunkLedger.examined."""
        row = self._database.row("SELECT message FROM examined WHERE channel = ?", (channel,))
        return MessageId(0 if row is None else row[0])

    def set(self, channel: ChannelId, message: MessageId) -> None:
        """See ChunkLedger.set_examined."""
        with self._database.changing:
            self._database.write(
                "INSERT INTO examined (channel, message) VALUES (?, ?)"
                " ON CONFLICT (channel) DO UPDATE SET message = excluded.message",
                (channel, message),
            )


class SentPacks:
    """The packs that were begun to be sent, the newest `_REMEMBERED_PACKS` of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, packs: Sequence[PackId]) -> None:
        """See ChunkLedger.note_sending."""
        # Whoever cannot note it now sends all the same: it frees space, and the worst is a stray that is kept.
        with contextlib.suppress(FilesystemError):
            with self._database.changing:
                self._note(packs)
            # Not with the next group commit: Discord may have the message before that, and kill -9 comes in between.
            self._database.commit()

    def _note(self, packs: Sequence[PackId]) -> None:
        self._database.write_all(
            "INSERT INTO sent_packs (number, pack_id)"
            " VALUES ((SELECT coalesce(max(number), 0) + 1 FROM sent_packs), ?) ON CONFLICT (pack_id) DO NOTHING",
            [(pack,) for pack in packs],
        )
        self._database.write(
            "DELETE FROM sent_packs WHERE number <= (SELECT max(number) FROM sent_packs) - ?", (_REMEMBERED_PACKS,)
        )

    def has(self, pack: PackId) -> bool:
        """See ChunkLedger.has_sent."""
        return self._database.row("SELECT 1 FROM sent_packs WHERE pack_id = ?", (pack,)) is not None

    def unrecorded(self) -> frozenset[PackId]:
        """See ChunkLedger.unrecorded_sends."""
        rows = self._database.rows(
            "SELECT pack_id FROM sent_packs WHERE number > (SELECT max(number) FROM sent_packs) - ?"
            " AND NOT EXISTS (SELECT 1 FROM packs WHERE packs.pack_id = sent_packs.pack_id)",
            (_NEWEST_PACKS,),
        )
        return frozenset(PackId(row[0]) for row in rows)
