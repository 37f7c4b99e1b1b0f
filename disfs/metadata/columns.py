"""Many numbers, or many strings of bytes, as a few long ones. Pure.

A column of integers is cut into byte planes: first the lowest byte of each number, then the next one. Numbers that
resemble each other (inode numbers, times) have planes that hardly change, which compress to nothing; and slicing makes
the planes at the speed of a copy, where anything done number by number would hold up the rest of the process.
Columns of equal numbers at equal places, as the three times of a new file are, compress to one of them.
"""

from __future__ import annotations

import array
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_INTEGER_BYTES = 8
_LENGTH_BYTES = 4


def pack_integers(numbers: Iterable[int]) -> bytes:
    """Signed integers of 64 bits, 8 bytes each."""
    return _planes("q", numbers, _INTEGER_BYTES)


def pack_strings(strings: Sequence[bytes]) -> bytes:
    """The lengths, 4 bytes each, then all strings one after another."""
    return _planes("I", map(len, strings), _LENGTH_BYTES) + b"".join(strings)


class ColumnReader:
    """Takes columns out of what was packed; ValueError where it is not what it must be."""

    def __init__(self, raw: bytes | memoryview) -> None:
        self._raw = memoryview(raw)
        self._position = 0

    def integers(self, count: int) -> list[int]:
        """The next column of `count` integers."""
        return _joined("q", self._take(count * _INTEGER_BYTES), count, _INTEGER_BYTES)

    def strings(self, count: int) -> list[bytes]:
        """The next column of `count` strings."""
        lengths = _joined("I", self._take(count * _LENGTH_BYTES), count, _LENGTH_BYTES)
        content = bytes(self._take(sum(lengths)))
        strings = []
        position = 0
        for length in lengths:
            strings.append(content[position : position + length])
            position += length
        return strings

    def finish(self) -> None:
        """There must be nothing left."""
        if self._position != len(self._raw):
            raise ValueError("there is more than was announced")

    def _take(self, length: int) -> memoryview:
        end = self._position + length
        if length < 0 or end > len(self._raw):
            raise ValueError("there is less than was announced")
        taken = self._raw[self._position : end]
        self._position = end
        return taken


def _planes(typecode: str, numbers: Iterable[int], width: int) -> bytes:
    column = array.array(typecode, numbers)
    assert column.itemsize == width
    if sys.byteorder == "big":
        column.byteswap()
    raw = column.tobytes()
    return b"".join(raw[plane::width] for plane in range(width))


def _joined(typecode: str, planes: memoryview, count: int, width: int) -> list[int]:
    raw = bytearray(count * width)
    for plane in range(width):
        raw[plane::width] = planes[plane * count : (plane + 1) * count]
    column = array.array(typecode)
    column.frombytes(raw)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tolist()
