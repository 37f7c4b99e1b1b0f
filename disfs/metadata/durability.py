"""What blocks, moved to worker threads: syncing the write-ahead log, and copying it into the database.

The log is synced through a descriptor of its own. The database file itself is never opened beside SQLite:
closing any descriptor of it would drop the locks that SQLite holds (sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import TYPE_CHECKING

import trio

from disfs.errors import FilesystemError
from disfs.metadata.sqlite_errors import translated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class SharedSync:
    """Runs `sync` in a worker thread; callers that come while one runs share the next."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self.count = 0
        """Syncs begun so far."""
        self._sync = sync
        self._completed = 0
        self._turn = trio.Lock()

    async def wait(self) -> None:
        """Return after a successful sync that began after this call. OSError when it failed."""
        begun_before = self.count
        async with self._turn:
            if self._completed > begun_before:
                return
            self.count += 1
            await trio.to_thread.run_sync(self._sync)
            self._completed = self.count


class WalFile:
    """The write-ahead log as a file: its size, and fsync."""

    def __init__(self, database_path: Path) -> None:
        self._path = database_path.with_name(database_path.name + "-wal")
        self._descriptor: int | None = None

    def sync(self) -> None:
        """fsync; blocks. SQLite keeps one and the same file as long as a connection is open."""
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(self._descriptor)

    def size_bytes(self) -> int:
        """How long the file is; it is reused from its beginning after a checkpoint, and does not shrink then."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Checkpointer:
    """PASSIVE checkpoints on a connection of their own, which never waits for the writer nor makes it wait."""

    PASSES = 3
    """A pass ends incomplete when a commit came meanwhile; the next one has little left to do."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.count = 0
        self.before_pass: list[Callable[[], Awaitable[None]]] = []
        """Awaited before each pass. SQLite syncs the log before it copies it: every commit so far becomes durable."""
        self._connection = connection

    async def checkpoint(self) -> bool:
        """Copy the committed log into the database in a worker thread; whether all of it was copied."""
        for _ in range(self.PASSES):
            for prepare in self.before_pass:
                await prepare()
            self.count += 1
            if await trio.to_thread.run_sync(self._pass):
                return True
        return False

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _pass(self) -> bool:
        try:
            _, frames, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise translated(error) from error
        return bool(frames == copied)


def sync_error(error: OSError) -> FilesystemError:
    """What a caller of make_durable gets when the log cannot be synced."""
    number = error.errno if error.errno in {errno.ENOSPC, errno.EROFS} else errno.EIO
    return FilesystemError(number, f"cannot sync the write-ahead log: {error}")
