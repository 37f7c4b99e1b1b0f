"""Open a volume's database file, or make one: pragmas, first rows, errors as sentences for a person."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.errors import ExitCode, MetadataDamagedError, UserError
from disfs.metadata.connections import Access, connected
from disfs.metadata.counters import KINDS
from disfs.metadata.migrations import check_version, create_tables, upgrade
from disfs.metadata.old_copies import keep_old_copy
from disfs.metadata.schema import SCHEMA_VERSION
from disfs.metadata.settings import ALLOCATED_BYTES, CHUNK_BYTES, CLEAN_SHUTDOWN, INODE_COUNT, LOGICAL_BYTES, VOLUME_ID
from disfs.metadata.sqlite_errors import DAMAGED
from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from disfs.errors import FilesystemError
    from disfs.metadata.settings import Setting

_PRAGMAS = (
    "PRAGMA synchronous = NORMAL",  # the log is synced by make_durable, in a worker
    "PRAGMA wal_autocheckpoint = 0",  # checkpoints run in a worker, see durability.py
    "PRAGMA journal_size_limit = 67108864",  # a log that once was huge shrinks to this when it begins anew
    "PRAGMA cache_spill = OFF",  # nothing reaches the disk before COMMIT, see database.py
    "PRAGMA cache_size = -32768",  # 32 MiB
    # Zeros over what was deleted where they cost nothing. Debian's default writes each freed page to the log once more.
    "PRAGMA secure_delete = FAST",
    "PRAGMA cell_size_check = ON",  # a damaged page is noticed when it is read, not when it has done harm
)
_ROOT_MODE = 0o40755
_SMALLEST_BYTES = 64 * 1024
"""What SQLite needs at least to open a database: an index of the write-ahead log takes 32 KiB."""


@dataclass(frozen=True, slots=True)
class NewVolume:
    """What a new volume begins with."""

    chunk_bytes: int
    root_uid: int
    root_gid: int
    now_ns: int


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """What tells one volume's metadata from another's; None for what was never set."""

    volume_id: str | None
    chunk_bytes: int | None
    inode_count: int | None


def look_at(path: Path) -> VolumeFacts | None:
    """Whose metadata there is at `path`, whatever their version; None for a file that a crash left without any.

    UserError when that cannot be told. Nothing is changed, but SQLite may copy its log into the file.
    """
    try:
        with contextlib.closing(connect(path)) as connection:
            if _is_unused(connection):
                return None
            check_version(connection)
            return _facts(connection)
    except (OSError, sqlite3.Error) as error:
        raise _user_error(path, error) from error
    except ValueError as error:
        raise damaged(path, str(error)) from error


def _facts(connection: sqlite3.Connection) -> VolumeFacts:
    """ValueError when they make no sense."""
    texts = dict(connection.execute("SELECT name, value FROM settings"))
    chunk_bytes, inode_count = texts.get(CHUNK_BYTES.name), texts.get(INODE_COUNT.name)
    try:
        return VolumeFacts(
            texts.get(VOLUME_ID.name),
            None if chunk_bytes is None else CHUNK_BYTES.decode(chunk_bytes),
            None if inode_count is None else INODE_COUNT.decode(inode_count),
        )
    except (TypeError, ValueError) as error:
        raise ValueError("its settings make no sense") from error


def _is_without_tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,))


def _is_unused(connection: sqlite3.Connection) -> bool:
    """Whether tables were never made in it: one whose list of tables is damaged has further pages."""
    (page_count,) = connection.execute("PRAGMA page_count").fetchone()
    return _is_without_tables(connection) and page_count <= 1


def open_connection(path: Path, is_ours: Callable[[VolumeFacts], bool] | None = None) -> sqlite3.Connection:
    """The writing connection to an existing volume, in the newest schema. UserError when that cannot be.

    `is_ours` is asked before anything is changed: what belongs to somebody else is not upgraded, but refused.
    """
    if not path.exists():
        raise UserError(f"there is no volume at {path}", ExitCode.NO_SUCH_VOLUME)
    if not path.is_file():
        raise damaged(path, "it is not a file")
    connection: sqlite3.Connection | None = None
    try:
        has_log = log_exists(path)
        connection = connect(path)
        version = _check(connection, path, has_log=has_log)
        if is_ours is not None and not is_ours(_facts(connection)):
            raise ValueError("it belongs to another volume than the configuration")
        _prepare(connection, path, version)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, OSError | sqlite3.Error):
            raise _user_error(path, error) from error
        if isinstance(error, ValueError):
            raise damaged(path, str(error)) from error
        raise
    return connection


def log_exists(path: Path) -> bool:
    """Whether some of the database is in its write-ahead log; to be asked before it is opened."""
    return _size(path.with_name(f"{path.name}-wal")) > 0


def check_end(connection: sqlite3.Connection, path: Path, *, has_log: bool) -> None:
    """ValueError when the end of the file is missing."""
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    # SQLite reads what is missing of the last page as zeros. With a log the page may be whole there.
    if not has_log and _size(path) % page_bytes:
        raise ValueError("its end is missing")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _check(connection: sqlite3.Connection, path: Path, *, has_log: bool) -> int:
    """The version of a database that is whole, as far as is seen at once; what is not is left alone."""
    version = check_version(connection)
    check_end(connection, path, has_log=has_log)
    return version


def _prepare(connection: sqlite3.Connection, path: Path, version: int) -> None:
    if version < SCHEMA_VERSION:
        keep_old_copy(connection, path, version)
    connection.execute("PRAGMA journal_mode = WAL")
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    upgrade(connection)


def connect(path: Path, *, for_worker: bool = False) -> sqlite3.Connection:
    """A connection that makes no file. One `for_worker` may be used in any thread, though never in two at once."""
    return connected(path, Access.WRITE, any_thread=for_worker)


def create_volume(path: Path, new: NewVolume) -> None:
    """Make the database file of a new volume, durably. UserError when there is one, or when it cannot be made.

    A file that a crash left without tables counts as none.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        connection = connect(path)
        try:
            _create(path, connection, new)
        finally:
            connection.close()
        _sync_directory(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise _user_error(path, error) from error


def _create(path: Path, connection: sqlite3.Connection, new: NewVolume) -> None:
    connection.execute("PRAGMA synchronous = FULL")
    if not _is_without_tables(connection):
        raise UserError(f"there is a volume at {path} already", ExitCode.VOLUME_EXISTS)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    create_tables(connection)
    for kind in KINDS:
        connection.execute("INSERT INTO counters (name, value) VALUES (?, ?)", (kind.name, kind.first))
    _insert_setting(connection, CHUNK_BYTES, new.chunk_bytes)
    _insert_setting(connection, CLEAN_SHUTDOWN, True)
    _insert_setting(connection, INODE_COUNT, 1)
    _insert_setting(connection, LOGICAL_BYTES, 0)
    _insert_setting(connection, ALLOCATED_BYTES, 0)
    connection.execute(
        "INSERT INTO inodes (inode, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, ctime_ns, target)"
        " VALUES (?, ?, 2, ?, ?, 0, 0, ?, ?, ?, NULL)",
        (ROOT_INODE, _ROOT_MODE, new.root_uid, new.root_gid, new.now_ns, new.now_ns, new.now_ns),
    )
    connection.execute("COMMIT")


def _insert_setting(connection: sqlite3.Connection, setting: Setting[int] | Setting[bool], value: int) -> None:
    text = setting.encode(value)  # type: ignore[arg-type]  # each caller pairs a setting with a value of its type
    connection.execute("INSERT INTO settings (name, value) VALUES (?, ?)", (setting.name, text))


def damaged(path: Path, reason: str) -> UserError:
    """The metadata at `path` cannot be used for `reason`, and what to do about it."""
    # The whole directory: an old database beside the log of a newer one would be worse than either.
    directory = path.parent
    return UserError(
        f"the volume's metadata at {path} is damaged: {reason}; move {directory} away and put a backup of it back: "
        f"'cp -a BACKUP {directory}'; without a backup, 'disfs recover' rebuilds it from Discord",
        ExitCode.VOLUME_DAMAGED,
    )


def cannot_open(path: Path, error: FilesystemError) -> UserError:
    """What a person is told when an opened database fails before it is in use."""
    if isinstance(error, MetadataDamagedError):
        return damaged(path, str(error))
    if error.errno == errno.ENOSPC:
        return UserError(f"the disk of {path} is full; free some space there", ExitCode.STATE_FULL)
    return UserError(f"cannot use the volume's metadata at {path}: {error}; make it writable", ExitCode.STATE_UNUSABLE)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_full(directory: Path) -> bool:
    """Whether the disk has no room for the smallest file: SQLite calls a full disk an I/O error at some places."""
    try:
        room = os.statvfs(directory)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < _SMALLEST_BYTES


def _user_error(path: Path, error: OSError | sqlite3.Error) -> UserError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in DAMAGED:
        return damaged(path, str(error))
    if code == sqlite3.SQLITE_FULL or _is_full(path.parent):
        return UserError(f"the disk of {path} is full; free some space there", ExitCode.STATE_FULL)
    return UserError(f"cannot use the volume's metadata at {path}: {error}; make it writable", ExitCode.STATE_UNUSABLE)
