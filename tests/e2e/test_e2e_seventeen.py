"""The predecessor's seventeen tests, stricter: contents are compared, and everything again on a cold mount.

Each test writes under `warm/`; afterwards the volume is unmounted, the cache deleted, and `cold` says what
must be found. One product serves them all, so the cold half costs one remount.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest

from bench.suites.posix.calls import EXCHANGE, renameat2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.product import Product

pytestmark = pytest.mark.fuse
REALTIME_COARSE = 5  # the clock of the kernel's own timestamps; the time module has no name for it


def names(directory: Path) -> list[str]:
    """What `ls -1` lists, and that it lists nothing twice."""
    found = [path.name for path in directory.iterdir()]
    assert len(found) == len(set(found))
    return sorted(found)


def setup(top: Path) -> None:
    """1: directories and empty files; the recursive list is what was made."""
    (top / "docs").mkdir()
    (top / "sub").mkdir()
    for name in ("docs/a.txt", "docs/b.txt", "sub/c.txt"):
        (top / name).touch()
    assert ["docs", "docs/a.txt", "docs/b.txt", "sub", "sub/c.txt"] == sorted(
        str(p.relative_to(top)) for p in top.rglob("*")
    )


def upload_download(top: Path) -> None:
    """2: a distinct line into each file; each is a regular file with just that line."""
    for name, word in (("docs/a.txt", "apple"), ("docs/b.txt", "banana"), ("sub/c.txt", "cherry")):
        (top / name).write_text(f"a line with {word}\n")
    for name, word in (("docs/a.txt", "apple"), ("docs/b.txt", "banana"), ("sub/c.txt", "cherry")):
        assert stat.S_ISREG((top / name).stat().st_mode)
        assert f"a line with {word}\n" == (top / name).read_text()


def stat_mtime(top: Path) -> None:
    """3: a touch moves mtime strictly forward; a touched new file is empty; removing it works."""
    before = (top / "docs/a.txt").stat().st_mtime_ns
    while time.clock_gettime_ns(REALTIME_COARSE) <= before:
        os.sched_yield()
    (top / "docs/a.txt").touch()
    assert (top / "docs/a.txt").stat().st_mtime_ns > before
    (top / "touched").touch()
    assert 0 == (top / "touched").stat().st_size
    (top / "touched").unlink()
    assert not (top / "touched").exists()


def list_directories(top: Path) -> None:
    """4: listings hold exactly what was made."""
    assert ["docs", "sub"] == names(top)
    assert ["a.txt", "b.txt"] == names(top / "docs")
    assert ["c.txt"] == names(top / "sub")


def rename_in_place(top: Path) -> None:
    """5: a renamed file keeps content, size, inode and mtime, and goes back."""
    old, new = top / "docs/a.txt", top / "docs/a_renamed.txt"
    content, before = old.read_bytes(), old.stat()
    old.rename(new)
    assert ["a_renamed.txt", "b.txt"] == names(top / "docs")
    after = new.stat()
    assert (content, before.st_size, before.st_ino, before.st_mtime_ns) == (
        new.read_bytes(),
        after.st_size,
        after.st_ino,
        after.st_mtime_ns,
    )
    new.rename(old)
    assert ["a.txt", "b.txt"] == names(top / "docs")


def rename_directories(top: Path) -> None:
    """6: a renamed directory takes its content along, also into another directory."""
    (top / "docs").rename(top / "docs_renamed")
    assert ["docs_renamed", "sub"] == names(top)
    (top / "docs_renamed").rename(top / "sub" / "moved")
    assert ["a.txt", "b.txt"] == names(top / "sub" / "moved")
    assert (3, 3) == (top.stat().st_nlink, (top / "sub").stat().st_nlink)
    (top / "sub" / "moved").rename(top / "docs")
    assert ["docs", "sub"] == names(top)
    assert (4, 2) == (top.stat().st_nlink, (top / "sub").stat().st_nlink)


def swap(top: Path) -> None:
    """7: RENAME_EXCHANGE swaps contents byte by byte; with a missing target it fails and changes nothing."""
    (top / "x").write_bytes(b"first " * 1000)
    (top / "y").write_bytes(b"second")
    renameat2(top / "x", top / "y", EXCHANGE)
    assert (b"second", b"first " * 1000) == ((top / "x").read_bytes(), (top / "y").read_bytes())
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        renameat2(top / "x", top / "missing", EXCHANGE)
    assert b"second" == (top / "x").read_bytes()
    (top / "x").unlink()
    (top / "y").unlink()


def truncate_unlink(top: Path) -> None:
    """8: longer content grows, `: >` empties, rm removes, the name can be made again."""
    path = top / "docs/b.txt"
    before = path.stat().st_size
    path.write_text("longer " * 100)
    assert path.stat().st_size == 700 > before
    path.open("w").close()
    assert (0, b"") == (path.stat().st_size, path.read_bytes())
    path.unlink()
    assert not path.exists()
    path.write_text("again\n")
    assert "again\n" == path.read_text()


def remove_directories(top: Path) -> None:
    """9: rmdir of a full directory is ENOTEMPTY; after its child is gone it works."""
    (top / "full").mkdir()
    (top / "full" / "child").touch()
    with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
        (top / "full").rmdir()
    assert ["child"] == names(top / "full")
    (top / "full" / "child").unlink()
    (top / "full").rmdir()
    (top / "empty").mkdir()
    (top / "empty").rmdir()
    assert not {"full", "empty"} & set(names(top))


def empty_files(top: Path) -> None:
    """10: empty, filled, emptied."""
    path = top / "empty.txt"
    path.touch()
    assert (0, b"") == (path.stat().st_size, path.read_bytes())
    path.write_text("a line\n")
    assert 7 == path.stat().st_size
    path.open("w").close()
    assert (0, b"") == (path.stat().st_size, path.read_bytes())


def overwrite(top: Path) -> None:
    """11: each overwrite shows exactly the new content and size."""
    for text in ("AAAA", "BBBB", "CCCCCCCC", "DD"):
        (top / "over.txt").write_text(text)
        assert (text, len(text)) == ((top / "over.txt").read_text(), (top / "over.txt").stat().st_size)


def large_files(top: Path) -> None:
    """12: 20 MiB in and out with equal hashes; cut to 5 MiB its content is that prefix."""
    content = os.urandom(20 << 20)
    (top / "large").write_bytes(content)
    assert hashlib.sha256(content).digest() == hashlib.sha256((top / "large").read_bytes()).digest()
    os.truncate(top / "large", 5_242_880)
    assert 5_242_880 == (top / "large").stat().st_size
    assert content[:5_242_880] == (top / "large").read_bytes()
    (top / "large.sha").write_text(hashlib.sha256(content[:5_242_880]).hexdigest())


def append(top: Path) -> None:
    """13: appending adds to the end."""
    (top / "append.txt").write_text("Part 1\n")
    with (top / "append.txt").open("a") as file:
        file.write("Part 2\n")
    assert "Part 1\nPart 2\n" == (top / "append.txt").read_text()


def nested(top: Path) -> None:
    """14: a file three levels down; removing the top leaves nothing."""
    (top / "n/e/s").mkdir(parents=True)
    (top / "n/e/s/t").write_text("bottom")
    assert "bottom" == (top / "n/e/s/t").read_text()
    for path in ("n/e/s/t",):
        (top / path).unlink()
    for path in ("n/e/s", "n/e", "n"):
        (top / path).rmdir()
    assert "n" not in names(top)
    (top / "k/e/p").mkdir(parents=True)
    (top / "k/e/p/t").write_text("kept")


def random_read(top: Path) -> None:
    """15: bytes 10 to 15 and the last 3 of 36, read in place."""
    (top / "rr").write_bytes(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    with (top / "rr").open("rb", buffering=0) as file:
        assert b"ABCDE" == os.pread(file.fileno(), 5, 10)
        assert b"XYZ" == os.pread(file.fileno(), 10, 33)


def random_write(top: Path) -> None:
    """16: one byte written in the middle changes that byte alone."""
    (top / "rw").write_bytes(b"AAAAA")
    with (top / "rw").open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"B", 2)
    assert b"AABAA" == (top / "rw").read_bytes()


def concurrency(top: Path) -> None:
    """17: two writers with a directory each; every name and every content is there."""

    def write(name: str) -> None:
        (top / name).mkdir()
        for number in range(5):
            (top / name / f"f{number}").write_text(f"{name} {number}\n" * 100)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name in ("one", "two"):
        assert [f"f{n}" for n in range(5)] == names(top / name)
        for number in range(5):
            assert f"{name} {number}\n" * 100 == (top / name / f"f{number}").read_text()


STEPS: list[Callable[[Path], None]] = [
    setup, upload_download, stat_mtime, list_directories, rename_in_place, rename_directories, swap, truncate_unlink,
    remove_directories, empty_files, overwrite, large_files, append, nested, random_read, random_write, concurrency,
]  # fmt: skip


def check_cold(top: Path) -> None:
    """What the seventeen left, read from Discord."""
    assert "a line with apple\n" == (top / "docs/a.txt").read_text()
    assert "again\n" == (top / "docs/b.txt").read_text()
    assert "a line with cherry\n" == (top / "sub/c.txt").read_text()
    assert (0, b"") == ((top / "empty.txt").stat().st_size, (top / "empty.txt").read_bytes())
    assert "DD" == (top / "over.txt").read_text()
    assert (top / "large.sha").read_text() == hashlib.sha256((top / "large").read_bytes()).hexdigest()
    assert "Part 1\nPart 2\n" == (top / "append.txt").read_text()
    assert "kept" == (top / "k/e/p/t").read_text()
    with (top / "rr").open("rb", buffering=0) as file:
        assert b"ABCDE" == os.pread(file.fileno(), 5, 10)
    assert b"AABAA" == (top / "rw").read_bytes()
    for name in ("one", "two"):
        assert [f"f{n}" for n in range(5)] == names(top / name)
        assert all(f"{name} {n}\n" * 100 == (top / name / f"f{n}").read_text() for n in range(5))
    assert 4 + 3 == top.stat().st_nlink


def test_the_seventeen_warm_and_cold(disk: Product) -> None:
    """All seventeen hold on a warm mount, what they left is equal on a cold one, and all hold again there."""
    (disk.mountpoint / "warm").mkdir()
    for step in STEPS:
        step(disk.mountpoint / "warm")
    disk.cold()
    check_cold(disk.mountpoint / "warm")
    (disk.mountpoint / "again").mkdir()
    for step in STEPS:
        step(disk.mountpoint / "again")
