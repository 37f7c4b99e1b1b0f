"""The emulator's SQLite file: schema, connections, transactions that are on disk when they end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import aiosqlite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (
    name TEXT PRIMARY KEY,             -- schema_version, guild_id, user_id, application_id, url_key, shift_seconds
    value TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS channels (
    id INTEGER PRIMARY KEY,            -- snowflake
    type INTEGER NOT NULL,             -- 0 text, 4 category
    name TEXT NOT NULL,
    topic TEXT,
    parent INTEGER,                    -- the category, or NULL
    position INTEGER NOT NULL,
    nsfw INTEGER NOT NULL DEFAULT 0,
    slowmode INTEGER NOT NULL DEFAULT 0,
    deleted_ms INTEGER                 -- NULL while it exists
);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY,            -- snowflake
    channel INTEGER NOT NULL,
    author INTEGER NOT NULL,           -- user id; not ours when the control API planted it
    content TEXT NOT NULL,
    flags INTEGER NOT NULL,
    nonce TEXT,                        -- as the client sent it, in JSON
    edited_ms INTEGER,
    deleted_ms INTEGER                 -- set: a tombstone, kept for its nonce until the purge
);
CREATE INDEX IF NOT EXISTS messages_by_channel ON messages (channel, id) WHERE deleted_ms IS NULL;
CREATE INDEX IF NOT EXISTS messages_by_nonce ON messages (nonce, id) WHERE nonce IS NOT NULL;
CREATE INDEX IF NOT EXISTS messages_deleted ON messages (deleted_ms) WHERE deleted_ms IS NOT NULL;
CREATE TABLE IF NOT EXISTS attachments (
    id INTEGER PRIMARY KEY,            -- snowflake; also names the file that holds the bytes
    message INTEGER NOT NULL REFERENCES messages (id),
    channel INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,          -- place within its message
    filename TEXT NOT NULL,
    title TEXT,                        -- the name as it was sent, when Discord had to change it
    description TEXT,
    content_type TEXT,
    size INTEGER NOT NULL,
    removed_ms INTEGER                 -- set when an edit dropped it or its message went; purged after a grace
);
CREATE INDEX IF NOT EXISTS attachments_by_message ON attachments (message, ordinal);
CREATE INDEX IF NOT EXISTS attachments_removed ON attachments (removed_ms) WHERE removed_ms IS NOT NULL;
"""


class Database:
    """One writing and one reading connection.

    Readers see committed states only; writers take turns. With `fsync`, `writing` returns after the
    change is on disk.
    """

    def __init__(self, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._writer = writer
        self._reader = reader
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> Database:
        """Open or create the file. Raises `aiosqlite.Error`."""
        writer = await aiosqlite.connect(path, isolation_level=None)
        try:
            await writer.execute("PRAGMA journal_mode=WAL")
            await writer.execute("PRAGMA synchronous=FULL")
            await writer.execute("PRAGMA foreign_keys=ON")
            await writer.executescript(SCHEMA)
            await writer.execute("INSERT OR IGNORE INTO meta VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))
            await _check_version(writer)
            reader = await aiosqlite.connect(path, isolation_level=None)
        except BaseException:
            await writer.close()
            raise
        await reader.execute("PRAGMA query_only=ON")
        return cls(writer, reader)

    async def close(self) -> None:
        """Close both connections; the write-ahead log is folded in."""
        await self._reader.close()
        await self._writer.close()

    async def set_fsync(self, enabled: bool) -> None:
        """Whether a commit waits for the disk."""
        async with self._turn:
            await self._writer.execute(f"PRAGMA synchronous={'FULL' if enabled else 'OFF'}")

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[aiosqlite.Connection]:
        """One transaction: committed when the block ends, rolled back when it raises.

        When the commit itself fails or is cancelled, it may or may not have happened.
        """
        async with self._turn:
            await self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                await self._writer.execute("COMMIT")
            except BaseException:
                # A failed COMMIT leaves the transaction open, a cancelled one ends it all the same.
                with contextlib.suppress(aiosqlite.OperationalError):
                    await self._writer.execute("ROLLBACK")
                raise

    async def rows(self, sql: str, parameters: tuple[object, ...] = ()) -> list[aiosqlite.Row]:
        """All rows of a query over committed data."""
        return list(await self._reader.execute_fetchall(sql, parameters))

    async def row(self, sql: str, parameters: tuple[object, ...] = ()) -> aiosqlite.Row | None:
        """The first row of a query, if any."""
        return next(iter(await self.rows(sql, parameters)), None)

    async def meta(self, name: str) -> str | None:
        """One value of the meta table."""
        row = await self.row("SELECT value FROM meta WHERE name = ?", (name,))
        return None if row is None else str(row[0])

    async def set_meta(self, name: str, value: str) -> None:
        """Keep one value."""
        async with self.writing() as connection:
            await connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    async def last_snowflake(self) -> int:
        """The highest id handed out so far that is still known."""
        row = await self.row(
            "SELECT max(coalesce((SELECT max(id) FROM channels), 0), coalesce((SELECT max(id) FROM messages), 0),"
            " coalesce((SELECT max(id) FROM attachments), 0))"
        )
        return 0 if row is None else int(row[0])


async def _check_version(connection: aiosqlite.Connection) -> None:
    """Raises `aiosqlite.DatabaseError` for a file of another version, which is left as it is."""
    rows = await connection.execute_fetchall("SELECT value FROM meta WHERE name = 'schema_version'")
    for row in rows:
        if row[0] != str(SCHEMA_VERSION):
            raise aiosqlite.DatabaseError(f"made by another version (schema {row[0]}, not {SCHEMA_VERSION})")
