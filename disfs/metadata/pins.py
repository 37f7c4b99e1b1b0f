"""Which inodes are pinned, and how far the channels were examined: facts of this machine's cache and sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.values import InodeNumber, MessageId

if TYPE_CHECKING:
    from collections.abc import Iterable

    from disfs.metadata.database import Database
    from disfs.values import ChannelId


class Pins:
    """The pinned inodes. `Inodes.remove_orphan` removes an inode's pin with it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> frozenset[InodeNumber]:
        """See ChunkLedger.pinned_inodes."""
        return frozenset(InodeNumber(row[0]) for row in self._database.rows("SELECT inode FROM pins"))

    def set(self, inodes: Iterable[InodeNumber], pinned: bool) -> None:
        """See ChunkLedger.set_pinned."""
        rows = [(inode,) for inode in inodes]
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
