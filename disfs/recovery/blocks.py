"""Blocks of rows as bytes, version 1. Pure.

A slot of a journal or of a checkpoint copy is a row of sections, each `table, number of rows, length, columns`; the
columns are those of the table's layout (docs/format.md has them). Reading is strict: what is too short, too long or
unknown is a `CorruptDataError`. It is authenticated before it comes here, so that means a mistake of ours, not damage.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from disfs.errors import CorruptDataError
from disfs.metadata.columns import ColumnReader, pack_integers, pack_strings
from disfs.metadata.replicated import LAYOUTS, Block, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECTION = struct.Struct("<BII")
MAX_ROWS = 1 << 16


def encode_block(block: Block) -> bytes:
    """A section."""
    layout = LAYOUTS[block.table]
    assert 1 <= len(block) <= MAX_ROWS
    assert len(block.columns) == len(layout.columns)
    integer_count = len(layout.integers)
    payload = b"".join(
        (
            *(pack_integers(column) for column in block.columns[:integer_count]),
            *(pack_strings(column) for column in block.columns[integer_count:]),
        )
    )
    return _SECTION.pack(block.table, len(block), len(payload)) + payload


def decode_blocks(raw: bytes) -> Iterator[Block]:
    """The blocks of a slot, in order. CorruptDataError."""
    view = memoryview(raw)
    while view:
        if len(view) < _SECTION.size:
            raise CorruptDataError("a section is cut off")
        number, rows, length = _SECTION.unpack_from(view)
        payload, view = view[_SECTION.size : _SECTION.size + length], view[_SECTION.size + length :]
        if len(payload) != length or not 1 <= rows <= MAX_ROWS:
            raise CorruptDataError("a section is not as long as it says")
        yield _decode(number, rows, payload)


def _decode(number: int, rows: int, payload: memoryview) -> Block:
    try:
        table = Table(number)
        layout = LAYOUTS[table]
        reader = ColumnReader(payload)
        integers = [reader.integers(rows) for _ in layout.integers]
        strings = [reader.strings(rows) for _ in layout.strings]
        reader.finish()
    except ValueError as error:
        raise CorruptDataError(f"a section cannot be read: {error}") from error
    return Block(table, (*integers, *strings))
