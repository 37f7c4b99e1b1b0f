"""Messages and the rows of their attachments in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.emulator.model import Attachment, Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import aiosqlite

    from disfs.emulator.database import Database

_MESSAGE = "id, channel, author, content, flags, nonce, edited_ms, deleted_ms"
_ATTACHMENT = "id, message, channel, ordinal, filename, title, description, content_type, size, removed_ms"


class ChannelGoneError(Exception):
    """The channel was deleted before the message could be added."""


class NonceUsedError(Exception):
    """The nonce belongs to an earlier message, which may have been deleted since."""

    def __init__(self, channel: int, message: int, *, deleted: bool) -> None:
        super().__init__(message)
        self.channel = channel
        self.message = message
        self.deleted = deleted


class MessageStore:
    """Reads and changes messages. A change is on disk when its method returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, message: Message, *, nonce_since: int | None, nonce_per_channel: bool = False) -> None:
        """Add a message with its attachments.

        With `nonce_since`, an id, raises `NonceUsedError` when the author used the nonce at or after it.
        Raises `ChannelGoneError`. The check and the change are one step.
        """
        async with self._database.writing() as connection:
            found = await connection.execute_fetchall(
                "SELECT 1 FROM channels WHERE id = ? AND deleted_ms IS NULL", (message.channel,)
            )
            if not list(found):
                raise ChannelGoneError
            if nonce_since is not None and message.nonce is not None:
                await _check_nonce(connection, message, nonce_since, nonce_per_channel)
            await connection.execute(
                f"INSERT INTO messages ({_MESSAGE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants only
                (
                    message.id,
                    message.channel,
                    message.author,
                    message.content,
                    message.flags,
                    message.nonce,
                    message.edited_ms,
                    message.deleted_ms,
                ),
            )
            await connection.executemany(
                f"INSERT INTO attachments ({_ATTACHMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants only
                [_values(attachment) for attachment in message.attachments],
            )

    async def get(self, channel: int, message: int) -> Message | None:
        """One message that is not deleted."""
        rows = await self._database.rows(
            f"SELECT {_MESSAGE} FROM messages WHERE id = ? AND channel = ? AND deleted_ms IS NULL",  # noqa: S608 - constants only
            (message, channel),
        )
        return next(iter(await self._with_attachments(rows)), None)

    async def list_messages(
        self, channel: int, limit: int, *, after: int = 0, before: int, oldest_first: bool = False
    ) -> list[Message]:
        """Up to `limit` messages with ids strictly between `after` and `before`; newest first in any case.

        `oldest_first` chooses which of them: those next to `after` instead of those next to `before`.
        """
        order = "ASC" if oldest_first else "DESC"
        rows = await self._database.rows(
            f"SELECT {_MESSAGE} FROM messages WHERE channel = ? AND id > ? AND id < ? AND deleted_ms IS NULL"  # noqa: S608 - constants only
            f" ORDER BY id {order} LIMIT ?",
            (channel, after, before, limit),
        )
        return await self._with_attachments(sorted(rows, key=lambda row: int(row[0]), reverse=True))

    async def edit(self, message: Message, kept: Iterable[int], now_ms: int) -> None:
        """Take over the content and flags of `message`, and drop its attachments that are not in `kept`."""
        dropped = {attachment.id for attachment in message.attachments} - set(kept)
        async with self._database.writing() as connection:
            await connection.execute(
                "UPDATE messages SET content = ?, flags = ?, edited_ms = ? WHERE id = ?",
                (message.content, message.flags, now_ms, message.id),
            )
            await connection.executemany(
                "UPDATE attachments SET removed_ms = ? WHERE id = ? AND removed_ms IS NULL",
                [(now_ms, attachment) for attachment in dropped],
            )

    async def delete(self, channel: int, messages: Sequence[int], now_ms: int) -> int:
        """Delete messages of a channel; returns how many of them there were."""
        count = 0
        async with self._database.writing() as connection:
            for message in messages:
                cursor = await connection.execute(
                    "UPDATE messages SET deleted_ms = ? WHERE id = ? AND channel = ? AND deleted_ms IS NULL",
                    (now_ms, message, channel),
                )
                if cursor.rowcount:
                    count += 1
                    await connection.execute(
                        "UPDATE attachments SET removed_ms = ? WHERE message = ? AND removed_ms IS NULL",
                        (now_ms, message),
                    )
        return count

    async def attachment(self, attachment: int) -> Attachment | None:
        """One attachment, also a removed one that is not purged yet."""
        row = await self._database.row(f"SELECT {_ATTACHMENT} FROM attachments WHERE id = ?", (attachment,))  # noqa: S608 - constants only
        return None if row is None else Attachment(*row)

    async def attachment_ids(self) -> set[int]:
        """Every attachment whose blob must exist."""
        return {int(row[0]) for row in await self._database.rows("SELECT id FROM attachments")}

    async def totals(self) -> tuple[int, int, int]:
        """Messages, attachments, and bytes of attachments that exist now."""
        row = await self._database.row(
            "SELECT (SELECT count(*) FROM messages WHERE deleted_ms IS NULL), count(*), coalesce(sum(size), 0)"
            " FROM attachments WHERE removed_ms IS NULL"
        )
        assert row is not None  # an aggregate always has a row
        return int(row[0]), int(row[1]), int(row[2])

    async def purge(self, attachments_before_ms: int, messages_before_ms: int) -> list[int]:
        """Forget what was removed before those times; returns the attachments whose blobs may go."""
        async with self._database.writing() as connection:
            rows = list(
                await connection.execute_fetchall(
                    "SELECT id FROM attachments WHERE removed_ms < ?", (attachments_before_ms,)
                )
            )
            await connection.executemany("DELETE FROM attachments WHERE id = ?", rows)
            await connection.execute(
                "DELETE FROM messages WHERE deleted_ms < ? AND id NOT IN (SELECT message FROM attachments"
                " WHERE removed_ms IS NOT NULL)",
                (messages_before_ms,),
            )
        return [int(row[0]) for row in rows]

    async def _with_attachments(self, rows: Sequence[aiosqlite.Row]) -> list[Message]:
        by_message: dict[int, list[Attachment]] = {int(row[0]): [] for row in rows}
        marks = ",".join("?" * len(by_message))
        found = await self._database.rows(
            f"SELECT {_ATTACHMENT} FROM attachments WHERE message IN ({marks}) AND removed_ms IS NULL"  # noqa: S608 - only question marks
            " ORDER BY message, ordinal",
            tuple(by_message),
        )
        for row in found:
            attachment = Attachment(*row)
            by_message[attachment.message].append(attachment)
        return [Message(*(*row, tuple(by_message[int(row[0])]))) for row in rows]


async def _check_nonce(connection: aiosqlite.Connection, message: Message, nonce_since: int, per_channel: bool) -> None:
    rows = await connection.execute_fetchall(
        "SELECT channel, id, deleted_ms FROM messages WHERE nonce = ? AND author = ? AND id >= ?"
        " AND (NOT ? OR channel = ?) ORDER BY id LIMIT 1",
        (message.nonce, message.author, nonce_since, per_channel, message.channel),
    )
    for row in rows:
        raise NonceUsedError(int(row[0]), int(row[1]), deleted=row[2] is not None)


def _values(attachment: Attachment) -> tuple[object, ...]:
    return (
        attachment.id,
        attachment.message,
        attachment.channel,
        attachment.ordinal,
        attachment.filename,
        attachment.title,
        attachment.description,
        attachment.content_type,
        attachment.size,
        attachment.removed_ms,
    )
