"""A key file: the volume key as text that can be kept on paper or a stick, and opens the volume without a passphrase.

    disfs key file, version 1
    volume 1f0e...                 the volume id, 32 hexadecimal digits
    key 3a91-...                   the volume key, 64 hexadecimal digits, hyphens between groups of eight
    check 77c2...                  the first 8 bytes of HMAC-SHA256(key, "disfs key file v1" | volume id)

The check tells a mistyped key, and the key of another volume, before anything is opened with it.
"""

from __future__ import annotations

import hashlib
import hmac

from disfs.chunkstore.keys import VOLUME_KEY_BYTES, VolumeKey
from disfs.errors import DisfsError

FIRST_LINE = "disfs key file, version 1"
_CHECKED = b"disfs key file v1"
_CHECK_BYTES = 8
_GROUP = 8


class KeyFileError(DisfsError):
    """Text that is no key file, or one of another volume; the message holds nothing of the key."""


def key_file_text(volume_id: bytes, key: VolumeKey) -> str:
    """The text of a key file. It is a secret."""
    digits = key.reveal().hex()
    grouped = "-".join(digits[n : n + _GROUP] for n in range(0, len(digits), _GROUP))
    return f"{FIRST_LINE}\nvolume {volume_id.hex()}\nkey {grouped}\ncheck {_check(volume_id, key).hex()}\n"


def key_of_text(text: str, volume_id: bytes) -> VolumeKey:
    """The key in the text of a key file of that volume. KeyFileError for anything else."""
    first, *rest = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    if first != FIRST_LINE:
        raise KeyFileError("it is no key file of a version that this disfs knows")
    fields = dict(line.partition(" ")[::2] for line in rest)
    try:
        named = bytes.fromhex(fields["volume"])
        secret = bytes.fromhex(fields["key"].replace("-", ""))
        check = bytes.fromhex(fields["check"])
    except (KeyError, ValueError):
        # `from None`: a traceback with locals must not lead to the key.
        raise KeyFileError("a line is missing or mistyped") from None
    if named != volume_id:
        raise KeyFileError("it is the key of another volume")
    if len(secret) != VOLUME_KEY_BYTES or not hmac.compare_digest(check, _check(volume_id, VolumeKey(secret))):
        raise KeyFileError("the key is mistyped or damaged")
    return VolumeKey(secret)


def _check(volume_id: bytes, key: VolumeKey) -> bytes:
    return hmac.new(key.reveal(), _CHECKED + volume_id, hashlib.sha256).digest()[:_CHECK_BYTES]
