"""renameat2(2): the checks in POSIX's order, then the moves.

A move is decided completely (`_Move`) before the first row changes.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError
from disfs.metadata.base import LINK_MAX, RenameMode
from disfs.metadata.dentries import check_name
from disfs.metadata.views import refuse_view
from disfs.values import TrashReason

if TYPE_CHECKING:
    from disfs.metadata.base import Unlinked
    from disfs.metadata.database import Database
    from disfs.metadata.dentries import Dentries
    from disfs.metadata.inodes import Inodes
    from disfs.values import Attributes, InodeNumber


@dataclass(frozen=True, slots=True)
class _Move:
    """A rename that has been found possible."""

    parent: InodeNumber
    name: bytes
    source: Attributes
    new_parent: InodeNumber
    new_name: bytes
    target: Attributes | None
    now_ns: int

    @property
    def changes_parent(self) -> bool:
        return self.parent != self.new_parent


class Renames:
    """The one operation that touches two names."""

    def __init__(self, database: Database, inodes: Inodes, dentries: Dentries) -> None:
        self._database = database
        self._inodes = inodes
        self._dentries = dentries

    def rename(
        self,
        parent: InodeNumber,
        name: bytes,
        new_parent: InodeNumber,
        new_name: bytes,
        mode: RenameMode,
        now_ns: int,
    ) -> Unlinked | None:
        """See MetadataStore."""
        with self._database.growing:
            source, new_directory = self._source(parent, name, new_parent, new_name)
            target = self._dentries.find(new_parent, new_name)
            _check_target_exists(target, mode)
            if target is not None and target.inode == source.inode:
                return None
            if target is not None:
                refuse_view(target.inode)
            move = _Move(parent, name, source, new_parent, new_name, target, now_ns)
            self._check_loops(move, mode)
            if mode is RenameMode.EXCHANGE:
                self._check_exchange_links(move, new_directory)
                self._exchange(move)
                return None
            self._check_replacement(move, new_directory)
            return self._replace(move)

    def _source(
        self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes
    ) -> tuple[Attributes, Attributes]:
        """What is renamed, and the directory that it goes to."""
        self._dentries.directory(parent)
        new_directory = self._dentries.living_directory(new_parent)
        for each in (name, new_name):
            check_name(each)
            if each in {b".", b".."}:
                raise FilesystemError(errno.EINVAL, "`.` and `..` cannot be renamed")
        source = self._dentries.find(parent, name)
        if source is None:
            raise FilesystemError(errno.ENOENT)
        refuse_view(source.inode)
        return source, new_directory

    def _check_loops(self, move: _Move, mode: RenameMode) -> None:
        """No directory may end up inside itself. Within one directory nothing can."""
        if not move.changes_parent:
            return
        if stat.S_ISDIR(move.source.mode) and self._dentries.is_within(move.new_parent, move.source.inode):
            raise FilesystemError(errno.EINVAL, "a directory cannot move into itself")
        if mode is not RenameMode.EXCHANGE or move.target is None:
            return
        if stat.S_ISDIR(move.target.mode) and self._dentries.is_within(move.parent, move.target.inode):
            raise FilesystemError(errno.EINVAL, "a directory cannot move into itself")

    def _check_replacement(self, move: _Move, new_directory: Attributes) -> None:
        """Like replaces like, and only an empty directory is replaced; a further subdirectory must be countable."""
        moves_directory = stat.S_ISDIR(move.source.mode)
        if move.target is None:
            if moves_directory and move.changes_parent and new_directory.nlink >= LINK_MAX:
                raise FilesystemError(errno.EMLINK)
            return
        replaces_directory = stat.S_ISDIR(move.target.mode)
        if moves_directory and not replaces_directory:
            raise FilesystemError(errno.ENOTDIR)
        if replaces_directory and not moves_directory:
            raise FilesystemError(errno.EISDIR)
        if replaces_directory and not self._dentries.is_empty(move.target.inode):
            raise FilesystemError(errno.ENOTEMPTY)

    def _check_exchange_links(self, move: _Move, new_directory: Attributes) -> None:
        """An exchange may hand a directory to the other side."""
        gain = _exchange_gain(move)
        side = new_directory if gain > 0 else self._dentries.directory(move.parent)
        if gain and side.nlink >= LINK_MAX:
            raise FilesystemError(errno.EMLINK)

    def _exchange(self, move: _Move) -> None:
        assert move.target is not None
        self._dentries.point(move.parent, move.name, move.target.inode)
        self._dentries.point(move.new_parent, move.new_name, move.source.inode)
        self._inodes.set_ctime(move.source.inode, move.now_ns)
        self._inodes.set_ctime(move.target.inode, move.now_ns)
        gain = _exchange_gain(move)
        self._inodes.touch_directory(move.parent, -gain, move.now_ns)
        self._inodes.touch_directory(move.new_parent, gain, move.now_ns)
        if stat.S_ISDIR(move.source.mode) or stat.S_ISDIR(move.target.mode):
            self._dentries.moved_directory()

    def _replace(self, move: _Move) -> Unlinked | None:
        moves_directory = stat.S_ISDIR(move.source.mode)
        new_parent_gain = int(moves_directory and move.changes_parent)
        unlinked = None
        if move.target is not None:
            replaced = self._dentries.last_name(move.new_parent, move.new_name, TrashReason.REPLACED)
            self._dentries.remove(move.parent, move.name)
            self._dentries.point(move.new_parent, move.new_name, move.source.inode)
            new_parent_gain -= int(stat.S_ISDIR(move.target.mode))
            self._dentries.removed_directory(move.target.inode)
            nlink = 0 if stat.S_ISDIR(move.target.mode) else move.target.nlink - 1
            unlinked = self._inodes.set_nlink(move.target.inode, nlink, move.now_ns, replaced)
        elif move.changes_parent:
            self._dentries.remove(move.parent, move.name)
            self._dentries.insert(move.new_parent, move.new_name, move.source.inode)
        else:
            self._dentries.rename_within(move.parent, move.name, move.new_name)
        self._inodes.set_ctime(move.source.inode, move.now_ns)
        if move.changes_parent:
            self._inodes.touch_directory(move.parent, -int(moves_directory), move.now_ns)
        self._inodes.touch_directory(move.new_parent, new_parent_gain, move.now_ns)
        if moves_directory:
            self._dentries.moved_directory()
        return unlinked


def _check_target_exists(target: Attributes | None, mode: RenameMode) -> None:
    if mode is RenameMode.NOREPLACE and target is not None:
        raise FilesystemError(errno.EEXIST)
    if mode is RenameMode.EXCHANGE and target is None:
        raise FilesystemError(errno.ENOENT)


def _exchange_gain(move: _Move) -> int:
    """How many subdirectories the new parent gains, and the old one loses, by an exchange: -1, 0 or 1."""
    assert move.target is not None
    if not move.changes_parent:
        return 0
    return int(stat.S_ISDIR(move.source.mode)) - int(stat.S_ISDIR(move.target.mode))
