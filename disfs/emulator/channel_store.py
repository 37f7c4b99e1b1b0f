"""Channels in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.emulator.model import Channel

if TYPE_CHECKING:
    import aiosqlite

    from disfs.emulator.database import Database

_COLUMNS = "id, type, name, topic, parent, position, nsfw, slowmode"
_LAST = "(SELECT max(m.id) FROM messages m WHERE m.channel = channels.id AND m.deleted_ms IS NULL)"


class ChannelStore:
    """Reads and changes channels; a deleted one is not found."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, channel: int) -> Channel | None:
        """One channel."""
        row = await self._database.row(
            f"SELECT {_COLUMNS}, {_LAST} FROM channels WHERE id = ? AND deleted_ms IS NULL",  # noqa: S608 - constants only
            (channel,),
        )
        return None if row is None else _channel(row)

    async def exists(self, channel: int) -> bool:
        """Whether it is there."""
        row = await self._database.row("SELECT 1 FROM channels WHERE id = ? AND deleted_ms IS NULL", (channel,))
        return row is not None

    async def list_all(self) -> list[Channel]:
        """All channels, oldest first."""
        rows = await self._database.rows(
            f"SELECT {_COLUMNS}, {_LAST} FROM channels WHERE deleted_ms IS NULL ORDER BY id"  # noqa: S608 - constants only
        )
        return [_channel(row) for row in rows]

    async def put(self, channel: Channel) -> None:
        """Add a channel or replace its properties."""
        async with self._database.writing() as connection:
            await connection.execute(
                f"INSERT INTO channels ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants only
                " ON CONFLICT (id) DO UPDATE SET name = excluded.name, topic = excluded.topic,"
                " parent = excluded.parent, position = excluded.position, nsfw = excluded.nsfw,"
                " slowmode = excluded.slowmode",
                (
                    channel.id,
                    channel.type,
                    channel.name,
                    channel.topic,
                    channel.parent,
                    channel.position,
                    channel.nsfw,
                    channel.slowmode,
                ),
            )

    async def delete(self, channel: int, now_ms: int) -> None:
        """Delete a channel with its messages. The channels of a deleted category stay, without a category."""
        async with self._database.writing() as connection:
            await connection.execute("UPDATE channels SET deleted_ms = ? WHERE id = ?", (now_ms, channel))
            await connection.execute("UPDATE channels SET parent = NULL WHERE parent = ?", (channel,))
            await connection.execute(
                "UPDATE messages SET deleted_ms = ? WHERE channel = ? AND deleted_ms IS NULL", (now_ms, channel)
            )
            await connection.execute(
                "UPDATE attachments SET removed_ms = ? WHERE channel = ? AND removed_ms IS NULL", (now_ms, channel)
            )


def _channel(row: aiosqlite.Row) -> Channel:
    return Channel(*(*row[:6], bool(row[6]), *row[7:]))
