"""Copy chunks out of old packs and seal them into new ones: the reading and sealing half of compaction."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import trio

from disfs.chunkstore.codec import PackCipher
from disfs.chunkstore.packer import SLOT_OVERHEAD_BYTES, PackBuilder, max_pack_bytes, open_directory
from disfs.chunkstore.states import ChunkState
from disfs.chunkstore.transport.base import Urgency
from disfs.errors import CorruptDataError, FilesystemError
from disfs.values import Revision, may_be_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from disfs.chunkstore.cache import Cache
    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.ledger import ChunkLedger
    from disfs.chunkstore.packer import FinishedPack
    from disfs.chunkstore.settings import ChunkStoreSettings
    from disfs.chunkstore.transport.base import Transport
    from disfs.values import ChunkKey, PackId, PackRecord

log = logging.getLogger(__name__)

_STEP_BYTES = 1024 * 1024
"""How much is copied from the cache between two checkpoints: under a millisecond of the main thread."""
_STEP_CHUNKS = 32
_GAP_BYTES = 256 * 1024
"""Ranges that lie no farther apart are fetched by one request: the bytes between them take less time than another."""
_NO_REVISION = Revision(0)
_CACHED = frozenset({ChunkState.CLEAN, ChunkState.RECORDED})
"""States in which the cached content is what the recorded place holds."""


@dataclass(slots=True, eq=False)
class MovingChunk:
    """A live chunk, and the slot that it is copied from."""

    key: ChunkKey
    pack: PackId
    slot: int
    revision: Revision = _NO_REVISION
    plain_bytes: int = 0
    compressed: bool = False
    stored: bytes | None = None
    """Its sealed bytes as they were fetched; None when the cache has its content."""


class _Ready(NamedTuple):
    """A chunk to be sealed: its content, or None when its sealed bytes are to be opened first."""

    chunk: MovingChunk
    plain: bytes | None


class Rewriter:
    """Reads live chunks of packs, and seals them into new packs."""

    def __init__(
        self, ledger: ChunkLedger, transport: Transport, cache: Cache, key: VolumeKey, settings: ChunkStoreSettings
    ) -> None:
        self._ledger = ledger
        self._transport = transport
        self._cache = cache
        self._key = key
        self._settings = settings
        self._limiter = trio.CapacityLimiter(1)

    async def read(self, record: PackRecord, chunks: Sequence[MovingChunk]) -> Sequence[MovingChunk]:
        """Fill in what the pack's directory says of `chunks`, by slot, and the sealed bytes of those not in the cache.

        CorruptDataError when the pack is not what the ledger says; other errors as of `Transport.fetch`.
        """
        slots = record.slots
        directory_start = slots.offset(len(slots))
        absent = [chunk for chunk in chunks if self._cache.map.state(chunk.key) not in _CACHED]
        spans = [(slots.offset(chunk.slot), slots.offset(chunk.slot + 1)) for chunk in absent]
        spans.append((directory_start, record.size_bytes))
        fetched: dict[int, bytes] = {}
        for start, end in merged(spans, self._settings.fetch_bytes):
            raw = await self._transport.fetch(record.location, start, end - start, urgency=Urgency.SWEEP)
            fetched.update(_cut_up(raw, start, spans))
        directory = open_directory(self._key, fetched[directory_start])
        if directory.pack != record.pack or len(directory.entries) != len(slots):
            raise CorruptDataError(f"pack {record.pack.hex()} holds another pack's directory")
        for chunk in chunks:
            entry = directory.entries[chunk.slot]
            if entry.key != chunk.key and not (
                may_be_of(entry.key, chunk.key) and self._ledger.is_renumbered(chunk.key.inode)
            ):
                raise CorruptDataError(f"slot {chunk.slot} of pack {record.pack.hex()} holds another chunk")
            chunk.revision, chunk.plain_bytes, chunk.compressed = entry.revision, entry.plain_bytes, entry.compressed
        for chunk in absent:
            chunk.stored = fetched[slots.offset(chunk.slot)]
        return chunks

    async def seal(
        self, chunks: Sequence[MovingChunk], attachment_bytes: int, message_bytes: int
    ) -> tuple[list[FinishedPack], Mapping[PackId, CorruptDataError]]:
        """As many of `chunks` as one message takes, sealed anew in their order; and the packs that have damaged ones.

        What cannot be read, or is not in the cache any more, is left out. The chunks' sealed bytes are let go.
        """
        packs: list[FinishedPack] = []
        damaged: dict[PackId, CorruptDataError] = {}
        ciphers: dict[PackId, PackCipher] = {}
        rest = list(reversed(chunks))
        while rest and len(packs) < self._settings.attachments_per_message:
            limit = min(attachment_bytes, message_bytes - sum(pack.upload.size_bytes for pack in packs))
            if limit < max_pack_bytes(self._settings.chunk_bytes):
                break
            builder = PackBuilder(self._key, limit_bytes=limit, chunk_bytes=self._settings.chunk_bytes)
            while step := await self._take(builder, rest):
                await trio.to_thread.run_sync(self._add, builder, step, ciphers, damaged, limiter=self._limiter)
            if len(builder):
                packs.append(builder.finish())
        return packs, damaged

    async def _take(self, builder: PackBuilder, rest: list[MovingChunk]) -> list[_Ready]:
        """The next few chunks that fit; empty when the pack is full, or nothing is left. `rest` is in reverse."""
        step: list[_Ready] = []
        taken_bytes = 0
        while rest and taken_bytes < _STEP_BYTES and len(step) < _STEP_CHUNKS:
            chunk = rest[-1]
            plain = None if chunk.stored is not None else await self._cached(chunk)
            if chunk.stored is None and plain is None:
                rest.pop()  # evicted or written meanwhile: it stays where it is
                continue
            length = chunk.plain_bytes if plain is None else len(plain)
            if not builder.has_room(taken_bytes + SLOT_OVERHEAD_BYTES * len(step) + length):
                break
            rest.pop()
            step.append(_Ready(chunk, plain))
            taken_bytes += length
        return step

    async def _cached(self, chunk: MovingChunk) -> bytes | None:
        """The cached content of a chunk that lies in its slot, taken in the step that finds it so."""
        found = await self._ledger.chunks_of_pack(chunk.pack, chunk.slot, 1)
        if not any(live.key == chunk.key for live in found) or self._cache.map.state(chunk.key) not in _CACHED:
            return None
        chunk_bytes = self._settings.chunk_bytes
        try:
            return self._cache.content(chunk.key.inode, chunk.key.chunk * chunk_bytes, chunk_bytes)
        except FilesystemError as error:
            log.warning("cached data of inode %d cannot be read: %s", chunk.key.inode, error)
            return None

    def _add(
        self,
        builder: PackBuilder,
        step: Sequence[_Ready],
        ciphers: dict[PackId, PackCipher],
        damaged: dict[PackId, CorruptDataError],
    ) -> None:
        """In a worker thread: what it changes belongs to one task, which waits."""
        for chunk, plain in step:
            content = plain
            if content is None:
                if chunk.pack not in ciphers:
                    ciphers[chunk.pack] = PackCipher(self._key, chunk.pack)
                assert chunk.stored is not None
                try:
                    content = ciphers[chunk.pack].unseal(
                        chunk.slot, chunk.stored, compressed=chunk.compressed, max_bytes=chunk.plain_bytes
                    )
                except CorruptDataError as error:
                    damaged[chunk.pack] = error
                    continue
                finally:
                    chunk.stored = None
                if len(content) != chunk.plain_bytes:
                    damaged[chunk.pack] = CorruptDataError(f"slot {chunk.slot} is not as long as its directory says")
                    continue
            builder.add(chunk.key, chunk.revision, content)


def merged(spans: Sequence[tuple[int, int]], limit_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most `limit_bytes` (or one span) that cover the spans, which come in order."""
    start, end = spans[0]
    for next_start, next_end in spans[1:]:
        if next_start - end <= _GAP_BYTES and next_end - start <= limit_bytes:
            end = next_end
        else:
            yield start, end
            start, end = next_start, next_end
    yield start, end


def _cut_up(raw: bytes, start: int, spans: Sequence[tuple[int, int]]) -> dict[int, bytes]:
    """Those of the spans that lie in a range which was fetched, by where they begin.

    Copies: a view would keep the garbage between them in memory too, and victims are mostly garbage.
    """
    end = start + len(raw)
    return {first: raw[first - start : last - start] for first, last in spans if start <= first and last <= end}
