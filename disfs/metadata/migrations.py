"""Bring a volume's database to the schema of this version, one tested step at a time.

A step is the list of statements that leads from its version to the next; each runs in one transaction
together with the new version number, so that a crash leaves the old schema or the new one.
"""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import TYPE_CHECKING

from disfs.errors import ExitCode, UserError
from disfs.metadata.schema import (
    APPLICATION_ID,
    DENTRIES_BY_COOKIE,
    EXAMINED,
    EXTENTS_BY_PACK,
    HOLDS,
    MESSAGES_DEAD,
    MESSAGES_SPARSE,
    OUTBOX,
    PINS,
    SCHEMA_VERSION,
    SENT_PACKS,
    SHIPPED,
    SMALL_CONTENTS,
    SNAPSHOTS,
    TABLES,
    TRASH,
    TRASH_BY_PATH,
    TRASH_BY_TIME,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

_COUNT_CHUNKS = (
    "UPDATE inodes SET chunk_count ="
    " (SELECT coalesce(sum(count), 0) FROM extents WHERE extents.inode = inodes.inode)"
    " + (SELECT count(*) FROM dirty WHERE dirty.inode = inodes.inode AND NOT EXISTS (SELECT 1 FROM extents"
    " WHERE extents.inode = dirty.inode AND first_chunk <= chunk AND first_chunk + count > chunk))"
)

# A pack is its slots, 36 bytes of directory for each, and a frame of 56; the slot table has 4 bytes for each slot.
SUM_STORED_BYTES = (
    "UPDATE messages SET stored_bytes = (SELECT coalesce(sum(size_bytes - 56 - 9 * length(slots)), 0)"
    " FROM packs WHERE packs.message = messages.message)"
)

# What `spans.allocated_bytes` says, summed up. Only files have chunks.
SUM_ALLOCATED_BYTES = (
    "INSERT INTO settings (name, value) SELECT 'allocated_bytes', CAST(coalesce(sum("
    "(min(size_bytes, chunk_count * (SELECT CAST(value AS INTEGER) FROM settings WHERE name = 'chunk_bytes'))"
    " + 4095) / 4096 * 4096), 0) AS TEXT) FROM inodes"
    " WHERE chunk_count > 0"
)

# Nothing of it is in Discord: a checkpoint copy goes first, see settings.UNSHIPPED.
_ALL_IS_UNSHIPPED = "INSERT INTO settings (name, value) VALUES ('unshipped', '1')"

_MESSAGES_SPARSE_3 = (
    "CREATE INDEX messages_sparse ON messages (stored_bytes - live_bytes)"
    " WHERE live_bytes > 0 AND live_bytes * 2 < stored_bytes"
)

STEPS: Mapping[int, Sequence[str]] = MappingProxyType(
    {
        1: (
            "ALTER TABLE inodes ADD COLUMN chunk_count INTEGER NOT NULL DEFAULT 0",
            _COUNT_CHUNKS,
        ),
        2: (
            "ALTER TABLE messages ADD COLUMN stored_bytes INTEGER NOT NULL DEFAULT 0",
            SUM_STORED_BYTES,
            _MESSAGES_SPARSE_3,
            EXTENTS_BY_PACK,
            PINS,
            EXAMINED,
            SENT_PACKS,
        ),
        3: (SMALL_CONTENTS, SUM_ALLOCATED_BYTES, "DROP INDEX dentries_by_cookie", DENTRIES_BY_COOKIE),
        4: (OUTBOX, SHIPPED, _ALL_IS_UNSHIPPED),
        5: (
            TRASH,
            TRASH_BY_PATH,
            TRASH_BY_TIME,
            "ALTER TABLE orphans ADD COLUMN path BLOB",
            "ALTER TABLE orphans ADD COLUMN reason INTEGER",
            SNAPSHOTS,
            HOLDS,
            "INSERT INTO counters (name, value) VALUES ('snapshot', 1)",
            "ALTER TABLE messages ADD COLUMN held INTEGER NOT NULL DEFAULT 0",
            "DROP INDEX messages_dead",
            MESSAGES_DEAD,
            "DROP INDEX messages_sparse",
            MESSAGES_SPARSE,
        ),
    }
)
"""Old version -> the statements that make the next one of it."""


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the newest schema in an empty database. Must be called inside a transaction."""
    for statement in TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def check_version(connection: sqlite3.Connection, newest: int = SCHEMA_VERSION) -> int:
    """The version of a database. UserError for one of a later disfs, `ValueError` for one of another program."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID or version < 1:
        raise ValueError("it is not the metadata of a disfs volume")
    if version > newest:
        raise UserError(
            f"the volume's metadata has version {version}, this disfs knows {newest}: use a newer disfs",
            ExitCode.VOLUME_DAMAGED,
        )
    return int(version)


def upgrade(
    connection: sqlite3.Connection, steps: Mapping[int, Sequence[str]] = STEPS, newest: int = SCHEMA_VERSION
) -> None:
    """Apply what is missing; errors as in `check_version`, and nothing changed."""
    version = check_version(connection, newest)
    while version < newest:
        log.info("Bringing the metadata from version %d to %d", version, version + 1)
        _apply(connection, steps[version], version + 1)
        version += 1


def _apply(connection: sqlite3.Connection, statements: Sequence[str], version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
