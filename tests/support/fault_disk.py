"""A disk under a process: every commit and every sync is a step of a tape, and what each of them makes safe is known.

`as_killed` is what kill -9 leaves: all that was handed to the kernel. `as_cut` is what a power cut leaves at worst: of
a file the content of its last sync, under the names that its directory had at that one's last sync; so a file that was
removed since comes back, and one that was made since is not there.

SQLite syncs by itself, out of sight: at a commit under `synchronous=FULL`, at a checkpoint, when it closes. What it
then makes safe is noted here as its documentation says.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from disfs.chunkstore.files import CacheFiles
from disfs.errors import FilesystemError
from disfs.metadata.database import Database
from disfs.metadata.durability import Checkpointer
from disfs.metadata.store import SqliteMetadataStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pytest

    from support.fault_tape import Tape

Image = dict[str, bytes]
"""What a disk holds: relative paths and contents. Empty directories are left out."""
_SHARED_MEMORY = "-shm"
"""SQLite makes this file anew when nobody has the database open."""


class Disk:
    """The directory of one machine. `tape` may be changed at any time; None: nothing is counted, all syncs are kept."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tape: Tape | None = None
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._held: dict[int, int] = {}
        """A descriptor of each file that was seen: its number is not given to another one."""

    @classmethod
    @contextlib.contextmanager
    def holding(cls, directory: Path, image: Mapping[str, bytes]) -> Iterator[Disk]:
        """A new disk with that on it, all of it safe."""
        directory.mkdir(parents=True)
        write_image(directory, image)
        disk = cls(directory)
        disk.note_all(directory)
        try:
            yield disk
        finally:
            for descriptor in disk._held.values():
                os.close(descriptor)

    # -- what is on it ------------------------------------------------------------------------------------------

    def as_killed(self) -> Image:
        """All that was handed to the kernel."""
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in self._files_below(self.directory)
            if not path.name.endswith(_SHARED_MEMORY)
        }

    def as_cut(self) -> Image:
        """What was synced."""
        found: Image = {}
        self._collect(self.directory.stat().st_ino, "", found)
        return found

    def _collect(self, directory: int, prefix: str, found: Image) -> None:
        for name, number in self._names[directory].items():
            if number in self._names:
                self._collect(number, f"{prefix}{name}/", found)
            elif number in self._held and not name.endswith(_SHARED_MEMORY):
                found[prefix + name] = self._contents.get(number, b"")

    @staticmethod
    def _files_below(directory: Path) -> Iterator[Path]:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from Disk._files_below(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)

    # -- what is made safe --------------------------------------------------------------------------------------

    def note_all(self, directory: Path) -> None:
        """Everything below a directory, and its names."""
        self._note_names(directory)
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self.note_all(Path(entry.path))
                else:
                    self.note_file(Path(entry.path))

    def note_file(self, path: Path) -> None:
        """The content of a file, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            number = self._hold(path)
            if number is not None:
                self._contents[number] = path.read_bytes()

    def note_database(self, path: Path) -> None:
        """A database and its log, by content and by name."""
        self._note_names(path.parent)
        self.note_file(path)
        self.note_file(path.with_name(path.name + "-wal"))

    def _note_names(self, directory: Path) -> None:
        with os.scandir(directory) as entries:
            names = {entry.name: entry.inode() for entry in entries}
            self._names[directory.stat().st_ino] = names
        for name in names:
            self._hold(directory / name)

    def _hold(self, path: Path) -> int | None:
        """The number of a regular file; it stays taken."""
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return None
        if found.st_ino not in self._held:
            self._held[found.st_ino] = os.open(path, os.O_RDONLY)
        return found.st_ino

    def synced(self, descriptor: int, sync: Callable[[int], None]) -> None:
        """An fsync or fdatasync, of this disk or of another one."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_relative_to(self.directory):
            sync(descriptor)
            return
        with self.step(f"fsync {path.relative_to(self.directory)}"):
            if path.is_dir():
                self._note_names(path)
            elif path.name.endswith("-wal"):
                # A checkpoint may have copied some of it: both files are what they are together.
                self.note_database(path.with_name(path.name.removesuffix("-wal")))
            elif path.exists():
                self.note_file(path)

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A step of the tape."""
        tape = self.tape
        number = tape.begin(what) if tape else None
        yield
        if tape:
            tape.end(number, what)


def write_image(directory: Path, image: Mapping[str, bytes]) -> None:
    """Put that into a directory."""
    for name, content in image.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def watch_disk(current: Callable[[], Disk], patch: pytest.MonkeyPatch) -> None:
    """From now on all that this process commits and syncs is told to the disk that `current` names."""
    for name in ("fsync", "fdatasync"):
        # What is synced lies in memory or is thrown away: there is no need to wait for the disk.
        patch.setattr(os, name, lambda descriptor: current().synced(descriptor, lambda _descriptor: None))
    patch.setattr(CacheFiles, "sync_disk", lambda _files: _sync_cache(current()))
    execute, run_pass = Database._execute, Checkpointer._pass
    begin, close = SqliteMetadataStore._begin, SqliteMetadataStore.close

    def executed(database: Database, sql: str) -> None:
        if sql != "COMMIT":
            execute(database, sql)
            return
        try:
            with current().step("commit"):
                execute(database, sql)
        except FilesystemError:
            if database._connection.in_transaction:
                execute(database, "ROLLBACK")  # as SQLite does after an error of the disk
            raise

    def passed(checkpointer: Checkpointer) -> bool:
        disk, path = current(), _path_of(checkpointer._connection)
        with disk.step("fsync at a checkpoint"):
            disk.note_database(path)
            return run_pass(checkpointer)

    def begun(store: SqliteMetadataStore) -> None:
        begin(store)
        current().note_database(store._path)

    def closed(store: SqliteMetadataStore) -> None:
        disk, path = current(), store._path
        was_open = not store._closed
        close(store)
        if was_open and store._database.failure is None and path.is_relative_to(disk.directory):
            disk.note_database(path)

    patch.setattr(Database, "_execute", executed)
    patch.setattr(Checkpointer, "_pass", passed)
    patch.setattr(SqliteMetadataStore, "_begin", begun)
    patch.setattr(SqliteMetadataStore, "close", closed)


def _sync_cache(disk: Disk) -> None:
    with disk.step("fsync of the whole cache"):
        disk.note_all(disk.directory / "cache")


def _path_of(connection: Any) -> Path:
    return Path(connection.execute("PRAGMA database_list").fetchone()[2])
