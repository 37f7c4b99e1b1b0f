"""Rows of the dentries table: finding, listing, and the way from an inode back to its paths.

An entry keeps its cookie while it is renamed within its directory, and a name that is renamed over keeps its own.
So a program that renames every entry that it is shown comes to an end, and a name that is replaced in
place (as editors save files) is never missing from a listing.
"""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError
from disfs.metadata.base import NAME_MAX
from disfs.metadata.inodes import COLUMNS, stale
from disfs.values import ROOT_INODE, Attributes, DirectoryEntry, InodeNumber

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.metadata.counters import Counter
    from disfs.metadata.database import Database
    from disfs.metadata.inodes import Inodes

_INODE_COLUMNS = ", ".join(f"inodes.{column}" for column in COLUMNS.split(", "))
_LOOKUP = (
    f"SELECT {_INODE_COLUMNS} FROM dentries JOIN inodes ON inodes.inode = dentries.inode"  # noqa: S608 - constants of this module
    " WHERE dentries.parent = ? AND dentries.name = ?"
)
_LIST = (
    f"SELECT dentries.name, dentries.cookie, {_INODE_COLUMNS}"  # noqa: S608 - constants of this module
    " FROM dentries JOIN inodes ON inodes.inode = dentries.inode"
    " WHERE dentries.parent = ? AND dentries.cookie > ? ORDER BY dentries.cookie LIMIT ?"
)


def check_name(name: bytes) -> None:
    """Raise unless `name` may stand in a directory; `.` and `..` are the caller's affair."""
    if len(name) > NAME_MAX:
        raise FilesystemError(errno.ENAMETOOLONG)
    if not name or b"/" in name or b"\0" in name:
        raise FilesystemError(errno.EINVAL, "a name is 1 to 255 bytes without / and NUL")


class Dentries:
    """Names in directories. Methods that change rows must be called inside a change, after their caller's checks."""

    def __init__(self, database: Database, inodes: Inodes, cookies: Counter) -> None:
        self._database = database
        self._inodes = inodes
        self._cookies = cookies

    def lookup(self, parent: InodeNumber, name: bytes) -> Attributes:
        """See MetadataStore. The common case, a name that is there, takes one statement."""
        row = self._database.row(_LOOKUP, (parent, name))
        if row is not None:
            return Attributes._make(row)
        directory = self.directory(parent)
        check_name(name)
        if name == b".":
            return directory
        if name == b"..":
            return self._inodes.attributes(self.parent_of(parent))
        raise FilesystemError(errno.ENOENT)

    def find(self, parent: InodeNumber, name: bytes) -> Attributes | None:
        """The inode that an ordinary name stands for, None when there is no such name."""
        row = self._database.row(_LOOKUP, (parent, name))
        return None if row is None else Attributes._make(row)

    def directory(self, inode: InodeNumber) -> Attributes:
        """The attributes of a directory in which a name is looked for: ENOENT when it is gone, ENOTDIR."""
        attributes = self._inodes.find(inode)
        if attributes is None:
            raise FilesystemError(errno.ENOENT, f"directory {inode} was removed")
        if not stat.S_ISDIR(attributes.mode):
            raise FilesystemError(errno.ENOTDIR)
        return attributes

    def living_directory(self, inode: InodeNumber) -> Attributes:
        """`directory` for a new name: a removed one takes none, although it is open somewhere (ENOENT)."""
        attributes = self.directory(inode)
        if attributes.nlink == 0:
            raise FilesystemError(errno.ENOENT, f"directory {inode} was removed")
        return attributes

    def is_empty(self, directory: InodeNumber) -> bool:
        """Whether there is no name in it."""
        return self._database.row("SELECT 1 FROM dentries WHERE parent = ? LIMIT 1", (directory,)) is None

    def list_directory(self, inode: InodeNumber, after_cookie: int, limit: int) -> Sequence[DirectoryEntry]:
        """See MetadataStore."""
        rows = self._database.rows(_LIST, (inode, after_cookie, limit))
        if not rows:
            attributes = self._inodes.attributes(inode)
            if not stat.S_ISDIR(attributes.mode):
                raise FilesystemError(errno.ENOTDIR)
        return [DirectoryEntry(row[0], row[1], Attributes._make(row[2:])) for row in rows]

    def parent_of(self, directory: InodeNumber) -> InodeNumber:
        """See MetadataStore."""
        row = self._database.row("SELECT parent FROM dentries WHERE inode = ?", (directory,))
        if row is not None:
            return InodeNumber(row[0])
        if self._inodes.find(directory) is None:
            raise stale(directory)
        return directory

    def is_within(self, inode: InodeNumber, directory: InodeNumber) -> bool:
        """Whether `inode`, a directory, is `directory` or lies anywhere below it."""
        while inode != directory:
            if inode == ROOT_INODE:
                return False
            parent = self.parent_of(inode)
            if parent == inode:
                return False
            inode = parent
        return True

    def paths(self, inode: InodeNumber) -> Sequence[bytes]:
        """Every path from the root that leads to the inode, in order; empty for an orphan or an unknown one."""
        if inode == ROOT_INODE:
            return [b"/"]
        rows = self._database.rows("SELECT parent, name FROM dentries WHERE inode = ?", (inode,))
        return sorted(self._path_of_directory(parent) + name for parent, name in rows)

    def insert(self, parent: InodeNumber, name: bytes, inode: InodeNumber) -> None:
        """A new name."""
        self._database.write(
            "INSERT INTO dentries (parent, name, inode, cookie) VALUES (?, ?, ?, ?)",
            (parent, name, inode, self._cookies.take()),
        )

    def point(self, parent: InodeNumber, name: bytes, inode: InodeNumber) -> None:
        """An existing name stands for another inode."""
        self._database.write("UPDATE dentries SET inode = ? WHERE parent = ? AND name = ?", (inode, parent, name))

    def rename_within(self, parent: InodeNumber, name: bytes, new_name: bytes) -> None:
        """An existing name reads otherwise, in the same directory."""
        self._database.write("UPDATE dentries SET name = ? WHERE parent = ? AND name = ?", (new_name, parent, name))

    def remove(self, parent: InodeNumber, name: bytes) -> None:
        """A name is no more."""
        self._database.write("DELETE FROM dentries WHERE parent = ? AND name = ?", (parent, name))

    def _path_of_directory(self, directory: InodeNumber) -> bytes:
        """Its path with a slash at the end."""
        names: list[bytes] = []
        while directory != ROOT_INODE:
            row = self._database.row("SELECT parent, name FROM dentries WHERE inode = ?", (directory,))
            assert row is not None, "only empty directories lose their name"
            directory = InodeNumber(row[0])
            names.append(row[1] + b"/")
        return b"/" + b"".join(reversed(names))
