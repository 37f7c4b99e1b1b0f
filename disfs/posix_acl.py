"""POSIX access control lists: the stored form, and how they and permission bits shape each other. No I/O.

The rules are those of Linux (`fs/posix_acl.c`), which are those of POSIX.1e draft 17. An ACL lists the rights of the
owner, of named users, of the owning group, of named groups, a mask that bounds all but owner and others, and the
rights of others. The permission bits of an inode with an access ACL are a view of it: owner, mask (the group where
there is no mask), others. A *minimal* ACL says no more than permission bits do.

Stored as the kernel passes them in `system.posix_acl_access` and `system.posix_acl_default`: a u32 version, 2, then for
each entry u16 tag, u16 permissions and u32 id, all little-endian.
"""

from __future__ import annotations

import enum
import errno
import struct
from typing import Final, NamedTuple, TypeAlias

from disfs.errors import FilesystemError

UNDEFINED_ID: Final = 0xFFFFFFFF
"""The id of entries that name nobody."""

_VERSION: Final = 2
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_RWX: Final = 0o7
_ALL_PERMISSIONS: Final = 0o777


class AclKind(enum.Enum):
    """Which ACL of an inode; the value is the name of its extended attribute."""

    ACCESS = b"system.posix_acl_access"
    DEFAULT = b"system.posix_acl_default"
    """Of a directory: what a new inode in it begins with, instead of the umask."""


class Tag(enum.IntEnum):
    """Whom an entry is about; the order of an ACL's entries is the order of the tags."""

    USER_OBJ = 0x01
    USER = 0x02
    GROUP_OBJ = 0x04
    GROUP = 0x08
    MASK = 0x10
    OTHER = 0x20


class AclEntry(NamedTuple):
    """One line of an ACL."""

    tag: Tag
    permissions: int
    """rwx as in one digit of a mode."""
    identity: int = UNDEFINED_ID
    """uid or gid of a named user or group."""


Acl: TypeAlias = tuple[AclEntry, ...]
"""Valid, or empty: no ACL."""

_OF_NAMED: Final = frozenset({Tag.USER, Tag.GROUP})
_OF_MODE: Final = frozenset({Tag.USER_OBJ, Tag.GROUP_OBJ, Tag.OTHER})
_SHIFTS: Final = {Tag.USER_OBJ: 6, Tag.MASK: 3, Tag.GROUP_OBJ: 3, Tag.OTHER: 0}
"""Where among the permission bits an entry is seen, if it is."""


def parse_acl(value: bytes) -> Acl:
    """Read an extended attribute; without entries it stands for no ACL. EOPNOTSUPP for an unknown version, EINVAL."""
    if not value:
        return ()
    if len(value) >= _HEADER.size and _HEADER.unpack_from(value) != (_VERSION,):
        raise FilesystemError(errno.EOPNOTSUPP, "an ACL of an unknown version")
    if len(value) % _ENTRY.size != _HEADER.size:
        raise FilesystemError(errno.EINVAL, "not the length of an ACL")
    try:
        acl = tuple(
            AclEntry(Tag(tag), permissions, identity if tag in _OF_NAMED else UNDEFINED_ID)
            for tag, permissions, identity in _ENTRY.iter_unpack(value[_HEADER.size :])
        )
    except ValueError as error:
        raise FilesystemError(errno.EINVAL, "an ACL entry of an unknown kind") from error
    if acl and not is_valid_acl(acl):
        raise FilesystemError(errno.EINVAL, "not a valid ACL")
    return acl


def build_acl(acl: Acl) -> bytes:
    """The stored form."""
    assert is_valid_acl(acl)
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in acl)


def is_valid_acl(acl: Acl) -> bool:
    """Whether the entries are complete and in order, and those who are named are so with an id.

    Named entries need a mask. As in Linux they need not be sorted, and somebody may be named twice.
    """
    tags = [entry.tag for entry in acl]
    return (
        tags == sorted(tags)
        and all(tags.count(tag) == 1 for tag in _OF_MODE)
        and tags.count(Tag.MASK) <= 1
        and (Tag.MASK in tags or _OF_NAMED.isdisjoint(tags))
        and all(0 <= entry.permissions <= _RWX for entry in acl)
        and all(entry.identity != UNDEFINED_ID for entry in acl if entry.tag in _OF_NAMED)
    )


def is_minimal(acl: Acl) -> bool:
    """Whether permission bits say all of it."""
    return len(acl) == len(_OF_MODE)


def mode_with_acl(mode: int, acl: Acl) -> int:
    """The st_mode of an inode that gets this access ACL: its permission bits follow it, the rest stays."""
    return mode & ~_ALL_PERMISSIONS | sum(entry.permissions << _SHIFTS[entry.tag] for entry in _in_mode(acl))


def acl_with_mode(acl: Acl, mode: int) -> Acl:
    """The access ACL of an inode after chmod to `mode`."""
    seen = _in_mode(acl)
    return tuple(
        entry._replace(permissions=mode >> _SHIFTS[entry.tag] & _RWX) if entry in seen else entry for entry in acl
    )


def inherited_acl(default: Acl, mode: int) -> Acl:
    """The access ACL that a new inode, asked for with `mode`, takes from its directory's default ACL.

    It grants no more than `mode` does; its permission bits are those of `mode_with_acl`.
    """
    seen = _in_mode(default)
    return tuple(
        entry._replace(permissions=entry.permissions & mode >> _SHIFTS[entry.tag]) if entry in seen else entry
        for entry in default
    )


def _in_mode(acl: Acl) -> Acl:
    """The three entries that permission bits are a view of: owner, mask or else group, others."""
    hidden = Tag.GROUP_OBJ if any(entry.tag == Tag.MASK for entry in acl) else Tag.MASK
    return tuple(entry for entry in acl if entry.tag not in _OF_NAMED and entry.tag != hidden)
