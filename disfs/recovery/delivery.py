"""Sends a shipment, message by message; what has arrived is not sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.transport.base import UPLOAD_LIMIT, Upload
from disfs.errors import CorruptDataError
from disfs.message_texts import shipment_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from disfs.chunkstore.transport.base import Transport, Urgency
    from disfs.recovery.building import Built
    from disfs.recovery.frames import Part
    from disfs.values import ChannelId, MessageId

_NONCE_DIGITS = 20


class Delivery:
    """Brings shipments to the index channel."""

    def __init__(
        self,
        transport: Transport,
        channel: ChannelId,
        volume_name: str,
        *,
        message_bytes: int,
        on_message: Callable[[MessageId], None],
    ) -> None:
        """`on_message` is told of each message in the step in which its acknowledgement comes."""
        self._transport = transport
        self._channel = channel
        self._volume_name = volume_name
        self._message_bytes = message_bytes
        self._on_message = on_message
        self.sent_bytes = 0

    async def send(self, built: Built, urgency: Urgency) -> None:
        """Return when Discord has acknowledged every part. Errors as of `Transport.send`; a repeat goes on."""
        for number, parts in enumerate(self._messages(built.parts)):
            indices = [index for index, part in enumerate(built.parts) if part in parts]
            if all(index in built.messages for index in indices):
                continue
            contents = await trio.to_thread.run_sync(_read, built, parts)
            stored = await self._transport.send(
                self._channel,
                [Upload(part.name, (content,)) for part, content in zip(parts, contents, strict=True)],
                nonce=f"{built.header.shipment.hex()[:_NONCE_DIGITS]}{number:04x}",
                content=self._content(built),
                urgency=urgency,
            )
            if [each.size_bytes for each in stored.attachments] != [part.size_bytes for part in parts]:
                raise CorruptDataError("Discord acknowledged other attachments than were sent")
            self._on_message(stored.message)
            built.messages.update(dict.fromkeys(indices, stored.message))
            self.sent_bytes += sum(part.size_bytes for part in parts)

    def _content(self, built: Built) -> str:
        what = {PackKind.JOURNAL: "journal", PackKind.SNAPSHOT: "snapshot"}.get(built.kind, "checkpoint copy")
        return shipment_text(self._volume_name, what, built.header.sequence)

    def _messages(self, parts: Sequence[Part]) -> list[list[Part]]:
        """Which parts go together: always the same ones, so that a nonce stands for the same message."""
        messages: list[list[Part]] = []
        size_bytes = 0
        for part in parts:
            full = len(messages[-1]) == UPLOAD_LIMIT if messages else True
            if full or size_bytes + part.size_bytes > self._message_bytes:
                messages.append([])
                size_bytes = 0
            messages[-1].append(part)
            size_bytes += part.size_bytes
        return messages


def _read(built: Built, parts: Sequence[Part]) -> list[bytes]:
    return [built.read(part) for part in parts]
