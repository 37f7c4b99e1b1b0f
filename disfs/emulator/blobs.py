"""The bytes of attachments as files: written aside, made durable, then renamed into place."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

WRITE_BYTES = 1024 * 1024
"""Collected before a write is handed to a worker thread."""


class IncomingBlob:
    """A file on its way in. `write` pieces, then `BlobStore.keep` or `discard` it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    async def write(self, piece: bytes) -> None:
        """Append a piece."""
        self._pending.append(piece)
        self._pending_bytes += len(piece)
        self.size += len(piece)
        if self._pending_bytes >= WRITE_BYTES:
            await self._flush()

    async def finish(self, *, fsync: bool) -> None:
        """Close the file; with `fsync`, its content is on disk afterwards."""
        await self._flush()
        if fsync:
            await asyncio.to_thread(os.fsync, self._descriptor)
        self._close()

    def discard(self) -> None:
        """Drop the file; harmless once it was kept."""
        self._pending.clear()
        self._close()
        self.path.unlink(missing_ok=True)

    async def _flush(self) -> None:
        pieces, self._pending, self._pending_bytes = self._pending, [], 0
        if pieces:
            await asyncio.to_thread(_write_all, self._descriptor, pieces)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class BlobStore:
    """Blobs by attachment id, spread over 256 directories by the id's time. A blob that is there is whole."""

    def __init__(self, root: Path) -> None:
        self._incoming = root / "incoming"
        self._blobs = root / "blobs"

    def prepare(self, known: set[int]) -> int:
        """Make the directories, and remove what a killed run left: unfinished files, blobs without a row."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        leftovers = list(self._incoming.iterdir())
        for number in range(256):
            directory = self._blobs / f"{number:02x}"
            directory.mkdir(parents=True, exist_ok=True)
            leftovers.extend(path for path in directory.iterdir() if not _is_known(path.name, known))
        _fsync_directory(self._blobs)
        for path in leftovers:
            path.unlink()
        return len(leftovers)

    def path(self, attachment: int) -> Path:
        """Where the bytes of an attachment lie."""
        return self._blobs / f"{(attachment >> 22) & 0xFF:02x}" / str(attachment)

    def receive(self) -> IncomingBlob:
        """A new file to be written to."""
        return IncomingBlob(self._incoming / secrets.token_hex(8))

    async def keep(self, blobs: dict[int, IncomingBlob], *, fsync: bool) -> None:
        """Make incoming files the blobs of these attachments; durable when this returns, if `fsync`."""
        for blob in blobs.values():
            await blob.finish(fsync=fsync)
        await asyncio.to_thread(self._rename_all, blobs, fsync)

    async def remove(self, attachments: Iterable[int]) -> None:
        """Delete blobs; those that are not there count as deleted."""
        paths = [self.path(attachment) for attachment in attachments]
        await asyncio.to_thread(_unlink_all, paths)

    def _rename_all(self, blobs: dict[int, IncomingBlob], fsync: bool) -> None:
        for attachment, blob in blobs.items():
            blob.path.rename(self.path(attachment))
        if fsync:
            for directory in {self.path(attachment).parent for attachment in blobs}:
                _fsync_directory(directory)


def _is_known(name: str, known: set[int]) -> bool:
    return name.isdecimal() and int(name) in known


def _write_all(descriptor: int, pieces: list[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]


def _unlink_all(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
