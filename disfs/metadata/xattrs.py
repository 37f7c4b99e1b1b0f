"""Extended attributes: rows of (inode, name, value), ACLs among them."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError
from disfs.metadata.acls import ACL_NAMES
from disfs.metadata.base import XATTR_NAME_MAX, XATTR_VALUE_MAX, XattrMode
from disfs.metadata.views import refuse_view
from disfs.posix_acl import AclKind, is_minimal, mode_with_acl
from disfs.values import FIRST_VIEW_INODE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.metadata.acls import Acls
    from disfs.metadata.database import Database
    from disfs.metadata.inodes import Inodes
    from disfs.metadata.outbox import Outbox
    from disfs.posix_acl import Acl
    from disfs.values import InodeNumber


class Xattrs:
    """The extended attributes of every inode."""

    def __init__(self, database: Database, outbox: Outbox, inodes: Inodes, acls: Acls) -> None:
        self._database = database
        self._outbox = outbox
        self._inodes = inodes
        self._acls = acls

    def get(self, inode: InodeNumber, name: bytes) -> bytes:
        """See MetadataStore.get_xattr. The kernel asks for the ACLs of whatever it checks; mostly there are none."""
        if name in ACL_NAMES and not self._acls.may_exist:
            raise FilesystemError(errno.ENODATA)
        self._inodes.attributes(inode)  # rows of an inode that is gone may still be there
        value = self._find(inode, name)
        if value is None:
            raise FilesystemError(errno.ENODATA)
        return value

    def set(self, inode: InodeNumber, name: bytes, value: bytes, mode: XattrMode, now_ns: int) -> None:
        """See MetadataStore.set_xattr."""
        refuse_view(inode)
        with self._database.growing:
            self._inodes.attributes(inode)
            if not 1 <= len(name) <= XATTR_NAME_MAX:
                raise FilesystemError(errno.ERANGE)
            if len(value) > XATTR_VALUE_MAX:
                raise FilesystemError(errno.E2BIG)
            self._check_mode(inode, name, mode)
            self._outbox.note_xattr(inode, name)
            self._database.write(
                "INSERT INTO xattrs (inode, name, value) VALUES (?, ?, ?)"
                " ON CONFLICT (inode, name) DO UPDATE SET value = excluded.value",
                (inode, name, value),
            )
            self._inodes.set_ctime(inode, now_ns)

    def set_acl(self, inode: InodeNumber, kind: AclKind, acl: Acl, now_ns: int, *, clears_setgid: bool) -> None:
        """See MetadataStore.set_acl."""
        refuse_view(inode)
        stored = () if kind is AclKind.ACCESS and is_minimal(acl) else acl
        with self._database.growing if stored else self._database.changing:
            mode = self._inodes.attributes(inode).mode
            if acl and kind is AclKind.DEFAULT and not stat.S_ISDIR(mode):
                raise FilesystemError(errno.EACCES, "only a directory has a default ACL")
            if not acl and self._find(inode, kind.value) is None:
                return
            if acl and kind is AclKind.ACCESS:
                mode = mode_with_acl(mode, acl) & ~(stat.S_ISGID if clears_setgid else 0)
            self._acls.put(inode, kind, stored)
            self._inodes.set_mode(inode, mode, now_ns)

    def list(self, inode: InodeNumber) -> Sequence[bytes]:
        """See MetadataStore.list_xattrs."""
        self._inodes.attributes(inode)
        if inode >= FIRST_VIEW_INODE:
            return self._inodes.views.xattrs(inode)
        rows = self._database.rows("SELECT name FROM xattrs WHERE inode = ? ORDER BY name", (inode,))
        return [row[0] for row in rows]

    def remove(self, inode: InodeNumber, name: bytes, now_ns: int) -> None:
        """See MetadataStore.remove_xattr."""
        refuse_view(inode)
        with self._database.changing:
            self.get(inode, name)
            self._outbox.note_xattr(inode, name)
            self._database.write("DELETE FROM xattrs WHERE inode = ? AND name = ?", (inode, name))
            self._inodes.set_ctime(inode, now_ns)

    def _check_mode(self, inode: InodeNumber, name: bytes, mode: XattrMode) -> None:
        if mode is XattrMode.EITHER:
            return
        exists = self._find(inode, name) is not None
        if mode is XattrMode.CREATE and exists:
            raise FilesystemError(errno.EEXIST)
        if mode is XattrMode.REPLACE and not exists:
            raise FilesystemError(errno.ENODATA)

    def _find(self, inode: InodeNumber, name: bytes) -> bytes | None:
        if inode >= FIRST_VIEW_INODE:
            return self._inodes.views.xattr(inode, name)
        row = self._database.row("SELECT value FROM xattrs WHERE inode = ? AND name = ?", (inode, name))
        return None if row is None else row[0]
