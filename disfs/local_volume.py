"""A volume's local half: its metadata database, made when the other half is in Discord already."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from disfs.errors import ExitCode, UserError
from disfs.metadata.settings import FORMAT_VERSION, VOLUME_ID
from disfs.metadata.store import SqliteMetadataStore
from disfs.superblock import VERSION
from disfs.volume_state import METADATA_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.superblock import Superblock

log = logging.getLogger(__name__)


def make_metadata(directory: Path, superblock: Superblock) -> None:
    """Make the metadata of a new, empty volume. The caller holds the volume's lock.

    What an interrupted attempt left is taken over if it belongs to this volume, replaced if it is empty, and refused
    if it holds files: VOLUME_EXISTS.
    """
    path = directory / METADATA_NAME
    if path.exists() and path.stat().st_size and _is_ours(path, superblock):
        return
    store = SqliteMetadataStore.open(path, create=True, chunk_bytes=superblock.chunk_bytes)
    try:
        store.settings.set(VOLUME_ID, superblock.volume_id.hex())
        store.settings.set(FORMAT_VERSION, VERSION)
    finally:
        store.close()


def _is_ours(path: Path, superblock: Superblock) -> bool:
    """Whether metadata that is there already belongs to the volume; what is empty and foreign is removed."""
    store = SqliteMetadataStore.open(path)
    try:
        known = store.settings.get(VOLUME_ID)
        empty = store.statistics().inode_count == 1 and store.chunk_bytes == superblock.chunk_bytes
    finally:
        store.close()
    if known == superblock.volume_id.hex() and store.chunk_bytes == superblock.chunk_bytes:
        return True
    if not empty and known is not None:
        raise UserError(
            f"{path.parent} holds the files of another volume; move that directory away, or choose another name",
            ExitCode.VOLUME_EXISTS,
        )
    for leftover in path.parent.glob(f"{METADATA_NAME}*"):
        leftover.unlink()
    return False


def open_metadata(directory: Path, superblock: Superblock) -> SqliteMetadataStore:
    """Open the metadata of a volume that is about to be mounted. VOLUME_DAMAGED when it is missing or another's."""
    path = directory / METADATA_NAME
    if not path.exists():
        raise UserError(
            f"the volume's metadata {path} is gone; restore the state directory from a backup", ExitCode.VOLUME_DAMAGED
        )
    store = SqliteMetadataStore.open(path)
    if store.settings.get(VOLUME_ID) == superblock.volume_id.hex() and store.chunk_bytes == superblock.chunk_bytes:
        return store
    store.close()
    raise UserError(
        f"the metadata {path} belongs to another volume than the configuration; restore the one that fits",
        ExitCode.VOLUME_DAMAGED,
    )
