"""Which files are on their way to Discord, and how far each of them is. Looks only; a bounded look, however many wait.

A file's share of a message moves as the message does: how much of a message the network has taken says how much of
each of its files. What the network has taken may still have to be sent again, so a file can fall back.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from disfs.chunkstore.acknowledged import nonce_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from disfs.chunkstore.outgoing import Outgoing
    from disfs.chunkstore.presence import ChunkMap
    from disfs.values import ChannelId, InodeNumber

MAX_FILES = 20
"""How many files are told of."""
_LOOKED_AT = 1000
"""Among how many of those that wait the largest are looked for: a fifth of a millisecond."""


@dataclass(frozen=True, slots=True)
class MessageTransfer:
    """A message on its way."""

    channel: ChannelId
    size_bytes: int
    sent_bytes: int
    """How much of it the network has taken."""
    seconds: float
    """Since when it is being sent."""
    file_count: int

    @property
    def bytes_per_second(self) -> float | None:
        """How fast it goes; None while there is nothing to tell it by."""
        return self.sent_bytes / self.seconds if self.sent_bytes and self.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class FileTransfer:
    """A file of which something is not in Discord."""

    inode: InodeNumber
    sent_bytes: int
    """What has arrived since it was last in Discord as a whole, and its part of what the network has taken."""
    total_bytes: int
    """What had to be sent since then: a write of a byte is a chunk."""
    bytes_per_second: float | None
    """How fast its messages bring it; None while none is on its way."""
    sending: bool
    """A part of it is on its way; else it waits."""


@dataclass(frozen=True, slots=True)
class Transfers:
    """What is on its way to Discord, and what waits for it."""

    unsent_files: int
    """How many there are in all."""
    oldest_unsent_seconds: float | None
    """How long ago the oldest unsent change of a file's contents was; None when all is in Discord."""
    messages: tuple[MessageTransfer, ...]
    files: tuple[FileTransfer, ...]
    """Some of them: those on their way first, then the largest that wait."""


class TransferTable:
    """Answers from what writeback and the map of chunks know; keeps nothing."""

    def __init__(self, chunks: ChunkMap, messages: Sequence[Outgoing], taken_bytes: Callable[[str], int]) -> None:
        """`taken_bytes(nonce)`: how much of the message with that nonce the network has taken, 0 if unknown."""
        self._map = chunks
        self._messages = messages
        self._taken_bytes = taken_bytes

    def look(self, now: float) -> Transfers:
        """How things stand. Well under a millisecond."""
        packed = [message for message in self._messages if message.packed and message.packs]
        on_the_way = [(message, self._transfer(message, now)) for message in packed]
        files = [self.file(inode, on_the_way) for inode in self._chosen(packed)]
        return Transfers(
            unsent_files=len(self._map.unsent),
            oldest_unsent_seconds=self._oldest_seconds(now),
            messages=tuple(transfer for _, transfer in on_the_way),
            files=tuple(file for file in files if file is not None),
        )

    def taken_plain_bytes(self) -> int:
        """How much of the contents that are not in Discord yet the network has taken. A few microseconds."""
        return sum(
            message.plain_bytes
            * min(message.size_bytes, self._taken_bytes(nonce_of(message.packs)))
            // message.size_bytes
            for message in self._messages
            if message.packed and message.packs
        )

    def file(self, inode: InodeNumber, on_the_way: Iterable[tuple[Outgoing, MessageTransfer]]) -> FileTransfer | None:
        """One file; None when all of it is in Discord."""
        chunks = self._map.unsent.get(inode)
        if chunks is None:
            return None
        taken, speed = 0.0, 0.0
        for message, transfer in on_the_way:
            share = message.shares.get(inode, 0)
            if share:
                # In bytes of the file: what is sent is sealed, and mostly shorter.
                taken += share * transfer.sent_bytes / transfer.size_bytes
                speed += share * (transfer.bytes_per_second or 0.0) / transfer.size_bytes
        # What was written again, or cut, while it was on its way is counted twice by the message.
        taken = min(taken, chunks.unsent_bytes)
        return FileTransfer(
            inode,
            chunks.sent_bytes + int(taken),
            chunks.sent_bytes + chunks.unsent_bytes,
            speed or None,
            chunks.sending_count > 0,
        )

    def on_the_way(self, inode: InodeNumber, now: float) -> FileTransfer | None:
        """One file by its number; None when all of it is in Discord."""
        packed = [message for message in self._messages if message.packed and inode in message.shares]
        return self.file(inode, [(message, self._transfer(message, now)) for message in packed if message.packs])

    def _transfer(self, message: Outgoing, now: float) -> MessageTransfer:
        taken = min(message.size_bytes, self._taken_bytes(nonce_of(message.packs)))
        seconds = max(0.0, now - message.began_at)
        return MessageTransfer(message.channel.channel, message.size_bytes, taken, seconds, len(message.shares))

    def _chosen(self, packed: Sequence[Outgoing]) -> list[InodeNumber]:
        chosen = dict.fromkeys(islice(_in_turn(packed), MAX_FILES))
        if len(chosen) < MAX_FILES:
            waiting = [chunks for chunks in islice(self._map.unsent.values(), _LOOKED_AT) if chunks.inode not in chosen]
            waiting.sort(key=lambda chunks: chunks.unsent_bytes, reverse=True)
            chosen.update(dict.fromkeys(chunks.inode for chunks in waiting[: MAX_FILES - len(chosen)]))
        return list(chosen)

    def _oldest_seconds(self, now: float) -> float | None:
        waiting = next(iter(self._map.waiting.by_age.values()), None)
        times = [message.oldest for message in self._messages if message.copies]
        if waiting is not None:
            times.append(waiting.dirty_since)
        return max(0.0, now - min(times)) if times else None


def _in_turn(packed: Sequence[Outgoing]) -> Iterator[InodeNumber]:
    """The first few files of each message."""
    each = -(-MAX_FILES // max(1, len(packed)))
    for message in packed:
        yield from islice(message.shares, each)
