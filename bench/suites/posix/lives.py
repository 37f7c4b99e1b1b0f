"""Files and directories that lose their names while they are in use; contents at their edges; read-only mounts."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.suites.posix import calls
from bench.suites.posix.paths import CALLS, KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.suites.posix.compare import Answers

_EDGES = (0, 1, 4095, 4096, 131_071, 131_072, 131_073, 300_000)
"""Around pages and chunks."""


def removed_file(answers: Answers) -> None:
    """An open file without a name works until it is closed; no new name can be given to it."""
    calls.touch("f", b"content")
    fd = os.open("f", os.O_RDWR)
    os.unlink("f")
    see = answers.see
    see("nlink", lambda: os.fstat(fd).st_nlink)
    see("read", os.pread, fd, 100, 0)
    see("write", os.pwrite, fd, b"more", 200_000)
    see("size", lambda: os.fstat(fd).st_size)
    see("truncate", os.ftruncate, fd, 3)
    see("read again", os.pread, fd, 100, 0)
    see("chmod", os.fchmod, fd, 0o4711)
    see("chown", os.fchown, fd, 1, 2)
    see("utime", lambda: os.utime(fd, ns=(1, 2)))
    see("set xattr", lambda: os.setxattr(fd, "user.x", b"y"))
    see("get xattr", lambda: os.getxattr(fd, "user.x"))
    see("fsync", os.fsync, fd)
    see("mode", lambda: oct(os.fstat(fd).st_mode))
    see("link", lambda: os.link(f"/proc/self/fd/{fd}", "g", follow_symlinks=True))
    see("another of the name", calls.touch, "f", b"another")
    see("reopen", lambda: calls.read(f"/proc/self/fd/{fd}"))
    see("close", os.close, fd)
    see("the tree", calls.tree)


def replaced_file(answers: Answers) -> None:
    """A file that is renamed over, or exchanged, while it is open keeps its content."""
    for label, flags in (("rename", 0), ("exchange", calls.EXCHANGE)):
        calls.touch("old", b"old")
        calls.touch("new", b"new")
        fd = os.open("old", os.O_RDWR)
        other = os.open("new", os.O_RDWR)
        answers.see(label, calls.renameat2, "new", "old", flags)
        answers.see(f"{label}: content", os.pread, fd, 10, 0)
        answers.see(f"{label}: the other's", os.pread, other, 10, 0)
        answers.see(f"{label}: by name", calls.read, "old")
        answers.see(f"{label}: nlink", lambda fd=fd: os.fstat(fd).st_nlink)
        os.close(fd)
        os.close(other)


def removed_directory(answers: Answers) -> None:
    """A directory that was removed while somebody is in it takes nothing new."""
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY)
    os.chdir("d")
    os.rmdir("../d")
    see = answers.see
    see("getcwd", os.getcwd)
    see("stat", lambda: os.stat(".").st_nlink)
    see("list", lambda: list(os.listdir(fd)))
    see("list by path", lambda: list(os.listdir(".")))
    see("create", calls.opened, "f", os.O_WRONLY | os.O_CREAT)
    see("mkdir", os.mkdir, "x")
    see("symlink", os.symlink, "x", "y")
    see("mkfifo", os.mkfifo, "p")
    see("lookup", os.stat, "f")
    see("chmod", os.fchmod, fd, 0o700)
    see("fsync", os.fsync, fd)
    see("parent", lambda: len(os.listdir("..")))
    os.chdir("/proc/self")
    os.close(fd)


def edges(answers: Answers) -> None:
    """Truncating down and up, and writing beyond the end: zeros between, never old bytes."""
    for old, new, end in itertools.product(_EDGES, _EDGES, (131_072, 400_000)):
        calls.touch("f", b"x" * old)
        os.truncate("f", new)
        os.truncate("f", end)
        label = f"{old} to {new} to {end}"
        answers.see(label, lambda: _runs(calls.read("f")))
    for offset, length in itertools.product(_EDGES, (1, 4096, 131_072)):
        calls.touch("f", b"a" * 5000)
        fd = os.open("f", os.O_RDWR)
        os.pwrite(fd, b"b" * length, offset)
        os.close(fd)
        answers.see(f"write {length} at {offset}", lambda: _runs(calls.read("f")))


def _runs(content: bytes) -> list[tuple[str, int]]:
    """Equal bytes, counted."""
    return [(chr(value), len(list(group))) for value, group in itertools.groupby(content)]


def odd_reads(answers: Answers) -> None:
    """Nothing to read, offsets out of range, the wrong kind of descriptor."""
    calls.touch("f", b"content")
    reading, writing, appending = (os.open("f", flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_APPEND))
    see = answers.see
    see("beyond the end", os.pread, reading, 10, 100)
    see("nothing", os.pread, reading, 0, 0)
    see("before the beginning", os.pread, reading, 10, -1)
    see("far beyond", os.pread, reading, 10, 1 << 62)
    see("the last offset", os.pread, reading, 10, (1 << 63) - 1)
    see("write to a reader", os.write, reading, b"x")
    see("read from a writer", os.read, writing, 1)
    see("truncate a reader", os.ftruncate, reading, 0)
    see("truncate below 0", os.ftruncate, writing, -1)
    see("write before the beginning", os.pwrite, writing, b"x", -1)
    see("append", os.pwrite, appending, b"more", 0)
    see("what is there", calls.read, "f")
    see("seek to the end", os.lseek, reading, 0, os.SEEK_END)
    see("seek before the beginning", os.lseek, reading, -1, os.SEEK_SET)
    see("write to a directory", calls.opened, ".", os.O_RDWR)
    directory = os.open(".", os.O_RDONLY)
    see("read a directory", os.read, directory, 10)
    see("truncate a directory", os.ftruncate, directory, 0)
    for fd in (reading, writing, appending, directory):
        os.close(fd)


def running_program(answers: Answers) -> None:
    """A program that runs cannot be written to (ETXTBSY), what is open for writing cannot be run."""
    shutil.copy("/bin/sleep", "program")
    with open("program", "r+b"):
        answers.see("run what is written", lambda: subprocess.run(["./program", "0"], check=True).returncode)
    answers.see("run", lambda: subprocess.run(["./program", "0"], check=True).returncode)
    with subprocess.Popen(["./program", "60"]) as process:
        # It has begun to run when its name is no longer that of this program.
        while Path(f"/proc/{process.pid}/comm").read_text().strip() != "program":
            pass
        answers.see("write", calls.opened, "program", os.O_WRONLY)
        answers.see("truncate", os.truncate, "program", 0)
        answers.see("unlink", os.unlink, "program")
        process.kill()


@contextlib.contextmanager
def _read_only(path: str) -> Iterator[None]:
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield
    finally:
        os.chdir("/")
        subprocess.run(["umount", "-l", path], check=True)


def read_only(answers: Answers) -> None:
    """On a read-only mount nothing changes, and EROFS comes where POSIX says."""
    root = os.getcwd()
    for kind in ("file", "directory", "absent", "absent/x", "file/x", "link to nothing", "full directory"):
        make, path = KINDS[kind]
        os.mkdir("ro")
        os.chdir("ro")
        make()
        calls.touch("old")
        os.mkdir("olddir")
        os.chdir(root)
        with _read_only(f"{root}/ro"):
            os.chdir(f"{root}/ro")
            for name, call in CALLS.items():
                answers.see(f"{name}, {kind}", call, path)
            answers.see(f"the tree, {kind}", calls.tree)
        os.chdir(root)
        shutil.rmtree("ro")


CASES = (
    ("removed files", removed_file),
    ("replaced files", replaced_file),
    ("removed directories", removed_directory),
    ("edges", edges),
    ("odd reads", odd_reads),
    ("running programs", running_program),
    ("read-only", read_only),
)
