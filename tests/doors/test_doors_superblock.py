"""The superblock's stored form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disfs.superblock import MAX_BYTES, Superblock, SuperblockError
from disfs.values import ChannelId

SUPERBLOCK = Superblock(
    volume_id=bytes(16),
    name="photos",
    created="2026-11-22T20:00:00+00:00",
    chunk_bytes=131072,
    data_channels=(ChannelId(1 << 62), ChannelId(2)),
    wrapped_key=bytes(range(100)),
)


def changed(**fields: Any) -> str:
    raw = json.loads(SUPERBLOCK.to_json())
    raw.update(fields)
    return json.dumps({name: value for name, value in raw.items() if value is not ...})


def test_it_is_read_back_equal() -> None:
    """What is written is read back, ids above 2**53 included."""
    assert Superblock.from_json(SUPERBLOCK.to_json()) == SUPERBLOCK


def test_the_largest_one_fits() -> None:
    """A volume with all channels that a category holds stays below the size limit."""
    channels = tuple(ChannelId((1 << 63) - n) for n in range(1, 50))
    large = Superblock(bytes(16), "x" * 64, SUPERBLOCK.created, 131072, channels, bytes(1000))
    assert len(large.to_json()) < MAX_BYTES


def test_unknown_field_is_left_alone() -> None:
    """A field that a later version adds does not stop this one."""
    assert Superblock.from_json(changed(colour="red")) == SUPERBLOCK


def test_newer_version_says_so() -> None:
    """A format that this disfs does not know is named, not guessed at."""
    with pytest.raises(SuperblockError, match="version 2, this disfs knows 1"):
        Superblock.from_json(changed(version=2))


@pytest.mark.parametrize("position", range(0, len(SUPERBLOCK.to_json()), 3))
def test_no_byte_can_change_unnoticed(position: int) -> None:
    """One bit of any byte, or all from there on cut off: what is read is what was written, or an error."""
    raw = SUPERBLOCK.to_json().encode()
    flipped = bytes([*raw[:position], raw[position] ^ 1 << position % 8, *raw[position + 1 :]])
    for damaged in (flipped, raw[:position]):
        try:
            found = Superblock.from_json(damaged)
        except SuperblockError:
            continue
        assert SUPERBLOCK == found


def test_superblock_without_a_checksum_is_read() -> None:
    """Those of before there was one."""
    assert SUPERBLOCK == Superblock.from_json(changed(checksum=...))


@pytest.mark.parametrize(
    "fields",
    [
        {"volume_id": "00"},
        {"volume_id": "zz" * 16},
        {"volume_id": ...},
        {"chunk_bytes": 0},
        {"chunk_bytes": 5000},
        {"chunk_bytes": True},
        {"chunk_bytes": "131072"},
        {"data_channels": []},
        {"data_channels": ["-1"]},
        {"data_channels": 7},
        {"wrapped_key": "not base64!"},
        {"format": "other"},
        {"name": ...},
    ],
)
def test_wrong_field_is_refused(fields: dict[str, Any]) -> None:
    """Each field is checked; nothing but SuperblockError comes out."""
    with pytest.raises(SuperblockError):
        Superblock.from_json(changed(**fields))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(raw: bytes) -> None:
    """Bytes of somebody else never become a superblock, and raise nothing but SuperblockError."""
    with pytest.raises(SuperblockError):
        Superblock.from_json(raw)


def test_wrapped_key_is_not_in_repr() -> None:
    """A superblock can be logged."""
    assert "wrapped_key" not in repr(SUPERBLOCK)
