"""Keys, codec and pack format."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from disfs.chunkstore.codec import PackCipher, PackKind
from disfs.chunkstore.keys import (
    WRAPPED_KEY_BYTES,
    ScryptCost,
    VolumeKey,
    WrappedKey,
    WrongPassphraseError,
    unwrap,
    wrap,
)
from disfs.chunkstore.packer import PackBuilder, PackReader, max_pack_bytes
from disfs.errors import CorruptDataError
from disfs.values import ChunkIndex, ChunkKey, InodeNumber, PackId, Revision

GOLDEN = Path(__file__).parent.parent / "golden"
KEY = VolumeKey(bytes(range(32)))
PACK = PackId(bytes(range(100, 116)))
CHEAP = ScryptCost(log2_n=2)
CHUNK = 1024
contents = st.lists(
    st.one_of(st.binary(max_size=CHUNK), st.integers(0, CHUNK).map(lambda n: b"ab" * (n // 2))), max_size=6
)


def a_pack(plains: list[bytes]) -> bytes:
    """A whole pack, as Discord would have it."""
    builder = PackBuilder(KEY, limit_bytes=1 << 20, chunk_bytes=CHUNK, pack=PACK)
    for number, plain in enumerate(plains):
        builder.add(ChunkKey(InodeNumber(5), ChunkIndex(number)), Revision(10 + number), plain)
    return b"".join(builder.finish().upload.parts)


def test_key_is_never_shown() -> None:
    """Neither repr nor pickling gives a key away."""
    assert "<VolumeKey>" == repr(KEY)
    assert KEY.reveal().hex() not in repr(wrap(KEY, "x", CHEAP))
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(KEY)


def test_pack_keys_differ() -> None:
    """Each pack has a key of its own, and so has each volume."""
    other = PackId(bytes(16))
    assert 3 == len({KEY.pack_key(PACK), KEY.pack_key(other), VolumeKey(bytes(32)).pack_key(PACK)})


def test_wrap_and_unwrap() -> None:
    """The passphrase opens what it wrapped, from the stored bytes, however it is composed."""
    raw = wrap(KEY, "caf\u00e9", CHEAP).to_bytes()
    assert WRAPPED_KEY_BYTES == len(raw)
    assert KEY == unwrap(WrappedKey.from_bytes(raw), "cafe\u0301")


def test_wrong_passphrase() -> None:
    """Another passphrase is refused as such."""
    with pytest.raises(WrongPassphraseError):
        unwrap(wrap(KEY, "right", CHEAP), "wrong")


def test_every_bit_of_a_wrapped_key_counts() -> None:
    """A wrapped key in which any byte was changed does not open."""
    raw = wrap(KEY, "x", CHEAP).to_bytes()
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 0x80
        with pytest.raises((CorruptDataError, WrongPassphraseError)):
            unwrap(WrappedKey.from_bytes(bytes(changed)), "x")


@given(st.binary(max_size=300), st.integers(0, 1 << 31))
def test_seal_and_unseal(plain: bytes, slot: int) -> None:
    """What is unsealed is what was sealed, and sealing costs at most a tag."""
    cipher = PackCipher(KEY, PACK)
    stored, compressed = cipher.seal(slot, plain)
    assert len(stored) <= len(plain) + 16
    assert plain == cipher.unseal(slot, stored, compressed=compressed, max_bytes=300)


def test_unseal_in_the_wrong_place() -> None:
    """A chunk opens in its own slot, pack, kind and compression only."""
    stored, compressed = PackCipher(KEY, PACK).seal(3, b"a" * 500)
    assert compressed
    for cipher, slot, flag in (
        (PackCipher(KEY, PACK), 4, True),
        (PackCipher(KEY, PACK), 3, False),
        (PackCipher(KEY, PackId(bytes(16))), 3, True),
        (PackCipher(KEY, PACK, PackKind.JOURNAL), 3, True),
        (PackCipher(VolumeKey(bytes(32)), PACK), 3, True),
    ):
        with pytest.raises(CorruptDataError):
            cipher.unseal(slot, stored, compressed=flag, max_bytes=500)


@pytest.mark.parametrize("stated", [True, False])
def test_decompression_is_bounded(stated: bool) -> None:
    """Even an authentic chunk does not expand beyond the chunk size, whether or not it states its size."""
    bomb = zstandard.ZstdCompressor(write_content_size=stated).compress(bytes(1 << 20))
    aad = b"\x01\x00\x01\x01" + bytes(4) + PACK
    stored = AESGCM(KEY.pack_key(PACK)).encrypt(bytes(12), bomb, aad)
    with pytest.raises(CorruptDataError, match="expands"):
        PackCipher(KEY, PACK).unseal(0, stored, compressed=True, max_bytes=CHUNK)


@given(contents)
def test_pack_and_open(plains: list[bytes]) -> None:
    """A pack opened from its bytes gives every chunk with its inode, index and revision, and the slot table."""
    raw = a_pack(plains)
    reader = PackReader(KEY, raw)
    assert plains == [plain for _, plain in reader.chunks()]
    assert [(5, n, 10 + n) for n in range(len(plains))] == [(*e.key, e.revision) for e in reader.entries]
    assert len(plains) == len(reader.slots)
    assert (PACK, CHUNK, PackKind.CHUNKS) == (reader.pack, reader.chunk_bytes, reader.kind)


def test_every_flipped_byte_of_a_pack_is_detected() -> None:
    """A pack in which any byte was changed raises, and gives no changed content before."""
    plains = [b"text " * 40, bytes(range(256)), b"x"]
    raw = a_pack(plains)
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1 << position % 8
        seen: list[bytes] = []
        with pytest.raises(CorruptDataError):
            seen.extend(plain for _, plain in PackReader(KEY, changed).chunks())
        assert plains[: len(seen)] == seen


@given(st.integers(0, 400))
def test_truncated_pack(length: int) -> None:
    """A pack that lost its end, or its beginning, does not open."""
    raw = a_pack([bytes(range(256))])
    for part in (raw[:length], raw[-length:] if length else b""):
        if part != raw:
            with pytest.raises(CorruptDataError):
                PackReader(KEY, part)


@given(st.lists(st.integers(1, CHUNK), min_size=1, max_size=40), st.integers(0, 4 * CHUNK))
def test_builder_keeps_its_limit(lengths: list[int], more: int) -> None:
    """A builder that said there is room never passes its limit, and always has room for one chunk."""
    limit = max_pack_bytes(CHUNK) + more
    builder = PackBuilder(KEY, limit_bytes=limit, chunk_bytes=CHUNK)
    assert builder.has_room(CHUNK)
    for number, length in enumerate(lengths):
        if builder.has_room(length):
            builder.add(ChunkKey(InodeNumber(1), ChunkIndex(number)), Revision(1), bytes(length))
    size = builder.size_bytes
    assert size == builder.finish().upload.size_bytes <= limit


@pytest.mark.parametrize("version", ["v1"])
def test_golden_pack(version: str) -> None:
    """A pack that a released version wrote opens for ever."""
    expected = json.loads((GOLDEN / f"pack-{version}.json").read_text())
    key = unwrap(WrappedKey.from_bytes((GOLDEN / f"key-{version}.bin").read_bytes()), expected["passphrase"])
    reader = PackReader(key, (GOLDEN / f"pack-{version}.bin").read_bytes())
    found = [[*e.key, e.revision, e.compressed, plain.hex()] for e, plain in reader.chunks()]
    assert expected["chunks"] == found
    assert (expected["pack"], expected["chunk_bytes"]) == (reader.pack.hex(), reader.chunk_bytes)
