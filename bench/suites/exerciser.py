"""Random operations on the contents of one file, through every way there is, against an array of bytes. As fsx does.

The file is read and written by pread and pwrite, through mappings that stay, and around the page cache with O_DIRECT;
it is cut, made longer, synced, closed and opened again, renamed, and emptied. What is read, and every now and then the
whole file, must be what the array holds. A failure prints its seed and its last steps.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections import deque
from random import Random
from typing import TYPE_CHECKING

from bench.suites.base import Suite, SuiteResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.suites.base import Place

LONGEST_FILE_BYTES = 700_000
"""Some chunks."""
LONGEST_PIECE_BYTES = 150_000
BLOCK_BYTES = 4096
"""What O_DIRECT is aligned to."""
_TRACE_COUNT = 12


class WrongBytesError(Exception):
    """The file does not hold what was written to it."""


class Exerciser:
    """One file and its model."""

    def __init__(self, path: Path, seed: int, *, longest_bytes: int = LONGEST_FILE_BYTES) -> None:
        self._path = path
        self._random = Random(seed)
        self._longest_bytes = longest_bytes
        self._model = bytearray()
        self._trace: deque[str] = deque(maxlen=_TRACE_COUNT)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT)
        self._direct = self._open_direct()
        self._map: mmap.mmap | None = None
        self._buffer = mmap.mmap(-1, 1 << 18)  # aligned, as O_DIRECT asks
        self._steps: tuple[tuple[int, Callable[[], None]], ...] = (
            (10, self._read),
            (10, self._write),
            (4, self._append),
            (5, self._read_mapped),
            (5, self._write_mapped),
            (5, self._truncate),
            (3, self._read_direct),
            (4, self._write_direct),
            (2, self._zero),
            (2, self._sync),
            (2, self._reopen),
            (1, self._drop_cache),
            (1, self._rename),
            (1, self._empty),
            (1, self._check_everything),
        )

    def run(self, steps: int) -> None:
        """Make so many steps. `WrongBytesError`, or the OSError of a call that should not fail."""
        weights = [weight for weight, _ in self._steps]
        try:
            for _, step in self._random.choices(self._steps, weights, k=steps):
                step()
            self._check_everything()
        except (OSError, WrongBytesError) as error:
            raise WrongBytesError(f"{error}, after {'; '.join(self._trace)}") from error
        finally:
            self._close()

    # -- steps --------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        offset, length = self._range()
        self._note(f"read {length} at {offset}")
        self._compare("read", offset, length, os.pread(self._fd, length, offset))

    def _write(self) -> None:
        offset, length = self._range()
        self._note(f"write {length} at {offset}")
        self._written(offset, self._bytes(length), os.pwrite)

    def _append(self) -> None:
        data = self._bytes(self._random.randrange(1, 5000))
        if len(self._model) + len(data) > self._longest_bytes:
            return
        self._note(f"append {len(data)}")
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        self._model += data

    def _read_mapped(self) -> None:
        mapped = self._mapped()
        if mapped is not None:
            offset, length = self._range_within()
            self._note(f"read {length} mapped at {offset}")
            self._compare("mapping", offset, length, mapped[offset : offset + length])

    def _write_mapped(self) -> None:
        mapped = self._mapped()
        if mapped is not None:
            offset, length = self._range_within()
            self._note(f"write {length} mapped at {offset}")
            mapped[offset : offset + length] = self._model[offset : offset + length] = self._bytes(length)
            if self._random.random() < 0.2:
                mapped.flush()

    def _truncate(self) -> None:
        size = self._random.choice((self._random.randrange(self._longest_bytes), self._near_edge()))
        self._note(f"truncate to {size}")
        if size < len(self._model):
            self._unmap()  # touching what was cut would be SIGBUS
        os.ftruncate(self._fd, size)
        del self._model[size:]
        self._model += bytes(size - len(self._model))

    def _read_direct(self) -> None:
        if self._direct is None:
            return
        offset, length = self._aligned()
        self._note(f"read {length} direct at {offset}")
        count = os.preadv(self._direct, [memoryview(self._buffer)[:length]], offset)
        self._compare("O_DIRECT", offset, length, self._buffer[:count])

    def _write_direct(self) -> None:
        if self._direct is None:
            return
        offset, length = self._aligned()
        self._note(f"write {length} direct at {offset}")
        data = self._bytes(length)
        self._buffer[:length] = data

        def write(_fd: int, _data: bytes, at: int) -> int:
            assert self._direct is not None
            return os.pwritev(self._direct, [memoryview(self._buffer)[:length]], at)

        self._written(offset, data, write)

    def _zero(self) -> None:
        """What a program does where it cannot punch a hole."""
        offset, length = self._range()
        self._note(f"zero {length} at {offset}")
        self._written(offset, bytes(length), os.pwrite)

    def _sync(self) -> None:
        call = self._random.choice((os.fsync, os.fdatasync))
        self._note(call.__name__)
        call(self._fd)

    def _reopen(self) -> None:
        self._note("reopen")
        self._close()
        self._fd = os.open(self._path, os.O_RDWR)
        self._direct = self._open_direct()

    def _drop_cache(self) -> None:
        self._note("drop the page cache")
        os.fdatasync(self._fd)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _rename(self) -> None:
        self._note("rename")
        new = self._path.with_name(f"{self._path.name[:8]}-{self._random.randrange(1000)}")
        self._path = self._path.rename(new)

    def _empty(self) -> None:
        self._note("O_TRUNC")
        self._unmap()
        os.close(os.open(self._path, os.O_WRONLY | os.O_TRUNC))
        self._model.clear()

    def _check_everything(self) -> None:
        self._note("compare all")
        size = os.fstat(self._fd).st_size
        if size != len(self._model):
            raise WrongBytesError(f"{size} bytes instead of {len(self._model)}")
        self._compare("file", 0, size + 1, os.pread(self._fd, size + 1, 0))

    # -- helpers ------------------------------------------------------------------------------------------------

    def _note(self, step: str) -> None:
        self._trace.append(step)

    def _written(self, offset: int, data: bytes, write: Callable[[int, bytes, int], int]) -> None:
        count = write(self._fd, data, offset)
        if count != len(data):
            raise WrongBytesError(f"{count} bytes written instead of {len(data)}")
        self._model += bytes(max(0, offset + count - len(self._model)))
        self._model[offset : offset + count] = data

    def _compare(self, how: str, offset: int, length: int, seen: bytes) -> None:
        expected = self._model[offset : offset + length]
        if seen == expected:
            return
        if len(seen) != len(expected):
            raise WrongBytesError(f"{how}: {len(seen)} bytes at {offset} instead of {len(expected)}")
        first = next(index for index, pair in enumerate(zip(seen, expected, strict=True)) if pair[0] != pair[1])
        raise WrongBytesError(f"{how}: {seen[first]:#x} at {offset + first} instead of {expected[first]:#x}")

    def _near_edge(self) -> int:
        """Around a page or a chunk."""
        unit = self._random.choice((BLOCK_BYTES, 1 << 17))
        edge = self._random.randrange(0, self._longest_bytes, unit)
        return max(0, edge + self._random.randrange(-2, 3))

    def _range(self) -> tuple[int, int]:
        offset = min(
            self._random.choice((self._near_edge(), self._random.randrange(self._longest_bytes))),
            self._longest_bytes - 1,
        )
        length = self._random.choice((1, BLOCK_BYTES, self._random.randrange(1, LONGEST_PIECE_BYTES)))
        return offset, min(length, self._longest_bytes - offset)

    def _range_within(self) -> tuple[int, int]:
        offset = self._random.randrange(len(self._model))
        return offset, min(self._random.randrange(1, 20_000), len(self._model) - offset)

    def _aligned(self) -> tuple[int, int]:
        blocks = self._longest_bytes // BLOCK_BYTES
        first = self._random.randrange(blocks)
        count = self._random.randrange(1, min(33, blocks - first + 1))
        return first * BLOCK_BYTES, count * BLOCK_BYTES

    def _bytes(self, length: int) -> bytes:
        return self._random.randbytes(length)

    def _open_direct(self) -> int | None:
        try:
            return os.open(self._path, os.O_RDWR | os.O_DIRECT)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None  # tmpfs, for example
            raise

    def _mapped(self) -> mmap.mmap | None:
        """A mapping of the whole file, kept while the file does not change its size; None for an empty file."""
        if self._map is not None and len(self._map) != len(self._model):
            self._unmap()
        if self._map is None and self._model:
            self._map = mmap.mmap(self._fd, len(self._model))
        return self._map

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    def _close(self) -> None:
        self._unmap()
        for fd in (self._fd, self._direct):
            if fd is not None:
                os.close(fd)
        self._fd, self._direct = -1, None


def run(place: Place) -> SuiteResult:
    """Forty files, 500 steps each."""
    return _run(place, seeds=40, steps=500)


def run_quick(place: Place) -> SuiteResult:
    """Six files, 300 steps each."""
    return _run(place, seeds=6, steps=300)


def _run(place: Place, *, seeds: int, steps: int) -> SuiteResult:
    answers: dict[str, str | None] = {}
    for seed in range(seeds):
        # Every other file is small: there the edges meet.
        longest = LONGEST_FILE_BYTES if seed % 2 else 20_000
        try:
            Exerciser(place.files / f"file-{seed}", seed, longest_bytes=longest).run(steps)
        except WrongBytesError as error:
            answers[f"seed {seed}"] = str(error)
        else:
            answers[f"seed {seed}"] = None
    return SuiteResult.of(answers)


SUITES = (
    Suite("exerciser", "random operations on one file in every way, as fsx makes them", run),
    Suite("exerciser-quick", "a few of them", run_quick),
)
