"""Attributes on a real mount: modes, owners, times, sizes in blocks, extended attributes, statfs."""

# ruff: noqa: PTH104, PTH208, PTH211 - these tests are about system calls

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from support.syscalls import eventually, failing

from disfs.spans import DEFAULT_CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DAY_NS = 86_400 * 10**9
CLOCK_REALTIME_COARSE = 5


def coarse_now_ns() -> int:
    return time.clock_gettime_ns(CLOCK_REALTIME_COARSE)


def make_old(path: Path, *, days: int = 10) -> int:
    """Give all times but ctime an age; return them."""
    then = coarse_now_ns() - days * _DAY_NS
    os.utime(path, ns=(then, then))
    return then


@pytest.mark.parametrize("mode", [0o000, 0o644, 0o7777, 0o4755, 0o2711, 0o1777])
def test_chmod_keeps_every_bit(here: Path, mode: int) -> None:
    """Permission, set-id and sticky bits come back; the kind stays."""
    (here / "file").touch()
    (here / "file").chmod(mode)
    assert stat.S_IFREG | mode == (here / "file").stat().st_mode


def test_chown_keeps_ids_of_32_bits(here: Path) -> None:
    """Owner and group can be any numbers, also one alone, also of a symbolic link."""
    (here / "file").touch()
    os.chown(here / "file", 2**32 - 2, 2**32 - 2)
    assert (2**32 - 2, 2**32 - 2) == (here / "file").stat()[4:6]
    os.chown(here / "file", 4_000_000_000, 3)
    os.chown(here / "file", -1, 4)
    assert (4_000_000_000, 4) == (here / "file").stat()[4:6]
    (here / "link").symlink_to("file")
    os.lchown(here / "link", 7, 8)
    assert (7, 8) == (here / "link").lstat()[4:6]
    assert (4_000_000_000, 4) == (here / "file").stat()[4:6]


def test_set_id_bits_go_with_a_write_by_others(here: Path) -> None:
    """A write by somebody without privileges takes setuid and setgid away."""
    file = here / "file"
    file.touch()
    file.chmod(0o6777)
    here.chmod(0o777)
    writer = "import os, sys; os.setuid(12345); fd = os.open(sys.argv[1], os.O_WRONLY); os.write(fd, b'x')"
    subprocess.run([sys.executable, "-c", writer, file.name], cwd=here, check=True)
    assert stat.S_IFREG | 0o777 == file.stat().st_mode


def test_times_keep_nanoseconds(here: Path) -> None:
    """utimensat(2) stores nanoseconds, before 1970 and after 2106 too; ctime is now."""
    (here / "file").touch()
    for times in (
        (1, 999_999_999),
        (-1_500_000_001, -7),
        (-(2**31) * 10**9 - 1, 2**32 * 10**9 + 1),
        (5_000_000_000_123_456_789, 5_000_000_000_987_654_321),
    ):
        before = coarse_now_ns()
        os.utime(here / "file", ns=times)
        found = (here / "file").stat()
        assert times == (found.st_atime_ns, found.st_mtime_ns)
        assert before <= found.st_ctime_ns


def test_touch_after_a_write_never_goes_back(here: Path) -> None:
    """The times that the file system makes come from the clock of the kernel's own."""
    file = here / "file"
    last = 0
    for _ in range(50):
        file.write_bytes(b"x")
        written = file.stat().st_mtime_ns
        os.utime(file)
        touched = file.stat().st_mtime_ns
        assert last <= written <= touched
        last = touched


def test_changes_of_names_move_the_directory_times(here: Path) -> None:
    """Making and removing names moves mtime and ctime of the directory, changing a file's contents does not."""
    directory = here / "dir"
    directory.mkdir()
    changes: list[Callable[[], object]] = [
        (directory / "a").touch,
        lambda: os.link(directory / "a", directory / "b"),
        lambda: os.rename(directory / "b", directory / "c"),
        (directory / "c").unlink,
        (directory / "sub").mkdir,
        (directory / "sub").rmdir,
    ]
    for change in changes:
        then = make_old(directory)
        change()
        assert then < directory.stat().st_mtime_ns
    then = make_old(directory)
    (directory / "a").write_text("x")
    assert then == directory.stat().st_mtime_ns


def test_ctime_moves_with_every_change_of_the_inode(here: Path) -> None:
    """chmod, link, rename and xattrs move the ctime, and the mtime not."""
    file = here / "file"
    file.touch()
    then = make_old(file)
    changes: list[Callable[[], object]] = [
        lambda: file.chmod(0o600),
        lambda: os.link(file, here / "b"),
        (here / "b").unlink,
        lambda: os.setxattr(file, "user.x", b"1"),
        lambda: os.removexattr(file, "user.x"),
    ]
    for change in changes:
        ctime = file.stat().st_ctime_ns
        while coarse_now_ns() <= ctime:
            time.sleep(0.001)
        change()
        assert ctime < file.stat().st_ctime_ns
        assert then == file.stat().st_mtime_ns
    ctime = file.stat().st_ctime_ns
    while coarse_now_ns() <= ctime:
        time.sleep(0.001)
    os.rename(file, here / "renamed")
    assert ctime < (here / "renamed").stat().st_ctime_ns


def test_reading_moves_an_old_atime(here: Path) -> None:
    """Reading a file, a directory or a link moves an atime that is a day old, as relatime does."""
    (here / "file").write_text("x")
    (here / "dir").mkdir()
    (here / "link").symlink_to("file")
    then = coarse_now_ns() - 10 * _DAY_NS
    for path, read in (
        (here / "file", (here / "file").read_text),
        (here / "dir", lambda: list((here / "dir").iterdir())),
        (here / "link", (here / "link").readlink),
    ):
        os.utime(path, ns=(then, then), follow_symlinks=False)
        read()
        assert then < path.lstat().st_atime_ns
        assert then == path.lstat().st_mtime_ns


@pytest.mark.parametrize(
    ("atime_seconds", "moves"),
    [(3600, False), (-1, True), (-10 * 86_400, True)],
    ids=["newer than the changes", "older by a second", "by days"],
)
@pytest.mark.parametrize("name", ["file", "dir", "link"])
def test_relatime_moves_only_what_is_due(here: Path, name: str, atime_seconds: int, moves: bool) -> None:
    """A read moves an atime that is not newer than mtime and ctime, and no other; it moves nothing else."""
    (here / "file").write_bytes(b"x" * 8192)
    (here / "dir").mkdir()
    (here / "link").symlink_to("file")
    path = here / name
    os.utime(path, follow_symlinks=False)
    before = path.lstat()
    os.utime(path, ns=(before.st_ctime_ns + atime_seconds * 10**9, before.st_mtime_ns), follow_symlinks=False)
    before = path.lstat()
    {"file": path.read_bytes, "dir": lambda: os.listdir(path), "link": path.readlink}[name]()
    after = path.lstat()
    assert moves == (before.st_atime_ns != after.st_atime_ns)
    assert not moves or before.st_ctime_ns <= after.st_atime_ns
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def test_atime_stays_where_the_reader_asks_for_it(here: Path) -> None:
    """O_NOATIME is kept."""
    (here / "file").write_text("x")
    then = make_old(here / "file")
    fd = os.open(here / "file", os.O_RDONLY | os.O_NOATIME)
    assert b"x" == os.read(fd, 10)
    os.close(fd)
    assert then == (here / "file").stat().st_atime_ns


@pytest.mark.parametrize(("size", "blocks"), [(0, 0), (1, 8), (4095, 8), (4096, 8), (4097, 16), (10_000, 24)])
def test_blocks_follow_the_size(here: Path, size: int, blocks: int) -> None:
    """st_blocks counts 512-byte units of whole 4 KiB blocks."""
    (here / "file").write_bytes(b"x" * size)
    assert blocks == (here / "file").stat().st_blocks


def test_regression_blocks_leave_out_holes(here: Path) -> None:
    """A sparse file uses the chunks that were written, also after a truncate and when holes are filled."""
    chunk = DEFAULT_CHUNK_BYTES
    with (here / "file").open("wb", buffering=0) as file:

        def used() -> int:
            return os.fstat(file.fileno()).st_blocks * 512

        file.truncate(1 << 40)
        assert 0 == used()
        os.pwrite(file.fileno(), b"x", 10 * chunk)
        os.pwrite(file.fileno(), b"x" * (chunk + 1), (1 << 40) - 2 * chunk)
        assert 3 * chunk == used()
        os.pwrite(file.fileno(), b"x", 10 * chunk + 5)
        assert 3 * chunk == used()
        file.truncate(11 * chunk)
        assert chunk == used()
        file.truncate(0)
        assert 0 == used()


def test_statfs_counts_what_is_there(here: Path) -> None:
    """Used bytes and inodes move with files; names may be 255 bytes long."""
    before = os.statvfs(here)
    (here / "file").write_bytes(b"x" * (1 << 20))
    after = os.statvfs(here)
    assert 255 == after.f_namemax
    assert 1 << 20 == (before.f_bfree - after.f_bfree) * after.f_frsize
    assert 1 == before.f_ffree - after.f_ffree
    (here / "file").unlink()
    # The kernel sends release and forget when it has time.
    eventually(lambda: (before.f_ffree, before.f_bfree) == (os.statvfs(here).f_ffree, os.statvfs(here).f_bfree))


def test_xattrs_are_kept(here: Path) -> None:
    """Values of up to 64 KiB with any bytes, the empty one too, and names of any bytes."""
    for path in (here / "file", here / "dir"):
        path.mkdir() if path.name == "dir" else path.touch()
        values = {"user.empty": b"", "user.nul": b"a\0b\0", "user.größe": b"\xff" * 65536, "trusted.x": b"t"}
        for name, value in values.items():
            os.setxattr(path, name, value)
        assert set(values) == set(os.listxattr(path))
        assert values == {name: os.getxattr(path, name) for name in values}
        os.setxattr(path, "user.nul", b"replaced", os.XATTR_REPLACE)
        assert b"replaced" == os.getxattr(path, "user.nul")
        for name in values:
            os.removexattr(path, name)
        assert [] == os.listxattr(path)


def test_xattr_errors(here: Path) -> None:
    """Missing, existing, too long, of an unknown namespace: each has its errno."""
    file = here / "file"
    file.touch()
    os.setxattr(file, "user.a", b"1")
    assert errno.ENODATA == failing(lambda: os.getxattr(file, "user.b"))
    assert errno.ENODATA == failing(lambda: os.removexattr(file, "user.b"))
    assert errno.EEXIST == failing(lambda: os.setxattr(file, "user.a", b"2", os.XATTR_CREATE))
    assert errno.ENODATA == failing(lambda: os.setxattr(file, "user.b", b"2", os.XATTR_REPLACE))
    assert errno.ERANGE == failing(lambda: os.setxattr(file, "user." + "x" * 251, b""))
    assert errno.E2BIG == failing(lambda: os.setxattr(file, "user.big", b"x" * 65537))
    assert errno.EOPNOTSUPP == failing(lambda: os.setxattr(file, "other.a", b""))
    assert errno.EOPNOTSUPP == failing(lambda: os.getxattr(file, "system.other"))
    assert errno.EINVAL == failing(lambda: os.setxattr(file, "user.", b""))
    os.symlink("file", here / "link")
    assert errno.EPERM == failing(lambda: os.setxattr(here / "link", "user.a", b"", follow_symlinks=False))
    assert ["user.a"] == os.listxattr(file)


def test_capability_of_an_open_file(here: Path) -> None:
    """A file capability is found although its absence was remembered, and a write takes it away."""
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    with (here / "file").open("wb", buffering=0) as file:
        file.write(b"x")
        os.setxattr(here / "file", "security.capability", capability)
        assert capability == os.getxattr(here / "file", "security.capability")
        file.write(b"y")
        assert errno.ENODATA == failing(lambda: os.getxattr(here / "file", "security.capability"))
