"""SQLite's errors as errno values: the one table."""

from __future__ import annotations

import contextlib
import errno
import logging
import sqlite3
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError, MetadataDamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EROFS,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}


DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""What SQLite says of a file that is not what it was."""


def translated(error: sqlite3.Error) -> FilesystemError:
    """The error to raise instead of `error`. Whatever the table does not name is EIO and is logged: data at risk."""
    # Errors of the Python module itself carry no code; the low byte is the primary one.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    number = _ERRNO.get(code, errno.EIO)
    if number == errno.EIO:
        log.error("The metadata database failed: %s (%s)", error, getattr(error, "sqlite_errorname", "no code"))
    if code in DAMAGED:
        return MetadataDamagedError(f"metadata database: {error}")
    return FilesystemError(number, f"metadata database: {error}")


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turn what SQLite says while a check reads into MetadataDamagedError."""
    try:
        yield
    except sqlite3.Error as error:
        raise MetadataDamagedError(f"the metadata database cannot be read: {error}") from error
