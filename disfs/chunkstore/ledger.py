"""What the chunk store needs to have written down, as a Protocol that the metadata store answers.

The two stores are blind to each other; `daemon` passes the one to the other. Plain methods concern this machine alone
(its cache, its unsent chunks): they answer from the local database at once and never suspend, so a
caller may count on nothing else running between its own steps and theirs. Methods that are `async`
concern what other machines may one day share; on SQLite they too answer without suspending.

Everything joins the one open transaction; it becomes crash-safe (kill -9) at the next group commit, and
power-safe when the metadata store is made durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

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


class ChunkLedger(Protocol):
    """Which chunks are dirty, which packs exist, and in which slot each chunk lies."""

    def is_empty(self, inode: InodeNumber) -> bool:
        """Whether the file's size is 0, so that there is no content of it anywhere."""
        ...

    def check_room(self, inode: InodeNumber, offset: int, length: int) -> None:
        """ENOSPC when a write of these bytes would make the volume larger than it may be; changes nothing.

        To be asked in the very step that writes. What takes no more room than before always passes.
        """
        ...

    def mark_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> Revision:
        """Give `count` chunks from `first` one new revision, higher than any before, and note them as dirty."""
        ...

    def renew_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> Revision:
        """`mark_dirty` where every one of the chunks is dirty already; the caller knows it."""
        ...

    def dirty_chunks(self) -> Sequence[DirtyChunk]:
        """Every dirty chunk of the volume, by inode and index; read once, at the start."""
        ...

    def write_small(self, inode: InodeNumber, content: bytes) -> Revision:
        """Keep `content` as the inode's small content, and mark chunk 0, in which it lies, dirty: one change.

        What is kept and the marks are never told apart by a crash. FilesystemError with nothing changed.
        """
        ...

    def keep_small(self, inode: InodeNumber, content: bytes) -> None:
        """Keep `content` as the inode's small content, which is what is recorded of chunk 0."""
        ...

    def remove_small(self, inode: InodeNumber) -> None:
        """Keep nothing of the inode any more; there being nothing is fine. Marks and extents stay."""
        ...

    def small_content(self, inode: InodeNumber) -> bytes:
        """What was kept last; empty when there is nothing."""
        ...

    def small_lengths(self) -> Sequence[tuple[InodeNumber, int]]:
        """Which inodes have a small content, and how long it is; read once, at the start."""
        ...

    def cut_chunks(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """Forget every chunk of the inode from `first` on: dirty notes and extents; their slots are garbage.

        A small content is not touched: `write_small` or `remove_small` belongs to the same step.
        """
        ...

    def discard(self, inode: InodeNumber) -> None:
        """Forget every chunk and the small content of an inode that is removed in this very step: one change.

        Nothing of it is asked for or noted afterwards, and its chunk count is left as it is.
        """
        ...

    def cut_point(self, inode: InodeNumber, count: int) -> ChunkIndex:
        """Where to cut next when a file is to go in steps; 0 when the rest can go at once.

        From there on lie at least one and not many more than `count` chunks, dirty or recorded.
        """
        ...

    async def extents(self, inode: InodeNumber, first: ChunkIndex, last: ChunkIndex) -> Sequence[Extent]:
        """The extents that touch chunks `first` to `last` (included), in order, clipped to that range."""
        ...

    async def pack(self, pack: PackId) -> PackRecord:
        """Where a pack lies and how its slots are laid out; KeyError when it is not recorded."""
        ...

    async def record_packs(self, packs: Sequence[SentPack]) -> Recorded:
        """Record packs that Discord acknowledged, in one transaction, and move their chunks' extents to them.

        A chunk is recorded only if it is dirty with `born` <= its sent revision; it becomes clean only if
        its revision is still the sent one. What lay there before is garbage from then on. The `born` of a chunk
        that stays dirty moves past the sent revision, so that an older pack that comes in later does not
        replace a newer one. ValueError, and nothing recorded, for a pack that is recorded already.
        """
        ...

    async def record_in_steps(self, packs: Sequence[SentPack], on_step: Callable[[Recorded], None]) -> None:
        """`record_packs` for large messages: in steps of about a millisecond, each whole, checkpoints between them.

        `on_step` is called in the very step that recorded what it is told. A crash between two steps leaves chunks
        dirty, their slots in the recorded packs garbage. When this raises, what `on_step` was told holds,
        and a repeat with the same packs goes on from there. Messages under way appear neither as dead nor as sparse.
        """
        ...

    async def record_moved(self, packs: Sequence[SentPack], origins: Mapping[ChunkKey, tuple[PackId, int]]) -> int:
        """Record packs that hold copies of recorded contents, and move their chunks there; returns how many moved.

        `origins` says which pack and slot each chunk was copied from. A chunk moves only if that still is where it
        lies; otherwise its content is another one by now, and its slot here is garbage from the start. Whether it
        is dirty does not matter and does not change: what Discord has of it is the same content at either place.
        ValueError, and nothing recorded, for a pack that is recorded already.
        """
        ...

    async def sparse_messages(self, limit: int) -> Sequence[SparseMessage]:
        """Up to `limit` messages with less than half of their bytes live, but not dead; most garbage first."""
        ...

    async def packs_of_message(self, message: MessageId) -> Sequence[PackId]:
        """The recorded packs of a message, live or not, in the order of its attachments."""
        ...

    async def chunks_of_pack(self, pack: PackId, first_slot: int, count: int) -> Sequence[LiveChunk]:
        """The chunks whose recorded place is one of `count` slots of a pack from `first_slot` on, by slot.

        Dirty chunks are among them, with their older content. Nothing for a pack that is not recorded.
        """
        ...

    def is_renumbered(self, inode: InodeNumber) -> bool:
        """Whether contents of the inode may have been written under another, lower number."""
        ...

    async def unknown_messages(self, messages: Sequence[MessageId]) -> frozenset[MessageId]:
        """Those of `messages` that hold no recorded pack."""
        ...

    def note_sending(self, packs: Sequence[PackId]) -> None:
        """These packs are about to be sent. Some thousands are remembered; that this fails is never raised.

        Survives kill -9 from then on.
        """
        ...

    def has_sent(self, pack: PackId) -> bool:
        """Whether the pack was noted as being sent, in this or an earlier life of this very state.

        What was not is of another life of the volume: a machine's state that was put back from a backup does not know
        what came after it.
        """
        ...

    def unrecorded_sends(self) -> frozenset[PackId]:
        """Which of the packs that were noted last as being sent are not recorded; some hundreds are looked at."""
        ...

    def examined(self, channel: ChannelId) -> MessageId:
        """Up to which message of a channel `set_examined` was called; 0 when it never was."""
        ...

    def set_examined(self, channel: ChannelId, message: MessageId) -> None:
        """Every message of the channel up to this one is known, or is none of ours: no need to look again."""
        ...

    def pinned_inodes(self) -> frozenset[InodeNumber]:
        """The inodes whose chunks are to stay in the cache."""
        ...

    def set_pinned(self, inodes: Iterable[InodeNumber], pinned: bool) -> None:
        """Pin or unpin. A pin goes when its inode goes; one that is gone already is passed over."""
        ...

    async def dead_messages(self, limit: int) -> Sequence[DeadMessage]:
        """Up to `limit` messages whose packs are all without live bytes, longest dead first."""
        ...

    async def forget_messages(self, messages: Sequence[DeadMessage]) -> None:
        """Remove the packs of messages that have been deleted from Discord."""
        ...

    async def paths(self, inode: InodeNumber) -> Sequence[bytes]:
        """The names under which an inode can be found, for messages to people; empty for an orphan."""
        ...

    async def make_durable(self) -> None:
        """Make everything so far power-safe. The same method as `MetadataStore.make_durable`; this one suspends.

        The chunk store destroys the only copy of bytes (a cut, a deletion, an eviction after sending, a sweep) only
        after the record that makes them superfluous is durable; a crash must not find the old record without the bytes.
        """
        ...
