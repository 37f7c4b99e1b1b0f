"""Access control lists: those rows of the xattrs table that permission bits and new inodes have to do with.

Nearly no file has one, so a volume remembers whether it ever had any (`HAS_ACLS`): until then nothing is looked up.
From then on chmod looks for the access ACL of its inode, and whatever makes an inode for the default ACL of the
directory: one statement each, by primary key. Not chosen: a column of inodes, which every stat would carry.
"""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, NamedTuple

from disfs.errors import FilesystemError
from disfs.metadata.base import XATTR_VALUE_MAX
from disfs.metadata.settings import HAS_ACLS
from disfs.posix_acl import AclKind, acl_with_mode, build_acl, inherited_acl, is_minimal, mode_with_acl, parse_acl

if TYPE_CHECKING:
    from disfs.metadata.database import Database
    from disfs.metadata.outbox import Outbox
    from disfs.metadata.settings import Settings
    from disfs.posix_acl import Acl
    from disfs.values import InodeNumber, NewInode

ACL_NAMES = frozenset(kind.value for kind in AclKind)


class Inherited(NamedTuple):
    """What a new inode takes from the default ACL of its directory, or from the umask."""

    mode: int
    access: Acl = ()
    default: Acl = ()


def mode_with_umask(new: NewInode) -> int:
    """The mode of a new inode where there is no default ACL."""
    return new.mode if stat.S_ISLNK(new.mode) else new.mode & ~new.umask


class Acls:
    """The ACLs of every inode. What changes rows must be called inside a change."""

    def __init__(self, database: Database, outbox: Outbox, settings: Settings) -> None:
        self._database = database
        self._outbox = outbox
        self._settings = settings
        self._may_exist = settings.get(HAS_ACLS) is True
        database.after_rollback.append(self._reload)

    @property
    def may_exist(self) -> bool:
        """Whether any inode may have one; False is certain."""
        return self._may_exist

    def find(self, inode: InodeNumber, kind: AclKind) -> Acl:
        """The ACL, empty where there is none."""
        if not self._may_exist:
            return ()
        row = self._database.row("SELECT value FROM xattrs WHERE inode = ? AND name = ?", (inode, kind.value))
        return () if row is None else parse_acl(row[0])

    def put(self, inode: InodeNumber, kind: AclKind, acl: Acl) -> None:
        """Store an ACL; an empty one removes it. E2BIG, before anything is changed."""
        if not acl:
            if self._may_exist:
                self._outbox.note_xattr(inode, kind.value)
                self._database.write("DELETE FROM xattrs WHERE inode = ? AND name = ?", (inode, kind.value))
            return
        value = build_acl(acl)
        if len(value) > XATTR_VALUE_MAX:
            raise FilesystemError(errno.E2BIG)
        if not self._may_exist:
            self._settings.put(HAS_ACLS, True)
            self._may_exist = True
        self._outbox.note_xattr(inode, kind.value)
        self._database.write(
            "INSERT INTO xattrs (inode, name, value) VALUES (?, ?, ?)"
            " ON CONFLICT (inode, name) DO UPDATE SET value = excluded.value",
            (inode, kind.value, value),
        )

    def follow_mode(self, inode: InodeNumber, mode: int) -> None:
        """The permission bits have been set to `mode`: so must be the access ACL."""
        acl = self.find(inode, AclKind.ACCESS)
        followed = acl_with_mode(acl, mode)
        if followed != acl:
            self.put(inode, AclKind.ACCESS, followed)

    def inherited(self, directory: InodeNumber, new: NewInode) -> Inherited:
        """What a new inode in the directory begins with."""
        default = () if stat.S_ISLNK(new.mode) else self.find(directory, AclKind.DEFAULT)
        if not default:
            return Inherited(mode_with_umask(new))
        access = inherited_acl(default, new.mode)
        mode = mode_with_acl(new.mode, access)
        return Inherited(mode, () if is_minimal(access) else access, default if stat.S_ISDIR(mode) else ())

    def give(self, inode: InodeNumber, inherited: Inherited) -> None:
        """Store what a new inode has inherited: mostly nothing."""
        if not (inherited.access or inherited.default):
            return
        for kind, acl in ((AclKind.ACCESS, inherited.access), (AclKind.DEFAULT, inherited.default)):
            if acl:
                self.put(inode, kind, acl)

    def _reload(self) -> None:
        self._may_exist = self._settings.get(HAS_ACLS) is True
