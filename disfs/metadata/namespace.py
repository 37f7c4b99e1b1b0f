"""The half of the metadata store that answers MetadataStore: inodes, names and extended attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disfs.metadata.base import Atime
from disfs.metadata.components import Components

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.metadata.base import RenameMode, Unlinked, VolumeUsage, XattrMode
    from disfs.posix_acl import Acl, AclKind
    from disfs.values import AttributeChanges, Attributes, DirectoryEntry, InodeNumber, NewInode


class Namespace(Components):
    """Everything here answers without suspending."""

    # Inodes

    async def attributes(self, inode: InodeNumber) -> Attributes:
        """See MetadataStore."""
        return self._inodes.attributes(inode)

    async def change_attributes(self, inode: InodeNumber, changes: AttributeChanges, now_ns: int) -> Attributes:
        """See MetadataStore."""
        return self._inodes.change_attributes(inode, changes, now_ns)

    async def note_write(self, inode: InodeNumber, end: int, now_ns: int) -> None:
        """See MetadataStore."""
        self._inodes.note_write(inode, end, now_ns)

    async def note_read(self, inode: InodeNumber, now_ns: int, rule: Atime = Atime.RELATIVE) -> None:
        """See MetadataStore."""
        self._inodes.note_read(inode, now_ns, rule)

    async def symlink_target(self, inode: InodeNumber) -> bytes:
        """See MetadataStore."""
        return self._inodes.symlink_target(inode)

    async def usage(self) -> VolumeUsage:
        """See MetadataStore."""
        return self._totals.usage()

    async def orphans(self) -> Sequence[InodeNumber]:
        """See MetadataStore."""
        return self._inodes.orphans()

    async def remove_orphan(self, inode: InodeNumber) -> None:
        """See MetadataStore."""
        self._inodes.remove_orphan(inode)

    async def trash_orphan(self, inode: InodeNumber, now_ns: int) -> bool:
        """See MetadataStore."""
        return self.trash.take_orphan(inode, now_ns)

    # Names

    async def lookup(self, parent: InodeNumber, name: bytes) -> Attributes:
        """See MetadataStore."""
        return self._dentries.lookup(parent, name)

    async def list_directory(self, inode: InodeNumber, after_cookie: int, limit: int) -> Sequence[DirectoryEntry]:
        """See MetadataStore."""
        return self._dentries.list_directory(inode, after_cookie, limit)

    async def parent_of(self, directory: InodeNumber) -> InodeNumber:
        """See MetadataStore."""
        return self._dentries.parent_of(directory)

    async def make_inode(self, parent: InodeNumber, name: bytes, new: NewInode, now_ns: int) -> Attributes:
        """See MetadataStore."""
        return self._names.make_inode(parent, name, new, now_ns)

    async def link(self, inode: InodeNumber, parent: InodeNumber, name: bytes, now_ns: int) -> Attributes:
        """See MetadataStore."""
        return self._names.link(inode, parent, name, now_ns)

    async def unlink(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        """See MetadataStore."""
        return self._names.unlink(parent, name, now_ns)

    async def rmdir(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        """See MetadataStore."""
        return self._names.rmdir(parent, name, now_ns)

    async def rename(
        self,
        parent: InodeNumber,
        name: bytes,
        new_parent: InodeNumber,
        new_name: bytes,
        mode: RenameMode,
        now_ns: int,
    ) -> Unlinked | None:
        """See MetadataStore."""
        return self._renames.rename(parent, name, new_parent, new_name, mode, now_ns)

    # Extended attributes

    async def get_xattr(self, inode: InodeNumber, name: bytes) -> bytes:
        """See MetadataStore."""
        return self._xattrs.get(inode, name)

    async def set_xattr(self, inode: InodeNumber, name: bytes, value: bytes, mode: XattrMode, now_ns: int) -> None:
        """See MetadataStore."""
        self._xattrs.set(inode, name, value, mode, now_ns)

    async def set_acl(
        self, inode: InodeNumber, kind: AclKind, acl: Acl, now_ns: int, *, clears_setgid: bool = False
    ) -> None:
        """See MetadataStore."""
        self._xattrs.set_acl(inode, kind, acl, now_ns, clears_setgid=clears_setgid)

    async def list_xattrs(self, inode: InodeNumber) -> Sequence[bytes]:
        """See MetadataStore."""
        return self._xattrs.list(inode)

    async def remove_xattr(self, inode: InodeNumber, name: bytes, now_ns: int) -> None:
        """See MetadataStore."""
        self._xattrs.remove(inode, name, now_ns)
