"""Extended attributes: rows of (inode, name, value)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError
from disfs.metadata.base import XATTR_NAME_MAX, XATTR_VALUE_MAX, XattrMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.metadata.database import Database
    from disfs.metadata.inodes import Inodes
    from disfs.values import InodeNumber


class Xattrs:
    """The extended attributes of every inode."""

    def __init__(self, database: Database, inodes: Inodes) -> None:
        self._database = database
        self._inodes = inodes

    def get(self, inode: InodeNumber, name: bytes) -> bytes:
        """See MetadataStore.get_xattr."""
        self._inodes.attributes(inode)  # rows of an inode that is gone may still be there
        value = self._find(inode, name)
        if value is None:
            raise FilesystemError(errno.ENODATA)
        return value

    def set(self, inode: InodeNumber, name: bytes, value: bytes, mode: XattrMode, now_ns: int) -> None:
        """See MetadataStore.set_xattr."""
        with self._database.growing:
            self._inodes.attributes(inode)
            if not 1 <= len(name) <= XATTR_NAME_MAX:
                raise FilesystemError(errno.ERANGE)
            if len(value) > XATTR_VALUE_MAX:
                raise FilesystemError(errno.E2BIG)
            self._check_mode(inode, name, mode)
            self._database.write(
                "INSERT INTO xattrs (inode, name, value) VALUES (?, ?, ?)"
                " ON CONFLICT (inode, name) DO UPDATE SET value = excluded.value",
                (inode, name, value),
            )
            self._inodes.set_ctime(inode, now_ns)

    def list(self, inode: InodeNumber) -> Sequence[bytes]:
        """See MetadataStore.list_xattrs."""
        self._inodes.attributes(inode)
        rows = self._database.rows("SELECT name FROM xattrs WHERE inode = ? ORDER BY name", (inode,))
        return [row[0] for row in rows]

    def remove(self, inode: InodeNumber, name: bytes, now_ns: int) -> None:
        """See MetadataStore.remove_xattr."""
        with self._database.changing:
            self.get(inode, name)
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
        row = self._database.row("SELECT value FROM xattrs WHERE inode = ? AND name = ?", (inode, name))
        return None if row is None else row[0]
