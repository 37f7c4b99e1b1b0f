"""A ChunkLedger in dicts that can crash: what was not committed is forgotten, as after kill -9.

`sizes` and `names` stand for the metadata that shares the ledger's transactions, so that a test can hold "contents and
size agree" against every crash. It passes the same contract suite as the real one.
"""

from __future__ import annotations

import copy
import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from disfs.errors import FilesystemError
from disfs.spans import chunk_range
from disfs.values import (
    ChunkIndex,
    ChunkKey,
    DeadMessage,
    DirtyChunk,
    Extent,
    LiveChunk,
    MessageId,
    Recorded,
    Revision,
    SparseMessage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from disfs.values import ChannelId, InodeNumber, PackId, PackRecord, SentPack


@dataclass
class LedgerState:
    """Everything that a transaction may change."""

    revision: int = 0
    dirty: dict[ChunkKey, tuple[int, int]] = field(default_factory=dict)
    where: dict[ChunkKey, tuple[PackId, int]] = field(default_factory=dict)
    packs: dict[PackId, PackRecord] = field(default_factory=dict)
    sent: set[PackId] = field(default_factory=set)
    dead: dict[tuple[ChannelId, MessageId], None] = field(default_factory=dict)
    sizes: dict[InodeNumber, int] = field(default_factory=dict)
    examined: dict[ChannelId, MessageId] = field(default_factory=dict)
    pins: set[InodeNumber] = field(default_factory=set)
    small: dict[InodeNumber, bytes] = field(default_factory=dict)


class FakeLedger:
    """See `ChunkLedger`."""

    def __init__(self, chunk_bytes: int = 4096) -> None:
        self.chunk_bytes = chunk_bytes
        self.state = LedgerState()
        self.committed = LedgerState()
        self.names: dict[InodeNumber, bytes] = {}
        self.durable_count = 0
        self.is_full = False
        """Whether a write into a hole is refused: the volume is as large as it may be. (Tails take nothing here.)"""

    def commit(self) -> None:
        """The group commit."""
        self.committed = copy.deepcopy(self.state)

    def crash(self) -> None:
        """kill -9: what was not committed never happened."""
        self.state = copy.deepcopy(self.committed)

    async def size_of(self, inode: InodeNumber) -> int | None:
        """The recorded size, as `ChunkStore.start` asks for it."""
        return self.state.sizes.get(inode)

    def is_empty(self, inode: InodeNumber) -> bool:
        """See `ChunkLedger.is_empty`: without sizes, a file without a chunk."""
        return not any(key.inode == inode for key in (*self.state.dirty, *self.state.where))

    def check_room(self, inode: InodeNumber, offset: int, length: int) -> None:
        """See `ChunkLedger.check_room`."""
        touched = {ChunkKey(inode, ChunkIndex(index)) for index in chunk_range(offset, length, self.chunk_bytes)}
        if self.is_full and not touched <= {*self.state.dirty, *self.state.where}:
            raise FilesystemError(errno.ENOSPC)

    def mark_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> Revision:
        """See `ChunkLedger.mark_dirty`."""
        assert count >= 1
        self.state.revision += 1
        for index in range(first, first + count):
            key = ChunkKey(inode, ChunkIndex(index))
            _, born = self.state.dirty.get(key, (0, self.state.revision))
            self.state.dirty[key] = (self.state.revision, born)
        return Revision(self.state.revision)

    def renew_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> Revision:
        """See `ChunkLedger.renew_dirty`."""
        assert all(ChunkKey(inode, ChunkIndex(index)) in self.state.dirty for index in range(first, first + count))
        return self.mark_dirty(inode, first, count)

    def dirty_chunks(self) -> Sequence[DirtyChunk]:
        """See `ChunkLedger.dirty_chunks`."""
        rows = sorted(self.state.dirty.items())
        return [DirtyChunk(key, Revision(revision), Revision(born)) for key, (revision, born) in rows]

    def write_small(self, inode: InodeNumber, content: bytes) -> Revision:
        """See `ChunkLedger.write_small`."""
        self.keep_small(inode, content)
        return self.mark_dirty(inode, ChunkIndex(0), 1)

    def keep_small(self, inode: InodeNumber, content: bytes) -> None:
        """See `ChunkLedger.keep_small`."""
        assert content
        self.state.small[inode] = bytes(content)

    def remove_small(self, inode: InodeNumber) -> None:
        """See `ChunkLedger.remove_small`."""
        self.state.small.pop(inode, None)

    def small_content(self, inode: InodeNumber) -> bytes:
        """See `ChunkLedger.small_content`."""
        return self.state.small.get(inode, b"")

    def small_lengths(self) -> Sequence[tuple[InodeNumber, int]]:
        """See `ChunkLedger.small_lengths`."""
        return [(inode, len(content)) for inode, content in sorted(self.state.small.items())]

    def cut_chunks(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """See `ChunkLedger.cut_chunks`."""
        for key in [key for key in self.state.dirty if key.inode == inode and key.chunk >= first]:
            del self.state.dirty[key]
        for key in [key for key in self.state.where if key.inode == inode and key.chunk >= first]:
            del self.state.where[key]
        self._bury()

    def is_renumbered(self, inode: InodeNumber) -> bool:
        """Nothing is ever emptied here that could be restored."""
        return False

    def discard(self, inode: InodeNumber) -> None:
        """See `ChunkLedger.discard`."""
        self.cut_chunks(inode, ChunkIndex(0))
        self.remove_small(inode)

    def cut_point(self, inode: InodeNumber, count: int) -> ChunkIndex:
        """See `ChunkLedger.cut_point`."""
        chunks = sorted(key.chunk for key in {*self.state.dirty, *self.state.where} if key.inode == inode)
        return chunks[-count] if len(chunks) > count else ChunkIndex(0)

    async def extents(self, inode: InodeNumber, first: ChunkIndex, last: ChunkIndex) -> Sequence[Extent]:
        """See `ChunkLedger.extents`."""
        found: list[Extent] = []
        for key in sorted(k for k in self.state.where if k.inode == inode and first <= k.chunk <= last):
            pack, slot = self.state.where[key]
            before = found[-1] if found else None
            if (
                before is not None
                and before.pack == pack
                and before.first_chunk + before.count == key.chunk
                and before.first_slot + before.count == slot
            ):
                found[-1] = Extent(inode, before.first_chunk, before.count + 1, pack, before.first_slot)
            else:
                found.append(Extent(inode, key.chunk, 1, pack, slot))
        return found

    def has_recorded(self, inode: InodeNumber, first: ChunkIndex, count: int) -> bool:
        """See `ChunkLedger.has_recorded`."""
        return any(ChunkKey(inode, ChunkIndex(index)) in self.state.where for index in range(first, first + count))

    async def pack(self, pack: PackId) -> PackRecord:
        """See `ChunkLedger.pack`."""
        return self.state.packs[pack]

    async def record_packs(self, packs: Sequence[SentPack]) -> Recorded:
        """See `ChunkLedger.record_packs`."""
        clean: list[ChunkKey] = []
        still_dirty: list[ChunkKey] = []
        dropped: list[ChunkKey] = []
        ids = [sent.record.pack for sent in packs]
        if len(set(ids)) != len(ids) or any(pack in self.state.packs for pack in ids):
            raise ValueError("a pack is recorded once")
        for sent in packs:
            self.state.packs[sent.record.pack] = sent.record
            for slot, chunk in enumerate(sent.chunks):
                revision, born = self.state.dirty.get(chunk.key, (0, 1 << 63))
                if chunk.revision < born:
                    dropped.append(chunk.key)
                    continue
                self.state.where[chunk.key] = (sent.record.pack, slot)
                if chunk.revision == revision:
                    del self.state.dirty[chunk.key]
                    clean.append(chunk.key)
                else:
                    self.state.dirty[chunk.key] = (revision, chunk.revision + 1)
                    still_dirty.append(chunk.key)
        self._bury()
        return Recorded(tuple(clean), tuple(still_dirty), tuple(dropped))

    def _bury(self) -> None:
        live = {self._message(pack) for pack, _ in self.state.where.values()}
        messages = dict.fromkeys(self._message(pack) for pack in self.state.packs)
        self.state.dead = {
            **{message: None for message in self.state.dead if message in messages and message not in live},
            **{message: None for message in messages if message not in live and message not in self.state.dead},
        }

    def _message(self, pack: PackId) -> tuple[ChannelId, MessageId]:
        location = self.state.packs[pack].location
        return location.channel, location.message

    async def dead_messages(self, limit: int) -> Sequence[DeadMessage]:
        """See `ChunkLedger.dead_messages`."""
        found = []
        for message in list(self.state.dead)[:limit]:
            packs = [pack for pack in self.state.packs if self._message(pack) == message]
            found.append(DeadMessage(self.state.packs[packs[0]].location, tuple(packs), Revision(0)))
        return found

    async def forget_messages(self, messages: Sequence[DeadMessage]) -> None:
        """See `ChunkLedger.forget_messages`."""
        for message in messages:
            for pack in message.packs:
                self.state.packs.pop(pack, None)
        self._bury()

    async def record_in_steps(self, packs: Sequence[SentPack], on_step: Callable[[Recorded], None]) -> None:
        """See `ChunkLedger.record_in_steps`; one step is allowed."""
        on_step(await self.record_packs(packs))

    async def record_moved(self, packs: Sequence[SentPack], origins: Mapping[ChunkKey, tuple[PackId, int]]) -> int:
        """See `ChunkLedger.record_moved`."""
        moved = 0
        if any(sent.record.pack in self.state.packs for sent in packs):
            raise ValueError("a pack is recorded once")
        for sent in packs:
            self.state.packs[sent.record.pack] = sent.record
            for slot, chunk in enumerate(sent.chunks):
                if self.state.where.get(chunk.key) == origins[chunk.key]:
                    self.state.where[chunk.key] = (sent.record.pack, slot)
                    moved += 1
        self._bury()
        return moved

    async def sparse_messages(self, limit: int) -> Sequence[SparseMessage]:
        """See `ChunkLedger.sparse_messages`."""
        sizes: dict[tuple[ChannelId, MessageId], int] = {}
        live: dict[tuple[ChannelId, MessageId], int] = {}
        for pack, record in self.state.packs.items():
            sizes[self._message(pack)] = sizes.get(self._message(pack), 0) + record.slots.offset(len(record.slots))
        for pack, slot in self.state.where.values():
            stored = self.state.packs[pack].slots.stored_length(slot)
            live[self._message(pack)] = live.get(self._message(pack), 0) + stored
        found = [SparseMessage(*name, sizes[name], live[name]) for name in live if live[name] * 2 < sizes[name]]
        return sorted(found, key=lambda sparse: -sparse.garbage_bytes)[:limit]

    async def packs_of_message(self, message: MessageId) -> Sequence[PackId]:
        """See `ChunkLedger.packs_of_message`."""
        return [pack for pack, record in self.state.packs.items() if record.location.message == message]

    async def chunks_of_pack(self, pack: PackId, first_slot: int, count: int) -> Sequence[LiveChunk]:
        """See `ChunkLedger.chunks_of_pack`."""
        found = [LiveChunk(key, name, slot) for key, (name, slot) in self.state.where.items() if name == pack]
        return sorted((c for c in found if first_slot <= c.slot < first_slot + count), key=lambda chunk: chunk.slot)

    async def unknown_messages(self, messages: Sequence[MessageId]) -> frozenset[MessageId]:
        """See `ChunkLedger.unknown_messages`."""
        return frozenset(messages) - {record.location.message for record in self.state.packs.values()}

    def note_sending(self, packs: Sequence[PackId]) -> None:
        """See `ChunkLedger.note_sending`. Committed at once: a send takes longer than a group commit."""
        for state in (self.state, self.committed):
            state.sent.update(packs)

    def has_sent(self, pack: PackId) -> bool:
        """See `ChunkLedger.has_sent`."""
        return pack in self.state.sent

    def unrecorded_sends(self) -> frozenset[PackId]:
        """See `ChunkLedger.unrecorded_sends`."""
        return frozenset(self.state.sent - self.state.packs.keys())

    def examined(self, channel: ChannelId) -> MessageId:
        """See `ChunkLedger.examined`."""
        return self.state.examined.get(channel, MessageId(0))

    def set_examined(self, channel: ChannelId, message: MessageId) -> None:
        """See `ChunkLedger.set_examined`."""
        self.state.examined[channel] = message

    def pinned_inodes(self) -> frozenset[InodeNumber]:
        """See `ChunkLedger.pinned_inodes`."""
        return frozenset(self.state.pins)

    def set_pinned(self, inodes: Iterable[InodeNumber], pinned: bool) -> None:
        """See `ChunkLedger.set_pinned`."""
        if pinned:
            self.state.pins.update(inodes)
        else:
            self.state.pins.difference_update(inodes)

    async def paths(self, inode: InodeNumber) -> Sequence[bytes]:
        """See `ChunkLedger.paths`."""
        return [self.names[inode]] if inode in self.names else []

    async def make_durable(self) -> None:
        """See `ChunkLedger.make_durable`; it suspends, as the real one does."""
        self.commit()
        self.durable_count += 1
        await trio.lowlevel.checkpoint()
