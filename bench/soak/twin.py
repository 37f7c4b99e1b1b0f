"""Two trees that must be equal: the one on the mount, and its twin on a local disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIECE_BYTES = 1 << 20
MOST_DIFFERENCES = 20


def differences(mounted: Path, twin: Path) -> list[str]:
    """What differs in names, sizes or contents, one line each, the first few; empty when the trees are equal."""
    found: list[str] = []
    for line in _differences(mounted, twin):
        found.append(line)
        if len(found) >= MOST_DIFFERENCES:
            break
    return found


def _differences(mounted: Path, twin: Path) -> Iterator[str]:
    names, expected = _names(mounted), _names(twin)
    yield from (f"{name} is there, and was never made or is deleted" for name in sorted(names - expected))
    yield from (f"{name} is missing" for name in sorted(expected - names))
    for name in sorted(names & expected):
        if (twin / name).is_file():
            try:
                wrong = compare_range(mounted / name, twin / name, 0, None)
            except OSError as error:
                wrong = f"cannot be read: {error.strerror}"
            if wrong is not None:
                yield f"{name} {wrong}"


def _names(top: Path) -> set[str]:
    found: set[str] = set()
    for directory, below, files in os.walk(top):
        found.update(os.path.relpath(os.path.join(directory, name), top) for name in (*below, *files))  # noqa: PTH118 - a million names: Path objects would take longer than the walk
    return found


def compare_range(mounted: Path, twin: Path, start: int, length: int | None) -> str | None:
    """What is wrong with a range of a file, None if nothing is; without a length, with all of it and its size.

    What the kernel has cached of the file is dropped first: it is the daemon that is asked. OSError as `pread`'s.
    """
    with mounted.open("rb", buffering=0) as seen, twin.open("rb", buffering=0) as expected:
        os.posix_fadvise(seen.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if length is None:
            length = os.fstat(expected.fileno()).st_size - start
            size = os.fstat(seen.fileno()).st_size
            if size != start + length:
                return f"has {size} bytes instead of {start + length}"
        for offset in range(start, start + length, PIECE_BYTES):
            count = min(PIECE_BYTES, start + length - offset)
            got, want = _read(seen.fileno(), count, offset), _read(expected.fileno(), count, offset)
            if got != want:
                return describe(got, want, offset)
    return None


def _read(descriptor: int, count: int, offset: int) -> bytes:
    """`pread`, and on from where it stopped: what is before an error may be given first, and the error is then due."""
    got = os.pread(descriptor, count, offset)
    while len(got) < count and (more := os.pread(descriptor, count - len(got), offset + len(got))):
        got += more
    return got


def describe(got: bytes, want: bytes, offset: int) -> str:
    """In words, where and how what was read differs from what was written."""
    if len(got) != len(want):
        return f"gives {len(got)} bytes at {offset} instead of {len(want)}"
    wrong = [place for place, (a, b) in enumerate(zip(got, want, strict=True)) if a != b]
    kind = "zeros" if not any(got[place] for place in wrong) else "other bytes"
    return f"has {len(wrong)} wrong bytes from {offset + wrong[0]} to {offset + wrong[-1]}: {kind}"
