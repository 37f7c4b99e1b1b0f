"""A metadata store in plain dicts: small enough to be seen to be right, and so the model for the real one."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import stat
from typing import TYPE_CHECKING, Any, NoReturn

from disfs.errors import FilesystemError
from disfs.metadata.base import (
    DEFAULT_CAPACITY_BYTES,
    LINK_MAX,
    NAME_MAX,
    XATTR_NAME_MAX,
    XATTR_VALUE_MAX,
    Atime,
    RenameMode,
    Unlinked,
    VolumeUsage,
    XattrMode,
)
from disfs.posix_acl import AclKind, acl_with_mode, build_acl, inherited_acl, mode_with_acl
from disfs.spans import DEFAULT_CHUNK_BYTES, allocated_bytes, chunk_range
from disfs.values import ROOT_INODE, Attributes, DirectoryEntry, InodeNumber

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.posix_acl import Acl
    from disfs.values import AttributeChanges, ChunkIndex, NewInode

DAY_NS = 86_400 * 10**9


@dataclasses.dataclass
class Node:
    """One inode; a directory has `entries`."""

    attributes: Attributes
    parent: InodeNumber = ROOT_INODE
    target: bytes | None = None
    entries: dict[bytes, tuple[int, InodeNumber]] = dataclasses.field(default_factory=dict)
    xattrs: dict[bytes, bytes] = dataclasses.field(default_factory=dict)
    acls: dict[AclKind, Acl] = dataclasses.field(default_factory=dict)
    chunks: set[int] = dataclasses.field(default_factory=set)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.attributes.mode)

    @property
    def allocated_bytes(self) -> int:
        return allocated_bytes(self.attributes.size_bytes, len(self.chunks), DEFAULT_CHUNK_BYTES)

    def named(self) -> dict[bytes, bytes]:
        """What the xattr calls show."""
        return self.xattrs | {kind.value: build_acl(acl) for kind, acl in self.acls.items()}

    def change(self, **fields: Any) -> None:
        self.attributes = self.attributes._replace(**fields)


def fail(number: int) -> NoReturn:
    raise FilesystemError(number)


class MemoryMetadataStore:
    """Answers `MetadataStore`. Durability is a counter: `durable_count`."""

    failure: str | None = None

    def __init__(self, now_ns: int = 0, capacity_bytes: int = DEFAULT_CAPACITY_BYTES) -> None:
        self.capacity_bytes = capacity_bytes
        root = Attributes(ROOT_INODE, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 0, now_ns, now_ns, now_ns)
        self._nodes = {ROOT_INODE: Node(root)}
        self._numbers = itertools.count(2)
        self._cookies = itertools.count(3)
        self.durable_count = 0

    def _node(self, inode: InodeNumber) -> Node:
        return self._nodes.get(inode) or fail(errno.ESTALE)

    def _directory(self, inode: InodeNumber) -> Node:
        node = self._node(inode)
        return node if node.is_directory else fail(errno.ENOTDIR)

    def _child(self, parent: InodeNumber, name: bytes) -> Node:
        directory = self._directory(parent)
        if len(name) > NAME_MAX:
            fail(errno.ENAMETOOLONG)
        if name not in directory.entries:
            fail(errno.ENOENT)
        return self._nodes[directory.entries[name][1]]

    def _room_for(self, parent: InodeNumber, name: bytes) -> Node:
        directory = self._directory(parent)
        if len(name) > NAME_MAX:
            fail(errno.ENAMETOOLONG)
        if name in directory.entries or name in (b".", b".."):
            fail(errno.EEXIST)
        if directory.attributes.nlink == 0:
            fail(errno.ENOENT)
        return directory

    async def lookup(self, parent: InodeNumber, name: bytes) -> Attributes:
        if name == b".":
            return self._directory(parent).attributes
        if name == b"..":
            return self._node(self._directory(parent).parent).attributes
        return self._child(parent, name).attributes

    async def attributes(self, inode: InodeNumber) -> Attributes:
        return self._node(inode).attributes

    async def change_attributes(self, inode: InodeNumber, changes: AttributeChanges, now_ns: int) -> Attributes:
        node = self._node(inode)
        if changes.size_bytes is not None and not stat.S_ISREG(node.attributes.mode):
            fail(errno.EISDIR if node.is_directory else errno.EINVAL)
        if changes.size_bytes is not None:
            self._check_growth(node, changes.size_bytes, len(node.chunks))
        given = {name: value for name, value in dataclasses.asdict(changes).items() if value is not None}
        if "mode" in given:
            given["mode"] |= stat.S_IFMT(node.attributes.mode)
            if AclKind.ACCESS in node.acls:
                node.acls[AclKind.ACCESS] = acl_with_mode(node.acls[AclKind.ACCESS], given["mode"])
        if "size_bytes" in given:
            given.setdefault("mtime_ns", now_ns)
        node.change(**{"ctime_ns": now_ns} | given)
        return node.attributes

    async def note_write(self, inode: InodeNumber, end: int, now_ns: int) -> None:
        node = self._node(inode)
        node.change(size_bytes=max(node.attributes.size_bytes, end), mtime_ns=now_ns, ctime_ns=now_ns)

    def check_room(self, inode: InodeNumber, offset: int, length: int) -> None:
        """See ChunkLedger."""
        node = self._node(inode)
        chunks = node.chunks | set(chunk_range(offset, length, DEFAULT_CHUNK_BYTES))
        self._check_growth(node, max(node.attributes.size_bytes, offset + length), len(chunks))

    def _check_growth(self, node: Node, size_bytes: int, chunk_count: int) -> None:
        growth = allocated_bytes(size_bytes, chunk_count, DEFAULT_CHUNK_BYTES) - node.allocated_bytes
        if growth > 0 and sum(n.allocated_bytes for n in self._nodes.values()) + growth > self.capacity_bytes:
            fail(errno.ENOSPC)

    def mark_dirty(self, inode: InodeNumber, first: ChunkIndex, count: int) -> None:
        """See ChunkLedger; what of it shows in the attributes."""
        node = self._node(inode)
        node.chunks |= set(range(first, first + count))
        node.change(chunk_count=len(node.chunks))

    def cut_chunks(self, inode: InodeNumber, first: ChunkIndex) -> None:
        """See ChunkLedger; what of it shows in the attributes."""
        node = self._node(inode)
        node.chunks = {chunk for chunk in node.chunks if chunk < first}
        node.change(chunk_count=len(node.chunks))

    async def note_read(self, inode: InodeNumber, now_ns: int, rule: Atime = Atime.RELATIVE) -> None:
        node = self._node(inode)
        old = node.attributes
        relative = old.atime_ns <= max(old.mtime_ns, old.ctime_ns) or old.atime_ns <= now_ns - DAY_NS
        if rule is Atime.STRICT or (rule is Atime.RELATIVE and relative):
            node.change(atime_ns=now_ns)

    async def make_inode(self, parent: InodeNumber, name: bytes, new: NewInode, now_ns: int) -> Attributes:
        directory = self._room_for(parent, name)
        mode, gid, is_directory = new.mode, new.gid, stat.S_ISDIR(new.mode)
        acls = {} if stat.S_ISLNK(mode) else self._inherited(directory, mode)
        mode = mode_with_acl(mode, acls[AclKind.ACCESS]) if acls else mode & ~new.umask
        if directory.attributes.mode & stat.S_ISGID:
            gid = directory.attributes.gid
            mode |= stat.S_ISGID if is_directory else 0
        inode, size = InodeNumber(next(self._numbers)), len(new.target or b"")
        made = Attributes(inode, mode, 2 if is_directory else 1, new.uid, gid, new.rdev, size, now_ns, now_ns, now_ns)
        acls = {kind: acl for kind, acl in acls.items() if len(acl) > 3 or kind is AclKind.DEFAULT}
        self._nodes[inode] = Node(made, parent, new.target, acls=acls)
        self._enter(directory, name, inode, now_ns)
        directory.change(nlink=directory.attributes.nlink + is_directory)
        return made

    async def symlink_target(self, inode: InodeNumber) -> bytes:
        target = self._node(inode).target
        return fail(errno.EINVAL) if target is None else target

    async def link(self, inode: InodeNumber, parent: InodeNumber, name: bytes, now_ns: int) -> Attributes:
        node = self._node(inode)
        directory = self._room_for(parent, name)
        if node.is_directory:
            fail(errno.EPERM)
        if node.attributes.nlink == 0:
            fail(errno.ENOENT)
        if node.attributes.nlink >= LINK_MAX:
            fail(errno.EMLINK)
        node.change(nlink=node.attributes.nlink + 1, ctime_ns=now_ns)
        self._enter(directory, name, inode, now_ns)
        return node.attributes

    async def unlink(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        node = self._child(parent, name)
        if node.is_directory:
            fail(errno.EISDIR)
        self._leave(self._node(parent), name, now_ns)
        return self._drop(node, now_ns)

    async def rmdir(self, parent: InodeNumber, name: bytes, now_ns: int) -> Unlinked:
        if name in (b".", b".."):
            fail(errno.EINVAL if name == b"." else errno.ENOTEMPTY)
        node = self._child(parent, name)
        if not node.is_directory:
            fail(errno.ENOTDIR)
        if node.entries:
            fail(errno.ENOTEMPTY)
        directory = self._node(parent)
        self._leave(directory, name, now_ns)
        directory.change(nlink=directory.attributes.nlink - 1)
        return self._drop(node, now_ns)

    async def rename(
        self,
        parent: InodeNumber,
        name: bytes,
        new_parent: InodeNumber,
        new_name: bytes,
        mode: RenameMode,
        now_ns: int,
    ) -> Unlinked | None:
        old, new = self._directory(parent), self._directory(new_parent)
        moved = self._child(parent, name)
        target = await self._rename_target(new, new_name, mode)
        if target is moved:
            return None
        if moved.is_directory and self._is_below(new_parent, moved.attributes.inode):
            fail(errno.EINVAL)
        if mode is RenameMode.EXCHANGE:
            assert target is not None
            if target.is_directory and self._is_below(parent, target.attributes.inode):
                fail(errno.EINVAL)
            self._exchange(old, name, new, new_name, now_ns)
            return None
        if target is not None:
            self._check_replaceable(moved, target)
            self._leave(new, new_name, now_ns)
            new.change(nlink=new.attributes.nlink - target.is_directory)
        self._leave(old, name, now_ns)
        self._enter(new, new_name, moved.attributes.inode, now_ns)
        self._reparent(moved, old, new, now_ns)
        return None if target is None else self._drop(target, now_ns)

    async def list_directory(self, inode: InodeNumber, after_cookie: int, limit: int) -> Sequence[DirectoryEntry]:
        entries = sorted((cookie, name, child) for name, (cookie, child) in self._directory(inode).entries.items())
        later = [e for e in entries if e[0] > after_cookie][:limit]
        return [DirectoryEntry(name, cookie, self._nodes[child].attributes) for cookie, name, child in later]

    async def parent_of(self, directory: InodeNumber) -> InodeNumber:
        node = self._directory(directory)
        return node.parent if node.attributes.nlink else directory

    async def get_xattr(self, inode: InodeNumber, name: bytes) -> bytes:
        xattrs = self._node(inode).named()
        return xattrs[name] if name in xattrs else fail(errno.ENODATA)

    async def set_xattr(self, inode: InodeNumber, name: bytes, value: bytes, mode: XattrMode, now_ns: int) -> None:
        node = self._node(inode)
        if not 0 < len(name) <= XATTR_NAME_MAX:
            fail(errno.ERANGE)
        if len(value) > XATTR_VALUE_MAX:
            fail(errno.E2BIG)
        if mode is XattrMode.CREATE and name in node.xattrs:
            fail(errno.EEXIST)
        if mode is XattrMode.REPLACE and name not in node.xattrs:
            fail(errno.ENODATA)
        node.xattrs[name] = value
        node.change(ctime_ns=now_ns)

    async def set_acl(
        self, inode: InodeNumber, kind: AclKind, acl: Acl, now_ns: int, *, clears_setgid: bool = False
    ) -> None:
        node = self._node(inode)
        if acl and kind is AclKind.DEFAULT and not node.is_directory:
            fail(errno.EACCES)
        old = node.acls.pop(kind, None)
        if not acl:
            if old is not None:
                node.change(ctime_ns=now_ns)
            return
        if kind is AclKind.DEFAULT or len(acl) > 3:
            node.acls[kind] = acl
        if kind is AclKind.ACCESS:
            mode = mode_with_acl(node.attributes.mode, acl)
            node.change(mode=mode & ~stat.S_ISGID if clears_setgid else mode)
        node.change(ctime_ns=now_ns)

    async def list_xattrs(self, inode: InodeNumber) -> Sequence[bytes]:
        return sorted(self._node(inode).named())

    async def remove_xattr(self, inode: InodeNumber, name: bytes, now_ns: int) -> None:
        node = self._node(inode)
        if name not in node.xattrs:
            fail(errno.ENODATA)
        del node.xattrs[name]
        node.change(ctime_ns=now_ns)

    async def usage(self) -> VolumeUsage:
        sizes = [n.attributes.size_bytes for n in self._nodes.values() if stat.S_ISREG(n.attributes.mode)]
        return VolumeUsage(len(self._nodes), sum(sizes), sum(n.allocated_bytes for n in self._nodes.values()))

    async def orphans(self) -> Sequence[InodeNumber]:
        return [inode for inode, node in self._nodes.items() if node.attributes.nlink == 0]

    async def remove_orphan(self, inode: InodeNumber) -> None:
        node = self._nodes.pop(inode, None)
        assert node is None or node.attributes.nlink == 0

    async def trash_orphan(self, inode: InodeNumber, now_ns: int) -> bool:
        return False

    async def commit(self) -> None:
        pass

    async def make_durable(self) -> None:
        self.durable_count += 1

    @staticmethod
    def _inherited(directory: Node, mode: int) -> dict[AclKind, Acl]:
        default = directory.acls.get(AclKind.DEFAULT)
        if default is None:
            return {}
        acls = {AclKind.ACCESS: inherited_acl(default, mode)}
        return acls | {AclKind.DEFAULT: default} if stat.S_ISDIR(mode) else acls

    def _enter(self, directory: Node, name: bytes, inode: InodeNumber, now_ns: int) -> None:
        directory.entries[name] = (next(self._cookies), inode)
        directory.change(mtime_ns=now_ns, ctime_ns=now_ns)

    def _leave(self, directory: Node, name: bytes, now_ns: int) -> None:
        del directory.entries[name]
        directory.change(mtime_ns=now_ns, ctime_ns=now_ns)

    def _drop(self, node: Node, now_ns: int) -> Unlinked:
        left = 0 if node.is_directory else node.attributes.nlink - 1
        node.change(nlink=left, ctime_ns=now_ns)
        return Unlinked(node.attributes.inode, left)

    async def _rename_target(self, new: Node, new_name: bytes, mode: RenameMode) -> Node | None:
        if len(new_name) > NAME_MAX:
            fail(errno.ENAMETOOLONG)
        if new.attributes.nlink == 0:
            fail(errno.ENOENT)
        entry = new.entries.get(new_name)
        if entry is None:
            return fail(errno.ENOENT) if mode is RenameMode.EXCHANGE else None
        return fail(errno.EEXIST) if mode is RenameMode.NOREPLACE else self._nodes[entry[1]]

    def _is_below(self, inode: InodeNumber, ancestor: InodeNumber) -> bool:
        while inode not in (ancestor, ROOT_INODE):
            inode = self._nodes[inode].parent
        return inode == ancestor

    @staticmethod
    def _check_replaceable(moved: Node, target: Node) -> None:
        if target.is_directory and not moved.is_directory:
            fail(errno.EISDIR)
        if moved.is_directory and not target.is_directory:
            fail(errno.ENOTDIR)
        if target.entries:
            fail(errno.ENOTEMPTY)

    def _exchange(self, old: Node, name: bytes, new: Node, new_name: bytes, now_ns: int) -> None:
        first, second = self._nodes[old.entries[name][1]], self._nodes[new.entries[new_name][1]]
        self._enter(old, name, second.attributes.inode, now_ns)
        self._enter(new, new_name, first.attributes.inode, now_ns)
        self._reparent(first, old, new, now_ns)
        self._reparent(second, new, old, now_ns)

    def _reparent(self, moved: Node, old: Node, new: Node, now_ns: int) -> None:
        moved.change(ctime_ns=now_ns)
        if moved.is_directory:
            moved.parent = new.attributes.inode
            old.change(nlink=old.attributes.nlink - 1)
            new.change(nlink=new.attributes.nlink + 1)
