"""The operations of the model test, each with all that its arguments may be: few names, sizes around chunk borders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from support.model_paths import RENAME_EXCHANGE, RENAME_NOREPLACE
from support.model_trial import HOME, tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from support.model_trial import Trial

CHUNK = 4096
NEW = [f"{HOME}/{path}" for path in ("a", "b", "c", "a/a", "a/b", "b/a", "b/c", "a/b/a", "b/a/c", "a/../b", "c/a")]
PATHS: list[str | int] = [*range(16), *NEW[:8]]
"""A number stands for one of the paths that there are: most operations should find something."""
TARGETS = ["a", "b", "c", "a/b", ".", "b/a"]
BORDERS = [0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 3, 2 * CHUNK, 3 * CHUNK + 7, 5 * CHUNK]
LENGTHS = [0, 1, 3, 100, CHUNK - 1, CHUNK, CHUNK + 2, 2 * CHUNK]
FLAGS = [0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE]
SLOTS = list(range(4))
CREATE = [os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC]
TIMES = [0, -1_500_000_001, 10**18 + 7, 5_000_000_000_123_456_789]
OWNERS = [0, 7, 2**32 - 2]
LIVES = ["stop", "kill", "kill synced"]

OPERATIONS: dict[str, dict[str, Sequence[Any]]] = {
    "mkdir": {"path": NEW, "mode": [0o755, 0o700]},
    "mkfifo": {"path": NEW},
    "symlink": {"leads_to": TARGETS, "path": NEW},
    "link": {"old": PATHS, "new": NEW},
    "unlink": {"path": PATHS},
    "rmdir": {"path": PATHS},
    "rename": {"old": PATHS, "new": PATHS, "flags": FLAGS},
    "rename_file": {"old": PATHS, "new": NEW, "flags": FLAGS},
    "look": {"path": PATHS},
    "chmod": {"path": PATHS, "mode": [0o600, 0o644, 0o755, 0o4711, 0o2750, 0o1777]},
    "chown": {"path": PATHS, "uid": OWNERS, "gid": OWNERS},
    "utime": {"path": PATHS, "atime": TIMES, "mtime": TIMES},
    "touch": {"path": PATHS},
    "setxattr": {
        "path": PATHS,
        "name": ["user.a", "user.b"],
        "length": [0, 1, 1000],
        "flags": [0, os.XATTR_CREATE, os.XATTR_REPLACE],
    },
    "removexattr": {"path": PATHS, "name": ["user.a", "user.b"]},
    "open": {
        "path": PATHS,
        "way": [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR],
        "extra": [0, 0, os.O_TRUNC, os.O_NOFOLLOW, *CREATE],
        "appends": [False, True],
    },
    "write_file": {"path": PATHS, "offset": BORDERS, "length": LENGTHS},
    "write": {"number": SLOTS, "offset": BORDERS, "length": LENGTHS},
    "read": {"number": SLOTS, "offset": BORDERS, "length": LENGTHS},
    "map": {"number": SLOTS, "offset": BORDERS, "length": [1, 100, CHUNK]},
    "truncate": {"path": PATHS, "size": [*BORDERS, -1]},
    "ftruncate": {"number": SLOTS, "size": BORDERS},
    "use_open_file": {"number": SLOTS, "mode": [0o600, 0o644]},
    "use_open_directory": {"number": SLOTS},
    "close": {"number": SLOTS},
    "fsync": {"number": SLOTS},
    "end_daemon": {"way": [*LIVES, *[""] * 8]},
}
"""`end_daemon` is rare, as it costs a second."""


class Operations:
    """Does what `OPERATIONS` lists, through a `Trial` that compares."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self._count = 0

    def walk(self, rng: Random, steps: int) -> None:
        """Do so many operations at random."""
        names = [*OPERATIONS, "rename", "rename", "mkdir"]
        for _ in range(steps):
            name = rng.choice(names)
            getattr(self, name)(**{key: rng.choice(pool) for key, pool in OPERATIONS[name].items()})

    def _text(self, length: int) -> bytes:
        """Bytes that are different at each place and each time, and never zero."""
        self._count += 1
        return bytes((self._count * 7 + place * 13 + place // 251) % 255 + 1 for place in range(length))

    def _path(self, path: str | int) -> str:
        if isinstance(path, str):
            return path
        known = [known for known, _ in tree(self.trial.model) if known.startswith(f"{HOME}/")]
        return known[path % len(known)] if known else HOME

    def _step(self, call: str, path: str | int, *arguments: Any) -> None:
        self.trial.step(call, self._path(path), *arguments)

    def _slot(self, number: int) -> int | None:
        known = sorted(self.trial.model.files)
        return known[number % len(known)] if known else None

    def _on_slot(self, call: str, number: int, *arguments: Any) -> None:
        slot = self._slot(number)
        if slot is not None:
            self.trial.step(call, slot, *arguments)

    # Names

    def begin(self, first: str = "a") -> None:
        """Something to work on: a file of two names that is open, one that is closed, directories within each other."""
        other = "b" if first == "a" else "a"
        self.trial.step("mkdir", f"{HOME}/{first}", 0o755)
        self.trial.step("mkdir", f"{HOME}/{first}/b", 0o755)
        slot = next(self.trial.slots)
        self.trial.step("open", slot, f"{HOME}/{first}/b/a", os.O_RDWR | os.O_CREAT, 0o644)
        self.trial.step("write", slot, CHUNK - 10, self._text(CHUNK + 20))
        self.trial.step("link", f"{HOME}/{first}/b/a", f"{HOME}/{other}")
        self.trial.step("mkdir", f"{HOME}/c", 0o755)
        self.write_file(f"{HOME}/c/a", 0, 100)

    def mkdir(self, path: str, mode: int) -> None:
        self.trial.step("mkdir", path, mode)

    def mkfifo(self, path: str) -> None:
        self.trial.step("mkfifo", path, 0o666)

    def symlink(self, leads_to: str, path: str) -> None:
        self.trial.step("symlink", leads_to, path)

    def link(self, old: str | int, new: str) -> None:
        self.trial.step("link", self._path(old), new)

    def unlink(self, path: str | int) -> None:
        self._step("unlink", path)

    def rmdir(self, path: str | int) -> None:
        self._step("rmdir", path)

    def rename(self, old: str | int, new: str | int, flags: int) -> None:
        self.trial.step("rename", self._path(old), self._path(new), flags)

    def rename_file(self, old: str | int, new: str, flags: int) -> None:
        """With a file that is sure to be there, as most targets are directories or nothing."""
        self.write_file(new, 0, 3)
        self.trial.step("rename", self._path(old), new, flags)

    def look(self, path: str | int) -> None:
        self._step("listdir", path)
        self._step("readlink", path)

    # Attributes

    def chmod(self, path: str | int, mode: int) -> None:
        self._step("chmod", path, mode)

    def chown(self, path: str | int, uid: int, gid: int) -> None:
        if os.getuid() == 0:
            self._step("lchown", path, uid, gid)

    def utime(self, path: str | int, atime: int, mtime: int) -> None:
        self._step("utime", path, atime, mtime)

    def touch(self, path: str | int) -> None:
        self._step("touch", path)

    def setxattr(self, path: str | int, name: str, length: int, flags: int) -> None:
        # Never twice the same value: whether that moves the ctime is where local file systems differ.
        self._step("setxattr", path, name, str(self._count).encode() + self._text(length), flags)

    def removexattr(self, path: str | int, name: str) -> None:
        self._step("getxattr", path, name)
        self._step("removexattr", path, name)

    # Files

    def open(self, path: str | int, way: int, extra: int, appends: bool) -> None:
        flags = way | extra | (os.O_APPEND if appends else 0)
        self.trial.step("open", next(self.trial.slots), self._path(path), flags, 0o666)

    def write_file(self, path: str | int, offset: int, length: int) -> None:
        """Open, write somewhere, close."""
        slot = next(self.trial.slots)
        self.trial.step("open", slot, self._path(path), os.O_RDWR | os.O_CREAT, 0o666)
        if slot in self.trial.model.files:
            self.trial.step("write", slot, offset, self._text(length))
            self.trial.step("close", slot)

    def write(self, number: int, offset: int, length: int) -> None:
        self._on_slot("write", number, offset, self._text(length))

    def read(self, number: int, offset: int, length: int) -> None:
        self._on_slot("read", number, offset, length + 1)

    def map(self, number: int, offset: int, length: int) -> None:
        slot = self._slot(number)
        if slot is not None and self.trial.model.can_map(slot, offset + length):
            self.trial.step("map_write", slot, offset, self._text(length))
            self.trial.step("map_read", slot)

    def truncate(self, path: str | int, size: int) -> None:
        self._step("truncate", path, size)

    def ftruncate(self, number: int, size: int) -> None:
        self._on_slot("ftruncate", number, size)

    def use_open_file(self, number: int, mode: int) -> None:
        self._on_slot("fstat", number)
        self._on_slot("fchmod", number, mode)

    def use_open_directory(self, number: int) -> None:
        self._on_slot("list_at", number)
        self._on_slot("mkdir_at", number, "c")

    def close(self, number: int) -> None:
        self._on_slot("close", number)

    def fsync(self, number: int) -> None:
        self._on_slot("fsync", number)

    # Lives

    def end_daemon(self, way: str) -> None:
        if way == "stop":
            self.trial.remount()
        elif way:
            self.trial.crash(synced=way == "kill synced")
