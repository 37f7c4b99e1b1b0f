"""Journals and copies as bytes: what is written is read again, and what is damaged is noticed."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shipments import KEY, header, names, opened, sealed, state

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.keys import VolumeKey
from disfs.errors import CorruptDataError, ExitCode
from disfs.metadata.base import NAME_MAX, SYMLINK_MAX, XATTR_NAME_MAX, XATTR_VALUE_MAX
from disfs.metadata.replicated import LAYOUTS, Block, Table
from disfs.metadata.trash import PATH_BYTES
from disfs.recovery import frames
from disfs.recovery.blocks import decode_blocks, encode_block
from disfs.recovery.frames import MAX_SUPERSEDED, Header, NewerFormatError, PartReader
from disfs.recovery.shipper import FLOOR_BYTES

GOLDEN = Path(__file__).parent.parent / "golden"
INTEGERS = st.integers(-(1 << 63), (1 << 63) - 1)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Any block that can be."""
    table = draw(st.sampled_from(Table))
    layout = LAYOUTS[table]
    row = st.tuples(*(INTEGERS for _ in layout.integers), *(st.binary(max_size=6) for _ in layout.strings))
    return Block.of_rows(table, draw(st.lists(row, min_size=1, max_size=3)))


@given(st.lists(blocks(), max_size=2))
def test_blocks_are_read_as_they_were_written(written: list[Block]) -> None:
    """Every number of 64 bits and every string comes back, row by row, table by table."""
    found = list(decode_blocks(b"".join(encode_block(block) for block in written)))
    assert [(block.table, block.rows()) for block in written] == [(block.table, block.rows()) for block in found]


@given(st.lists(blocks(), min_size=1, max_size=2), st.data())
def test_slot_that_is_not_what_was_written_is_an_error(written: list[Block], data: st.DataObject) -> None:
    """Cut short, longer, or with another byte: other rows, or a CorruptDataError, and never any other exception."""
    raw = b"".join(encode_block(block) for block in written)
    position = data.draw(st.integers(0, len(raw) - 1))
    changed = data.draw(st.sampled_from(["cut", "longer", "flipped", "inserted"]))
    damaged = {
        "cut": raw[:position],
        "longer": raw + raw[:1],
        "flipped": raw[:position] + bytes([raw[position] ^ data.draw(st.integers(1, 255))]) + raw[position + 1 :],
        "inserted": raw[:position] + b"\1" + raw[position:],
    }[changed]
    try:
        found = list(decode_blocks(damaged))
    except CorruptDataError:
        return
    assert [block.rows() for block in found] != [block.rows() for block in written] or changed == "flipped"


@given(st.binary(max_size=300))
def test_header_of_any_bytes_is_an_error(raw: bytes) -> None:
    """Whatever stands where a header should: it is refused in words."""
    with pytest.raises((CorruptDataError, NewerFormatError)):
        Header.from_bytes(raw)


def test_header_is_read_as_it_was_written() -> None:
    """All of its fields, those included that vary in number."""
    written = header("a", "b", 7, superseded=("c", "d"))
    assert written == Header.from_bytes(written.to_bytes())


def test_shipment_of_several_parts_knows_its_parts() -> None:
    """Rows are spread over attachments within the limit; each says which it is, and the last one that it is."""
    written = [names(200, parent=n) for n in range(40)]
    parts = [opened(raw) for raw in sealed(header("a"), PackKind.CHECKPOINT, written, limit_bytes=20_000)]
    assert len(parts) > 2
    assert list(range(len(parts))) == [reader.header.part for reader, _ in parts]
    assert [False] * (len(parts) - 1) + [True] == [reader.is_last for reader, _ in parts]
    rows = [row for _, found in parts for block in found for row in block.rows()]
    assert [row for block in written for row in block.rows()] == rows
    assert (len(parts), 8000) == parts[-1][0].total
    assert all(len(raw) <= 20_000 for raw in sealed(header("a"), PackKind.CHECKPOINT, written, limit_bytes=20_000))


def test_empty_shipment_has_one_part() -> None:
    """Nothing has changed, or nothing is there: that is a state too."""
    (raw,) = sealed(header("a"), PackKind.JOURNAL, [])
    reader, found = opened(raw)
    assert ([], (1, 0), PackKind.JOURNAL) == (found, reader.total, reader.kind)


def test_row_that_fits_into_no_attachment_is_refused() -> None:
    """A row is never cut in two."""
    block = Block.of_rows(Table.XATTRS, [(1, b"user.a", random.Random(1).randbytes(60_000))])
    with pytest.raises(ValueError, match="do not fit"):
        sealed(header("a"), PackKind.JOURNAL, [block], limit_bytes=30_000)


@pytest.mark.parametrize("kind", [PackKind.JOURNAL, PackKind.CHECKPOINT])
def test_no_byte_of_a_part_can_change_unnoticed(kind: PackKind) -> None:
    """Every byte position, flipped, and every length, cut (both sampled): always an error that says so."""
    (raw,) = sealed(header("a", "b", 3), kind, [names(50)])
    positions = sorted({*random.Random(5).sample(range(len(raw)), 300), *range(len(raw) - 40, len(raw))})
    for position in positions:
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 8
        for damaged in (bytes(flipped), raw[:position], raw[:position] + raw[position + 1 :]):
            with pytest.raises((CorruptDataError, NewerFormatError)):
                opened(damaged)


def test_other_key_opens_nothing() -> None:
    """A part of another volume is as good as damaged."""
    (raw,) = sealed(header("a"), PackKind.JOURNAL, [names(3)])
    with pytest.raises(CorruptDataError):
        PartReader(VolumeKey(bytes(32)), raw)


def test_newer_format_is_refused_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a later disfs writes is not guessed at."""
    with monkeypatch.context() as later:
        later.setattr(frames, "ROWS_VERSION", 9)
        (newer,) = sealed(header("a"), PackKind.JOURNAL, [])
    with pytest.raises(NewerFormatError, match="version 9") as caught:
        PartReader(KEY, newer)
    assert ExitCode.VOLUME_DAMAGED == caught.value.exit_code


LATER = {Table.TRASH, Table.SNAPSHOT}
"""Kinds of rows that have a sample of their own."""


def test_golden_snapshot_can_be_read() -> None:
    """What came later opens for ever too: a snapshot's own row, and what is in the trash."""
    told = json.loads((GOLDEN / "snapshot-v1.json").read_text())
    reader, found = opened((GOLDEN / "snapshot-v1.bin").read_bytes())
    assert (PackKind.SNAPSHOT, sorted(LATER)) == (reader.kind, sorted({block.table for block in found}))
    assert told == [
        [block.table.name, [[v.hex() if isinstance(v, bytes) else v for v in row] for row in block.rows()]]
        for block in found
    ]


def test_golden_journal_can_be_read() -> None:
    """A journal that version 1 wrote opens for ever, with every kind of row in it."""
    told = json.loads((GOLDEN / "journal-v1.json").read_text())
    reader, found = opened((GOLDEN / "journal-v1.bin").read_bytes())
    assert set(Table) - LATER == {block.table for block in found}
    assert told["rows"] == [
        [block.table.name, [[v.hex() if isinstance(v, bytes) else v for v in row] for row in block.rows()]]
        for block in found
    ]
    assert (state("a"), state("b"), 42) == (reader.header.state, reader.header.previous, reader.header.sequence)
    assert told["counters"] == dict(reader.header.counters)


def test_longest_rows_fit_into_the_smallest_attachment() -> None:
    """No row can keep a journal from being sent: each of the longest, alone or among others, goes into 256 KiB."""
    attributes = (0o100644, 1, 0, 0, 0, 0, 1, 2, 3)
    slots = os.urandom(4 * (FLOOR_BYTES // 53))  # of a pack of as many bytes, with as many slots as it can have
    blocks = [
        Block.of_rows(Table.INODES, [(1, *attributes, os.urandom(SYMLINK_MAX))]),
        Block.of_rows(Table.TRASH, [(2, 1, 1, *attributes[:1], *attributes[2:8], os.urandom(PATH_BYTES), bytes(4095))]),
        Block.of_rows(Table.NAMES, [(1, 2, 3, os.urandom(NAME_MAX))]),
        Block.of_rows(
            Table.XATTRS,
            [(1, os.urandom(XATTR_NAME_MAX), os.urandom(XATTR_VALUE_MAX)) for _ in range(3)],
        ),
        Block.of_rows(Table.PACKS, [(1, 1 << 62, 1 << 62, 1 << 62, FLOOR_BYTES, os.urandom(16), slots)]),
    ]
    head = header("longest", superseded=tuple(f"{number}" for number in range(MAX_SUPERSEDED)))
    parts = sealed(head, PackKind.JOURNAL, blocks, limit_bytes=FLOOR_BYTES)
    assert max(map(len, parts)) <= FLOOR_BYTES
    found = [row for part in parts for block in opened(part)[1] for row in block.rows()]
    assert [row for block in blocks for row in block.rows()] == found
