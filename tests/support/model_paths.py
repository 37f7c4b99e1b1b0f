"""Paths and names of the model file system: how the kernel walks, and what each change of names does. No I/O.

Written from POSIX and path_resolution(7), with nothing of disfs: a mistake there cannot be repeated here by import.
Errors are `OSError` with the errno of the first rule that is broken.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from support.model_nodes import Node

if TYPE_CHECKING:
    from support.model_nodes import Moment

MAX_LINKS_FOLLOWED = 40
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def fail(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


class Place(NamedTuple):
    """Where a path leads: its last directory, the last name, and what that stands for."""

    parent: Node
    name: str
    node: Node | None


class ModelPaths:
    """A tree, and the operations on its names. `now` is when the present operation happens."""

    def __init__(self, now: Moment, *, umask: int, uid: int, gid: int, chunk_bytes: int) -> None:
        self.now = now
        self.umask, self.uid, self.gid = umask, uid, gid
        self.chunk_bytes = chunk_bytes
        self._numbers = itertools.count(1)
        self.top = self._new(stat.S_IFDIR | 0o755, None)
        self.top.parent = self.top

    # Walking

    def _walk(self, start: Node, path: str, *, follow: bool, depth: int = 0) -> Place:
        if not path:
            fail(errno.ENOENT)
        here = start
        *front, last = path.split("/")
        for name in front:
            here = self._step(here, name, depth)
        if not here.is_directory:
            fail(errno.ENOTDIR)
        if last == "..":
            assert here.parent is not None
            return Place(here.parent, ".", here.parent)
        if last == ".":
            return Place(here, ".", here)
        node = here.entries.get(last)
        if follow and node is not None and node.is_symlink:
            return self._through(here, node, depth)
        return Place(here, last, node)

    def _step(self, here: Node, name: str, depth: int) -> Node:
        node = self._walk(here, name, follow=True, depth=depth).node
        if node is None:
            fail(errno.ENOENT)
        return node

    def _through(self, directory: Node, link: Node, depth: int) -> Place:
        if depth >= MAX_LINKS_FOLLOWED:
            fail(errno.ELOOP)
        link.read(self.now)
        return self._walk(directory, link.target, follow=True, depth=depth + 1)

    def find(self, path: str, *, follow: bool = True) -> Node:
        """The inode that a path leads to."""
        node = self._walk(self.top, path, follow=follow).node
        return fail(errno.ENOENT) if node is None else node

    def place(self, path: str, *, follow: bool = False) -> Place:
        """Where a path leads, whether something is there or not."""
        return self._walk(self.top, path, follow=follow)

    # Making

    def _new(self, mode: int, parent: Node | None, target: str = "") -> Node:
        gid = self.gid
        if parent is not None and parent.mode & stat.S_ISGID:
            gid = parent.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        return Node(next(self._numbers), mode, self.uid, gid, self.now, target=target, parent=parent)

    def _enter(self, parent: Node, name: str, node: Node) -> None:
        parent.entries[name] = node
        if node.is_directory:
            node.parent = parent
            parent.nlink += 1
        parent.changed(self.now)

    def make(self, place: Place, mode: int, target: str = "") -> Node:
        """A new inode where nothing is: EEXIST, and ENOENT in a directory that is gone."""
        if place.node is not None:
            fail(errno.EEXIST)
        if place.parent.nlink == 0:
            fail(errno.ENOENT)
        permissions = stat.S_IMODE(mode) if stat.S_ISLNK(mode) else stat.S_IMODE(mode) & ~self.umask
        node = self._new(stat.S_IFMT(mode) | permissions, place.parent, target)
        self._enter(place.parent, place.name, node)
        return node

    def mkdir(self, path: str, mode: int) -> None:
        self.make(self.place(path), stat.S_IFDIR | mode & 0o1777)

    def mkfifo(self, path: str, mode: int) -> None:
        self.make(self.place(path), stat.S_IFIFO | mode)

    def symlink(self, target: str, path: str) -> None:
        self.make(self.place(path), stat.S_IFLNK | 0o777, target)

    def link(self, old: str, new: str) -> None:
        node, place = self.find(old, follow=False), self.place(new)
        if place.node is not None:
            fail(errno.EEXIST)
        if node.is_directory:
            fail(errno.EPERM)
        self._enter(place.parent, place.name, node)
        node.nlink += 1
        node.ctime = self.now

    # Removing

    def _leave(self, parent: Node, name: str) -> None:
        node = parent.entries.pop(name)
        parent.changed(self.now)
        if node.is_directory:
            parent.nlink -= 1

    def _lose(self, node: Node) -> None:
        node.nlink = 0 if node.is_directory else node.nlink - 1
        node.ctime = self.now

    def unlink(self, path: str) -> None:
        place = self.place(path)
        if place.node is None:
            fail(errno.ENOENT)
        if place.node.is_directory:
            fail(errno.EISDIR)
        self._leave(place.parent, place.name)
        self._lose(place.node)

    def rmdir(self, path: str) -> None:
        place = self.place(path)
        if place.node is None:
            fail(errno.ENOENT)
        if not place.node.is_directory:
            fail(errno.ENOTDIR)
        if place.node.entries:
            fail(errno.ENOTEMPTY)
        self._leave(place.parent, place.name)
        self._lose(place.node)

    # Renaming

    def rename(self, old: str, new: str, flags: int) -> None:
        source, target = self.place(old), self.place(new)
        if source.node is None:
            fail(errno.ENOENT)
        self._check_target(source, target, flags)
        if source.node is target.node:
            return
        if flags != RENAME_EXCHANGE and target.node is not None:
            self._check_kinds(source.node, target.node)
        self._move(source, target, exchanges=flags == RENAME_EXCHANGE)

    def _check_target(self, source: Place, target: Place, flags: int) -> None:
        if flags == RENAME_NOREPLACE and target.node is not None:
            fail(errno.EEXIST)
        if flags == RENAME_EXCHANGE and target.node is None:
            fail(errno.ENOENT)
        if source.node is not None and self._lies_in(target.parent, source.node):
            fail(errno.EINVAL)
        if target.node is not None and self._lies_in(source.parent, target.node):
            fail(errno.EINVAL if flags == RENAME_EXCHANGE else errno.ENOTEMPTY)

    def _lies_in(self, node: Node, directory: Node) -> bool:
        while node is not directory and node.parent is not node:
            assert node.parent is not None
            node = node.parent
        return node is directory

    def _check_kinds(self, source: Node, target: Node) -> None:
        if source.is_directory and not target.is_directory:
            fail(errno.ENOTDIR)
        if target.is_directory and not source.is_directory:
            fail(errno.EISDIR)
        if target.entries:
            fail(errno.ENOTEMPTY)

    def _move(self, source: Place, target: Place, *, exchanges: bool) -> None:
        assert source.node is not None
        self._leave(source.parent, source.name)
        if target.node is not None:
            self._leave(target.parent, target.name)
        self._enter(target.parent, target.name, source.node)
        source.node.ctime = self.now
        if target.node is None:
            return
        if exchanges:
            self._enter(source.parent, source.name, target.node)
            target.node.ctime = self.now
        else:
            self._lose(target.node)
