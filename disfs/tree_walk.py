"""Everything below some files and directories, in bounded steps.

A walk holds no snapshot: what is renamed or made meanwhile may be met or missed, as with `find`. It keeps one entry for
each directory on the way down and its siblings of one page, so a tree of a million files costs it next to nothing.
"""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

import trio

from disfs.errors import FilesystemError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from disfs.metadata.base import MetadataStore
    from disfs.values import Attributes, InodeNumber

PAGE_COUNT = 64
"""Inodes that one step looks at: well under a millisecond of the main thread."""
_GONE = frozenset({errno.ENOENT, errno.ESTALE, errno.ENOTDIR})


class TreeWalk:
    """Yields, step by step, the inodes it was given and what lies below those that are directories, each once."""

    def __init__(self, metadata: MetadataStore, inodes: Iterable[InodeNumber], *, descend: bool = True) -> None:
        self._metadata = metadata
        self._given = list(dict.fromkeys(inodes))
        self._given.reverse()
        self._descend = descend
        self._open: list[tuple[InodeNumber, int]] = []
        """Directories that are not read to their end, the innermost last, each with the cookie to go on after."""
        self._met: set[InodeNumber] = set()
        """Of what can be met twice: directories, which may move meanwhile, files of several names, what was given."""

    async def step(self) -> Sequence[Attributes] | None:
        """The next few inodes, perhaps none; None at the end. A checkpoint. What has gone meanwhile is left out."""
        await trio.lowlevel.checkpoint()
        if self._given:
            looked = [await self._look(self._given.pop()) for _ in range(min(PAGE_COUNT, len(self._given)))]
            found = [attributes for attributes in looked if attributes is not None]
            if not self._descend:
                return found
            # All of them are met before anything below them, and so never twice.
            self._met.update(attributes.inode for attributes in found)
        elif self._open:
            found = [attributes for attributes in await self._read_page() if self._is_new(attributes)]
        else:
            return None
        self._open += reversed([(attributes.inode, 0) for attributes in found if stat.S_ISDIR(attributes.mode)])
        return found

    async def _look(self, inode: InodeNumber) -> Attributes | None:
        try:
            return await self._metadata.attributes(inode)
        except FilesystemError as error:
            if error.errno in _GONE:
                return None
            raise

    async def _read_page(self) -> list[Attributes]:
        directory, cookie = self._open.pop()
        try:
            entries = await self._metadata.list_directory(directory, cookie, PAGE_COUNT)
        except FilesystemError as error:
            if error.errno in _GONE:
                return []
            raise
        if len(entries) == PAGE_COUNT:
            self._open.append((directory, entries[-1].cookie))
        return [entry.attributes for entry in entries]

    def _is_new(self, attributes: Attributes) -> bool:
        if attributes.inode in self._met:
            return False
        if stat.S_ISDIR(attributes.mode) or attributes.nlink > 1:
            self._met.add(attributes.inode)
        return True
