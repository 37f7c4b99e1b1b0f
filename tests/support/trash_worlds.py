"""A volume with a trash, used by paths."""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError
from disfs.trash_desk import Undeletion
from disfs.values import ROOT_INODE, NewInode

if TYPE_CHECKING:
    from disfs.values import Attributes, InodeNumber, Trashed
    from support.real_stores import RealStores

DAY = 24 * 60 * 60


class Paths:
    """What programs do to a volume, by path. Lookup counts are given back at once, as by a kernel without a cache."""

    def __init__(self, world: RealStores) -> None:
        self.world = world

    async def find(self, path: bytes) -> Attributes | None:
        """What is there."""
        inode = ROOT_INODE
        for name in filter(None, path.split(b"/")):
            try:
                inode = (await self.world.metadata.lookup(inode, name)).inode
            except FilesystemError:
                return None
        return await self.world.metadata.attributes(inode)

    async def inode(self, path: bytes) -> InodeNumber:
        found = await self.find(path)
        assert found is not None, path
        return found.inode

    async def write(self, path: bytes, content: bytes, *, flags: int = 0) -> None:
        """As a program that opens with O_CREAT, O_WRONLY and `flags`, writes from the beginning, and closes."""
        directory, name = posixpath.split(path)
        filesystem = self.world.filesystem
        found = await self.find(path)
        if found is None:
            parent = await self.inode(directory)
            new = NewInode(mode=stat.S_IFREG | 0o640, uid=7, gid=8)
            handle, made = await filesystem.create(parent, name, new, os.O_RDWR)
            await filesystem.forget([(made.inode, 1)])
        else:
            handle = await filesystem.files.open(found.inode, os.O_WRONLY | flags)
        if content:
            await filesystem.files.write(handle, 0, content)
        await filesystem.release(handle)

    async def make_directory(self, path: bytes, mode: int = 0o750) -> None:
        directory, name = posixpath.split(path)
        new = NewInode(mode=stat.S_IFDIR | mode, uid=3, gid=4)
        made = await self.world.filesystem.make_inode(await self.inode(directory), name, new)
        await self.world.filesystem.forget([(made.inode, 1)])

    async def unlink(self, path: bytes) -> None:
        directory, name = posixpath.split(path)
        await self.world.filesystem.unlink(await self.inode(directory), name)

    async def rmdir(self, path: bytes) -> None:
        directory, name = posixpath.split(path)
        await self.world.filesystem.rmdir(await self.inode(directory), name)

    async def rename(self, old: bytes, new: bytes) -> None:
        (one, name), (other, new_name) = posixpath.split(old), posixpath.split(new)
        await self.world.filesystem.rename(await self.inode(one), name, await self.inode(other), new_name, 0)

    async def read(self, path: bytes) -> bytes:
        handle = await self.world.filesystem.files.open(await self.inode(path), os.O_RDONLY)
        try:
            return await self.world.filesystem.files.read(handle, 0, 1 << 30)
        finally:
            await self.world.filesystem.release(handle)

    async def tree(self, directory: bytes = b"/") -> dict[bytes, bytes | None]:
        """Every path below a directory with its content; None for a directory."""
        found: dict[bytes, bytes | None] = {}
        for entry in await self.world.metadata.list_directory(await self.inode(directory), 0, 1000):
            path = posixpath.join(directory, entry.name)
            if stat.S_ISDIR(entry.attributes.mode):
                found |= {path: None} | await self.tree(path)
            else:
                found[path] = await self.read(path)
        return found

    async def sent(self) -> None:
        """Everything that is dirty is in Discord, and every name has its row."""
        await self.world.chunks.drain()
        await self.world.metadata.commit()

    def trash(self) -> list[Trashed]:
        """All that can be restored."""
        return list(self.world.metadata.trash.below(b"/", None, 1000))

    async def undelete(self, path: bytes, version: InodeNumber | None = None) -> Undeletion:
        """Restore, and say what."""
        order = Undeletion(self.world.make_trash_desk(), ROOT_INODE, path.decode().lstrip("/"), version)
        await order.run()
        return order
