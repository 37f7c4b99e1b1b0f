"""What the emulator stores: channels, messages, attachments."""

from __future__ import annotations

from dataclasses import dataclass

TEXT_CHANNEL = 0
CATEGORY = 4


@dataclass(frozen=True, slots=True)
class Channel:
    """A text channel or a category."""

    id: int
    type: int
    name: str
    topic: str | None
    parent: int | None
    position: int
    nsfw: bool = False
    slowmode: int = 0
    last_message: int | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file of a message; its bytes lie in the blob of the same id."""

    id: int
    message: int
    channel: int
    ordinal: int
    filename: str
    title: str | None
    description: str | None
    content_type: str | None
    size: int
    removed_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message with those attachments that it still has."""

    id: int
    channel: int
    author: int
    content: str
    flags: int
    nonce: str | None
    edited_ms: int | None
    deleted_ms: int | None
    attachments: tuple[Attachment, ...]
