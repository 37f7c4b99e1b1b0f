"""Contents of files on a real mount: holes, ends, mappings, appends, and files that have no name any more."""

# ruff: noqa: PTH104, PTH108 - these tests are about system calls

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import random
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.syscalls import eventually, failing

if TYPE_CHECKING:
    from pathlib import Path

KIB, MIB, GIB, PIB = 1 << 10, 1 << 20, 1 << 30, 1 << 50


def inodes_in_use(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_files - found.f_ffree


def test_large_file_comes_back(here: Path) -> None:
    """20 MiB of random bytes are the same when read back, also after a cut to 5 MiB."""
    data = random.Random(1).randbytes(20 * MIB)
    (here / "file").write_bytes(data)
    assert hashlib.sha256(data).digest() == hashlib.sha256((here / "file").read_bytes()).digest()
    os.truncate(here / "file", 5 * MIB)
    assert 5 * MIB == (here / "file").stat().st_size
    assert data[: 5 * MIB] == (here / "file").read_bytes()


def test_overwrites_of_all_lengths(here: Path) -> None:
    """A shorter text leaves nothing of a longer one behind."""
    for text in ("AAAA", "BBBB", "CCCCCCCC", "DD", "", "E" * 5000, "F"):
        (here / "file").write_text(text)
        assert text == (here / "file").read_text()
        assert len(text) == (here / "file").stat().st_size


def test_reads_and_writes_anywhere(here: Path) -> None:
    """Random reads, writes and truncates give what the same calls on a local bytearray give."""
    chance = random.Random(7)
    model = bytearray()
    fd = os.open(here / "file", os.O_RDWR | os.O_CREAT)
    for _ in range(400):
        offset, length = chance.randrange(300 * KIB), chance.randrange(1, 40 * KIB)
        action = chance.choice("wwrrt")
        if action == "w":
            data = chance.randbytes(length)
            model.extend(bytes(max(0, offset + length - len(model))))
            model[offset : offset + length] = data
            assert length == os.pwrite(fd, data, offset)
        elif action == "r":
            assert bytes(model[offset : offset + length]) == os.pread(fd, length, offset)
        else:
            os.ftruncate(fd, offset)
            model.extend(bytes(max(0, offset - len(model))))
            del model[offset:]
        assert len(model) == os.fstat(fd).st_size
    os.close(fd)
    assert bytes(model) == (here / "file").read_bytes()


def test_cut_bytes_never_come_back(here: Path) -> None:
    """After a cut inside a page, inside a chunk and at its border, growing again shows zeros only."""
    for size in (0, 1, 100, 4096, 5000, 128 * KIB, 128 * KIB + 1, 200 * KIB):
        (here / "file").write_bytes(b"\xff" * (300 * KIB))
        os.truncate(here / "file", size)
        os.truncate(here / "file", 400 * KIB)
        assert b"\xff" * size + bytes(400 * KIB - size) == (here / "file").read_bytes()
        with (here / "file").open("r+b") as file:
            file.seek(300 * KIB)
            file.write(b"x")
        assert b"\xff" * size + bytes(300 * KIB - size) + b"x" == (here / "file").read_bytes()[: 300 * KIB + 1]
        (here / "file").unlink()


def test_holes_are_zeros_beyond_4_gib(here: Path) -> None:
    """Writes far beyond 4 GiB keep their place; what lies between is zeros."""
    fd = os.open(here / "file", os.O_RDWR | os.O_CREAT)
    offsets = (5 * GIB + 3, 3 * PIB // 1000, 7 * GIB)
    for offset in offsets:
        os.pwrite(fd, str(offset).encode(), offset)
    for offset in offsets:
        assert str(offset).encode() == os.pread(fd, len(str(offset)), offset)
        assert bytes(100) == os.pread(fd, 100, offset - 100)
    assert 3 * PIB // 1000 + len(str(3 * PIB // 1000)) == os.fstat(fd).st_size
    assert bytes(4096) == os.pread(fd, 4096, 0)
    os.close(fd)


def test_petabyte_costs_nothing(here: Path) -> None:
    """Truncating to 1 PiB and back, and unlinking such a file, take no time and no memory."""
    file = here / "file"
    file.write_bytes(b"begin")
    os.truncate(file, PIB)
    assert PIB == file.stat().st_size
    fd = os.open(file, os.O_RDONLY)
    assert b"begin" + bytes(95) == os.pread(fd, 100, 0)
    assert bytes(10) == os.pread(fd, 100, PIB - 10)
    os.close(fd)
    os.truncate(file, 3)
    assert b"beg" == file.read_bytes()
    os.truncate(file, PIB)
    file.unlink()


def test_too_large_is_refused(here: Path) -> None:
    """Beyond the largest size both write and truncate fail with EFBIG and change nothing."""
    fd = os.open(here / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"kept", 0)
    assert errno.EFBIG == failing(lambda: os.ftruncate(fd, (1 << 60) + 1))
    assert errno.EFBIG == failing(lambda: os.pwrite(fd, b"xx", 1 << 60))
    assert errno.EINVAL == failing(lambda: os.ftruncate(fd, -1))
    assert errno.EINVAL == failing(lambda: os.pwrite(fd, b"x", -1))
    assert errno.EINVAL == failing(lambda: os.pwrite(fd, b"x", (1 << 63) - 1))
    assert errno.EFBIG == failing(lambda: os.ftruncate(fd, (1 << 63) - 1))
    assert 4 == os.fstat(fd).st_size
    os.close(fd)
    assert resource.RLIM_INFINITY == resource.getrlimit(resource.RLIMIT_FSIZE)[0]


@pytest.mark.parametrize("flags", [0, os.O_DIRECT], ids=["cached", "direct"])
def test_last_byte_of_the_largest_file(here: Path, flags: int) -> None:
    """The last byte can be written and read where the cache's own disk has such offsets; else EFBIG."""
    fd = os.open(here / "file", os.O_RDWR | os.O_CREAT | flags)
    assert errno.EFBIG == failing(lambda: os.pwrite(fd, b"x", 1 << 60))
    os.ftruncate(fd, 1 << 60)
    refused = failing(lambda: os.pwrite(fd, b"x", (1 << 60) - 1))
    assert refused in {0, errno.EFBIG}
    assert (1 << 60) == os.fstat(fd).st_size
    assert (b"\0" if refused else b"x") == os.pread(fd, 100, (1 << 60) - 1)
    assert b"" == os.pread(fd, 100, 1 << 60)
    os.close(fd)


def test_open_with_truncate(here: Path) -> None:
    """O_TRUNC empties the file, also for those who have it open; without it nothing is lost."""
    (here / "file").write_bytes(b"old contents")
    with (here / "file").open("r+b", buffering=0) as other:
        assert b"old contents" == other.read()
        os.close(os.open(here / "file", os.O_WRONLY))
        assert 12 == os.fstat(other.fileno()).st_size
        os.close(os.open(here / "file", os.O_WRONLY | os.O_TRUNC))
        assert 0 == os.fstat(other.fileno()).st_size
        other.seek(0)
        assert b"" == other.read()


def test_unlinked_file_lives_while_it_is_open(here: Path) -> None:
    """An open file without a name reads, writes, truncates and stats; its inode goes with the last close."""
    before = inodes_in_use(here)
    fd = os.open(here / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"before")
    second = os.open(here / "file", os.O_RDONLY)
    os.unlink(here / "file")
    assert errno.ENOENT == failing((here / "file").stat)
    os.write(fd, b" after")
    assert b"before after" == os.pread(second, 100, 0)
    os.ftruncate(fd, 3)
    os.fchmod(fd, 0o640)
    os.fsync(fd)
    assert (0, 3, 0o100640) == (os.fstat(fd).st_nlink, os.fstat(fd).st_size, os.fstat(fd).st_mode)
    (here / "file").write_text("a new one")
    os.close(fd)
    assert b"bef" == os.pread(second, 100, 0)
    os.close(second)
    assert "a new one" == (here / "file").read_text()
    eventually(lambda: before + 1 == inodes_in_use(here))


def test_replaced_file_lives_while_it_is_open(here: Path) -> None:
    """A rename over an open file leaves its reader and its writer with the old one."""
    before = inodes_in_use(here)
    (here / "old").write_bytes(b"old")
    fd = os.open(here / "old", os.O_RDWR)
    (here / "new").write_bytes(b"new")
    os.rename(here / "new", here / "old")
    os.pwrite(fd, b"OLD", 0)
    assert b"OLD" == os.pread(fd, 10, 0)
    assert b"new" == (here / "old").read_bytes()
    os.close(fd)
    eventually(lambda: before + 1 == inodes_in_use(here))


def test_two_processes_append_without_overlap(here: Path) -> None:
    """Lines that two processes append at the same time are all there, each whole, each once."""
    program = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "for n in range(500): os.write(fd, f'{sys.argv[2]}:{n:04d}:{\"x\" * (n % 90)}\\n'.encode())\n"
    )
    path = str(here / "log")
    writers = [subprocess.Popen([sys.executable, "-c", program, path, name]) for name in "ab"]
    assert [0, 0] == [writer.wait(60) for writer in writers]
    lines = (here / "log").read_text().splitlines()
    assert sorted(f"{name}:{n:04d}:{'x' * (n % 90)}" for name in "ab" for n in range(500)) == sorted(lines)
    assert list(range(500)) == [int(line[2:6]) for line in lines if line.startswith("a")]


def test_two_handles_append_in_turn(here: Path) -> None:
    """Each append goes to the end, wherever the other handle has put it."""
    with (here / "log").open("ab", buffering=0) as first, (here / "log").open("ab", buffering=0) as second:
        for number in range(50):
            (first, second)[number % 2].write(b"%d," % number)
    assert b"".join(b"%d," % n for n in range(50)) == (here / "log").read_bytes()


def test_append_wins_over_the_offset(here: Path) -> None:
    """A pwrite with O_APPEND goes to the end, as Linux does it."""
    (here / "log").write_bytes(b"first")
    fd = os.open(here / "log", os.O_WRONLY | os.O_APPEND)
    os.pwrite(fd, b" second", 0)
    os.close(fd)
    assert b"first second" == (here / "log").read_bytes()


@pytest.mark.parametrize(("offset", "length"), [(0, 4096), (4096, 8192), (5, 7), (128 * KIB - 1, 2), (MIB - 1, 4096)])
def test_direct_and_cached_access_see_each_other(here: Path, offset: int, length: int) -> None:
    """What goes past the page cache, at any place, and what goes through it or through a mapping is one file."""
    model = bytearray(random.Random(offset).randbytes(MIB))
    (here / "file").write_bytes(model)
    direct = os.open(here / "file", os.O_RDWR | os.O_DIRECT)
    cached = os.open(here / "file", os.O_RDWR)
    with mmap.mmap(cached, 0) as view:
        for turn, write in enumerate((direct, cached, direct)):
            data = bytes([turn + 1]) * length
            model[offset : offset + length] = data
            assert length == os.pwrite(write, data, offset)
            assert data == os.pread(direct, length, offset) == os.pread(cached, length, offset)
            assert bytes(model[: len(view)]) == view[:]
        view[:3] = model[:3] = b"map"
        assert b"map" == os.pread(direct, 3, 0)
    os.close(direct)
    os.close(cached)
    assert bytes(model) == (here / "file").read_bytes()


def test_mapped_file_is_read(here: Path) -> None:
    """A mapping shows the contents, and what is written later by write(2)."""
    data = random.Random(3).randbytes(MIB + 17)
    (here / "file").write_bytes(data)
    with (here / "file").open("r+b", buffering=0) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        assert data == view[:]
        os.pwrite(file.fileno(), b"changed", 70_000)
        assert b"changed" == view[70_000:70_007]


def test_mapped_file_is_written(here: Path) -> None:
    """What is written through a shared mapping is in the file, also after the page cache let it go."""
    (here / "file").write_bytes(bytes(MIB))
    fd = os.open(here / "file", os.O_RDWR)
    with mmap.mmap(fd, MIB) as view:
        for offset in (0, 4095, 128 * KIB - 2, 700_001):
            view[offset : offset + 4] = b"mmap"
        view.flush()
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for offset in (700_001, 128 * KIB - 2, 4095, 0):
        assert b"mmap" == os.pread(fd, 4, offset)
    os.close(fd)


def test_private_mapping_changes_nothing(here: Path) -> None:
    """Writes into a private mapping stay private."""
    (here / "file").write_bytes(b"x" * 8192)
    with (here / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        view[:5] = b"other"
    assert b"x" * 8192 == (here / "file").read_bytes()


@pytest.mark.parametrize("flags", [0, os.O_SYNC, os.O_DSYNC], ids=["plain", "sync", "dsync"])
def test_sync_calls_succeed(here: Path, flags: int) -> None:
    """fsync, fdatasync, sync of a directory and O_SYNC all work, on files and directories."""
    fd = os.open(here / "file", os.O_RDWR | os.O_CREAT | flags)
    os.write(fd, b"data")
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    directory = os.open(here, os.O_RDONLY)
    os.fsync(directory)
    os.fdatasync(directory)
    os.close(directory)
    assert b"data" == (here / "file").read_bytes()
