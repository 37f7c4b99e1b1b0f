"""Which operation moves which time of what: the operations, each on a tree made for it."""

# ruff: noqa: PTH104, PTH116, PTH208 - these are system calls

from __future__ import annotations

import mmap
import os
import time
from typing import TYPE_CHECKING

from bench.suites.posix.calls import EXCHANGE, renameat2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Operation = Callable[[Path], object]

DAY_NS = 86_400 * 10**9
_COARSE = 5
NEW = "d/new"
LETTERS = {"a": "st_atime_ns", "m": "st_mtime_ns", "c": "st_ctime_ns"}


def prepare(top: Path) -> None:
    """A file with two names, a symbolic link, a FIFO, directories."""
    (top / "d" / "full").mkdir(parents=True)
    (top / "d" / "full" / "inside").touch()
    (top / "d" / "empty").mkdir()
    (top / "e").mkdir()
    (top / "d" / "file").write_bytes(b"x" * 10_000)
    (top / "e" / "other").write_bytes(b"other")
    os.link(top / "d" / "file", top / "d" / "second")
    (top / "d" / "link").symlink_to("file")
    os.mkfifo(top / "d" / "fifo")
    os.setxattr(top / "d" / "file", "user.old", b"1")


def _descriptor(path: Path, flags: int, use: Callable[[int], object]) -> None:
    descriptor = os.open(path, flags)
    try:
        use(descriptor)
    finally:
        os.close(descriptor)


def _map(path: Path, data: bytes) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[: len(data)] = data
        view.flush()


def _in(name: str, flags: int, use: Callable[[int], object]) -> Operation:
    return lambda top: _descriptor(top / "d" / name, flags, use)


OPERATIONS: dict[str, tuple[Operation, tuple[str, ...]]] = {
    "create": (lambda top: (top / NEW).touch(), (NEW, "d")),
    "mkdir": (lambda top: (top / NEW).mkdir(), (NEW, "d")),
    "mknod": (lambda top: os.mkfifo(top / NEW), (NEW, "d")),
    "symlink": (lambda top: (top / NEW).symlink_to("x"), (NEW, "d")),
    "link": (lambda top: os.link(top / "d" / "file", top / "e" / "new"), ("d/file", "e")),
    "unlink": (lambda top: (top / "d" / "second").unlink(), ("d/file", "d")),
    "rmdir": (lambda top: (top / "d" / "empty").rmdir(), ("d/empty", "d")),
    "rename: what moves; the old directory": (lambda top: os.rename(top / "d/file", top / "e/new"), ("d/file", "d")),
    "rename: what is replaced; the new directory": (
        lambda top: os.rename(top / "e/other", top / "d/file"),
        ("d/second", "d"),
    ),
    "rename with EXCHANGE": (lambda top: renameat2(top / "e/other", top / "d/file", EXCHANGE), ("d/file", "d")),
    "rename of two names of one file": (lambda top: os.rename(top / "d/file", top / "d/second"), ("d/file", "d")),
    "open, close": (_in("file", os.O_RDWR, lambda _: None), ("d/file", "d")),
    "open with O_TRUNC": (_in("file", os.O_WRONLY | os.O_TRUNC, lambda _: None), ("d/file", "d")),
    "read": (_in("file", os.O_RDONLY, lambda fd: os.read(fd, 10)), ("d/file", "d")),
    "read with O_NOATIME": (_in("file", os.O_RDONLY | os.O_NOATIME, lambda fd: os.read(fd, 10)), ("d/file", "d")),
    "write": (_in("file", os.O_WRONLY, lambda fd: os.write(fd, b"y")), ("d/file", "d")),
    "write of no bytes": (_in("file", os.O_WRONLY, lambda fd: os.write(fd, b"")), ("d/file", "d")),
    "write through a mapping": (lambda top: _map(top / "d/file", b"y"), ("d/file", "d")),
    "truncate to another size": (lambda top: os.truncate(top / "d/file", 5), ("d/file", "d")),
    "truncate to the same size": (lambda top: os.truncate(top / "d/file", 10_000), ("d/file", "d")),
    "ftruncate to the same size": (_in("file", os.O_WRONLY, lambda fd: os.ftruncate(fd, 10_000)), ("d/file", "d")),
    "fsync": (_in("file", os.O_WRONLY, os.fsync), ("d/file", "d")),
    "listing a directory": (lambda top: os.listdir(top / "d"), ("d", "e")),
    "readlink": (lambda top: (top / "d" / "link").readlink(), ("d/link", "d")),
    "stat, statfs": (lambda top: (os.stat(top / "d/file"), os.statvfs(top / "d/file")), ("d/file", "d")),
    "chmod": (lambda top: (top / "d/file").chmod(0o600), ("d/file", "d")),
    "chown": (lambda top: os.chown(top / "d/file", os.getuid(), os.getgid()), ("d/file", "d")),
    "utimensat, both times": (lambda top: os.utime(top / "d/file"), ("d/file", "d")),
    "setxattr": (lambda top: os.setxattr(top / "d/file", "user.new", b"1"), ("d/file", "d")),
    "removexattr": (lambda top: os.removexattr(top / "d/file", "user.old"), ("d/file", "d")),
    "getxattr, listxattr": (
        lambda top: (os.getxattr(top / "d/file", "user.old"), os.listxattr(top / "d/file")),
        ("d/file", "d"),
    ),
    "an operation that fails": (lambda top: _fails((top / "d" / "full").rmdir), ("d/full", "d")),
}


def _fails(call: Callable[[], object]) -> None:
    try:
        call()
    except OSError:
        return
    raise AssertionError("it did not fail")


def moved(top: Path, operation: Operation, watched: Sequence[str]) -> list[str]:
    """Which of atime, mtime and ctime, as letters, an operation gives to each of the watched paths.

    All are ten days old before, so that relatime lets a read move an atime; what the operation makes has all three.
    """
    prepare(top)
    old = time.time_ns() - 10 * DAY_NS
    for path in [*sorted(top.rglob("*"), reverse=True), top]:
        os.utime(path, ns=(old, old), follow_symlinks=False)
    # Held open: what is watched may lose its name, and move.
    held = [os.open(top / path, os.O_PATH | os.O_NOFOLLOW) if path != NEW else -1 for path in watched]
    try:
        before = [os.fstat(descriptor) if descriptor >= 0 else None for descriptor in held]
        start = time.time_ns()
        while time.clock_gettime_ns(_COARSE) <= start:
            time.sleep(0.0005)  # the clock of the kernel's stamps stands still for up to 10 ms
        operation(top)
        after = [os.fstat(descriptor) if descriptor >= 0 else (top / NEW).lstat() for descriptor in held]
        return [_new_letters(*pair, start) for pair in zip(before, after, strict=True)]
    finally:
        for descriptor in held:
            if descriptor >= 0:
                os.close(descriptor)


def _new_letters(before: os.stat_result | None, after: os.stat_result, start_ns: int) -> str:
    new = [letter for letter, name in LETTERS.items() if getattr(after, name) >= start_ns]
    changed = [letter for letter, name in LETTERS.items() if getattr(before, name, None) != getattr(after, name)]
    assert new == changed, "a time moved, but not to now"
    return " ".join(new)
