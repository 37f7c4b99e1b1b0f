"""The volume key: made, wrapped by a passphrase, and the source of every pack's own key.

One secret of 32 random bytes opens a volume. It is stored only wrapped: scrypt turns the passphrase into
a wrapping key, AES-256-GCM seals the volume key with it, and everything that the unwrapping depends on
(algorithm, cost, salt) is authenticated with it. `docs/format.md` has the bytes.

No key is ever in a repr, an exception or a log line; that is what the classes here are for.
"""

from __future__ import annotations

import os
import struct
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from disfs.errors import CorruptDataError, DisfsError

if TYPE_CHECKING:
    from disfs.values import PackId

VOLUME_KEY_BYTES = 32
_PACK_KEY_INFO = b"disfs pack key v1"

_MAGIC = b"DISFSKEY"
_VERSION = 1
_SCRYPT = 1
_HEADER = struct.Struct("<8sHBBII16s")
_NONCE_BYTES = 12
_SEALED_BYTES = VOLUME_KEY_BYTES + 16
WRAPPED_KEY_BYTES = _HEADER.size + _NONCE_BYTES + _SEALED_BYTES


class WrongPassphraseError(DisfsError):
    """The passphrase does not open this wrapped key, or the wrapped key was changed; the two look the same."""


class VolumeKey:
    """The secret of one volume."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != VOLUME_KEY_BYTES:
            raise ValueError(f"a volume key has {VOLUME_KEY_BYTES} bytes, not {len(secret)}")
        self._secret = bytes(secret)

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's generator."""
        return cls(os.urandom(VOLUME_KEY_BYTES))

    def pack_key(self, pack: PackId) -> bytes:
        """The AES-256 key of one pack. Pack ids are never reused, so neither is a (key, nonce) pair."""
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=bytes(pack), info=_PACK_KEY_INFO).derive(self._secret)

    def reveal(self) -> bytes:
        """The secret itself, for a key file that its owner asked for. Never log or print it otherwise."""
        return self._secret

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VolumeKey) and self._secret == other._secret

    def __hash__(self) -> int:
        return hash(self._secret)

    def __repr__(self) -> str:
        return "<VolumeKey>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a volume key is not to be pickled")


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """How much work one guess of the passphrase costs: 128 * 2**log2_n * r bytes of memory, p times."""

    log2_n: int = 16
    r: int = 8
    p: int = 1

    def check(self) -> None:
        """CorruptDataError outside the bounds that any volume of ours uses, before memory is spent on it."""
        if not (1 <= self.log2_n <= 20 and 1 <= self.r <= 32 and 1 <= self.p <= 16):
            raise CorruptDataError("the wrapped key asks for an impossible scrypt cost")


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A volume key under a passphrase, as the superblock stores it."""

    cost: ScryptCost
    salt: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    sealed: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """The stored form, `WRAPPED_KEY_BYTES` long."""
        return _header(self.cost, self.salt) + self.nonce + self.sealed

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read what `to_bytes` wrote; CorruptDataError for anything else."""
        if len(raw) != WRAPPED_KEY_BYTES:
            raise CorruptDataError(f"a wrapped key has {WRAPPED_KEY_BYTES} bytes, not {len(raw)}")
        magic, version, algorithm, log2_n, r, p, salt = _HEADER.unpack_from(raw)
        if magic != _MAGIC or version != _VERSION or algorithm != _SCRYPT:
            raise CorruptDataError("not a wrapped key of a version that this disfs knows")
        cost = ScryptCost(log2_n, r, p)
        cost.check()
        split = _HEADER.size + _NONCE_BYTES
        return cls(cost, salt, raw[_HEADER.size : split], raw[split:])


def wrap(key: VolumeKey, passphrase: str, cost: ScryptCost | None = None) -> WrappedKey:
    """Seal `key` with a passphrase. Takes as long as unwrapping: call it in a worker thread."""
    cost = cost or ScryptCost()
    salt, nonce = os.urandom(16), os.urandom(_NONCE_BYTES)
    sealed = AESGCM(_wrapping_key(passphrase, salt, cost)).encrypt(nonce, key.reveal(), _header(cost, salt))
    return WrappedKey(cost, salt, nonce, sealed)


def unwrap(wrapped: WrappedKey, passphrase: str) -> VolumeKey:
    """The volume key, or WrongPassphraseError. About 0.2 s and 64 MiB at the default cost: use a worker thread."""
    wrapped.cost.check()
    cipher = AESGCM(_wrapping_key(passphrase, wrapped.salt, wrapped.cost))
    try:
        secret = cipher.decrypt(wrapped.nonce, wrapped.sealed, _header(wrapped.cost, wrapped.salt))
    except InvalidTag:
        # `from None`: a traceback with locals must not lead to the passphrase.
        raise WrongPassphraseError("the passphrase does not open this volume") from None
    return VolumeKey(secret)


def _header(cost: ScryptCost, salt: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, _VERSION, _SCRYPT, cost.log2_n, cost.r, cost.p, salt)


def _wrapping_key(passphrase: str, salt: bytes, cost: ScryptCost) -> bytes:
    # The same passphrase typed on two machines may be composed differently; NFC makes them the same bytes.
    secret = unicodedata.normalize("NFC", passphrase).encode()
    return Scrypt(salt=salt, length=32, n=1 << cost.log2_n, r=cost.r, p=cost.p).derive(secret)
