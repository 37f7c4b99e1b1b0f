"""Works on a mount and on a model of it, step by step, and puts up with steps that fail.

A step that is refused or cancelled may have had its effect or not; who uses a disk looks, and does it again.
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING

import trio

from disfs.errors import DisfsError, FilesystemError
from disfs.values import ROOT_INODE, AttributeChanges, NewInode
from support.fault_model import CHUNK, File, Found

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from disfs.values import InodeNumber
    from support.fault_machine import Life
    from support.fault_model import FoundTree, Model, Tree

DAY_NS = 24 * 60 * 60 * 10**9


class StoppedError(Exception):
    """The metadata store has stopped: there is nothing more to be done on this mount."""


async def walk(life: Life, top: bytes = b"/") -> FoundTree:
    """All that is below a directory, read."""
    found: FoundTree = {}
    for entry in await life.metadata.list_directory(await find(life, top), 0, 1000):
        path = posixpath.join(top, entry.name)
        if stat.S_ISDIR(entry.attributes.mode):
            found |= {path: None} | await walk(life, path)
        else:
            found[path] = await _read(life, entry.attributes.inode, entry.attributes.size_bytes)
    return found


async def _read(life: Life, inode: InodeNumber, size_bytes: int) -> Found:
    handle = await life.filesystem.files.open(inode, os.O_RDONLY)
    chunks: list[bytes | int] = []
    for offset in range(0, size_bytes, CHUNK):
        try:
            chunks.append(await life.filesystem.files.read(handle, offset, CHUNK))
        except FilesystemError as error:
            chunks.append(error.errno)
    await life.filesystem.release(handle)
    return Found(size_bytes, tuple(chunks))


async def find(life: Life, path: bytes) -> InodeNumber:
    """The inode at a path. ENOENT."""
    inode = ROOT_INODE
    for name in filter(None, path.split(b"/")):
        inode = (await life.metadata.lookup(inode, name)).inode
    return inode


class Actor:
    """What a script does. `cancel` cancels the step that runs."""

    def __init__(self, life: Life, model: Model) -> None:
        self.life = life
        self.model = model
        self._scope = trio.CancelScope()
        self.failures = 0

    def cancel(self) -> None:
        """Whoever asked for this step goes away."""
        self._scope.cancel()

    # -- steps that change the tree -----------------------------------------------------------------------------

    async def create(self, path: bytes) -> None:
        """A new, empty file."""

        async def act() -> None:
            directory, name = posixpath.split(path)
            new = NewInode(stat.S_IFREG | 0o640, 7, 8)
            filesystem = self.life.filesystem
            handle, made = await filesystem.create(await find(self.life, directory), name, new, os.O_RDWR)
            await filesystem.release(handle)
            await filesystem.forget([(made.inode, 1)])

        await self._change({**self.model.tree, path: self.model.new_file()}, act)

    async def write(self, path: bytes, offset: int, data: bytes) -> None:
        """As pwrite; the file is there."""
        file = self._file(path)
        content = file.content[:offset].ljust(offset, b"\0") + data + file.content[offset + len(data) :]

        async def act() -> None:
            files = self.life.filesystem.files
            handle = await files.open(await find(self.life, path), os.O_RDWR)
            try:
                await files.write(handle, offset, data)
            finally:
                with trio.CancelScope(shield=True):
                    await self.life.filesystem.release(handle)

        await self._change({**self.model.tree, path: File(file.number, content)}, act)

    async def put(self, path: bytes, content: bytes) -> None:
        """A new file of that content."""
        await self.create(path)
        await self.write(path, 0, content)

    async def truncate(self, path: bytes, size_bytes: int) -> None:
        """As truncate."""
        file = self._file(path)
        content = file.content[:size_bytes].ljust(size_bytes, b"\0")

        async def act() -> None:
            changes = AttributeChanges(size_bytes=size_bytes)
            await self.life.filesystem.change_attributes(await find(self.life, path), changes)

        await self._change({**self.model.tree, path: File(file.number, content)}, act)

    async def make_directory(self, path: bytes) -> None:
        """As mkdir."""

        async def act() -> None:
            directory, name = posixpath.split(path)
            new = NewInode(stat.S_IFDIR | 0o750, 7, 8)
            made = await self.life.filesystem.make_inode(await find(self.life, directory), name, new)
            await self.life.filesystem.forget([(made.inode, 1)])

        await self._change({**self.model.tree, path: None}, act)

    async def unlink(self, path: bytes) -> None:
        """As unlink."""

        async def act() -> None:
            directory, name = posixpath.split(path)
            await self.life.filesystem.unlink(await find(self.life, directory), name)

        await self._change({other: file for other, file in self.model.tree.items() if other != path}, act)

    async def rename(self, old: bytes, new: bytes) -> None:
        """As rename, of a file; over another one if there is one."""

        async def act() -> None:
            (one, name), (other, new_name) = posixpath.split(old), posixpath.split(new)
            await self.life.filesystem.rename(
                await find(self.life, one), name, await find(self.life, other), new_name, 0
            )

        tree = {path: file for path, file in self.model.tree.items() if path != old}
        await self._change({**tree, new: self.model.tree[old]}, act)

    async def undelete(self, path: bytes, file: File) -> None:
        """What was at a path comes back."""

        async def act() -> None:
            await self.life.trash.order(ROOT_INODE, path.decode().lstrip("/"), None).run()

        await self._change({**self.model.tree, path: file}, act)

    # -- steps that make safe -----------------------------------------------------------------------------------

    async def fsync(self, path: bytes) -> None:
        """As fsync."""

        async def act() -> None:
            await self.life.filesystem.files.sync(await find(self.life, path))

        if await self._do(act):
            self.model.here.settle(self.model.tree, [path])

    async def sync(self) -> None:
        """As sync."""
        if await self._do(self.life.filesystem.files.sync_everything):
            self.model.here.settle(self.model.tree, None)

    async def send(self) -> None:
        """As `disfs sync`: all of it is in Discord."""
        if await self._do(self.life.sync):
            self.model.here.settle(self.model.tree, None)
            self.model.remote.settle(self.model.tree, None)

    # -- steps that tidy ----------------------------------------------------------------------------------------

    async def wait(self, seconds: float) -> None:
        """What goes on by itself goes on."""
        await trio.sleep(seconds)

    async def sweep(self) -> None:
        """Garbage goes from Discord: twice, as the first time it is only seen."""
        await self._do(self.life.chunks.sweep)
        await self._do(self.life.chunks.sweep)

    async def compact(self) -> None:
        """As often as it is worth it."""

        async def act() -> None:
            while await self.life.chunks.compact():
                pass

        await self._do(act)

    async def empty_trash(self) -> None:
        """Two days later."""

        async def act() -> None:
            clock = self.life.trash._clock_ns
            self.life.trash._clock_ns = lambda: clock() + 2 * DAY_NS
            try:
                await self.life.trash.empty()
            finally:
                self.life.trash._clock_ns = clock

        await self._do(act)

    async def make_snapshot(self, name: str) -> None:
        """As `disfs snapshot create`."""
        tree = self.model.tree

        async def act() -> None:
            if all(each["name"] != name for each in self.life.snapshots.listed()):
                await self.life.snapshots.create(name)
            await self.life.snapshots.finish()

        if await self._do(act):
            self.model.snapshots[name] = tree

    async def delete_snapshot(self, name: str) -> None:
        """As `disfs snapshot delete`."""
        self.model.snapshots.pop(name, None)

        async def act() -> None:
            if any(each["name"] == name for each in self.life.snapshots.listed()):
                await self.life.snapshots.delete(name)
            await self.life.snapshots.finish()

        await self._do(act)

    async def check(self) -> None:
        """Everything is as the model says, read from Discord as far as it is there."""
        self.life.chunks.evict_all()
        found = await walk(self.life)
        if any(isinstance(chunk, int) for seen in found.values() if seen for chunk in seen.chunks):
            found = await walk(self.life)  # a fetch may have failed
        assert is_tree(self.model.tree, found), f"{found} is not {self.model.tree}"

    # -- failures -----------------------------------------------------------------------------------------------

    def _file(self, path: bytes) -> File:
        file = self.model.tree[path]
        assert file is not None
        return file

    async def _change(self, after: Tree, act: Callable[[], Awaitable[None]]) -> None:
        self.model.may_become(after)
        for _ in range(3):
            if await self._attempt(act):
                self.model.tree = after
                return
            if is_tree(after, await self._look()):
                self.model.tree = after
                return
        raise AssertionError("a step failed three times, and there was one fault")

    async def _do(self, act: Callable[[], Awaitable[object]]) -> bool:
        for _ in range(3):
            if await self._attempt(act):
                return True
        raise AssertionError("a step failed three times, and there was one fault")

    async def _attempt(self, act: Callable[[], Awaitable[object]]) -> bool:
        try:
            with trio.CancelScope() as self._scope:
                await act()
                return True
        except (DisfsError, OSError):
            if self.life.metadata.statistics().failure is not None:
                raise StoppedError from None
        self.failures += 1
        return False

    async def _look(self) -> FoundTree:
        found = await walk(self.life)
        complaint = self.model.here.complaint(found)
        assert complaint is None, complaint
        return found


def is_tree(tree: Tree, found: FoundTree) -> bool:
    """Whether exactly that was found."""
    return {path: None if file is None else file.content for path, file in tree.items()} == {
        path: None if seen is None else b"".join(each for each in seen.chunks if isinstance(each, bytes))
        for path, seen in found.items()
    }
