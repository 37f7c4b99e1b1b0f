"""What is told of single files: which are on their way to Discord, where the contents of each are, and since when."""

from __future__ import annotations

import logging
import stat
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import trio

from disfs.errors import ExitCode, FilesystemError, UserError
from disfs.values import ChunkIndex

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from disfs.chunkstore.store import ChunkStore
    from disfs.chunkstore.transfers import MessageTransfer
    from disfs.metadata.store import SqliteMetadataStore
    from disfs.values import Attributes, ChannelId, InodeNumber, MessageId, PackId

MAX_PLACES = 1000
"""Of how many messages of a file is told, the newest ones."""
_STEP_COUNT = 32
"""So many files are looked at in one step: about half a millisecond."""
_WINDOW_CHUNKS = 1024

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

    async def states(self, inodes: Sequence[InodeNumber]) -> Mapping[str, object]:
        """Where the contents of each file are, in the order of the inodes; in steps that nobody notices.

        Each is a list: the word, percent sent or null, percent cached, whether it is pinned. What is no file has null
        but for the last one; what is not known is null altogether.
        """
        found: list[object] = []
        for number, inode in enumerate(inodes):
            if number % _STEP_COUNT == 0:
                await trio.lowlevel.checkpoint()
            found.append(await self._state(inode))
        return {"states": found}

    async def _state(self, inode: InodeNumber) -> list[object] | None:
        try:
            attributes = await self._metadata.attributes(inode)
            if not stat.S_ISREG(attributes.mode):
                return [None, None, None, inode in self._chunks.pinned_inodes]
            state = await self._chunks.content_state(attributes)
        except FilesystemError:
            return None
        return [state.whereabouts, state.sent_percent, state.cached_percent, state.pinned]

    async def history(self, inode: InodeNumber) -> Mapping[str, object]:
        """What is known of one file: its path, and in which messages its contents lie, oldest first. USAGE."""
        try:
            attributes = await self._metadata.attributes(inode)
            places = await self._places(attributes)
        except FilesystemError as error:
            raise UserError(f"nothing is known of it: {error}; is it still there?", ExitCode.USAGE) from error
        shown = sorted(places.items())
        return {
            "path": self._path(inode),
            "state": await self._state(inode),
            "places": [[channel, message, count] for (message, channel), count in shown[-MAX_PLACES:]],
            "message_count": len(shown),
        }

    async def _places(self, attributes: Attributes) -> Counter[tuple[MessageId, ChannelId]]:
        """How many of its chunks each message holds."""
        places: Counter[tuple[MessageId, ChannelId]] = Counter()
        if not stat.S_ISREG(attributes.mode):
            return places
        located: dict[PackId, tuple[MessageId, ChannelId]] = {}
        count = -(-attributes.size_bytes // self._metadata.chunk_bytes)
        for first in range(0, count, _WINDOW_CHUNKS):
            last = ChunkIndex(min(first + _WINDOW_CHUNKS, count) - 1)
            for extent in await self._metadata.extents(attributes.inode, ChunkIndex(first), last):
                if extent.pack not in located:
                    location = (await self._metadata.pack(extent.pack)).location
                    located[extent.pack] = (location.message, location.channel)
                places[located[extent.pack]] += extent.count
            await trio.lowlevel.checkpoint()
        return places

    def known_path(self, inode: InodeNumber) -> str | None:
        """One of its paths; None where it has none. Answers at once."""
        try:
            path = self._metadata.path(inode)
        except FilesystemError as error:
            log.debug("no path of inode %d: %s", inode, error)
            path = None
        return None if path is None else path.decode(errors="surrogateescape")

    def _path(self, inode: InodeNumber) -> str:
        """The same for people: what it is called where it has none."""
        return self.known_path(inode) or f"(deleted, inode {inode})"


def _message(message: MessageTransfer) -> Mapping[str, object]:
    return {**asdict(message), "bytes_per_second": message.bytes_per_second}
