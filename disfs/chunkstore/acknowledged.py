"""What a message with packs is called, and what its acknowledgement says about them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.errors import CorruptDataError
from disfs.values import Location, PackRecord, SentPack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.packer import FinishedPack
    from disfs.chunkstore.transport.base import StoredMessage

_NONCE_DIGITS = 24
"""Discord takes 25 characters."""


def nonce_of(packs: Sequence[FinishedPack]) -> str:
    """The nonce of a message that carries these packs: the same again for the same packs, and for no others."""
    return packs[0].pack.hex()[:_NONCE_DIGITS]


def acknowledged_packs(packs: Sequence[FinishedPack], stored: StoredMessage) -> list[SentPack]:
    """Where the packs of a message lie now; CorruptDataError when Discord has acknowledged something else."""
    if [a.size_bytes for a in stored.attachments] != [pack.upload.size_bytes for pack in packs]:
        raise CorruptDataError("Discord acknowledged other attachments than were sent")
    return [
        SentPack(
            PackRecord(
                pack.pack,
                Location(stored.channel, stored.message, attachment.attachment),
                attachment.size_bytes,
                pack.slots,
            ),
            pack.chunks,
        )
        for pack, attachment in zip(packs, stored.attachments, strict=True)
    ]
