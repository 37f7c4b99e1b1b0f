"""Dicts in the places of disfs's two stores: what its own handlers reach without SQLite, journal, cache or Discord.

They do what the row of names asks and nothing else, in the fewest steps that keep what the handlers rely on.
"""

# ruff: noqa: D102 - MetadataStore and FileChunks document what each method is for

from __future__ import annotations

import errno
import itertools
import stat
from typing import TYPE_CHECKING, cast

from disfs.errors import FilesystemError
from disfs.filesystem import Filesystem
from disfs.fuse_ops import FuseOperations
from disfs.metadata.base import Unlinked, VolumeUsage
from disfs.values import ROOT_INODE, Attributes, DirectoryEntry, InodeNumber

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.readahead import Readahead
    from disfs.file_io import FileChunks
    from disfs.metadata.base import Atime, MetadataStore, RenameMode
    from disfs.values import AttributeChanges, NewInode


class DictMetadata:
    """Names and attributes in dicts; in one directory nothing needs more than a few of MetadataStore's methods."""

    def __init__(self) -> None:
        self._numbers = itertools.count(2)
        self._inodes = {ROOT_INODE: Attributes(ROOT_INODE, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 0, 0, 0, 0)}
        self._names: dict[tuple[InodeNumber, bytes], InodeNumber] = {}

    async def lookup(self, parent: InodeNumber, name: bytes) -> Attributes:
        inode = self._names.get((parent, name))
        if inode is None:
            raise FilesystemError(errno.ENOENT)
        return self._inodes[inode]

    async def attributes(self, inode: InodeNumber) -> Attributes:
        return self._inodes[inode]

    async def change_attributes(self, inode: InodeNumber, changes: AttributeChanges, now_ns: int) -> Attributes:
        """Not all of them: no program of the row changes a time or an owner."""
        old = self._inodes[inode]
        size_bytes = old.size_bytes if changes.size_bytes is None else changes.size_bytes
        mode = old.mode if changes.mode is None else stat.S_IFMT(old.mode) | changes.mode
        new = self._inodes[inode] = old._replace(mode=mode, size_bytes=size_bytes, ctime_ns=now_ns)
        return new

    async def note_write(self, inode: InodeNumber, end: int, now_ns: int) -> None:
        old = self._inodes[inode]
        self._inodes[inode] = old._replace(size_bytes=max(old.size_bytes, end), mtime_ns=now_ns, ctime_ns=now_ns)

    async def note_read(self, inode: InodeNumber, now_ns: int, rule: Atime) -> None:
        """Times of reads are not kept."""

    async def make_inode(self, parent: InodeNumber, name: bytes, new: NewInode, now_ns: int) -> Attributes:
        if (parent, name) in self._names:
            raise FilesystemError(errno.EEXIST)
        inode = InodeNumber(next(self._numbers))
        nlink = 2 if stat.S_ISDIR(new.mode) else 1
        mode = new.mode & ~new.umask
        made = Attributes(inode, mode, nlink, new.uid, new.gid, new.rdev, 0, now_ns, now_ns, now_ns)
        self._inodes[inode] = made
        self._names[parent, name] = inode
        self._touch(parent, now_ns)
        return made

    async def unlink(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        inode = self._names.pop((parent, name), None)
        if inode is None:
            raise FilesystemError(errno.ENOENT)
        self._touch(parent, now_ns)
        return self._unlinked(inode, now_ns)

    async def rmdir(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        """The row removes none but empty ones."""
        return await self.unlink(parent, name, now_ns)

    async def rename(
        self,
        parent: InodeNumber,
        name: bytes,
        new_parent: InodeNumber,
        new_name: bytes,
        mode: RenameMode,
        now_ns: int,
    ) -> Unlinked | None:
        inode = self._names.pop((parent, name))
        replaced = self._names.get((new_parent, new_name))
        self._names[new_parent, new_name] = inode
        self._inodes[inode] = self._inodes[inode]._replace(ctime_ns=now_ns)
        self._touch(parent, now_ns)
        self._touch(new_parent, now_ns)
        return None if replaced is None else self._unlinked(replaced, now_ns)

    async def list_directory(self, inode: InodeNumber, after_cookie: int, limit: int) -> Sequence[DirectoryEntry]:
        """For the one listing that shows that the mount stands."""
        found = [(child, name) for (parent, name), child in self._names.items() if parent == inode]
        page = sorted(found)[max(0, after_cookie - ROOT_INODE - 1) :][:limit]
        return [DirectoryEntry(name, child + 1, self._inodes[child]) for child, name in page]

    async def parent_of(self, directory: InodeNumber) -> InodeNumber:
        return ROOT_INODE

    async def get_xattr(self, inode: InodeNumber, name: bytes) -> bytes:
        raise FilesystemError(errno.ENODATA)

    async def usage(self) -> VolumeUsage:
        return VolumeUsage(len(self._inodes), 0, 0)

    async def remove_orphan(self, inode: InodeNumber) -> None:
        del self._inodes[inode]

    async def trash_orphan(self, inode: InodeNumber, now_ns: int) -> bool:
        return False

    def _touch(self, directory: InodeNumber, now_ns: int) -> None:
        self._inodes[directory] = self._inodes[directory]._replace(mtime_ns=now_ns, ctime_ns=now_ns)

    def _unlinked(self, inode: InodeNumber, now_ns: int) -> Unlinked:
        old = self._inodes[inode]
        self._inodes[inode] = old._replace(nlink=old.nlink - 1, ctime_ns=now_ns)
        return Unlinked(inode, old.nlink - 1)


class _NoReadahead:
    def close(self) -> None:
        """Nothing was begun."""


class DictChunks:
    """Contents in a dict."""

    def __init__(self) -> None:
        self._contents: dict[InodeNumber, bytearray] = {}

    async def read(self, inode: InodeNumber, offset: int, length: int, readahead: Readahead | None = None) -> bytes:
        return bytes(self._contents.get(inode, b"")[offset : offset + length]).ljust(length, b"\0")

    async def write(self, inode: InodeNumber, offset: int, data: bytes) -> None:
        content = self._contents.get(inode)
        if content is None:
            content = self._contents[inode] = bytearray(offset)
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data

    async def cut(self, inode: InodeNumber, size_bytes: int) -> None:
        if inode in self._contents:
            del self._contents[inode][size_bytes:]

    async def shrink(self, inode: InodeNumber) -> None:
        """A dict lets go of a content at once."""

    def discard(self, inode: InodeNumber) -> None:
        self._contents.pop(inode, None)

    def went_to_trash(self, inode: InodeNumber) -> None:
        """There is no trash."""

    def inherit_pin(self, parent: InodeNumber, inode: InodeNumber) -> None:
        """Nothing is ever evicted."""

    def new_readahead(self) -> Readahead:
        return cast("Readahead", _NoReadahead())


def handlers() -> FuseOperations:
    """disfs's own handlers, answering from dicts; the kernel remembers nothing, as with `-o kernel_cache=0`."""
    metadata, chunks = cast("MetadataStore", DictMetadata()), cast("FileChunks", DictChunks())
    return FuseOperations(Filesystem(metadata, chunks), entry_timeout_seconds=0.0, attribute_timeout_seconds=0.0)
