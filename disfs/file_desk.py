"""What is told of single files: which are on their way to Discord, and how far each of them is."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

import trio

from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from disfs.chunkstore.store import ChunkStore
    from disfs.chunkstore.transfers import MessageTransfer
    from disfs.metadata.store import SqliteMetadataStore
    from disfs.values import InodeNumber

log = logging.getLogger(__name__)


class FileDesk:
    """Answers about the files of one volume; changes nothing."""

    def __init__(self, metadata: SqliteMetadataStore, chunks: ChunkStore) -> None:
        self._metadata = metadata
        self._chunks = chunks

    def transfers(self) -> Mapping[str, object]:
        """What is on its way to Discord and what waits, the files by their paths. Answers at once."""
        found = self._chunks.transfers.look(trio.current_time())
        # By hand: asdict() copies what it finds, which took longer than finding it.
        return {
            "unsent_files": found.unsent_files,
            "oldest_unsent_seconds": found.oldest_unsent_seconds,
            "messages": [_message(message) for message in found.messages],
            "files": [
                {
                    "path": self._path(file.inode),
                    "inode": file.inode,
                    "sent_bytes": file.sent_bytes,
                    "total_bytes": file.total_bytes,
                    "bytes_per_second": file.bytes_per_second,
                    "sending": file.sending,
                }
                for file in found.files
            ],
        }

    def _path(self, inode: InodeNumber) -> str:
        """One of its paths, for people and programs; what it is called where it has none."""
        try:
            path = self._metadata.path(inode)
        except FilesystemError as error:
            log.debug("no path of inode %d: %s", inode, error)
            path = None
        return f"(deleted, inode {inode})" if path is None else path.decode(errors="surrogateescape")


def _message(message: MessageTransfer) -> Mapping[str, object]:
    return {**asdict(message), "bytes_per_second": message.bytes_per_second}
