"""A volume's local half: its metadata database and its cache, and the marks by which they know each other.

The metadata is made when the other half of the volume is in Discord already.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING

import trio

from disfs.chunkstore.reclaim import Reclaimed
from disfs.chunkstore.recovery import CacheMarks
from disfs.chunkstore.settings import ChunkStoreSettings
from disfs.chunkstore.store import ChunkStore
from disfs.errors import ExitCode, FilesystemError, UserError
from disfs.message_texts import data_text
from disfs.metadata.base import DEFAULT_CAPACITY_BYTES
from disfs.metadata.opening import damaged, look_at
from disfs.metadata.settings import VOLUME_ID, Setting
from disfs.metadata.store import DEFAULT_RESERVE_BYTES, SqliteMetadataStore
from disfs.mount_recovery import MountRecovery
from disfs.volume_state import METADATA_NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.base import Transport
    from disfs.config import VolumeSettings
    from disfs.metadata.opening import VolumeFacts
    from disfs.superblock import Superblock
    from disfs.values import InodeNumber

log = logging.getLogger(__name__)

RECLAIM_SECONDS = 10.0
"""How long a mount looks for what had arrived in Discord before a crash; what is not found is sent again."""
CACHE_IDENTITY: Setting[str] = Setting("cache_identity", str, str)
"""Names the cache directory that the dirty chunks were written in."""
CACHE_CLEAN_STOP: Setting[str] = Setting("cache_clean_stop", str, str)
"""Names the note of what is cached; empty while the volume is mounted."""


def make_metadata(directory: Path, superblock: Superblock) -> None:
    """Make the metadata of a new, empty volume. The caller holds the volume's lock.

    What an interrupted attempt left is taken over if it belongs to this volume, replaced if it is empty, and refused
    if it holds files: VOLUME_EXISTS.
    """
    path = directory / METADATA_NAME
    if path.exists() and path.stat().st_size and _is_taken_over(path, superblock):
        return
    store = SqliteMetadataStore.open(path, create=True, chunk_bytes=superblock.chunk_bytes)
    try:
        store.settings.set(VOLUME_ID, superblock.volume_id.hex())
    finally:
        store.close()


def reserve_bytes(directory: Path, most: int) -> int:
    """How much of a disk is left alone: `most`, and on a small disk a twentieth of it."""
    room = os.statvfs(directory)
    return min(most, room.f_blocks * room.f_frsize // 20)


def check_room(directory: Path) -> None:
    """Refuse a new volume where it could take in nothing. STATE_FULL, before anything is made in Discord."""
    room = os.statvfs(directory)
    wanted = reserve_bytes(directory, DEFAULT_RESERVE_BYTES)
    if room.f_bavail * room.f_frsize < wanted:
        raise UserError(
            f"the disk of {directory} is nearly full; free {-(-wanted >> 20)} MiB there, "
            "or set DISFS_HOME to a directory on another disk",
            ExitCode.STATE_FULL,
        )


def _is_taken_over(path: Path, superblock: Superblock) -> bool:
    """Whether metadata that is there already belongs to the volume; what is empty and foreign is removed."""
    facts = look_at(path)
    if facts is not None and _is_of(superblock, facts):
        return True
    if facts is not None and facts.volume_id is not None and not _is_empty(facts, superblock):
        raise UserError(
            f"{path.parent} holds the files of another volume; move that directory away, or choose another name",
            ExitCode.VOLUME_EXISTS,
        )
    for leftover in path.parent.glob(f"{METADATA_NAME}*"):
        leftover.unlink()
    return False


def _is_of(superblock: Superblock, facts: VolumeFacts) -> bool:
    return (superblock.volume_id.hex(), superblock.chunk_bytes) == (facts.volume_id, facts.chunk_bytes)


def _is_empty(facts: VolumeFacts, superblock: Superblock) -> bool:
    return facts.inode_count == 1 and facts.chunk_bytes == superblock.chunk_bytes


def open_metadata(
    directory: Path,
    superblock: Superblock,
    capacity_bytes: int = DEFAULT_CAPACITY_BYTES,
    trash_seconds: float = 0,
) -> SqliteMetadataStore:
    """Open the metadata of a volume that is about to be mounted. VOLUME_DAMAGED when it is missing or another's.

    `capacity_bytes` is how much all files together may take, `trash_seconds` how long deleted ones can be restored.
    """
    path = directory / METADATA_NAME
    if not path.exists():
        raise damaged(path, "it is missing")
    store = SqliteMetadataStore.open(
        path,
        reserve_bytes=reserve_bytes(directory, DEFAULT_RESERVE_BYTES),
        capacity_bytes=capacity_bytes,
        trash_seconds=trash_seconds,
        is_ours=functools.partial(_is_of, superblock),
    )
    try:
        store.snapshots.show()
    except FilesystemError as error:
        log.error("a snapshot is not shown, all else is: %s", error)  # noqa: TRY400 - known, no bug
    return store


class RecordedCopies:
    """What is kept of the metadata besides the current ones: what Discord has, and the snapshots. See `Sweeper`."""

    def __init__(self, metadata: SqliteMetadataStore) -> None:
        self._shipping = metadata.shipping
        self._snapshots = metadata.snapshots

    @property
    def shipped_revision(self) -> int:
        """What became garbage at a lower revision is garbage in all of them."""
        return min(self._shipping.shipped_revision, self._snapshots.protected_revision)

    @property
    def may_delete(self) -> bool:
        """See `Shipping`."""
        return self._shipping.may_delete

    async def confirm_deletions(self) -> bool:
        """See `Shipping`."""
        return await self._shipping.confirm_deletions()


def make_chunk_store(
    superblock: Superblock,
    settings: VolumeSettings,
    *,
    cache_directory: Path,
    key: VolumeKey,
    metadata: SqliteMetadataStore,
    transport: Transport,
    attachment_bytes: int | None,
    taken_bytes: Callable[[str], int],
) -> ChunkStore:
    """The chunk store of a volume; `attachment_bytes` is what the guild allows, None where that is not known.

    `taken_bytes`: see `Connection`.
    """
    chosen = chunk_store_settings(superblock, settings, cache_directory, attachment_bytes)
    return ChunkStore(
        ledger=metadata,
        transport=transport,
        channels=superblock.data_channels,
        volume_key=key,
        cache_directory=cache_directory,
        settings=chosen,
        copies=RecordedCopies(metadata),
        taken_bytes=taken_bytes,
        message_text=data_text(superblock.name),
    )


def chunk_store_settings(
    superblock: Superblock, settings: VolumeSettings, cache_directory: Path, attachment_bytes: int | None = None
) -> ChunkStoreSettings:
    """What a volume's settings mean for its chunk store."""
    defaults = ChunkStoreSettings()
    return ChunkStoreSettings(
        chunk_bytes=superblock.chunk_bytes,
        cache_bytes=settings.cache_bytes,
        dirty_limit_bytes=settings.dirty_limit_bytes,
        writeback_delay_seconds=settings.writeback_delay_seconds,
        message_bytes=settings.message_bytes,
        sweep_grace_seconds=settings.sweep_grace_seconds,
        stray_seconds=settings.stray_grace_seconds,
        readahead_bytes=defaults.readahead_bytes if settings.readahead_bytes is None else settings.readahead_bytes,
        attachment_bytes=attachment_bytes or defaults.attachment_bytes,
        min_free_bytes=reserve_bytes(cache_directory, defaults.min_free_bytes),
    )


async def take_over_cache(metadata: SqliteMetadataStore, chunks: ChunkStore) -> None:
    """Bring cache and metadata together, also after a crash, and note which cache it is before anything is written.

    From then on no checkpoint makes a dirty mark durable before the bytes that lie over what Discord has.
    """

    async def size_of(inode: InodeNumber) -> int | None:
        try:
            return (await metadata.attributes(inode)).size_bytes
        except FilesystemError:
            kept = metadata.trash.entry(inode)
            return None if kept is None else kept.size_bytes

    identity = metadata.settings.get(CACHE_IDENTITY)
    marks = CacheMarks(identity, metadata.settings.get(CACHE_CLEAN_STOP) or None) if identity else None
    keep_marks(metadata, await chunks.start(size_of, marks))
    metadata.prepare_checkpoints(chunks.sync_overlaid)
    await chunks.make_ledger_durable()


async def go_on(
    metadata: SqliteMetadataStore, chunks: ChunkStore, *, may_reclaim: bool, seconds: float
) -> MountRecovery:
    """Go on where the last mount ended, however it did. `seconds`: what that has taken already.

    With `may_reclaim`, Discord is asked for what had arrived there; orphans are left to the caller.
    """
    began = trio.current_time()
    reclaimed = await chunks.reclaim(RECLAIM_SECONDS) if may_reclaim else Reclaimed()
    await take_over_cache(metadata, chunks)
    found = chunks.statistics()
    return MountRecovery(
        crashed=not metadata.was_clean,
        seconds=seconds + trio.current_time() - began,
        unsent_chunks=found.dirty_chunks,
        lost_chunks=found.lost_chunks,
        arrived_messages=reclaimed.messages,
        arrived_chunks=reclaimed.chunks,
        orphans=0,
    )


def keep_marks(metadata: SqliteMetadataStore, marks: CacheMarks) -> None:
    """Write down the marks of the cache, in the open transaction."""
    metadata.settings.set(CACHE_IDENTITY, marks.identity)
    metadata.settings.set(CACHE_CLEAN_STOP, marks.clean_stop or "")
