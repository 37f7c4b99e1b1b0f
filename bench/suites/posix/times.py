"""Which call moves which of atime, mtime and ctime, of what it works on and of the directories around it."""

from __future__ import annotations

import itertools
import mmap
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from bench.suites.posix import calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.suites.posix.compare import Answers

_WATCHED = ("one", "two", "one/f", "one/g", "one/d", "one/l", "two/h", "two/full")


def _prepare() -> None:
    os.mkdir("one")
    os.mkdir("two")
    for path in ("one/f", "one/g", "two/h"):
        calls.touch(path, b"content")
    os.mkdir("one/d")
    os.symlink("f", "one/l")
    os.mkdir("two/full")
    calls.touch("two/full/x")


def _ftruncate(size: int) -> None:
    fd = os.open("one/f", os.O_RDWR)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)


def _append() -> None:
    fd = os.open("one/f", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"more")
    finally:
        os.close(fd)


def _map(*, write: bool) -> bytes:
    with open("one/f", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        if write:
            mapped[0] = 65
            mapped.flush()
        return bytes(mapped[:3])


def _unlink_one_of_two() -> None:
    os.link("one/f", "e")
    os.unlink("one/f")


def _sync() -> None:
    fd = os.open("one/f", os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


CALLS: dict[str, Callable[[], object]] = {
    "stat": lambda: os.lstat("one/f").st_size,
    "read": lambda: calls.read("one/f"),
    "read through a link": lambda: calls.read("one/l"),
    "readlink": lambda: os.readlink("one/l"),
    "list": lambda: calls.listed("one"),
    "write": lambda: calls.write("one/f"),
    "write nothing": lambda: calls.write("one/f", b""),
    "append": _append,
    "fsync": _sync,
    "mmap read": partial(_map, write=False),
    "mmap write": partial(_map, write=True),
    "open": lambda: calls.opened("one/f", os.O_RDWR),
    "open to truncate": lambda: calls.opened("one/f", os.O_WRONLY | os.O_TRUNC),
    "open or create": lambda: calls.opened("one/f", os.O_WRONLY | os.O_CREAT),
    "create": lambda: calls.opened("one/new", os.O_WRONLY | os.O_CREAT),
    "create exclusively what is there": lambda: calls.opened("one/f", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "truncate shorter": lambda: os.truncate("one/f", 3),
    "truncate longer": lambda: os.truncate("one/f", 300_000),
    "truncate to the same": lambda: os.truncate("one/f", 7),
    "ftruncate shorter": partial(_ftruncate, 3),
    "ftruncate to the same": partial(_ftruncate, 7),
    "truncate a directory": lambda: os.truncate("one/d", 0),
    "chmod": lambda: os.chmod("one/f", 0o600),
    "chmod to the same": lambda: os.chmod("one/f", 0o644),
    "chmod through a link": lambda: os.chmod("one/l", 0o600),
    "chown": lambda: os.chown("one/f", 1, 1),
    "chown to nothing else": lambda: os.chown("one/f", -1, -1),
    "lchown": lambda: os.lchown("one/l", 1, 1),
    "set times": lambda: os.utime("one/f", ns=(10**18, 10**18)),
    "set times to now": lambda: os.utime("one/f"),
    "set no time": lambda: calls.utimensat("one/f", (0, calls.OMIT), (0, calls.OMIT)),
    "set atime": lambda: calls.utimensat("one/f", (5, 5), (0, calls.OMIT)),
    "set mtime to now": lambda: calls.utimensat("one/f", (0, calls.OMIT), (0, calls.NOW)),
    "set times of a link": lambda: calls.utimensat("one/l", (5, 5), (6, 6), follow=False),
    "set xattr": lambda: os.setxattr("one/f", "user.x", b"y"),
    "get absent xattr": lambda: os.getxattr("one/f", "user.z"),
    "remove absent xattr": lambda: os.removexattr("one/f", "user.z"),
    "link": lambda: os.link("one/f", "two/f"),
    "link to what is there": lambda: os.link("one/f", "two/h"),
    "symlink": lambda: os.symlink("x", "one/new"),
    "symlink to what is there": lambda: os.symlink("x", "one/f"),
    "mkdir": lambda: os.mkdir("one/new"),
    "mkdir of what is there": lambda: os.mkdir("one/f"),
    "mkfifo": lambda: os.mkfifo("one/new"),
    "unlink": lambda: os.unlink("one/f"),
    "unlink one of two": _unlink_one_of_two,
    "unlink what is not there": lambda: os.unlink("one/new"),
    "unlink a directory": lambda: os.unlink("one/d"),
    "rmdir": lambda: os.rmdir("one/d"),
    "rmdir of a full one": lambda: os.rmdir("two/full"),
    "rename": lambda: os.rename("one/f", "one/new"),
    "rename away": lambda: os.rename("one/f", "two/new"),
    "rename over": lambda: os.rename("one/f", "one/g"),
    "rename over another's": lambda: os.rename("one/f", "two/h"),
    "rename a directory": lambda: os.rename("one/d", "one/new"),
    "rename a directory away": lambda: os.rename("one/d", "two/new"),
    "rename to itself": lambda: os.rename("one/f", "one/f"),
    "rename over a full one": lambda: os.rename("one/d", "two/full"),
    "rename unless there": lambda: calls.renameat2("one/f", "two/h", calls.NOREPLACE),
    "exchange": lambda: calls.renameat2("one/f", "two/h", calls.EXCHANGE),
    "exchange with a directory": lambda: calls.renameat2("one/f", "two/full", calls.EXCHANGE),
}


def every_call(answers: Answers) -> None:
    """The times that moved, by the paths that things had before; inodes are followed where they go."""
    for name, call in CALLS.items():
        os.mkdir("work")
        os.chdir("work")
        _prepare()
        # Descriptors, because names come and go.
        held = {path: os.open(path, os.O_PATH | os.O_NOFOLLOW) for path in _WATCHED}
        before = {path: calls.times(path) for path in _WATCHED}
        calls.wait_past(max(itertools.chain(*before.values())))
        answers.see(name, call)
        for path, fd in held.items():
            answers.see(f"{name}: times of {path}", _moved, fd, before[path])
            os.close(fd)
        os.chdir("..")
        shutil.rmtree("work")


def _moved(fd: int, before: tuple[int, int, int]) -> str:
    found = os.stat(fd)
    now = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    return "".join(letter for letter, old, new in zip("amc", before, now, strict=True) if old != new)


def set_times(answers: Answers) -> None:
    """utimensat keeps what it is given to the nanosecond, before 1970 and after 2038 too."""
    calls.touch("f")
    for seconds, nanoseconds in itertools.product(
        (0, 1, -1, -2, 2**31 - 1, 2**31, 2**32, 9 * 10**9), (0, 1, 999_999_999)
    ):
        label = f"{seconds}.{nanoseconds:09}"
        answers.see(label, calls.utimensat, "f", (seconds, nanoseconds), (seconds + 1, nanoseconds))
        answers.see(f"{label}: kept", lambda: calls.times("f")[:2])
    for nanoseconds in (-1, 10**9, calls.NOW + 5):
        answers.see(f"bad nanoseconds {nanoseconds}", calls.utimensat, "f", (0, nanoseconds), (0, 0))


def new_things(answers: Answers) -> None:
    """What is made has one time for all three, and it is not before the one of the call."""
    calls.touch("f")
    os.mkdir("d")
    os.symlink("x", "l")
    os.mkfifo("p")
    for path in ("d", "l", "p"):
        answers.see(f"{path}: one time", lambda path=path: len(set(calls.times(path))))
    before = calls.times("f")[1]
    os.utime("f")
    answers.see("touch does not go back", lambda: calls.times("f")[1] >= before)


CASES = (("times", every_call), ("set times", set_times), ("times of new things", new_things))
