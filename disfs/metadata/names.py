"""mknod, mkdir, symlink, create, link, unlink, rmdir: one method each, all checks before the first change."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError
from disfs.metadata.base import LINK_MAX
from disfs.metadata.dentries import check_name
from disfs.metadata.inodes import check_new
from disfs.metadata.views import refuse_view
from disfs.values import TrashReason

if TYPE_CHECKING:
    from disfs.metadata.base import Unlinked
    from disfs.metadata.database import Database
    from disfs.metadata.dentries import Dentries
    from disfs.metadata.inodes import Inodes
    from disfs.values import Attributes, InodeNumber, NewInode

_DOTS = (b".", b"..")


class Names:
    """Operations that make a name or remove one."""

    def __init__(self, database: Database, inodes: Inodes, dentries: Dentries) -> None:
        self._database = database
        self._inodes = inodes
        self._dentries = dentries

    def make_inode(self, parent: InodeNumber, name: bytes, new: NewInode, now_ns: int) -> Attributes:
        """See MetadataStore."""
        with self._database.growing:
            directory = self._dentries.living_directory(parent)
            self._check_free(parent, name)
            check_new(new)
            is_directory = stat.S_ISDIR(new.mode)
            if is_directory and directory.nlink >= LINK_MAX:
                raise FilesystemError(errno.EMLINK)
            made = self._inodes.create(new, directory, now_ns)
            self._dentries.insert(parent, name, made.inode)
            if is_directory:
                self._dentries.made_directory(made.inode)
            self._inodes.touch_directory(parent, int(is_directory), now_ns)
        return made

    def link(self, inode: InodeNumber, parent: InodeNumber, name: bytes, now_ns: int) -> Attributes:
        """See MetadataStore."""
        with self._database.growing:
            attributes = self._inodes.attributes(inode)
            refuse_view(inode)
            self._dentries.living_directory(parent)
            self._check_free(parent, name)
            if stat.S_ISDIR(attributes.mode):
                raise FilesystemError(errno.EPERM, "a directory has one name")
            if attributes.nlink == 0:
                raise FilesystemError(errno.ENOENT, "the file was removed")
            if attributes.nlink >= LINK_MAX:
                raise FilesystemError(errno.EMLINK)
            self._dentries.insert(parent, name, inode)
            self._inodes.set_nlink(inode, attributes.nlink + 1, now_ns)
            self._inodes.touch_directory(parent, 0, now_ns)
        return attributes._replace(nlink=attributes.nlink + 1, ctime_ns=now_ns)

    def unlink(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        """See MetadataStore."""
        with self._database.changing:
            attributes = self._existing(parent, name, dots_errno=errno.EISDIR)
            if stat.S_ISDIR(attributes.mode):
                raise FilesystemError(errno.EISDIR)
            nlink = attributes.nlink - 1
            last = None if nlink else self._dentries.last_name(parent, name, TrashReason.DELETED)
            self._dentries.remove(parent, name)
            self._inodes.touch_directory(parent, 0, now_ns)
            return self._inodes.set_nlink(attributes.inode, nlink, now_ns, last)

    def rmdir(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        """See MetadataStore."""
        with self._database.changing:
            dots_errno = errno.EINVAL if name == b"." else errno.ENOTEMPTY
            attributes = self._existing(parent, name, dots_errno)
            if not stat.S_ISDIR(attributes.mode):
                raise FilesystemError(errno.ENOTDIR)
            if not self._dentries.is_empty(attributes.inode):
                raise FilesystemError(errno.ENOTEMPTY)
            last = self._dentries.last_name(parent, name, TrashReason.DELETED)
            self._dentries.remove(parent, name)
            self._dentries.removed_directory(attributes.inode)
            self._inodes.touch_directory(parent, -1, now_ns)
            return self._inodes.set_nlink(attributes.inode, 0, now_ns, last)

    def _check_free(self, parent: InodeNumber, name: bytes) -> None:
        check_name(name)
        if name in _DOTS or self._dentries.find(parent, name) is not None:
            raise FilesystemError(errno.EEXIST)

    def _existing(self, parent: InodeNumber, name: bytes, dots_errno: int) -> Attributes:
        """What a name that is to be removed stands for."""
        self._dentries.directory(parent)
        check_name(name)
        if name in _DOTS:
            raise FilesystemError(dots_errno)
        attributes = self._dentries.find(parent, name)
        if attributes is None:
            raise FilesystemError(errno.ENOENT)
        refuse_view(attributes.inode)
        return attributes
