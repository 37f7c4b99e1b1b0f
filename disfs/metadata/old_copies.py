"""A copy of a volume's database as it was before an upgrade, kept beside it for who wants to go back.

`metadata.db.v2` is the database of version 2, whole and usable by the disfs that wrote it. It is made before the first
statement of the upgrade and durable before the upgrade begins; a later upgrade from the same version replaces it.
Nothing here ever deletes one.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
from typing import TYPE_CHECKING

from disfs.errors import ExitCode, UserError
from disfs.metadata.connections import Access, connected

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_SLACK_BYTES = 1 << 20
"""What must be free beside the copy, for the upgrade itself to begin."""
_PAGES_PER_STEP = 4096


def old_copy(path: Path, version: int) -> Path:
    """Where the copy of version `version` lies."""
    return path.with_name(f"{path.name}.v{version}")


def keep_old_copy(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """Copy the database of version `version` that `connection` has open; returns where to. Blocks.

    STATE_FULL, and nothing left behind, when there is no room; OSError and sqlite3.Error for everything else.
    """
    target = old_copy(path, version)
    keep_copy(
        connection,
        target,
        "the volume's metadata must be brought to a new version, and there is no room to keep the old one as",
    )
    log.info("Kept the metadata of version %d as %s", version, target)
    return target


def keep_copy(connection: sqlite3.Connection, target: Path, no_room: str) -> None:
    """Copy the database that `connection` has open to `target`, whole and durable. Blocks.

    STATE_FULL, and nothing left behind, when there is no room; `no_room` is what is said before the name of the file.
    OSError and sqlite3.Error for everything else.
    """
    unfinished = target.with_name(f"{target.name}.new")
    unfinished.unlink(missing_ok=True)  # of an attempt that was killed
    _check_room(connection, target, no_room)
    try:
        _copy(connection, unfinished)
        unfinished.replace(target)
    except (OSError, sqlite3.Error) as error:
        unfinished.unlink(missing_ok=True)
        if _is_full(error):
            raise _no_room(target, no_room) from error
        raise
    _sync(target.parent, os.O_RDONLY | os.O_DIRECTORY)


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(connected(target, Access.WRITE)) as copy:
        connection.backup(copy, pages=_PAGES_PER_STEP)
    # A descriptor that is closed drops SQLite's locks on the file, but nobody else has this one open.
    _sync(target, os.O_RDWR)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_room(connection: sqlite3.Connection, target: Path, no_room: str) -> None:
    (page_count,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    room = os.statvfs(target.parent)
    if room.f_bavail * room.f_frsize < page_count * page_bytes + _SLACK_BYTES:
        raise _no_room(target, no_room, page_count * page_bytes + _SLACK_BYTES)


def _is_full(error: OSError | sqlite3.Error) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _no_room(target: Path, no_room: str, needed_bytes: int | None = None) -> UserError:
    much = "some space" if needed_bytes is None else f"{-(-needed_bytes >> 20)} MiB"
    return UserError(f"{no_room} {target}; free {much} there", ExitCode.STATE_FULL)
