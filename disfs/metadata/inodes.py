"""Rows of the inodes table: attributes, sizes, times, link counts, orphans."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError
from disfs.metadata.base import SYMLINK_MAX, Unlinked, read_moves_atime
from disfs.values import Attributes, InodeNumber

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.metadata.counters import Counter
    from disfs.metadata.database import Database
    from disfs.metadata.totals import Totals
    from disfs.values import AttributeChanges, NewInode

COLUMNS = "inode, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, ctime_ns, chunk_count"
"""In the order of the fields of Attributes."""

MAX_INTEGER = (1 << 63) - 1
"""What a column of the database holds at most."""

_PERMISSION_BITS = 0o7777

_SELECT = f"SELECT {COLUMNS} FROM inodes WHERE inode = ?"  # noqa: S608 - constants of this module
_INSERT = f"INSERT INTO inodes ({COLUMNS}, target) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants of this module


def stale(inode: InodeNumber) -> FilesystemError:
    """What an operation on an inode that is gone raises."""
    return FilesystemError(errno.ESTALE, f"inode {inode} is gone")


class Inodes:
    """What the store does to one inode, whatever its names are."""

    def __init__(self, database: Database, numbers: Counter, totals: Totals) -> None:
        self._database = database
        self._numbers = numbers
        self._totals = totals

    def find(self, inode: InodeNumber) -> Attributes | None:
        """Its attributes; None when there is no such inode."""
        row = self._database.row(_SELECT, (inode,))
        return None if row is None else Attributes._make(row)

    def attributes(self, inode: InodeNumber) -> Attributes:
        """See MetadataStore."""
        row = self._database.row(_SELECT, (inode,))
        if row is None:
            raise stale(inode)
        return Attributes._make(row)

    def change_attributes(self, inode: InodeNumber, changes: AttributeChanges, now_ns: int) -> Attributes:
        """See MetadataStore. Works on a full disk too, as it changes a row in place."""
        with self._database.changing:
            old = self.attributes(inode)
            if changes.size_bytes is not None:
                _check_size(old.mode, changes.size_bytes)
            new = _with_changes(old, changes, now_ns)
            self._database.write(
                "UPDATE inodes SET mode = ?, uid = ?, gid = ?, size_bytes = ?, atime_ns = ?, mtime_ns = ?, ctime_ns = ?"
                " WHERE inode = ?",
                (new.mode, new.uid, new.gid, new.size_bytes, new.atime_ns, new.mtime_ns, new.ctime_ns, inode),
            )
            if new.size_bytes != old.size_bytes:
                self._totals.add(0, new.size_bytes - old.size_bytes)
        return new

    def note_write(self, inode: InodeNumber, end: int, now_ns: int) -> None:
        """See MetadataStore."""
        with self._database.changing:
            row = self._database.row("SELECT size_bytes FROM inodes WHERE inode = ?", (inode,))
            if row is None:
                raise stale(inode)
            if end > row[0]:
                self._database.write(
                    "UPDATE inodes SET size_bytes = ?, mtime_ns = ?, ctime_ns = ? WHERE inode = ?",
                    (end, now_ns, now_ns, inode),
                )
                self._totals.add(0, end - row[0])
            else:
                self._database.write(
                    "UPDATE inodes SET mtime_ns = ?, ctime_ns = ? WHERE inode = ?", (now_ns, now_ns, inode)
                )

    def note_read(self, inode: InodeNumber, now_ns: int) -> None:
        """See MetadataStore. Asks first: most reads move nothing and should open no transaction."""
        row = self._database.row("SELECT atime_ns, mtime_ns, ctime_ns FROM inodes WHERE inode = ?", (inode,))
        if row is None:
            raise stale(inode)
        atime_ns, mtime_ns, ctime_ns = row
        if read_moves_atime(atime_ns, mtime_ns, ctime_ns, now_ns):
            with self._database.changing:
                self._database.write("UPDATE inodes SET atime_ns = ? WHERE inode = ?", (now_ns, inode))

    def symlink_target(self, inode: InodeNumber) -> bytes:
        """See MetadataStore."""
        row = self._database.row("SELECT target FROM inodes WHERE inode = ?", (inode,))
        if row is None:
            raise stale(inode)
        target: bytes | None = row[0]
        if target is None:
            raise FilesystemError(errno.EINVAL, "not a symbolic link")
        return target

    def create(self, new: NewInode, directory: Attributes, now_ns: int) -> Attributes:
        """A new row for a name in `directory`, inside a change."""
        is_directory = stat.S_ISDIR(new.mode)
        mode, gid = new.mode, new.gid
        if directory.mode & stat.S_ISGID:
            gid = directory.gid
            mode |= stat.S_ISGID if is_directory else 0
        size_bytes = 0 if new.target is None else len(new.target)
        made = Attributes(
            InodeNumber(self._numbers.take()),
            mode,
            2 if is_directory else 1,
            new.uid,
            gid,
            new.rdev,
            size_bytes,
            now_ns,
            now_ns,
            now_ns,
        )
        self._database.write(_INSERT, (*made, new.target))
        self._totals.add(1, 0)
        return made

    def touch_directory(self, directory: InodeNumber, nlink_delta: int, now_ns: int) -> None:
        """A name in it came, went or changed: mtime, ctime, and its link count by `nlink_delta`. Inside a change."""
        self._database.write(
            "UPDATE inodes SET nlink = nlink + ?, mtime_ns = ?, ctime_ns = ? WHERE inode = ?",
            (nlink_delta, now_ns, now_ns, directory),
        )

    def set_nlink(self, inode: InodeNumber, nlink: int, now_ns: int) -> Unlinked:
        """Its link count is `nlink` from now on; at 0 it is an orphan. Inside a change."""
        self._database.write("UPDATE inodes SET nlink = ?, ctime_ns = ? WHERE inode = ?", (nlink, now_ns, inode))
        if nlink == 0:
            self._database.write("INSERT INTO orphans (inode) VALUES (?)", (inode,))
        return Unlinked(inode, nlink)

    def chunk_count(self, inode: InodeNumber) -> int:
        """See Attributes; 0 for an inode that does not exist."""
        row = self._database.row("SELECT chunk_count FROM inodes WHERE inode = ?", (inode,))
        return 0 if row is None else int(row[0])

    def add_chunks(self, inode: InodeNumber, count: int) -> None:
        """`count` holes of a file have become chunks; negative: the other way round. Inside a change."""
        if count:
            self._database.write("UPDATE inodes SET chunk_count = chunk_count + ? WHERE inode = ?", (count, inode))

    def set_ctime(self, inode: InodeNumber, now_ns: int) -> None:
        """Something about it changed that no other column shows. Inside a change."""
        self._database.write("UPDATE inodes SET ctime_ns = ? WHERE inode = ?", (now_ns, inode))

    def orphans(self) -> Sequence[InodeNumber]:
        """See MetadataStore."""
        return [InodeNumber(row[0]) for row in self._database.rows("SELECT inode FROM orphans ORDER BY inode")]

    def remove_orphan(self, inode: InodeNumber) -> None:
        """See MetadataStore."""
        with self._database.changing:
            row = self._database.row(
                "SELECT mode, size_bytes FROM orphans JOIN inodes USING (inode) WHERE inode = ?", (inode,)
            )
            if row is None:
                return
            self._database.write("DELETE FROM xattrs WHERE inode = ?", (inode,))
            self._database.write("DELETE FROM inodes WHERE inode = ?", (inode,))
            self._database.write("DELETE FROM orphans WHERE inode = ?", (inode,))
            self._database.write("DELETE FROM pins WHERE inode = ?", (inode,))
            self._totals.add(-1, -row[1] if stat.S_ISREG(row[0]) else 0)


def check_new(new: NewInode) -> None:
    """Whether an inode can be made as asked: a symbolic link needs a target of 1 to SYMLINK_MAX bytes."""
    if not stat.S_ISLNK(new.mode):
        assert new.target is None, "only symbolic links have a target"
        return
    if not new.target:
        raise FilesystemError(errno.ENOENT, "a symbolic link needs a target")
    if len(new.target) > SYMLINK_MAX:
        raise FilesystemError(errno.ENAMETOOLONG, "the target of a symbolic link is too long")


def _check_size(mode: int, size_bytes: int) -> None:
    if stat.S_ISDIR(mode):
        raise FilesystemError(errno.EISDIR)
    if not stat.S_ISREG(mode) or size_bytes < 0:
        raise FilesystemError(errno.EINVAL)
    if size_bytes > MAX_INTEGER:
        raise FilesystemError(errno.EFBIG)


def _with_changes(old: Attributes, changes: AttributeChanges, now_ns: int) -> Attributes:
    mtime_ns = now_ns if changes.size_bytes is not None else old.mtime_ns
    permissions = old.mode if changes.mode is None else changes.mode
    return old._replace(
        mode=stat.S_IFMT(old.mode) | permissions & _PERMISSION_BITS,
        uid=old.uid if changes.uid is None else changes.uid,
        gid=old.gid if changes.gid is None else changes.gid,
        size_bytes=old.size_bytes if changes.size_bytes is None else changes.size_bytes,
        atime_ns=old.atime_ns if changes.atime_ns is None else _clamped(changes.atime_ns),
        mtime_ns=mtime_ns if changes.mtime_ns is None else _clamped(changes.mtime_ns),
        ctime_ns=now_ns if changes.ctime_ns is None else _clamped(changes.ctime_ns),
    )


def _clamped(time_ns: int) -> int:
    """The nearest time that a column holds (1677 to 2262), as Linux does with what a file system cannot store."""
    return max(-MAX_INTEGER, min(time_ns, MAX_INTEGER))
