"""The last resort: contents by inode number, from the packs alone.

A pack explains itself: its directory says whose chunks it holds, and in which revision. So with the volume key all
contents can be found again, though not what they were called: each inode becomes a file of its own in
`lost+found`, readable by its owner alone. How long a file was is known to the chunk's end only, and what was deleted
and not yet swept comes back too.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

import trio

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.packer import TRAILER_BYTES, open_directory, tail_bytes
from disfs.chunkstore.transport.base import LIST_LIMIT, Urgency
from disfs.errors import CorruptDataError, ExitCode, NotFoundError, UserError
from disfs.metadata.completing import Origin
from disfs.metadata.replicated import Block, Table
from disfs.metadata.restoring import Restoration
from disfs.metadata.shipping import NO_STATE
from disfs.metadata.snapshot import BLOCK_ROWS
from disfs.recovery.chain import Chain, gather
from disfs.recovery.frames import MAX_SUPERSEDED
from disfs.recovery.rebuild import Progress, Report
from disfs.values import ROOT_INODE, Location, MessageId, SlotTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.packer import PackDirectory
    from disfs.chunkstore.transport.base import StoredAttachment, Transport
    from disfs.recovery.index_channel import IndexChannel
    from disfs.values import ChannelId

LOST_AND_FOUND = b"lost+found"
_ATTEMPTS = 3
_GUESSED_TAIL_BYTES = 16 * 1024
_AT_ONCE = 8


class SalvagedPack(NamedTuple):
    """A pack of the volume, and where it lies."""

    location: Location
    size_bytes: int
    directory: PackDirectory


class _Place(NamedTuple):
    revision: int
    pack: int
    slot: int


def contents_of(packs: Sequence[SalvagedPack]) -> dict[tuple[int, int], _Place]:
    """Where the newest revision of each chunk lies, by (inode, chunk); packs by their position. Pure."""
    newest: dict[tuple[int, int], _Place] = {}
    for number, pack in enumerate(packs):
        for slot, entry in enumerate(pack.directory.entries):
            key = (entry.key.inode, entry.key.chunk)
            known = newest.get(key)
            if known is None or known.revision < entry.revision:
                newest[key] = _Place(entry.revision, number, slot)
    return newest


def salvaged_blocks(packs: Sequence[SalvagedPack], chunk_bytes: int, now_ns: int) -> Iterator[Block]:
    """The rows of a volume that has nothing but these contents, each inode as a file in `lost+found`. Pure."""
    newest = contents_of(packs)
    sizes: dict[int, int] = {}
    for (inode, chunk), place in newest.items():
        end = chunk * chunk_bytes + packs[place.pack].directory.entries[place.slot].plain_bytes
        sizes[inode] = max(sizes.get(inode, 0), end)
    directory = max(sizes, default=ROOT_INODE) + 1
    uid, gid = os.getuid(), os.getgid()
    times = (now_ns, now_ns, now_ns)
    yield from _blocks(
        Table.INODES,
        [
            (ROOT_INODE, stat.S_IFDIR | 0o755, 3, uid, gid, 0, 0, *times, b""),
            (directory, stat.S_IFDIR | 0o700, 2, uid, gid, 0, 0, *times, b""),
            *((inode, stat.S_IFREG | 0o600, 1, uid, gid, 0, sizes[inode], *times, b"") for inode in sorted(sizes)),
        ],
    )
    names = [(directory, inode, cookie, b"inode-%d" % inode) for cookie, inode in enumerate(sorted(sizes), 4)]
    yield from _blocks(Table.NAMES, [(ROOT_INODE, directory, 3, LOST_AND_FOUND), *names])
    for number, pack in enumerate(packs):
        location, entries = pack.location, pack.directory.entries
        slots = SlotTable([entry.stored_bytes for entry in entries], [entry.compressed for entry in entries])
        ids = (number, location.message, location.channel, location.attachment, pack.size_bytes)
        yield from _blocks(Table.PACKS, [(*ids, pack.directory.pack, slots.to_bytes())])
    yield from _blocks(
        Table.EXTENTS,
        [
            (inode, chunk, 1, place.pack, place.slot, packs[place.pack].directory.entries[place.slot].stored_bytes)
            for (inode, chunk), place in sorted(newest.items())
        ],
    )


def _blocks(table: Table, rows: Sequence[tuple[object, ...]]) -> Iterator[Block]:
    for start in range(0, len(rows), BLOCK_ROWS):
        yield Block.of_rows(table, rows[start : start + BLOCK_ROWS])


class PackSearch:
    """Looks through the data channels of a volume."""

    def __init__(self, transport: Transport, channels: Sequence[ChannelId], key: VolumeKey) -> None:
        self._transport = transport
        self._channels = channels
        self._key = key
        self.unusable_count = 0
        """Attachments that are no pack of this volume, or too damaged to say so."""

    async def packs(self, on_progress: Callable[[Progress], None]) -> list[SalvagedPack]:
        """Every pack that opens, oldest message first. Errors as of `Transport`; a channel that is gone is empty."""
        found: list[tuple[Location, StoredAttachment]] = []
        for channel in self._channels:
            with contextlib.suppress(NotFoundError):
                found += await self._attachments(channel)
            on_progress(Progress("listing", len(found), 0))
        found.sort(key=lambda each: each[0].message)
        packs: dict[int, SalvagedPack] = {}
        failures: list[Exception] = []
        queue = iter(enumerate(found))

        async def look() -> None:
            for position, (location, attachment) in queue:
                try:
                    directory = await self._open(location, attachment)
                except (CorruptDataError, NotFoundError):
                    self.unusable_count += 1
                except Exception as error:  # raised below, as it is: a nursery would wrap it
                    failures.append(error)
                    nursery.cancel_scope.cancel()
                    return
                else:
                    packs[position] = SalvagedPack(location, attachment.size_bytes, directory)
                on_progress(Progress("looking through packs", position + 1, len(found)))

        async with trio.open_nursery() as nursery:
            for _ in range(min(_AT_ONCE, len(found))):
                nursery.start_soon(look)
        if failures:
            raise failures[0]
        return _without_doubles(packs[position] for position in sorted(packs))

    async def _attachments(self, channel: ChannelId) -> list[tuple[Location, StoredAttachment]]:
        found: list[tuple[Location, StoredAttachment]] = []
        after = MessageId(0)
        while True:
            page = await self._transport.list_messages(channel, after=after, urgency=Urgency.SYNC)
            found += [
                (Location(channel, message.message, attachment.attachment), attachment)
                for message in page
                for attachment in message.attachments
            ]
            if len(page) < LIST_LIMIT:
                return found
            after = page[0].message

    async def _open(self, location: Location, attachment: StoredAttachment) -> PackDirectory:
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(CorruptDataError):
                return await self._open_once(location, attachment)
        return await self._open_once(location, attachment)

    async def _open_once(self, location: Location, attachment: StoredAttachment) -> PackDirectory:
        if attachment.size_bytes < TRAILER_BYTES:
            raise CorruptDataError("too short for a pack")
        length = min(attachment.size_bytes, _GUESSED_TAIL_BYTES)
        tail = await self._tail(location, attachment.size_bytes, length)
        wanted = tail_bytes(tail)
        if length < wanted <= attachment.size_bytes:
            tail = await self._tail(location, attachment.size_bytes, wanted)
        directory = open_directory(self._key, tail)
        if directory.kind is not PackKind.CHUNKS:
            raise CorruptDataError("it holds no contents")
        return directory

    async def _tail(self, location: Location, size_bytes: int, length: int) -> bytes:
        return await self._transport.fetch(location, size_bytes - length, length, urgency=Urgency.SYNC)


def _without_doubles(packs: Iterable[SalvagedPack]) -> list[SalvagedPack]:
    """A pack may have been stored twice."""
    return list({pack.directory.pack: pack for pack in packs}.values())


async def salvage(
    search: PackSearch,
    index: IndexChannel,
    path: Path,
    *,
    volume: bytes,
    chunk_bytes: int,
    settings: Mapping[str, str],
    on_progress: Callable[[Progress], None],
) -> Report:
    """Make the database at `path`, where there is no file, from the packs. VOLUME_DAMAGED when there is none.

    What the index channel still has of names is left behind, so that a later recovery takes what is made now. Storage
    errors as of `Transport`. A file that is left behind by an error is of no use.
    """
    packs = await search.packs(on_progress)
    if not packs:
        raise UserError("there is no pack of this volume in its data channels", ExitCode.VOLUME_DAMAGED)
    messages = await index.messages(MessageId(0))
    chain = Chain(gather(await index.parts(messages)))
    superseded = chain.superseded_by(None)[:MAX_SUPERSEDED]
    newest = messages[-1].message if messages else MessageId(0)
    now_ns = time.time_ns()
    revision = max((entry.revision for pack in packs for entry in pack.directory.entries), default=0) + 1
    origin = Origin(volume, chunk_bytes, NO_STATE, 0, superseded, {"revision": revision}, (), newest, settings)
    restoration = await trio.to_thread.run_sync(Restoration, path)
    try:
        for block in salvaged_blocks(packs, chunk_bytes, now_ns):
            await trio.to_thread.run_sync(restoration.apply, block)
        rebuilt = await trio.to_thread.run_sync(restoration.finish, origin)
    finally:
        restoration.close()
    missing = [f"all names and attributes: contents are in {LOST_AND_FOUND.decode()}, by inode number"]
    if search.unusable_count:
        missing.append(f"{search.unusable_count} attachments are no packs of this volume, or damaged")
    return Report(rebuilt, 0, now_ns, 0, tuple(missing))
