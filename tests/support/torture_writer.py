"""One writer of the torture test: random operations in a directory of its own, each noted before it is made."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from bench.suites.posix.calls import EXCHANGE, renameat2
from support.torture_model import History, Node, State, first_illegal

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEAD = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNRESET})
"""What a system call fails with when the daemon dies, or is dead."""
CUT_SHORT = frozenset({errno.EIO, errno.ENODEV})
"""Likewise, if it is killed while the kernel copies a request or an answer (fs/fuse/dev.c)."""
LONGEST_WRITE_BYTES = 500_000
LONGEST_FILE_BYTES = 700_000
"""Both times the writer's `bulk`."""
LONGEST_READ_BYTES = 1 << 23
MOST_FILES = 7
MOST_DIRECTORIES = 3
_MODES = (0o600, 0o640, 0o644, 0o755)
_DESTRUCTIVE = ("truncate", "unlink", "rename", "rmdir")
_TRACE_COUNT = 40


class Interrupted(Exception):  # noqa: N818 - not an error: the daemon was killed, as planned
    """The daemon died under an operation."""


def read_all(descriptor: int) -> bytes:
    """From the beginning to the end. A read in which the daemon dies is short; the next one says that it is dead."""
    found = b""
    while piece := os.pread(descriptor, LONGEST_READ_BYTES, len(found)):
        found += piece
    return found


class Writer:
    """Works below `top`, which nobody else touches. `history` knows what may be there after a crash."""

    def __init__(self, top: Path, seed: str, bulk: int = 1) -> None:
        self.top = top
        self.history = History()
        self.trace: deque[str] = deque(maxlen=_TRACE_COUNT)
        self.failure: str | None = None
        self.count = 0
        self.fsync_count = 0
        """Those that returned."""
        self.tripwire: Callable[[], None] | None = None
        """Called right after an operation that destroys something: the moment at which a crash shows most."""
        self._random = Random(seed)
        self._numbers = 0
        self._longest_bytes = LONGEST_FILE_BYTES * bulk
        self._longest_write_bytes = LONGEST_WRITE_BYTES * bulk
        self._operations = [
            getattr(self, name) for name in sorted(dir(self)) if name.startswith("_do_") for _ in range(_WEIGHTS[name])
        ]

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop or until the daemon dies; anything unexpected ends up in `failure`."""
        try:
            while not stop.is_set():
                self._random.choice(self._operations)()
                self.count += 1
        except Interrupted:
            self.trace.append("the daemon died")
        except FileNotFoundError as error:
            if self.top.exists():
                self.failure = f"{type(error).__name__}: {error}"
            else:
                self.trace.append("the mount was taken away")
        except Exception as error:  # a thread has nobody to raise to; the test raises it
            self.failure = f"{type(error).__name__}: {error}"

    # -- making an operation --------------------------------------------------------------------------------------

    def _make(self, state: State, operation: str, call: Callable[[], object]) -> None:
        """Note what `call` will lead to, then make it."""
        self.history.add(replace(state, operation=operation))
        self.trace.append(operation)
        with self._alive():
            call()
        if self.tripwire is not None and operation.startswith(_DESTRUCTIVE):
            self.tripwire()

    @property
    def _now(self) -> State:
        return self.history.now

    def _path(self, name: str) -> Path:
        return self.top / name

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Errors that only say that the daemon was killed become `Interrupted`."""
        try:
            yield
        except OSError as error:
            if error.errno in DEAD or (error.errno in CUT_SHORT and self._is_dead()):
                raise Interrupted from error
            raise

    def _is_dead(self) -> bool:
        try:
            os.statvfs(self.top)
        except OSError as error:
            return error.errno in DEAD
        return False

    @contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[int]:
        with self._alive():
            descriptor = os.open(self._path(name), flags)
        try:
            yield descriptor
        finally:
            with self._alive():
                os.close(descriptor)

    def _some_file(self) -> str:
        names = sorted(self._now.names)
        if not names:
            self._do_create()
            names = sorted(self._now.names)
        return self._random.choice(names)

    def _new_name(self) -> str:
        self._numbers += 1
        directory = self._random.choice(["", "", *sorted(self._now.directories)])
        return f"{directory}/f{self._numbers}" if directory else f"f{self._numbers}"

    def _length(self) -> int:
        kind = self._random.randrange(10)
        return self._random.randint(
            1, 300 if kind < 2 else 9000 if kind < 6 else 140_000 if kind < 8 else self._longest_write_bytes
        )

    def _bytes(self, length: int) -> bytes:
        """Bytes that occur nowhere else, and never zero, so that a hole shows."""
        if self._random.randrange(4):
            return self._random.randbytes(length).replace(b"\0", b"\1")
        pattern = self._random.randbytes(61).replace(b"\0", b"\1")
        return (pattern * (length // 61 + 1))[:length]  # compresses well

    # -- contents ---------------------------------------------------------------------------------------------------

    def _write(self, descriptor: int, name: str, offset: int, *, append: bool = False) -> None:
        number = self._now.names[name]
        old = self._now.nodes[number]
        data = self._bytes(min(self._length(), max(1, self._longest_bytes - offset)))
        content = old.content[:offset].ljust(offset, b"\0") + data + old.content[offset + len(data) :]
        state = replace(self._now.with_node(number, replace(old, content=content)), growing=number)

        def write() -> None:
            written = 0
            while written < len(data):  # what a daemon that dies has taken of it counts; then the rest says so
                rest = data[written:]
                written += os.write(descriptor, rest) if append else os.pwrite(descriptor, rest, offset + written)

        self._make(state, f"write {name} at {offset}, {len(data)} bytes of {len(old.content)}", write)

    def _maybe_fsync(self, descriptor: int, name: str) -> None:
        if self._random.randrange(3) == 0:
            self._fsync(descriptor, name)

    def _fsync(self, descriptor: int, name: str) -> None:
        self.trace.append(f"fsync {name or '.'}")
        with self._alive():
            (os.fsync if self._random.randrange(3) else os.fdatasync)(descriptor)
        self.fsync_count += 1
        self.history.settled()

    def _do_overwrite(self) -> None:
        name = self._some_file()
        size = len(self._now.node(name).content)
        with self._opened(name, os.O_WRONLY) as descriptor:
            for _ in range(self._random.randint(1, 3)):
                self._write(descriptor, name, self._random.randint(0, size))
            self._maybe_fsync(descriptor, name)

    def _do_write_past_the_end(self) -> None:
        name = self._some_file()
        size = len(self._now.node(name).content)
        with self._opened(name, os.O_WRONLY) as descriptor:
            self._write(descriptor, name, min(size + self._random.randint(1, 200_000), self._longest_bytes))
            self._maybe_fsync(descriptor, name)

    def _do_append(self) -> None:
        name = self._some_file()
        with self._opened(name, os.O_WRONLY | os.O_APPEND) as descriptor:
            for _ in range(self._random.randint(1, 4)):
                size = len(self._now.node(name).content)
                if size < self._longest_bytes:
                    self._write(descriptor, name, size, append=True)
            self._maybe_fsync(descriptor, name)

    def _do_truncate(self) -> None:
        name = self._some_file()
        content = self._now.node(name).content
        longer = len(content) + self._random.randint(1, 150_000)
        size = self._random.choice([0, len(content) // 2, self._random.randint(0, len(content)), longer])
        size_bytes = min(size, self._longest_bytes)
        self._truncate(name, size_bytes, lambda: os.truncate(self._path(name), size_bytes))

    def _truncate(self, name: str, size: int, call: Callable[[], object]) -> None:
        number = self._now.names[name]
        old = self._now.nodes[number]
        content = old.content[:size].ljust(size, b"\0")
        state = self._now.with_node(number, replace(old, content=content))
        self._make(state, f"truncate {name} from {len(old.content)} to {size}", call)

    def _do_rewrite(self) -> None:
        name = self._some_file()
        opened: list[int] = []
        flags = os.O_WRONLY | os.O_TRUNC
        self._truncate(name, 0, lambda: opened.append(os.open(self._path(name), flags)))
        try:
            self._write(opened[0], name, 0)
            self._maybe_fsync(opened[0], name)
        finally:
            with self._alive():
                os.close(opened[0])

    def _do_read(self) -> None:
        name = self._some_file()
        expected = self._now.node(name).content
        with self._opened(name, os.O_RDONLY) as descriptor, self._alive():
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # ask the daemon, not the page cache
            seen = read_all(descriptor)
        assert len(expected) == len(seen), f"{name} has {len(expected)} bytes, {len(seen)} were read"
        wrong = first_illegal(seen, [expected])
        assert wrong is None, f"{name} while mounted: {wrong}"

    def _do_fsync(self) -> None:
        name = self._some_file()
        with self._opened(name, os.O_RDONLY) as descriptor:
            self._fsync(descriptor, name)

    def _do_fsync_directory(self) -> None:
        name = self._random.choice(["", *sorted(self._now.directories)])
        with self._opened(name, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            self._fsync(descriptor, name)

    # -- names --------------------------------------------------------------------------------------------------------

    def _do_create(self) -> None:
        if len(self._now.names) >= MOST_FILES:
            self._do_unlink()
            return
        name = self._create()
        with self._opened(name, os.O_WRONLY) as descriptor:
            self._write(descriptor, name, 0)
            self._maybe_fsync(descriptor, name)

    def _create(self) -> str:
        name = self._new_name()
        number = -self._numbers  # what was seen after a crash is numbered by its inodes
        state = self._now.with_node(number, Node(b"", 0o600)).with_names({**self._now.names, name: number})
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        self._make(state, f"create {name}", lambda: os.close(os.open(self._path(name), flags, 0o600)))
        return name

    def _do_save(self) -> None:
        """As careful editors do: a new file, fsync, rename over the old one."""
        target = self._some_file()
        name = self._create()
        with self._opened(name, os.O_WRONLY) as descriptor:
            self._write(descriptor, name, 0)
            self._fsync(descriptor, name)
        self._rename(name, target)

    def _do_rename(self) -> None:
        self._rename(self._some_file(), self._new_name())

    def _do_rename_over(self) -> None:
        self._rename(self._some_file(), self._some_file())

    def _rename(self, old: str, new: str) -> None:
        names = dict(self._now.names)
        if names.get(new) != names[old]:
            names[new] = names.pop(old)
        state = self._now.with_names(names)
        self._make(state, f"rename {old} to {new}", lambda: self._path(old).rename(self._path(new)))

    def _do_exchange(self) -> None:
        one, other = self._some_file(), self._some_file()
        names = dict(self._now.names)
        names[one], names[other] = names[other], names[one]
        paths = self.top / one, self.top / other
        self._make(self._now.with_names(names), f"exchange {one} and {other}", lambda: renameat2(*paths, EXCHANGE))

    def _do_link(self) -> None:
        if len(self._now.names) >= MOST_FILES:
            return
        old, new = self._some_file(), self._new_name()
        names = {**self._now.names, new: self._now.names[old]}
        state = self._now.with_names(names)
        self._make(state, f"link {old} to {new}", lambda: os.link(self._path(old), self._path(new)))

    def _do_unlink(self) -> None:
        self._unlink(self._some_file())

    def _unlink(self, name: str) -> None:
        names = {other: number for other, number in self._now.names.items() if other != name}
        self._make(self._now.with_names(names), f"unlink {name}", lambda: self._path(name).unlink())

    def _do_unlink_while_open(self) -> None:
        name = self._some_file()
        number = self._now.names[name]
        if list(self._now.names.values()).count(number) > 1:
            return  # a hard link: what is written would be seen under another name
        old, data = self._now.nodes[number], self._bytes(self._length())
        with self._opened(name, os.O_RDWR) as descriptor:
            self._unlink(name)
            # A crash may undo the removal, and the file comes back with what was written to it after that.
            written = self._now.with_node(number, replace(old, content=data + old.content[len(data) :]))
            self._make(written, f"write {name}, unlinked", lambda: os.pwrite(descriptor, data, 0))
            with self._alive():
                seen = read_all(descriptor)[: len(data)]
            assert data == seen, f"{name}, unlinked and open, does not hold what was written"

    def _do_directory(self) -> None:
        directories = dict(self._now.directories)
        empty = [d for d in sorted(directories) if not any(n.startswith(d + "/") for n in self._now.names)]
        if len(directories) < MOST_DIRECTORIES:
            self._numbers += 1
            name = f"d{self._numbers}"
            directories[name] = 0o700
            self._make(
                replace(self._now, directories=directories, growing=None),
                f"mkdir {name}",
                lambda: self._path(name).mkdir(0o700),
            )
        elif empty:
            name = self._random.choice(empty)
            del directories[name]
            self._make(
                replace(self._now, directories=directories, growing=None),
                f"rmdir {name}",
                lambda: self._path(name).rmdir(),
            )

    def _do_rename_directory(self) -> None:
        if not self._now.directories:
            return
        old = self._random.choice(sorted(self._now.directories))
        self._numbers += 1
        new = f"d{self._numbers}"
        names = {
            (new + name.removeprefix(old) if name.startswith(old + "/") else name): number
            for name, number in self._now.names.items()
        }
        directories = {(new if name == old else name): mode for name, mode in self._now.directories.items()}
        state = replace(self._now.with_names(names), directories=directories)
        self._make(state, f"rename directory {old} to {new}", lambda: self._path(old).rename(self._path(new)))

    # -- attributes ---------------------------------------------------------------------------------------------------

    def _do_chmod(self) -> None:
        name, mode = self._some_file(), self._random.choice(_MODES)
        number = self._now.names[name]
        state = self._now.with_node(number, replace(self._now.nodes[number], mode=mode))
        self._make(state, f"chmod {name} {mode:o}", lambda: self._path(name).chmod(mode))

    def _do_xattr(self) -> None:
        name, key = self._some_file(), f"user.x{self._random.randrange(3)}"
        number = self._now.names[name]
        node = self._now.nodes[number]
        xattrs = dict(node.xattrs)
        if key in xattrs and self._random.randrange(2):
            del xattrs[key]
            operation, call = f"removexattr {name} {key}", lambda: os.removexattr(self._path(name), key)
        else:
            value = xattrs[key] = self._random.randbytes(self._random.choice([0, 8, 900]))
            operation, call = f"setxattr {name} {key}", lambda: os.setxattr(self._path(name), key, value)
        self._make(self._now.with_node(number, replace(node, xattrs=frozenset(xattrs.items()))), operation, call)


_WEIGHTS = {
    "_do_overwrite": 6, "_do_write_past_the_end": 2, "_do_append": 5, "_do_truncate": 4, "_do_rewrite": 3,
    "_do_read": 5, "_do_fsync": 2, "_do_fsync_directory": 2, "_do_create": 6, "_do_save": 3, "_do_rename": 2,
    "_do_rename_over": 2, "_do_exchange": 1, "_do_link": 2, "_do_unlink": 2, "_do_unlink_while_open": 1,
    "_do_directory": 2, "_do_rename_directory": 1, "_do_chmod": 2, "_do_xattr": 2,
}  # fmt: skip


def scan(top: Path) -> State:
    """What is below `top`, read from the daemon."""
    names: dict[str, int] = {}
    nodes: dict[int, Node] = {}
    directories: dict[str, int] = {}
    for path in sorted(top.rglob("*")):
        name, status = str(path.relative_to(top)), path.lstat()
        if stat.S_ISDIR(status.st_mode):
            directories[name] = stat.S_IMODE(status.st_mode)
            continue
        names[name] = status.st_ino
        if status.st_ino not in nodes:
            xattrs = frozenset((key, os.getxattr(path, key)) for key in os.listxattr(path))
            nodes[status.st_ino] = Node(_read(path), stat.S_IMODE(status.st_mode), xattrs)
            assert len(nodes[status.st_ino].content) == status.st_size, f"{path}: not as long as stat says"
    return State(names, nodes, directories, "seen")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()
