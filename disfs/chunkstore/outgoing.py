"""One message on its way out: chunks are copied from the cache, sealed into packs, and given back if it fails.

A copy of a chunk is taken together with its revision in one step of the main thread, where all writers are, so it is
never torn. Writers go on meanwhile: a chunk that is written again while its copy is on its way stays dirty.
Sealing is done in worker threads; the main thread only reads the cache, a little at a time.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import trio

from disfs.chunkstore.naming import name_of
from disfs.chunkstore.packer import SLOT_OVERHEAD_BYTES, PackBuilder
from disfs.chunkstore.states import ChunkEvent, ChunkState
from disfs.errors import FilesystemError, MetadataDamagedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.channels import DataChannel
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.packer import FinishedPack
    from disfs.chunkstore.presence import ChunkMap
    from disfs.chunkstore.selection import Choice
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.chunkstore.sizes import SizeLimits
    from disfs.values import ChunkKey, InodeNumber, Revision

log = logging.getLogger(__name__)

_STEP_BYTES = 256 * 1024
_STEP_CHUNKS = 16
_STEP_LOOKS = 512
_STEP_RELEASES = 64
"""How much is copied, from how many chunks and out of how many that wait, or given back, between two checkpoints: each
is under a millisecond of the main thread."""


class _Copy(NamedTuple):
    key: ChunkKey
    revision: Revision
    plain: bytes


@dataclass(slots=True, eq=False)
class Outgoing:
    """What one message has taken so far."""

    limit_bytes: int
    """It is full when its packs take so much."""
    channel: DataChannel
    began_at: float
    copies: dict[ChunkKey, Revision] = field(default_factory=dict)
    """What is not recorded yet. One that is cut and written anew meanwhile is another message's."""
    packs: list[FinishedPack] = field(default_factory=list)
    plain_bytes: int = 0
    shares: dict[InodeNumber, int] = field(default_factory=dict)
    """How much of `plain_bytes` is whose."""
    oldest: float = float("inf")
    """Since when the oldest of its chunks is dirty."""
    urgent: bool = False
    """Somebody waits for one of its chunks."""
    packed: bool = False
    size_bytes: int = 0
    """What its packs take."""

    def took(self, inode: InodeNumber, plain_bytes: int, dirty_since: float) -> None:
        """A copy of another chunk is in it."""
        self.plain_bytes += plain_bytes
        self.shares[inode] = self.shares.get(inode, 0) + plain_bytes
        self.oldest = min(self.oldest, dirty_since)

    def add(self, pack: FinishedPack) -> None:
        """Another pack is full."""
        self.packs.append(pack)
        self.size_bytes += pack.upload.size_bytes

    @property
    def memory_bytes(self) -> int:
        """What it takes in memory, or may take as long as it is being packed."""
        return self.size_bytes if self.packed else self.limit_bytes


class Packing:
    """Fills messages."""

    def __init__(
        self, ledger: ChunkLedger, cache: Cache, key: VolumeKey, settings: ChunkStoreSettings, sizes: SizeLimits
    ) -> None:
        self._ledger = ledger
        self._cache = cache
        self._lost: list[tuple[ChunkKey, FilesystemError]] = []
        """What the log still has to name."""
        self._key = key
        self._settings = settings
        self._sizes = sizes
        self._limiter = trio.CapacityLimiter(settings.seal_threads)

    async def fill(self, message: Outgoing, choice: Choice) -> None:
        """Fill packs with the chosen chunks until the message is full. Whatever happens, `release` it in the end."""
        while not choice.exhausted and len(message.packs) < self._settings.attachments_per_message:
            limit = min(self._sizes.attachment_bytes, message.limit_bytes - message.size_bytes)
            if limit < self._sizes.floor_bytes:
                break
            builder = PackBuilder(self._key, limit_bytes=limit, chunk_bytes=self._settings.chunk_bytes)
            while (copies := await self._copy_in_turn(builder, choice, message)) is not None:
                if copies:
                    await trio.to_thread.run_sync(_seal, builder, copies, limiter=self._limiter)
            if len(builder):
                message.add(await trio.to_thread.run_sync(builder.finish, limiter=self._limiter))
        message.packed = True

    async def _copy_in_turn(self, builder: PackBuilder, choice: Choice, message: Outgoing) -> list[_Copy] | None:
        async with self._cache.bulk_step:
            copies = self._copy(builder, choice, message)
        while self._lost:
            key, error = self._lost.pop()
            name = await name_of(self._ledger, key.inode)
            log.error(
                "unsent data of chunk %d of %s is lost; overwrite the file or delete it: %s", key.chunk, name, error
            )
        return copies

    def _copy(self, builder: PackBuilder, choice: Choice, message: Outgoing) -> list[_Copy] | None:
        """Copies of the next few chunks, each with its revision, in one step; None when the pack is full or all is
        in it."""
        chunks = self._cache.map
        copies: list[_Copy] = []
        copied_bytes = 0
        choice.look(_STEP_LOOKS)
        if choice.exhausted:
            return None
        while choice.ready and copied_bytes < _STEP_BYTES and len(copies) < _STEP_CHUNKS:
            key = choice.ready[0]
            entry = chunks.entry(key)
            if entry is None or entry.state is not ChunkState.DIRTY or key in message.copies:
                # It was cut while we were sealing. Written anew it goes with the next message: a pack has a chunk once.
                choice.take()
                continue
            length = self._cache.content_length(key)
            if not builder.has_room(copied_bytes + SLOT_OVERHEAD_BYTES * len(copies) + length):
                return copies or None
            choice.take()
            plain = self._content(key)
            if plain is not None:
                message.urgent |= chunks.waiting.is_urgent(entry)
                chunks.move(key, ChunkEvent.SEND)
                entry.sent_revision = entry.revision
                message.copies[key] = entry.revision
                message.took(key.inode, len(plain), entry.dirty_since)
                copies.append(_Copy(key, entry.revision, plain))
                copied_bytes += len(plain)
        return copies

    def _content(self, key: ChunkKey) -> bytes | None:
        chunk_bytes = self._settings.chunk_bytes
        try:
            return self._cache.content(key.inode, key.chunk * chunk_bytes, chunk_bytes)
        except FilesystemError as error:
            damaged = isinstance(error, MetadataDamagedError)
            if error.errno != errno.EIO or (self._cache.map.inodes[key.inode].is_small and not damaged):
                raise  # no descriptor, no memory, a ledger that stopped: the bytes are there, and can be read later
            self._lost.append((key, error))
            self._cache.map.move(key, ChunkEvent.LOSE)
            self._cache.changed.unpark_all()
            return None

    async def give_back(self, message: Outgoing) -> None:
        """`release` in short steps, for a message that failed."""
        while message.copies:
            self._release(message, _STEP_RELEASES)
            await trio.lowlevel.checkpoint()

    def release(self, message: Outgoing) -> None:
        """Whatever was taken and is not recorded is dirty again."""
        self._release(message, len(message.copies))

    def _release(self, message: Outgoing, count: int) -> None:
        for _ in range(min(count, len(message.copies))):
            key, revision = message.copies.popitem()  # the last one first: each goes to the head of the queues
            if is_sending(self._cache.map, key, revision):
                self._cache.map.move(key, ChunkEvent.FAIL)


def is_sending(chunks: ChunkMap, key: ChunkKey, revision: Revision) -> bool:
    """Whether the copy of that revision, and not one of an earlier or later life of the chunk, is on its way."""
    entry = chunks.entry(key)
    sending = {ChunkState.SENDING, ChunkState.REWRITTEN}
    return entry is not None and entry.state in sending and entry.sent_revision == revision


def _seal(builder: PackBuilder, copies: Sequence[_Copy]) -> None:
    """In a worker thread; the builder belongs to one task, which waits."""
    for copy in copies:
        builder.add(copy.key, copy.revision, copy.plain)
