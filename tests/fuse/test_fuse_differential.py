"""Random system calls on a real mount and on the local disk: the same answers, the same errno, the same tree."""

# ruff: noqa: PTH208 - these tests are about system calls

from __future__ import annotations

import errno
import os
import random
import stat
from typing import TYPE_CHECKING, Any

import pytest

from bench.suites.posix.calls import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = 1500
NAMES = (
    *("a", "b", "d", "d/a", "d/e", "d/e/f", "l", "l/a", "fifo", "fifo/x", "absent/a"),
    *(".", "..", "d/.", "d/..", "d/e/..", "a/", "d/", "l/", "a/b", "", "x" * 255, "x" * 256),
)
CREATE = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK


def write(path: str, flags: int, offset: int, length: int) -> int:
    fd = os.open(path, flags, 0o644)
    try:
        return os.pwrite(fd, b"x" * length, offset)
    finally:
        os.close(fd)


def shown(path: str) -> tuple[int, ...]:
    """What stat shows, but for size and nlink of a directory, which no two file systems agree on."""
    found = os.lstat(path)
    own = (0, 0) if stat.S_ISDIR(found.st_mode) else (found.st_nlink, found.st_size)
    return found.st_mode, found.st_uid, found.st_gid, *own


def set_times(path: str, time_ns: int) -> tuple[int, int]:
    os.utime(path, ns=(time_ns, time_ns + 1), follow_symlinks=False)
    found = os.lstat(path)
    return found.st_atime_ns, found.st_mtime_ns


def listed(path: str) -> list[str]:
    return sorted(os.listdir(path))


def a_call(rng: random.Random) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A system call and its arguments."""
    path, other = rng.choice(NAMES), rng.choice(NAMES)
    create = CREATE | rng.choice((0, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_NOFOLLOW))
    calls: tuple[tuple[Callable[..., Any], tuple[Any, ...]], ...] = (
        (os.mkdir, (path, rng.choice((0o755, 0o2775)))),
        (os.rmdir, (path,)),
        (os.unlink, (path,)),
        (os.rename, (path, other)),
        (os.link, (path, other)),
        (os.symlink, (rng.choice(("a", "d", "..", "absent", "l", "")), path)),
        (os.readlink, (path,)),
        (os.mkfifo, (path,)),
        (write, (path, create, rng.randrange(300_000), rng.randrange(3000))),
        (read, (path,)),
        (os.truncate, (path, rng.choice((0, 1, 70_000, 1 << 20, -1)))),
        (shown, (path,)),
        (listed, (path,)),
        (os.chmod, (path, rng.choice((0o644, 0o4755, 0o2755, 0o1777)))),
        (set_times, (path, rng.choice((0, 10**18, -5, 1 << 60)))),
    )
    return rng.choice(calls)


def answer_of(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def tree(root: Path) -> list[tuple[str, tuple[int, ...], bytes]]:
    paths = sorted(str(path) for path in root.rglob("*"))
    return [(p[len(str(root)) :], shown(p), read(p) if stat.S_ISREG(os.lstat(p).st_mode) else b"") for p in paths]


@pytest.mark.parametrize("seed", range(3))
def test_random_calls_answer_as_on_the_local_disk(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever programs ask of names and contents, they cannot tell the mount from a local disk."""
    rng = random.Random(seed)
    # One level down, so that `..` is a directory that holds the same on both sides.
    roots = [tmp_path / "above" / "root", here / "above" / "root"]
    for root in roots:
        root.mkdir(parents=True)
    for step in range(STEPS):
        call, arguments = a_call(rng)
        answers = []
        for root in roots:
            monkeypatch.chdir(root)
            answers.append(answer_of(call, arguments))
        assert answers[0] == answers[1], f"step {step}: {call.__name__}{arguments}"
    monkeypatch.undo()
    assert tree(roots[0]) == tree(roots[1])
