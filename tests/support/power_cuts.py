"""A disk of which a power cut leaves what was synced, under real stores."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from support.real_stores import RealStores

LOG_FILES = ("volume.db", "volume.db-wal")


class Disk:
    """What a power cut leaves of the directory of a volume.

    With `eager_log` every commit is on the disk at once. What lies over a content that Discord has may be lost then,
    with that content: so such a world sends nothing.
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, *, eager_log: bool) -> None:
        self._directory = directory
        self._synced_log = directory / "synced"
        self._synced_log.mkdir()
        self._eager_log = eager_log
        self._contents: dict[int, bytes] = {}
        self._names: dict[str, dict[str, int]] = {}
        monkeypatch.setattr(os, "fdatasync", self._fdatasync)

    def watch(self, world: RealStores, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever makes the log durable is noted from now on; to be called after each start."""
        checkpointer = world.metadata._checkpointer
        run_pass = checkpointer._pass

        def noted_pass() -> bool:
            self._keep_log()
            return run_pass()

        monkeypatch.setattr(checkpointer, "_pass", noted_pass)
        monkeypatch.setattr(world.metadata._sync, "_sync", self._keep_log)

    def cut(self) -> None:
        """Everything goes that was not synced. Nobody has the files open."""
        if self._eager_log:
            self._keep_log()
        for name in (*LOG_FILES, "volume.db-shm"):
            (self._directory / name).unlink(missing_ok=True)
        shutil.copytree(self._synced_log, self._directory, dirs_exist_ok=True)
        for path in (self._directory / "cache").rglob("files/*/*"):
            number = path.stat().st_ino
            if self._names.get(str(path.parent), {}).get(path.name) == number:
                path.write_bytes(self._contents.get(number, b""))
            else:
                path.unlink()

    def _keep_log(self) -> None:
        for name in LOG_FILES:
            (self._synced_log / name).unlink(missing_ok=True)
            if (self._directory / name).exists():
                shutil.copy(self._directory / name, self._synced_log / name)

    def _fdatasync(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            with os.scandir(descriptor) as entries:
                names = {entry.name: entry.inode() for entry in entries}
            self._names[str(Path(f"/proc/self/fd/{descriptor}").readlink())] = names
        else:
            self._contents[found.st_ino] = os.pread(descriptor, found.st_size, 0)
