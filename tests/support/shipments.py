"""Shipments made by hand, for tests that need some without a volume."""

from __future__ import annotations

import io

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.keys import VolumeKey
from disfs.metadata.replicated import Block, Table
from disfs.recovery.chain import SeenPart
from disfs.recovery.frames import COUNTERS, Header, PartReader, write_parts
from disfs.values import AttachmentId, ChannelId, Location, MessageId

KEY = VolumeKey(bytes(range(32)))
VOLUME = bytes(range(16))
DEVICE = b"this device 0001"
OTHER_DEVICE = b"other device 002"
NO_STATE = bytes(16)
LIMIT_BYTES = 64 * 1024


def state(name: str) -> bytes:
    """The id of a state."""
    return name.encode().ljust(16, b".")


def header(
    name: str,
    previous: str | None = None,
    sequence: int = 1,
    *,
    device: bytes = DEVICE,
    superseded: tuple[str, ...] = (),
) -> Header:
    """Of a shipment that leads to state `name`, and has the same id."""
    return Header(
        volume=VOLUME,
        device=device,
        shipment=state(name),
        state=state(name),
        previous=NO_STATE if previous is None else state(previous),
        sequence=sequence,
        part=0,
        created_ns=10**18 + sequence,
        counters=dict.fromkeys(COUNTERS, 100 * sequence),
        superseded=tuple(state(each) for each in superseded),
    )


def names(count: int, *, parent: int = 1) -> Block:
    """A block of names."""
    return Block.of_rows(Table.NAMES, [(parent, 100 + n, 3 + n, b"name %d" % n) for n in range(count)])


def sealed(head: Header, kind: PackKind, blocks: list[Block], *, limit_bytes: int = LIMIT_BYTES) -> list[bytes]:
    """The parts of a shipment, as attachments."""
    spool = io.BytesIO()
    parts = write_parts(spool, KEY, kind, head, blocks, limit_bytes=limit_bytes)
    raw = spool.getvalue()
    return [raw[part.offset : part.offset + part.size_bytes] for part in parts]


def seen(head: Header, kind: PackKind, *, parts: int = 1, missing: tuple[int, ...] = ()) -> list[SeenPart]:
    """The parts of a shipment as they are found in a channel, all but some."""
    from dataclasses import replace

    message = MessageId(head.sequence * 10 + (kind is PackKind.CHECKPOINT))
    return [
        SeenPart(
            Location(ChannelId(1), message, AttachmentId(part)), 100, kind, replace(head, part=part), part == parts - 1
        )
        for part in range(parts)
        if part not in missing
    ]


def opened(raw: bytes) -> tuple[PartReader, list[Block]]:
    """A part, read to its end."""
    reader = PartReader(KEY, raw)
    return reader, list(reader.blocks())
