"""POSIX rules for names, attributes and the lives of inodes. No kernel, no SQL, no Discord.

The metadata store makes each change of names in one transaction, checks included. What is left for this module
is what a store cannot know: lookup counts and handles, and with them when an orphan goes; which requests are
refused from memory; how a directory is cut into replies. Contents of files are `files`, a `FileIo`.

Where a comment says "same step", the code counts on the metadata store answering without suspending.
"""

from __future__ import annotations

import errno
import logging
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from disfs.errors import FilesystemError, MetadataDamagedError
from disfs.file_io import CAPABILITY_XATTR, FileIo
from disfs.handles import HandleTable, References
from disfs.kernel_clock import KernelClock
from disfs.metadata.base import DEFAULT_CAPACITY_BYTES, SYMLINK_MAX, Atime, RenameMode, XattrMode
from disfs.posix_acl import AclKind, parse_acl
from disfs.values import NewInode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from disfs.callers import Caller
    from disfs.file_io import FileChunks
    from disfs.metadata.base import MetadataStore, Unlinked, VolumeUsage
    from disfs.posix_acl import Acl
    from disfs.values import AttributeChanges, Attributes, InodeNumber

log = logging.getLogger(__name__)

_RENAME_MODES: Final = {0: RenameMode.REPLACE, 1: RenameMode.NOREPLACE, 2: RenameMode.EXCHANGE}
"""By the flags of renameat2(2)."""
_TRUSTED: Final = b"trusted."
_XATTR_NAMESPACES: Final = (b"user.", _TRUSTED, b"security.")
RESERVED_XATTRS: Final = b"user.disfs."
"""Names that begin so are made up when asked for: never stored, never listed, so that no copy takes them along."""
_STATE_XATTR: Final = RESERVED_XATTRS + b"state"
_CACHED_XATTR: Final = RESERVED_XATTRS + b"cached"
_SELINUX_XATTR: Final = b"security.selinux"
"""Not kept, as the kernel has it on FUSE where SELinux rules. `ls -l` asks each file for it unless it is told so."""
_ACL_KINDS: Final = {kind.value: kind for kind in AclKind}
_FIRST_PAGE_COUNT: Final = 24
"""About what fits into 4 KiB, the smallest buffer that the kernel reads a directory with."""
_DOT_COOKIE: Final = 1
_DOT_DOT_COOKIE: Final = 2

AddEntry: TypeAlias = "Callable[[bytes, Attributes, int], bool]"
"""Takes a name, what it stands for and its cookie into a reply; False when there is no room for it."""


@dataclass(frozen=True, slots=True)
class Space:
    """What statfs shows: how much the volume holds and how much of it is used."""

    capacity_bytes: int
    usage: VolumeUsage


@dataclass(frozen=True, slots=True)
class FilesystemStatistics:
    """What is held at this moment, for `disfs status`."""

    open_handles: int
    known_inodes: int
    """Inodes that the kernel has in memory."""


class Filesystem:
    """One mounted volume. Errors are `FilesystemError`, and from contents `StorageError`."""

    def __init__(
        self,
        metadata: MetadataStore,
        chunks: FileChunks,
        *,
        capacity_bytes: int = DEFAULT_CAPACITY_BYTES,
        atime: Atime = Atime.RELATIVE,
        directory_atime: Atime | None = None,
        clock: KernelClock | None = None,
        has_acls: bool = True,
    ) -> None:
        self.has_acls = has_acls
        """Whether ACLs are shown and set. Those that are stored are kept in step and inherited in any case."""
        self._metadata = metadata
        self._chunks = chunks
        self._capacity_bytes = capacity_bytes
        self._atime = atime
        self._directory_atime = atime if directory_atime is None else directory_atime
        self._clock = clock or KernelClock()
        self._handles = HandleTable()
        self._references = References(self._handles)
        self._leaving = 0
        self._page_count = _FIRST_PAGE_COUNT
        """How many entries the next full reply of a listing is guessed to have room for: as many as the last one."""
        self.files = FileIo(metadata, chunks, self._handles, self._clock, has_orphans=self._has_orphans, atime=atime)

    # Names

    async def lookup(self, parent: InodeNumber, name: bytes) -> Attributes | None:
        """The inode that `name` stands for, counted as looked up; None when there is no such name.

        `.` is understood for every inode, also a file: that is how the kernel turns a file handle
        (open_by_handle_at, NFS) back into an inode. ENOTDIR, ENAMETOOLONG, ESTALE.
        """
        try:
            if name == b".":
                found = await self._metadata.attributes(parent)
                if found.nlink == 0:
                    # Who has it open has it in the kernel's cache, and would not be sent here: its last forget is due.
                    raise FilesystemError(errno.ESTALE)
            else:
                found = await self._metadata.lookup(parent, name)
        except FilesystemError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        self._references.add_lookup(found.inode)
        return found

    async def make_inode(self, parent: InodeNumber, name: bytes, new: NewInode) -> Attributes:
        """mknod and mkdir: a new inode, counted as looked up. Errors as in the metadata store."""
        made = await self._metadata.make_inode(parent, name, new, self._clock.now_ns())
        self._chunks.inherit_pin(parent, made.inode)
        self._references.add_lookup(made.inode)
        return made

    async def symlink(self, parent: InodeNumber, name: bytes, target: bytes, uid: int, gid: int) -> Attributes:
        """A new symbolic link, counted as looked up. ENOENT for an empty target, ENAMETOOLONG for a long one."""
        if not target:
            raise FilesystemError(errno.ENOENT)
        if len(target) > SYMLINK_MAX:
            raise FilesystemError(errno.ENAMETOOLONG)
        new = NewInode(mode=stat.S_IFLNK | 0o777, uid=uid, gid=gid, target=target)
        return await self.make_inode(parent, name, new)

    async def create(self, parent: InodeNumber, name: bytes, new: NewInode, flags: int) -> tuple[int, Attributes]:
        """A new regular file, opened and counted as looked up. Errors as in the metadata store."""
        assert stat.S_ISREG(new.mode)
        made = await self._metadata.make_inode(parent, name, new, self._clock.now_ns())
        # Same step: nobody can unlink the file before its handle exists.
        self._chunks.inherit_pin(parent, made.inode)
        self._references.add_lookup(made.inode)
        return self.files.open_new(made, flags), made

    async def link(self, inode: InodeNumber, parent: InodeNumber, name: bytes) -> Attributes:
        """A further name, counted as looked up. Errors as in the metadata store."""
        linked = await self._metadata.link(inode, parent, name, self._clock.now_ns())
        self._references.add_lookup(inode)
        return linked

    async def unlink(self, parent: InodeNumber, name: bytes) -> None:
        """Remove a name; the inode goes with its last name, once nobody holds it. Errors as in the store."""
        await self._after_unlink(await self._metadata.unlink(parent, name, self._clock.now_ns()))

    async def rmdir(self, parent: InodeNumber, name: bytes) -> None:
        """Remove an empty directory; it stays usable for those who hold it. Errors as in the metadata store."""
        await self._after_unlink(await self._metadata.rmdir(parent, name, self._clock.now_ns()))

    async def rename(
        self, parent: InodeNumber, name: bytes, new_parent: InodeNumber, new_name: bytes, flags: int
    ) -> None:
        """renameat2(2). EINVAL for flags other than NOREPLACE or EXCHANGE; else errors as in the store."""
        mode = _RENAME_MODES.get(flags)
        if mode is None:
            raise FilesystemError(errno.EINVAL)
        replaced = await self._metadata.rename(parent, name, new_parent, new_name, mode, self._clock.now_ns())
        if replaced is not None:
            await self._after_unlink(replaced)

    async def symlink_target(self, inode: InodeNumber) -> bytes:
        """Where a symbolic link points. EINVAL, ESTALE."""
        target = await self._metadata.symlink_target(inode)
        await self._metadata.note_read(inode, self._clock.now_ns(), self._atime)
        return target

    # Attributes

    async def attributes(self, inode: InodeNumber) -> Attributes:
        """What stat shows. ESTALE."""
        return await self._metadata.attributes(inode)

    async def change_attributes(self, inode: InodeNumber, changes: AttributeChanges) -> Attributes:
        """chmod, chown, truncate, utimens. ESTALE, and for a size EISDIR, EINVAL, EFBIG."""
        self._clock.saw(changes.atime_ns)
        self._clock.saw(changes.mtime_ns)
        if changes.size_bytes is not None:
            return await self.files.truncate(inode, changes)
        changed = await self._metadata.change_attributes(inode, changes, self._clock.now_ns())
        opened = self._handles.opened(inode)
        if opened is not None:
            opened.atime_noted_ns = 0
        return changed

    async def space(self) -> Space:
        """What statfs shows."""
        return Space(self._capacity_bytes, await self._metadata.usage())

    # Extended attributes

    async def get_xattr(self, inode: InodeNumber, name: bytes) -> bytes | None:
        """The value, None when there is none. EOPNOTSUPP for a namespace that is not kept."""
        opened = self._handles.opened(inode) if name == CAPABILITY_XATTR else None
        if opened is not None and opened.lacks_capability:
            return None
        if name.startswith(RESERVED_XATTRS):
            return await self._told_xattr(inode, name)
        if self._acl_kind(name) is None:
            _check_xattr_name(name)
        try:
            return await self._metadata.get_xattr(inode, name)
        except FilesystemError as error:
            if error.errno != errno.ENODATA:
                raise
        if opened is not None:
            opened.lacks_capability = True
        return None

    async def _told_xattr(self, inode: InodeNumber, name: bytes) -> bytes | None:
        """What a file's contents are like at this moment; None for what is no file, and for an unknown name."""
        attributes = await self._metadata.attributes(inode)
        if not stat.S_ISREG(attributes.mode) or name not in {_STATE_XATTR, _CACHED_XATTR}:
            return None
        state = await self._chunks.content_state(attributes)
        return (state.whereabouts if name == _STATE_XATTR else str(state.cached_percent)).encode()

    async def set_xattr(self, inode: InodeNumber, name: bytes, value: bytes, caller: Caller) -> None:
        """Set an attribute, whether it exists or not. EOPNOTSUPP, EPERM, EINVAL, ERANGE, E2BIG; for an ACL EACCES."""
        kind = self._acl_kind(name)
        if kind is not None:
            await self._set_acl(inode, kind, parse_acl(value), caller)
            return
        _check_xattr_name(name)
        await self._metadata.set_xattr(inode, name, value, XattrMode.EITHER, self._clock.now_ns())
        opened = self._handles.opened(inode)
        if opened is not None and name == CAPABILITY_XATTR:
            opened.lacks_capability = False

    def _acl_kind(self, name: bytes) -> AclKind | None:
        return _ACL_KINDS.get(name) if self.has_acls else None

    async def _set_acl(self, inode: InodeNumber, kind: AclKind, acl: Acl, caller: Caller) -> None:
        """As the kernel's chmod: who neither is in the file's group nor root cannot leave it setgid."""
        attributes = await self._metadata.attributes(inode)
        clears_setgid = bool(attributes.mode & stat.S_ISGID) and not caller.is_member(attributes.gid)
        await self._metadata.set_acl(inode, kind, acl, self._clock.now_ns(), clears_setgid=clears_setgid)

    async def list_xattrs(self, inode: InodeNumber, caller: Caller) -> Sequence[bytes]:
        """The names of all attributes that the caller may know of. Of `trusted` the kernel hides the values only."""
        names = await self._metadata.list_xattrs(inode)
        hidden = (() if caller.is_privileged else (_TRUSTED,)) + (() if self.has_acls else tuple(_ACL_KINDS))
        return [name for name in names if not name.startswith((*hidden, RESERVED_XATTRS))]

    async def remove_xattr(self, inode: InodeNumber, name: bytes) -> None:
        """Remove an attribute. EOPNOTSUPP; ENODATA, but for an ACL, as local file systems have it."""
        kind = self._acl_kind(name)
        if kind is not None:
            await self._metadata.set_acl(inode, kind, (), self._clock.now_ns())
            return
        _check_xattr_name(name)
        await self._metadata.remove_xattr(inode, name, self._clock.now_ns())

    # Directories

    async def read_directory(self, directory: InodeNumber, after_cookie: int, add: AddEntry) -> None:
        """Pass entries after `after_cookie` to `add(name, attributes, cookie)` until it refuses or there are no more.

        `.` and `..` come first. Every entry that `add` takes counts as looked up, but for those two: the kernel
        does not count them. Entries are read afresh for each reply, never kept from one to the next: the
        kernel believes what it is told for a long time. ENOTDIR, ESTALE.
        """
        if after_cookie == 0:
            await self._metadata.note_read(directory, self._clock.now_ns(), self._directory_atime)
        if not await self._add_dots(directory, after_cookie, add):
            return
        taken = 0
        while True:
            limit = max(self._page_count - taken, _FIRST_PAGE_COUNT)
            entries = await self._metadata.list_directory(directory, max(after_cookie, _DOT_DOT_COOKIE), limit)
            for entry in entries:
                # Same step as the listing: what the kernel is told is what is there.
                if not add(entry.name, entry.attributes, entry.cookie):
                    self._page_count = taken + 1
                    return
                self._references.add_lookup(entry.attributes.inode)
                after_cookie = entry.cookie
                taken += 1
            if len(entries) < limit:
                return

    async def _add_dots(self, inode: InodeNumber, after_cookie: int, add: AddEntry) -> bool:
        for name, cookie in ((b".", _DOT_COOKIE), (b"..", _DOT_DOT_COOKIE)):
            if after_cookie < cookie:
                meant = inode if name == b"." else await self._metadata.parent_of(inode)
                if not add(name, await self._metadata.attributes(meant), cookie):
                    return False
        return True

    async def sync_names(self) -> None:
        """Return when all names and attributes would survive a loss of power."""
        await self._chunks.sync_overlaid()
        await self._metadata.make_durable()

    async def send_names(self) -> None:
        """As `sync_names`, and they are in Discord, as far as somebody ships them there."""
        await self.sync_names()
        await self.files.send_names()

    # Lives

    async def release(self, fh: int) -> None:
        """Close a file handle; an orphan that nobody else holds goes. EBADF."""
        inode = self.files.close(fh)
        if self._references.released(inode):
            await self._remove(inode)

    async def forget(self, forgotten: Iterable[tuple[InodeNumber, int]]) -> None:
        """The kernel gives lookups back, as (inode, count); orphans that nobody else holds go."""
        for inode, count in forgotten:
            if self._references.forget(inode, count):
                await self._remove(inode)

    async def remove_orphans(self) -> int:
        """Remove every orphan of the volume; at the start of a mount, when nobody can hold one. How many went."""
        removed = 0
        for inode in await self._metadata.orphans():
            try:
                await self._remove(inode)
                removed += 1
            except MetadataDamagedError as error:
                # It keeps its place, and nobody has lost anything that could be reached.
                log.error("the deleted inode %d cannot be removed: %s", inode, error)  # noqa: TRY400 - known, no bug
        return removed

    async def close(self, *, removes_orphans: bool = True) -> None:
        """After the last request: drop all handles and lookup counts, and the orphans that only they held."""
        self._handles.clear()
        self._references.clear()
        if removes_orphans:
            await self.remove_orphans()

    def statistics(self) -> FilesystemStatistics:
        """What is held at this moment."""
        return FilesystemStatistics(open_handles=len(self._handles), known_inodes=len(self._references))

    async def _after_unlink(self, gone: Unlinked) -> None:
        if gone.nlink == 0 and self._references.orphaned(gone.inode):
            await self._remove(gone.inode)

    def _has_orphans(self) -> bool:
        return self._leaving > 0 or any(self._references.orphans())

    async def _remove(self, inode: InodeNumber) -> None:
        self.files.forget(inode)
        # One step: nothing of what can be restored is cut.
        if await self._metadata.trash_orphan(inode, self._clock.now_ns()):
            self._chunks.went_to_trash(inode)
            self.files.room_returned()
            return
        self._leaving += 1
        try:
            # It may take a while; until it is done, and after a crash, the orphan is there to be removed.
            await self._chunks.shrink(inode)
            # One step: no orphan without its chunks, and no chunks without their inode, in any transaction.
            self._chunks.discard(inode)
            await self._metadata.remove_orphan(inode)
        finally:
            self._leaving -= 1
            self.files.room_returned()


def _check_xattr_name(name: bytes) -> None:
    if name.startswith(RESERVED_XATTRS):
        raise FilesystemError(errno.EPERM)
    if not name.startswith(_XATTR_NAMESPACES) or name == _SELINUX_XATTR:
        raise FilesystemError(errno.EOPNOTSUPP)
    if name.endswith(b".") and name in _XATTR_NAMESPACES:
        raise FilesystemError(errno.EINVAL)
