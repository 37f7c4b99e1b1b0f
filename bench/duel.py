"""`python -m bench.duel KIND LEFT RIGHT ROUNDS COUNT [MORE]`: the same calls on two mounts in turn, seconds as JSON.

A program of its own, so that nothing but these calls goes on in the process whose time is taken. The two sides take
turns in rounds of some tenths of a second, each beginning every other round: what the machine does besides meets both.

Kinds: `names` and `data`, two sides that are to be equal; `volumes`, a large one and a small one (MORE is a list of
what `bench.filler` said of them).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bench.filler import FILES_PER_DIRECTORY, FLAT, directory_name, file_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Work: TypeAlias = "Callable[[int], None]"
"""One round's work on one side; it is told the round's number."""
Seconds: TypeAlias = "dict[str, list[list[float]]]"
"""By kind of work: for each round, the seconds of both sides."""

SMALL_BYTES = 4096
FSTATS = 10
"""So many fstats for each other operation: they are so much quicker."""
PAGE_BYTES = 32768
"""What readdir(3) asks the kernel for, and the kernel the daemon: less than 200 entries with attributes."""
PAGES = 4
"""Nearly as many as a directory of a thousand names has."""
PAGE_ENTRIES = 200
"""So far from the end of a directory a page begins, for it to be full."""
LEAST_BYTES = 20 * 24
"""A page with fewer entries than twenty is not one."""
MIB = 1 << 20
BLOCKS = {"1 MiB": MIB, "128 KiB": MIB // 8}


class Names:
    """Operations on names in one directory; every round has names of its own."""

    def __init__(self, directory: str, count: int) -> None:
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._count = count
        self._data = os.urandom(SMALL_BYTES)
        self._file = os.open("opened", os.O_CREAT | os.O_WRONLY, dir_fd=self._directory)

    def works(self) -> dict[str, Work]:
        """In the order in which a round does them: what is created is looked at, renamed, and unlinked."""
        return {
            "create, write, close": self.create,
            "stat": self.stat,
            "fstat": self.fstat,
            "rename": self.rename,
            "unlink": self.unlink,
        }

    def _names(self, prefix: str, number: int) -> Iterable[str]:
        return (f"{prefix}{name}" for name in range(number * self._count, (number + 1) * self._count))

    def create(self, number: int) -> None:
        """New files of 4 KiB."""
        directory, data = self._directory, self._data
        for name in self._names("f", number):
            descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=directory)
            os.write(descriptor, data)
            os.close(descriptor)

    def stat(self, number: int) -> None:
        """By name."""
        directory = self._directory
        for name in self._names("f", number):
            os.stat(name, dir_fd=directory)

    def fstat(self, _number: int) -> None:
        """Of one open file."""
        file = self._file
        for _ in range(self._count * FSTATS):
            os.fstat(file)

    def rename(self, number: int) -> None:
        """To another name in the same directory."""
        directory = self._directory
        for old, new in zip(self._names("f", number), self._names("g", number), strict=True):
            os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)

    def unlink(self, number: int) -> None:
        """The only name of each."""
        directory = self._directory
        for name in self._names("g", number):
            os.unlink(name, dir_fd=directory)


class Data:
    """One file from its beginning to its end; it must be there and have the size already."""

    def __init__(self, path: str, size_bytes: int) -> None:
        self._file = os.open(path, os.O_RDWR)
        self._size_bytes = size_bytes
        self._data = memoryview(os.urandom(MIB))
        self._buffer = memoryview(bytearray(MIB))

    def works(self) -> dict[str, Work]:
        """Reads first: what was written would be read from the kernel's pages."""
        return {f"read {name}": self._reader(length) for name, length in BLOCKS.items()} | {
            f"write {name}": self._writer(length) for name, length in BLOCKS.items()
        }

    def drop(self) -> None:
        """The kernel forgets what it has of the file: the next read reaches the daemon."""
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)

    def _reader(self, length: int) -> Work:
        def read(_number: int) -> None:
            for offset in range(0, self._size_bytes, length):
                if os.preadv(self._file, [self._buffer[:length]], offset) != length:
                    raise EOFError(f"the file is shorter than {offset + length}")

        return read

    def _writer(self, length: int) -> Work:
        def write(_number: int) -> None:
            for offset in range(0, self._size_bytes, length):
                os.pwrite(self._file, self._data[:length], offset)

        return write


class Volume:
    """A volume that `bench.filler` has filled: its names, in no order."""

    def __init__(self, root: str, count: int, filled: Mapping[str, int]) -> None:
        self._root = root
        self._count = count
        self._files = filled["files"]
        self._first, self._last = filled["first_cookie"], filled["last_cookie"] - PAGES * PAGE_ENTRIES
        self._random = random.Random(root)
        self._flat = os.open(f"{root}/{FLAT}", os.O_RDONLY | os.O_DIRECTORY)
        self._page = ctypes.create_string_buffer(PAGE_BYTES)
        self._getdents = ctypes.CDLL(None, use_errno=True).getdents64
        self._made: list[str] = []

    def works(self) -> dict[str, Work]:
        """What is unlinked is what was created."""
        return {"lookup": self.lookup, "create": self.create, "unlink": self.unlink, "readdir page": self.page}

    def _directory(self) -> str:
        return f"{self._root}/{directory_name(self._random.randrange(self._files) // FILES_PER_DIRECTORY)}"

    def lookup(self, _number: int) -> None:
        """Any of the files, through its directory."""
        for _ in range(self._count):
            number = self._random.randrange(self._files)
            path = f"{self._root}/{directory_name(number // FILES_PER_DIRECTORY)}/{file_name(number)}"
            os.stat(path)  # noqa: PTH116 - a Path would be measured too

    def create(self, number: int) -> None:
        """A new file in any of the directories."""
        self._made = [f"{self._directory()}/new{number}-{index}" for index in range(self._count)]
        for path in self._made:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

    def unlink(self, _number: int) -> None:
        """What was created last."""
        for path in self._made:
            os.unlink(path)  # noqa: PTH108 - a Path would be measured too

    def page(self, _number: int) -> None:
        """A few system calls' worth of names from anywhere in the directory of all, none of them twice."""
        os.lseek(self._flat, self._random.randint(self._first, self._last), os.SEEK_SET)
        for _ in range(PAGES):
            if self._getdents(self._flat, self._page, PAGE_BYTES) < LEAST_BYTES:
                raise EOFError("the directory is shorter than it was made")


def take_turns(left: Mapping[str, Work], right: Mapping[str, Work], rounds: int, before: Callable[[], None]) -> Seconds:
    """Let both sides do each work in each round, and take their times. `before` is called before each of them."""
    seconds: Seconds = {name: [] for name in left}
    for number in range(rounds):
        for name in left:
            pair = [0.0, 0.0]
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                work = (left, right)[side][name]
                before()
                began = time.perf_counter()
                work(number)
                pair[side] = time.perf_counter() - began
            seconds[name].append(pair)
    return seconds


def names(left: str, right: str, rounds: int, count: int) -> Seconds:
    """Operations on names."""
    return take_turns(Names(left, count).works(), Names(right, count).works(), rounds, lambda: None)


def data(left: str, right: str, rounds: int, size_bytes: int) -> Seconds:
    """Sequential reads and writes."""
    sides = (Data(left, size_bytes), Data(right, size_bytes))

    def drop() -> None:
        for side in sides:
            side.drop()

    return take_turns(sides[0].works(), sides[1].works(), rounds, drop)


def volumes(left: str, right: str, rounds: int, count: int, filled: str) -> Seconds:
    """A large volume and a small one. The kernel begins each work anew: of the small volume it would soon know every
    inode, of the large one it has to make them, which is no cost of the daemon."""
    sides = [Volume(root, count, said) for root, said in zip((left, right), json.loads(filled), strict=True)]

    def forget() -> None:
        with contextlib.suppress(PermissionError):
            Path("/proc/sys/vm/drop_caches").write_text("2\n")
        for root in (left, right):
            os.stat(f"{root}/{FLAT}")  # noqa: PTH116 - what was forgotten is told before this is answered

    return take_turns(sides[0].works(), sides[1].works(), rounds, forget)


if __name__ == "__main__":
    gc.disable()
    kinds: dict[str, Callable[..., Seconds]] = {"names": names, "data": data, "volumes": volumes}
    kind, left_path, right_path, rounds_text, count_text, *more = sys.argv[1:]
    json.dump(kinds[kind](left_path, right_path, int(rounds_text), int(count_text), *more), sys.stdout)
