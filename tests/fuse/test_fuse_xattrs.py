"""Extended attributes on a real mount, compared with the local disk where that goes as far."""

# ruff: noqa: PTH101, PTH102, PTH211 - these tests are about system calls

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.same_as_local import MEMBER, OWNER, STRANGER
from support.syscalls import failing, getxattr_into, listxattr_into

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.same_as_local import Both, Record

pytestmark = pytest.mark.parametrize("mount", ["sqlite"], indirect=True)
"""What lies in the files does not matter here."""

VALUE_MAX = 65536
NAMES = {
    "namespace alone": ("user.", "trusted.", "security."),
    "no namespace": ("user", "", "x" * 255, "x" * 256),
    "longest and longer": ("user." + "x" * 250, "user." + "x" * 251, "user." + "x" * 300),
    "unknown namespace": ("other.x", "system.x", "USER.x", "userx.x"),
    "any bytes": ("user.a/b", "user.\udcff\n", "user..", "user.größe"),
    "kept by root": ("trusted.x", "security.x"),
}


def see(record: Record, path: str, name: str) -> None:
    """All four calls, the last one twice."""
    record(os.setxattr, path, name, b"value", follow_symlinks=False)
    record(os.getxattr, path, name, follow_symlinks=False)
    record(listed, path)
    record(os.removexattr, path, name, follow_symlinks=False)
    record(os.removexattr, path, name, follow_symlinks=False)
    record(listed, path)


def listed(path: str) -> list[str]:
    """No two file systems agree on the order."""
    return sorted(os.listxattr(path, follow_symlinks=False))


def make_one_of_each() -> None:
    """A file, a directory, a link, a FIFO and a device."""
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o666))
    os.mkdir("dir")
    os.symlink("file", "link")
    os.mkfifo("fifo")
    os.mknod("device", stat.S_IFCHR | 0o666, 0x103)


@pytest.mark.parametrize("what", NAMES)
def test_names(both: Both, what: str) -> None:
    """Every name is taken, or refused with the errno, that the local disk has for it; by root and by the owner."""

    def root(record: Record) -> None:
        make_one_of_each()
        os.chown("file", OWNER.uid, OWNER.gid)
        for name in NAMES[what]:
            see(record, "file", name)

    def owner(record: Record) -> None:
        for name in NAMES[what]:
            see(record, "file", name)

    both.run(root)
    both.run(owner, OWNER)


def test_kinds_of_inodes(both: Both) -> None:
    """`user` is for files and directories, the other namespaces for all."""

    def script(record: Record) -> None:
        make_one_of_each()
        for path in ("file", "dir", "link", "fifo", "device"):
            for name in ("user.a", "trusted.a", "security.a"):
                see(record, path, name)

    assert "EPERM" == both.run(script)["setxattr('fifo', 'user.a', b'value', follow_symlinks=False)"]


def test_flags(both: Both) -> None:
    """CREATE refuses what exists, REPLACE what does not, unknown flags are EINVAL; a refusal changes nothing."""

    def script(record: Record) -> None:
        make_one_of_each()
        for flags in (0, os.XATTR_CREATE, os.XATTR_REPLACE, 4, 8):
            os.setxattr("file", "user.old", b"")
            for name in ("user.old", "user.new"):
                record(os.setxattr, "file", name, b"value", flags)
                record(os.getxattr, "file", name)
            record(os.removexattr, "file", "user.new")

    both.run(script)


def test_buffers(both: Both) -> None:
    """A short buffer is ERANGE, none asks for the length, a longer one is fine; for values and for the list."""

    def script(record: Record) -> None:
        make_one_of_each()
        os.setxattr("file", "user.a", b"12345")
        os.setxattr("file", "user.b", b"")
        for size_bytes in (0, 1, 4, 5, 6, 13, 14, 15, 100_000):
            record(getxattr_into, "file", "user.a", size_bytes)
            record(getxattr_into, "file", "user.b", size_bytes)
            record(listxattr_into, "file", size_bytes)
            record(listxattr_into, "dir", size_bytes)

    found = both.run(script)
    assert (14, "ERANGE") == (found["listxattr_into('file', 0)"], found["listxattr_into('file', 13)"])


def test_who_may(both: Both) -> None:
    """As on the local disk: reading needs the right to read, writing that to write, and some are for root alone."""

    def root(record: Record) -> None:
        make_one_of_each()
        for path, mode in (("file", 0o640), ("dir", 0o1770)):
            os.chown(path, OWNER.uid, OWNER.gid)
            os.chmod(path, mode)
            for name in ("user.a", "trusted.a", "security.a"):
                record(os.setxattr, path, name, b"value")

    def user(record: Record) -> None:
        for path in ("file", "dir"):
            for name in ("user.a", "trusted.a", "security.a"):
                record(os.getxattr, path, name)
                record(os.setxattr, path, name, b"other")
                record(os.removexattr, path, name)
            record(listed, path)

    both.run(root)
    for who in (STRANGER, MEMBER, OWNER):
        both.run(user, who)


def test_regression_trusted_is_not_shown_to_users(both: Both) -> None:
    """Only root sees the names."""

    def root(record: Record) -> None:
        make_one_of_each()
        os.setxattr("file", "trusted.a", b"")
        os.setxattr("file", "user.a", b"")
        record(listed, "file")

    both.run(root)
    assert ["user.a"] == both.run(lambda record: (record(listed, "file"), record(listxattr_into, "file", 0)), STRANGER)[
        "listed('file')"
    ]


@pytest.mark.parametrize("length", [0, 1, 255, 4096, VALUE_MAX - 1, VALUE_MAX])
def test_values_come_back(here: Path, length: int) -> None:
    """Of every length up to 64 KiB, which a local disk need not take; replaced by shorter ones and by none."""
    path = here / "file"
    path.touch()
    for value in (bytes(length), b"\xff" * length, b"x", b""):
        os.setxattr(path, "user.value", value)
        assert value == os.getxattr(path, "user.value")
    os.setxattr(path, "user.value", b"x" * length)
    assert length == getxattr_into(str(path), "user.value", 0) == getxattr_into(str(path), "user.value", VALUE_MAX)


def test_longer_values_are_refused(here: Path) -> None:
    """E2BIG, and the old value stays."""
    path = here / "file"
    path.touch()
    os.setxattr(path, "user.value", b"old")
    assert errno.E2BIG == failing(lambda: os.setxattr(path, "user.value", bytes(VALUE_MAX + 1)))
    assert b"old" == os.getxattr(path, "user.value")


def test_many_attributes(here: Path) -> None:
    """As many as the list has room for in 64 KiB; each keeps its value."""
    path = here / "file"
    path.touch()
    names = [f"user.{number:03}{'x' * 200}" for number in range(300)]
    for name in names:
        os.setxattr(path, name, name.encode())
    assert names == os.listxattr(path)
    assert all(name.encode() == os.getxattr(path, name) for name in names)


def test_changes_move_the_ctime_and_questions_do_not(here: Path) -> None:
    """Setting and removing move ctime alone; refusals, reading and listing move nothing."""
    path = here / "file"
    path.touch()

    def times() -> tuple[int, int, int]:
        found = path.stat()
        return found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns

    def moved(call: Callable[[], Any]) -> bool:
        before = times()
        while time.clock_gettime_ns(5) <= before[2]:  # the coarse clock, by which the times are made
            time.sleep(0.001)
        failing(call)
        assert before[:2] == times()[:2]
        return before != times()

    assert moved(lambda: os.setxattr(path, "user.a", b"1"))
    assert moved(lambda: os.setxattr(path, "user.a", b"1"))
    assert not moved(lambda: os.getxattr(path, "user.a"))
    assert not moved(lambda: os.listxattr(path))
    assert not moved(lambda: os.setxattr(path, "user.a", b"1", os.XATTR_CREATE))
    assert not moved(lambda: os.removexattr(path, "user.b"))
    assert moved(lambda: os.removexattr(path, "user.a"))


def test_attributes_of_what_has_no_name(here: Path) -> None:
    """A file that was unlinked while open keeps its attributes and takes more."""
    path = here / "file"
    with path.open("wb") as file:
        os.setxattr(path, "user.a", b"1")
        path.unlink()
        os.setxattr(file.fileno(), "user.b", b"2")
        assert (b"1", b"2") == (os.getxattr(file.fileno(), "user.a"), os.getxattr(file.fileno(), "user.b"))
        os.removexattr(file.fileno(), "user.a")
        assert ["user.b"] == os.listxattr(file.fileno())


def test_attributes_move_with_the_inode(here: Path) -> None:
    """Over rename and link; a file that replaces another brings its own."""
    first, second = here / "first", here / "second"
    for path in (first, second):
        path.touch()
        os.setxattr(path, f"user.{path.name}", b"")
    os.link(first, here / "link")
    first.rename(second)
    assert ["user.first"] == os.listxattr(second) == os.listxattr(here / "link")
