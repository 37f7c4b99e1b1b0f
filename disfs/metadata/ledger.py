"""The half of the metadata store that answers ChunkLedger: which chunks there are, dirty and recorded, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.metadata.components import Components
from disfs.values import FIRST_VIEW_INODE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from disfs.values import (
        ChannelId,
        ChunkIndex,
        ChunkKey,
        DeadMessage,
        DirtyChunk,
        Extent,
        InodeNumber,
        LiveChunk,
        MessageId,
        PackId,
        PackRecord,
        Recorded,
        Revision,
        SentPack,
        SparseMessage,
    )


class Ledger(Components):
    """Everything here but `record_in_steps` and `record_moved` answers without suspending."""

    async def paths(self, inode: InodeNumber) -> Sequence[bytes]:
        """See ChunkLedger."""
        return self._dentries.paths(inode)

    def path(self, inode: InodeNumber) -> bytes | None:
        """One of `paths`, at once and however many there are; None for an orphan. FilesystemError."""
        return self._dentries.path(inode)

    def is_empty(self, inode: InodeNumber) -> bool:
        """See ChunkLedger."""
        return self._inodes.attributes(inode).size_bytes == 0

    def check_room(self, inode: InodeNumber, offset: int, length: int) -> None:
        """See ChunkLedger."""
        self._recording.check_room(inode, offset, length)

    def mark_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> Revision:
        """See ChunkLedger."""
        return self._recording.mark_dirty(inode, first, count)

    def renew_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> Revision:
        """See ChunkLedger."""
        return self._recording.renew_dirty(inode, first, count)

    def dirty_chunks(self) -> Sequence[DirtyChunk]:
        """See ChunkLedger."""
        return self._dirty.all()

    def write_small(self, inode: InodeNumber, content: bytes) -> Revision:
        """See ChunkLedger."""
        return self._recording.write_small(inode, content)

    def keep_small(self, inode: InodeNumber, content: bytes) -> None:
        """See ChunkLedger."""
        self._small.keep(inode, content)

    def remove_small(self, inode: InodeNumber) -> None:
        """See ChunkLedger."""
        self._small.remove(inode)

    def small_content(self, inode: InodeNumber) -> bytes:
        """See ChunkLedger."""
        return self._small.content(inode)

    def small_lengths(self) -> Sequence[tuple[InodeNumber, int]]:
        """See ChunkLedger."""
        return self._small.lengths()

    def cut_chunks(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """See ChunkLedger."""
        self._recording.cut_chunks(inode, first)

    def discard(self, inode: InodeNumber) -> None:
        """See ChunkLedger."""
        self._recording.discard(inode)

    def cut_point(self, inode: InodeNumber, count: int) -> ChunkIndex:
        """See ChunkLedger."""
        return self._recording.cut_point(inode, count)

    async def extents(self, inode: InodeNumber, first: ChunkIndex, last: ChunkIndex) -> Sequence[Extent]:
        """See ChunkLedger."""
        if inode >= FIRST_VIEW_INODE:
            return self._inodes.views.extents(inode, first, last)
        return self._extents.find(inode, first, last)

    def has_recorded(self, inode: InodeNumber, first: ChunkIndex, count: int) -> bool:
        """See ChunkLedger."""
        return self._extents.has_among(inode, first, first + count)

    async def pack(self, pack: PackId) -> PackRecord:
        """See ChunkLedger."""
        return self._packs.record(pack)

    async def record_packs(self, packs: Sequence[SentPack]) -> Recorded:
        """See ChunkLedger."""
        return self._recording.record_packs(packs)

    async def record_in_steps(self, packs: Sequence[SentPack], on_step: Callable[[Recorded], None]) -> None:
        """See ChunkLedger."""
        await self._recording.record_in_steps(packs, on_step)

    async def record_moved(self, packs: Sequence[SentPack], origins: Mapping[ChunkKey, tuple[PackId, int]]) -> int:
        """See ChunkLedger."""
        return await self._recording.record_moved(packs, origins)

    async def sparse_messages(self, limit: int) -> Sequence[SparseMessage]:
        """See ChunkLedger."""
        found = self._packs.sparse_messages(limit)
        return [sparse for sparse in found if not self._recording.is_underway(sparse.message)]

    async def packs_of_message(self, message: MessageId) -> Sequence[PackId]:
        """See ChunkLedger."""
        return self._packs.of_message(message)

    async def chunks_of_pack(self, pack: PackId, first_slot: int, count: int) -> Sequence[LiveChunk]:
        """See ChunkLedger."""
        return self._extents.of_slots(pack, first_slot, count)

    def is_renumbered(self, inode: InodeNumber) -> bool:
        """See ChunkLedger."""
        return self.trash.is_renumbered(inode)

    async def unknown_messages(self, messages: Sequence[MessageId]) -> frozenset[MessageId]:
        """See ChunkLedger."""
        return self._packs.unknown_messages(messages)

    def note_sending(self, packs: Sequence[PackId]) -> None:
        """See ChunkLedger."""
        self._sent_packs.note(packs)

    def has_sent(self, pack: PackId) -> bool:
        """See ChunkLedger."""
        return self._sent_packs.has(pack)

    def unrecorded_sends(self) -> frozenset[PackId]:
        """See ChunkLedger."""
        return self._sent_packs.unrecorded()

    def examined(self, channel: ChannelId) -> MessageId:
        """See ChunkLedger."""
        return self._examined.get(channel)

    def set_examined(self, channel: ChannelId, message: MessageId) -> None:
        """See ChunkLedger."""
        self._examined.set(channel, message)

    def pinned_inodes(self) -> frozenset[InodeNumber]:
        """See ChunkLedger."""
        return self._pins.all()

    def set_pinned(self, inodes: Iterable[InodeNumber], pinned: bool) -> None:
        """See ChunkLedger."""
        self._pins.set(inodes, pinned)

    async def dead_messages(self, limit: int) -> Sequence[DeadMessage]:
        """See ChunkLedger."""
        return [
            dead for dead in self._packs.dead_messages(limit) if not self._recording.is_underway(dead.location.message)
        ]

    async def forget_messages(self, messages: Sequence[DeadMessage]) -> None:
        """See ChunkLedger."""
        self._packs.forget(messages)
