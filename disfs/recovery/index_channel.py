"""What lies in a volume's index channel: which attachments are parts of its journals and checkpoint copies.

Only what opens under the volume key and names the volume counts. Whatever else is there (the superblock, messages of
people, of other bots, of other volumes) is passed over. File names are not looked at: Discord changes them.

What says that it is one of our frames and does not open is passed over too, and counted: nobody vouches for those
bytes, and anybody who may write into the channel could end everything by them. What a later disfs has written is
refused by the version in its header, which is sealed.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.codec import PackCipher, PackKind
from disfs.chunkstore.packer import TRAILER_BYTES, open_directory, stated_version, tail_bytes
from disfs.chunkstore.transport.base import LIST_LIMIT, Urgency
from disfs.errors import CorruptDataError, DisfsError, NotFoundError
from disfs.recovery.chain import SeenPart
from disfs.recovery.frames import Header, PartReader, header_slot, last_part
from disfs.values import Location

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import StoredAttachment, StoredMessage, Transport
    from disfs.values import AttachmentId, ChannelId, MessageId

log = logging.getLogger(__name__)

_WHOLE_BYTES = 128 * 1024
"""A part that is not longer is fetched by one request; of a longer one, its tail and its header."""
_TAIL_BYTES = 16 * 1024
_ATTEMPTS = 3
"""How often what does not open is fetched in all: it may have been damaged on its way."""
_MAX_HEADER_BYTES = 64 * 1024
_AT_ONCE = 8
"""Attachments that are looked at side by side."""
KEEP_BYTES = 64 * 1024 * 1024
"""How much of what is looked at is kept in memory by who reads it all, so that it is not fetched twice."""
UNREADABLE = "damaged, not of this volume, or of a newer disfs; it was passed over"
"""What is said of an attachment that says it is a frame of ours and does not open."""


class IndexChannel:
    """The index channel of one volume, to be read. Errors as of `Transport`, and `NewerFormatError`."""

    def __init__(
        self,
        transport: Transport,
        channel: ChannelId,
        key: VolumeKey,
        volume: bytes,
        kinds: Collection[PackKind] = (PackKind.JOURNAL, PackKind.CHECKPOINT),
        *,
        keep_bytes: int = 0,
    ) -> None:
        """`kinds`: shipments of other kinds are passed over. `keep_bytes`: so much of what was fetched to look at it is

        kept until it is read: journals are short.
        """
        self._kinds = kinds
        self._keep_bytes = keep_bytes
        self._kept: dict[AttachmentId, bytes] = {}
        self._transport = transport
        self._channel = channel
        self._key = key
        self._volume = volume
        self._unreadable: set[AttachmentId] = set()

    @property
    def unreadable_count(self) -> int:
        """Attachments that were seen and passed over though they say that they are frames of ours."""
        return len(self._unreadable)

    async def messages(self, after: MessageId) -> list[StoredMessage]:
        """All messages after one, oldest first."""
        found: list[StoredMessage] = []
        while True:
            page = await self._transport.list_messages(self._channel, after=after, urgency=Urgency.SYNC)
            found += reversed(page)
            if len(page) < LIST_LIMIT:
                return found
            after = page[0].message

    async def parts(self, messages: list[StoredMessage], on_part: Callable[[], None] = lambda: None) -> list[SeenPart]:
        """The parts of this volume's shipments among the attachments of `messages`, in order."""
        candidates = [(message, attachment) for message in messages for attachment in message.attachments]
        found: dict[int, SeenPart] = {}
        failures: list[DisfsError] = []
        queue = iter(enumerate(candidates))

        async def look() -> None:
            for position, (message, attachment) in queue:
                try:
                    part = await self._look_at(message, attachment)
                except DisfsError as error:
                    failures.append(error)  # raised below: a nursery would wrap it
                    nursery.cancel_scope.cancel()
                    return
                if part is not None:
                    found[position] = part
                on_part()

        async with trio.open_nursery() as nursery:
            for _ in range(min(_AT_ONCE, len(candidates))):
                nursery.start_soon(look)
        if failures:
            raise failures[0]
        return [found[position] for position in sorted(found)]

    async def read(self, part: SeenPart) -> PartReader:
        """All of a part. CorruptDataError when it is damaged, however often it is fetched; NotFoundError."""
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(CorruptDataError):
                return await self._read_once(part)
        return await self._read_once(part)

    async def _read_once(self, part: SeenPart) -> PartReader:
        raw = self._kept.pop(part.location.attachment, None)
        if raw is None:
            raw = await self._fetch(part.location, 0, part.size_bytes)
        else:
            self._keep_bytes += len(raw)
        return await trio.to_thread.run_sync(PartReader, self._key, raw)

    async def _look_at(self, message: StoredMessage, attachment: StoredAttachment) -> SeenPart | None:
        location = Location(message.channel, message.message, attachment.attachment)
        for _ in range(_ATTEMPTS):
            try:
                part = await self._look_once(location, attachment.size_bytes)
            except CorruptDataError:
                continue  # damaged on its way, perhaps; or none of ours
            except NotFoundError:
                part = None  # deleted meanwhile
            self._unreadable.discard(location.attachment)
            return part if part is None or part.header.volume == self._volume else None
        if location.attachment in self._unreadable:
            log.warning("message %d of the index channel is %s", location.message, UNREADABLE)
        return None

    async def _look_once(self, location: Location, size_bytes: int) -> SeenPart | None:
        if size_bytes < TRAILER_BYTES:
            return None
        length = size_bytes if size_bytes <= _WHOLE_BYTES else _TAIL_BYTES
        tail = await self._fetch(location, size_bytes - length, length)
        if stated_version(tail) is not None:
            self._unreadable.add(location.attachment)  # until it has been opened
        wanted = tail_bytes(tail)
        if length < wanted <= size_bytes:
            tail = await self._fetch(location, size_bytes - wanted, wanted)
        directory = open_directory(self._key, tail)
        if directory.kind not in self._kinds:
            return None
        entry = header_slot(directory)
        if entry.stored_bytes > min(_MAX_HEADER_BYTES, size_bytes):
            raise CorruptDataError("a header is too long")
        sealed = tail if len(tail) == size_bytes else await self._fetch(location, 0, entry.stored_bytes)
        cipher = PackCipher(self._key, directory.pack, directory.kind)
        plain = cipher.unseal(
            0, memoryview(sealed)[: entry.stored_bytes], compressed=entry.compressed, max_bytes=_MAX_HEADER_BYTES
        )
        if len(tail) == size_bytes and size_bytes <= self._keep_bytes:
            self._kept[location.attachment] = tail
            self._keep_bytes -= size_bytes
        return SeenPart(location, size_bytes, directory.kind, Header.from_bytes(plain), last_part(directory))

    async def _fetch(self, location: Location, start: int, length: int) -> bytes:
        return await self._transport.fetch(location, start, length, urgency=Urgency.SYNC)
