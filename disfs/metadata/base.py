"""The contract of a metadata store: one method per POSIX operation on names, each one transaction.

Methods are `async` so that a store on another machine fits; SQLite answers without suspending, and
`filesystem` counts on that only where its comments say so. All checks that POSIX asks for and that need the
store are made inside, before the first change: a method that raises has changed nothing. Errors are
`FilesystemError` with the errno that POSIX names, in POSIX's order of precedence. Permission bits are the
kernel's business (`default_permissions`). Times come from the caller (`now_ns`).

Names are 1 to 255 arbitrary bytes without `/` and NUL; longer ones raise ENAMETOOLONG, also in lookups.
An inode that does not exist raises ESTALE (ENOENT where it is a parent that was removed).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.posix_acl import Acl, AclKind
    from disfs.values import AttributeChanges, Attributes, DirectoryEntry, InodeNumber, NewInode

DEFAULT_CAPACITY_BYTES = 1 << 50
"""How much a volume holds when nothing else is set: Discord names no limit."""
NAME_MAX = 255
SYMLINK_MAX = 4095
LINK_MAX = 65000
XATTR_NAME_MAX = 255
XATTR_VALUE_MAX = 65536


class RenameMode(enum.Enum):
    """What renameat2(2) does with a target that exists."""

    REPLACE = enum.auto()
    NOREPLACE = enum.auto()
    EXCHANGE = enum.auto()


class XattrMode(enum.Enum):
    """What setxattr(2) does with an attribute that exists, or does not."""

    EITHER = enum.auto()
    CREATE = enum.auto()
    REPLACE = enum.auto()


_DAY_NS = 24 * 60 * 60 * 1_000_000_000


class Atime(enum.Enum):
    """Which reads move the atime."""

    NEVER = enum.auto()
    RELATIVE = enum.auto()
    """Those after a change, and one a day: relatime, as Linux has it where nothing else is asked for."""
    STRICT = enum.auto()
    """All that come here; what the kernel answers from its own memory does not."""


def read_moves_atime(rule: Atime, before: Attributes, now_ns: int) -> bool:
    """Whether a read at `now_ns` moves the atime."""
    if rule is not Atime.RELATIVE:
        return rule is Atime.STRICT
    atime_ns = before.atime_ns
    return atime_ns <= before.mtime_ns or atime_ns <= before.ctime_ns or now_ns - atime_ns >= _DAY_NS


@dataclass(frozen=True, slots=True)
class Unlinked:
    """The inode that a name stood for, after the name is gone. With `nlink` 0 it is an orphan (DESIGN section 2)."""

    inode: InodeNumber
    nlink: int


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    """Totals for statfs and status, kept up to date by the store rather than counted."""

    inode_count: int
    logical_bytes: int
    """Sum of the sizes of all regular files."""
    allocated_bytes: int
    """Sum of what all files take, holes left out; see `spans.allocated_bytes`."""


class MetadataStore(Protocol):
    """Inodes, dentries and extended attributes of one volume."""

    @property
    def failure(self) -> str | None:
        """Why the store has stopped for good, so that everything raises EIO; None while it works."""
        ...

    async def lookup(self, parent: InodeNumber, name: bytes) -> Attributes:
        """The inode that `name` stands for. ENOENT, ENOTDIR, ENAMETOOLONG. `.` and `..` are understood."""
        ...

    async def attributes(self, inode: InodeNumber) -> Attributes:
        """What stat shows. ESTALE."""
        ...

    async def change_attributes(self, inode: InodeNumber, changes: AttributeChanges, now_ns: int) -> Attributes:
        """Apply `changes`; ctime becomes `now_ns` unless given, and mtime too when the size is given (even
        unchanged) and mtime is not. An access ACL follows the mode. Size: EISDIR for a directory, EINVAL for other
        non-files, ENOSPC when more of the last chunk counts than the volume has room for."""
        ...

    async def note_write(self, inode: InodeNumber, end: int, now_ns: int) -> None:
        """Data up to offset `end` was written: the size grows to it if smaller, mtime and ctime are `now_ns`."""
        ...

    async def note_read(self, inode: InodeNumber, now_ns: int, rule: Atime = Atime.RELATIVE) -> None:
        """Contents were read: atime moves by `rule`, and nothing else."""
        ...

    async def make_inode(self, parent: InodeNumber, name: bytes, new: NewInode, now_ns: int) -> Attributes:
        """mknod, mkdir, symlink and create: a new inode under a new name; the parent's mtime and ctime move.

        In a setgid directory the child takes the directory's gid, and a subdirectory its setgid bit. In one with a
        default ACL all but symbolic links take their access ACL from it, bounded by the mode, and a subdirectory the
        default ACL too; elsewhere the umask goes from the mode. A directory starts with nlink 2 and adds 1 to its
        parent's. ENOTDIR, ENOENT (removed parent), EEXIST, ENAMETOOLONG, EMLINK.
        """
        ...

    async def symlink_target(self, inode: InodeNumber) -> bytes:
        """Where a symbolic link points. EINVAL for anything else."""
        ...

    async def link(self, inode: InodeNumber, parent: InodeNumber, name: bytes, now_ns: int) -> Attributes:
        """A further name for an inode. EPERM for a directory, EMLINK, EEXIST; ENOENT if its nlink is 0."""
        ...

    async def unlink(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        """Remove the name of a non-directory (EISDIR for a directory). At nlink 0 the inode stays, as an orphan."""
        ...

    async def rmdir(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        """Remove an empty directory; it stays as an orphan. ENOTDIR, ENOTEMPTY, EINVAL for `.`, ENOTEMPTY for `..`."""
        ...

    async def rename(
        self,
        parent: InodeNumber,
        name: bytes,
        new_parent: InodeNumber,
        new_name: bytes,
        mode: RenameMode,
        now_ns: int,
    ) -> Unlinked | None:
        """renameat2(2); returns what the name that was replaced stood for.

        ENOENT, EEXIST, EISDIR, ENOTDIR, ENOTEMPTY, EINVAL (a directory into itself or its own subtree), EMLINK.
        Two names of one inode: nothing happens, None. ctime of what moved, mtime and ctime of both parents
        move; nlink of the parents follows a directory that changes its parent.
        """
        ...

    async def list_directory(self, inode: InodeNumber, after_cookie: int, limit: int) -> Sequence[DirectoryEntry]:
        """Up to `limit` entries with cookies above `after_cookie`, in order of their cookies; without `.` and `..`.

        An entry that exists from the first call to the last is returned exactly once. ENOTDIR, ESTALE.
        """
        ...

    async def parent_of(self, directory: InodeNumber) -> InodeNumber:
        """Where `..` leads; the root is its own parent, and so is a removed directory."""
        ...

    async def get_xattr(self, inode: InodeNumber, name: bytes) -> bytes:
        """ENODATA when there is none; for the name of an ACL also when there is no such inode."""
        ...

    async def set_xattr(self, inode: InodeNumber, name: bytes, value: bytes, mode: XattrMode, now_ns: int) -> None:
        """EEXIST, ENODATA by mode; ERANGE for a name, E2BIG for a value that is too long. Moves ctime.

        Not for ACLs, though `get_xattr` and `list_xattrs` show those that are stored: see `set_acl`.
        """
        ...

    async def set_acl(
        self, inode: InodeNumber, kind: AclKind, acl: Acl, now_ns: int, *, clears_setgid: bool = False
    ) -> None:
        """Set an ACL, or remove it where `acl` is empty; removing what is not there is no error. Moves ctime.

        The permission bits follow an access ACL, which is not stored if they say it all; with `clears_setgid`
        the setgid bit goes. Removing it leaves them. EACCES for a default ACL of what is no directory, E2BIG.
        """
        ...

    async def list_xattrs(self, inode: InodeNumber) -> Sequence[bytes]:
        """All names, in order."""
        ...

    async def remove_xattr(self, inode: InodeNumber, name: bytes, now_ns: int) -> None:
        """ENODATA when there is none. Moves ctime."""
        ...

    async def usage(self) -> VolumeUsage:
        """Totals for statfs."""
        ...

    async def orphans(self) -> Sequence[InodeNumber]:
        """Inodes with nlink 0 that still exist; after a crash nobody holds them, and the mount removes them."""
        ...

    async def remove_orphan(self, inode: InodeNumber) -> None:
        """Forget an orphan and its extended attributes. Its chunks must have been cut before. Gone already: no-op."""
        ...

    async def trash_orphan(self, inode: InodeNumber, now_ns: int) -> bool:
        """Put an orphan that can be restored later into the trash: it is no inode any more, but its chunks stay.

        False, and nothing changed, for one that is not to be kept: `remove_orphan` is what it needs.
        """
        ...

    async def commit(self) -> None:
        """Make everything so far crash-safe (kill -9): end the open transaction."""
        ...

    async def make_durable(self) -> None:
        """Make everything so far power-safe: commit, then sync the write-ahead log in a worker thread.

        This one does suspend. Concurrent callers share one sync; each returns after a sync that began
        after its call.
        """
        ...
