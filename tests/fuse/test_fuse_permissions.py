"""Modes, owners and who may change them on a real mount: as root and as users, compared with the local disk."""

# ruff: noqa: PTH101, PTH102, PTH104, PTH208, PTH211 - these tests are about system calls

from __future__ import annotations

import mmap
import os
import stat
from typing import TYPE_CHECKING

import pytest
from support.same_as_local import MEMBER, OWNER, ROOT, STRANGER, User, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.same_as_local import Both, Record

pytestmark = pytest.mark.parametrize("mount", ["sqlite"], indirect=True)
"""What lies in the files does not matter here."""

NEWCOMER = User(OWNER.uid, 1399)
"""The owner, but not in the file's group."""
USERS = {"root": ROOT, "owner": OWNER, "member": MEMBER, "stranger": STRANGER, "newcomer": NEWCOMER}
MODES = [0o6777, 0o6755, 0o2777, 0o4666, 0o4755, 0o6711, 0o1777, 0o4000, 0o640, 0o606]
"""Not 2666: setgid without the right to execute, once a mark for mandatory locking, stays where FUSE's kernel side
thinks that it means nothing, and goes on other disks."""


def make(path: str, mode: int = 0o666) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode))


def write(path: str, data: bytes = b"x") -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, data)
    os.close(fd)


def write_nothing(path: str) -> None:
    write(path, b"")


def append(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"x")
    os.close(fd)


def open_truncated(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))


def truncate(path: str) -> None:
    os.truncate(path, 5)


def truncate_descriptor(path: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.ftruncate(fd, 7)
    os.close(fd)


def write_mapped(path: str) -> None:
    fd = os.open(path, os.O_RDWR)
    os.truncate(path, 4096)
    with mmap.mmap(fd, 4096) as mapped:
        mapped[0] = 65
    os.close(fd)


def chown_to_root(path: str) -> None:
    os.chown(path, 0, 0)


def chown_to_its_owner(path: str) -> None:
    os.chown(path, OWNER.uid, -1)


def chgrp_to_its_group(path: str) -> None:
    os.chown(path, -1, OWNER.gid)


def chgrp_to_another(path: str) -> None:
    os.chown(path, -1, NEWCOMER.gid)


def chown_to_nobody_new(path: str) -> None:
    os.chown(path, -1, -1)


def chmod_to_setid(path: str) -> None:
    os.chmod(path, 0o6751)


def chmod_to_setgid_alone(path: str) -> None:
    os.chmod(path, 0o2640)


def chmod_to_sticky(path: str) -> None:
    os.chmod(path, 0o1770)


def touch(path: str) -> None:
    os.utime(path)


def set_times(path: str) -> None:
    os.utime(path, (1, 2))


def look(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


CHANGES: list[Callable[[str], None]] = [
    *(write, write_nothing, append, open_truncated, truncate, truncate_descriptor, write_mapped, look),
    *(chown_to_root, chown_to_its_owner, chgrp_to_its_group, chgrp_to_another, chown_to_nobody_new),
    *(chmod_to_setid, chmod_to_setgid_alone, chmod_to_sticky, touch, set_times),
]


@pytest.mark.parametrize("who", USERS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes_of_files_and_directories(both: Both, change: Callable[[str], None], who: str) -> None:
    """Who may, what they get if not, and which bits are left: set-id bits go where they go on the local disk."""

    def root(record: Record) -> None:
        for mode in MODES:
            make(f"file{mode:o}")
            os.mkdir(f"dir{mode:o}")
            for path in (f"file{mode:o}", f"dir{mode:o}"):
                os.chown(path, OWNER.uid, OWNER.gid)
                os.chmod(path, mode)
                record(shown, path)

    def user(record: Record) -> None:
        for mode in MODES:
            for path in (f"file{mode:o}", f"dir{mode:o}"):
                record(change, path)
                record(shown, path)

    both.run(root)
    both.run(user, USERS[who])


def test_regression_emptying_takes_set_id_bits(both: Both) -> None:
    """Opening with O_TRUNC is a change of the contents as any other: a setuid program that a user empties is none."""

    def root(record: Record) -> None:
        for name in ("by-root", "by-user"):
            make(name)
            os.chmod(name, 0o6777)
        open_truncated("by-root")
        record(shown, "by-root")

    both.run(root)
    found = both.run(lambda record: (record(open_truncated, "by-user"), record(shown, "by-user")), STRANGER)
    assert ("0o100777", 0, 0) == found["shown('by-user')"]


def test_regression_emptying_takes_the_capability(both: Both) -> None:
    """As writing does."""

    def root(record: Record) -> None:
        make("file")
        os.setxattr("file", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
        record(os.listxattr, "file")
        open_truncated("file")
        record(os.listxattr, "file")

    assert [] == both.run(root)["listxattr('file')"]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o666, 0o777, 0o640, 0o7777, 0])
def test_modes_of_what_is_new(both: Both, mask: int, mode: int) -> None:
    """The mode asked for without the umask, and without what mkdir and mknod do not take."""

    def script(record: Record) -> None:
        os.umask(mask)
        make("file", mode)
        os.mkdir("dir", mode)
        os.mkfifo("fifo", mode)
        os.symlink("file", "link")
        for path in ("file", "dir", "fifo", "link"):
            record(shown, path)

    both.run(script)


@pytest.mark.parametrize("who", ["root", "owner", "member", "stranger"])
def test_setgid_directory_hands_down_its_group(both: Both, who: str) -> None:
    """Files and directories get its group, directories the bit too; setgid programs of strangers do not."""

    def root(record: Record) -> None:
        os.mkdir("d")
        os.chown("d", 0, OWNER.gid)
        os.chmod("d", 0o2777)
        record(shown, "d")

    def user(record: Record) -> None:
        make("d/file", 0o2755)
        make("d/locked", 0o2644)
        os.mknod("d/node", stat.S_IFREG | 0o2775)
        os.mkdir("d/sub")
        make("d/sub/file")
        os.symlink("x", "d/link")
        os.mkfifo("d/fifo")
        os.rename("d/sub", "d/renamed")
        for path in ("file", "locked", "node", "renamed", "renamed/file", "link", "fifo"):
            record(shown, f"d/{path}")

    both.run(root)
    assert OWNER.gid == both.run(user, USERS[who])["shown('d/renamed/file')"][2]


@pytest.mark.parametrize("mode", [0o1777, 0o1755, 0o777])
def test_sticky_directory(both: Both, mode: int) -> None:
    """Only the owner of a name's inode, of the directory, or root takes names away from it."""

    def root(record: Record) -> None:
        os.mkdir("d")
        os.chown("d", OWNER.uid, OWNER.gid)
        for name in ("a", "b", "c", "e", "f"):
            make(f"d/{name}")
            os.mkdir(f"d/{name}-dir")
            for path in (f"d/{name}", f"d/{name}-dir"):
                os.chown(path, MEMBER.uid, MEMBER.gid)
        os.chmod("d", mode)
        record(shown, "d")

    def user(record: Record) -> None:
        record(os.unlink, "d/a")
        record(os.rmdir, "d/a-dir")
        record(os.rename, "d/b", "d/b-renamed")
        record(make, "d/mine")
        record(os.rename, "d/mine", "d/c")
        record(os.rename, "d/e-dir", "d/f-dir")
        record(os.link, "d/c", "d/link")
        record(lambda path: sorted(os.listdir(path)), "d")

    both.run(root)
    for who in (STRANGER, MEMBER, OWNER, ROOT):
        both.run(user, who)


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o300, 0o400, 0o500, 0o700, 0o711, 0o755, 0o733])
def test_rights_on_a_directory(both: Both, mode: int) -> None:
    """Search, read and write: what each of them lets whom do."""

    def root(record: Record) -> None:
        os.mkdir("d")
        make("d/file")
        os.chmod("d", mode)
        os.chown("d", OWNER.uid, OWNER.gid)
        record(shown, "d")

    def user(record: Record) -> None:
        record(os.listdir, "d")
        record(shown, "d/file")
        record(shown, "d/absent")
        record(os.access, "d", os.W_OK)
        record(make, "d/new")
        record(os.mkdir, "d/sub")
        record(os.rename, "d/new", "d/renamed")
        record(os.link, "d/renamed", "d/link")
        record(os.symlink, "x", "d/symlink")
        record(os.readlink, "d/symlink")
        for name in ("renamed", "link", "symlink"):
            record(os.unlink, f"d/{name}")
        record(os.rmdir, "d/sub")
        record(os.chdir, "d")

    both.run(root)
    for who in (STRANGER, MEMBER, OWNER, ROOT):
        both.run(user, who)


def test_moving_a_directory_of_somebody_else(both: Both) -> None:
    """A new `..` is a change of the directory: it needs the right to write to it."""

    def root(record: Record) -> None:
        for name in ("from", "to"):
            os.mkdir(name)
            os.chmod(name, 0o777)
        os.mkdir("from/d")
        record(shown, "from/d")

    def user(record: Record) -> None:
        record(os.rename, "from/d", "to/d")
        record(os.rename, "from/d", "from/e")

    both.run(root)
    assert "EACCES" == both.run(user, STRANGER)["rename('from/d', 'to/d')"]
