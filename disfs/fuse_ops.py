"""The door to the kernel: requests become calls of the filesystem, results become replies, errors become errno.

Nothing is decided about files here. Every request goes through `_answered`: it is the one place where exceptions
become `FUSEError`, and none may pass it: any other exception that reaches pyfuse3 ends the mount.
"""

# ruff: noqa: D102 - pyfuse3.Operations documents what each handler is for

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import stat
from collections import Counter
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError

from disfs.errors import FilesystemError, StorageError
from disfs.metadata.base import NAME_MAX
from disfs.session_hook import SessionHook
from disfs.spans import BLOCK_BYTES, DEFAULT_CHUNK_BYTES, allocated_bytes
from disfs.values import AttributeChanges, InodeNumber, NewInode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from pyfuse3 import ReaddirToken, RequestContext, SetattrFields, StatvfsData

    from disfs.filesystem import Filesystem, Space
    from disfs.mount_options import Shown
    from disfs.values import Attributes

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT_SECONDS = 3600.0
"""How long the kernel believes names, absent names and attributes. Any time is right: all changes pass through it."""
_SECTOR_BYTES = 512
_INODES = 1 << 40
"""How many inodes statfs claims there is room for."""

P = ParamSpec("P")
R = TypeVar("R")


def errno_of(error: Exception, operation: str) -> int:
    """The errno that stands for `error`; what the caller of a system call cannot know is logged here."""
    if isinstance(error, FilesystemError):
        return error.errno
    if isinstance(error, StorageError):
        log.error("%s failed: %s: %s", operation, type(error).__name__, error)
    else:
        log.error("%s failed with an unexpected error", operation, exc_info=error)
    return errno.EIO


def _answered(
    method: Callable[Concatenate[FuseOperations, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[FuseOperations, P], Coroutine[Any, Any, R]]:
    """Let a request handler raise what it likes: what leaves is `FUSEError` (or a cancellation)."""
    operation = method.__name__

    @functools.wraps(method)
    async def answer(self: FuseOperations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self._requests[operation] += 1
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s%s", operation, tuple(a for a in args if isinstance(a, int)))
        try:
            return await method(self, *args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:
            number = errno_of(error, operation)
            log.debug("%s: errno %d", operation, number)
            raise FUSEError(number) from error

    return answer


def _new_inode(mode: int, context: RequestContext, rdev: int = 0) -> NewInode:
    return NewInode(mode=mode, uid=context.uid, gid=context.gid, rdev=rdev, umask=context.umask)


def _changes(attr: EntryAttributes, fields: SetattrFields) -> AttributeChanges:
    return AttributeChanges(
        mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        size_bytes=attr.st_size if fields.update_size else None,
        atime_ns=attr.st_atime_ns if fields.update_atime else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        ctime_ns=attr.st_ctime_ns if fields.update_ctime else None,
    )


def _disguise(entry: EntryAttributes, shown: Shown) -> None:
    if shown.uid is not None:
        entry.st_uid = shown.uid
    if shown.gid is not None:
        entry.st_gid = shown.gid
    if shown.permissions is not None:
        # setuid, setgid and sticky stay: the kernel takes them away at a write only where it sees them.
        entry.st_mode = entry.st_mode & ~0o777 | shown.permissions


def _statvfs(space: Space) -> StatvfsData:
    used = space.usage.allocated_bytes // BLOCK_BYTES
    data = pyfuse3.StatvfsData()
    data.f_bsize = data.f_frsize = BLOCK_BYTES
    # A volume that holds more than was planned for is full, not broken.
    data.f_blocks = max(space.capacity_bytes // BLOCK_BYTES, used)
    data.f_bfree = data.f_bavail = data.f_blocks - used
    data.f_files = _INODES
    data.f_ffree = data.f_favail = max(0, _INODES - space.usage.inode_count)
    data.f_namemax = NAME_MAX
    return data


def _present(value: bytes | None) -> bytes:
    if value is None:
        # Not a FilesystemError: the kernel asks for an attribute that is not there at every write.
        raise FUSEError(errno.ENODATA)
    return value


class RequestCaller:
    """Who makes the system call behind a request. Root stands for whoever has capabilities."""

    def __init__(self, context: RequestContext) -> None:
        self._context = context

    @property
    def is_privileged(self) -> bool:
        """See `Caller`."""
        return self._context.uid == 0

    def is_member(self, gid: int) -> bool:
        """See `Caller`. Asks /proc, which costs: not for what happens often."""
        if self.is_privileged or self._context.gid == gid:
            return True
        try:
            return gid in pyfuse3.get_sup_groups(self._context.pid)
        except (OSError, RuntimeError):
            return False  # it is gone, or in a place that we cannot see


class FuseOperations(pyfuse3.Operations):
    """What pyfuse3 calls. pyfuse3 documents the methods; `Filesystem` and `FileIo` say what they do."""

    supports_dot_lookup = True
    enable_writeback_cache = False

    def __init__(
        self,
        filesystem: Filesystem,
        *,
        entry_timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        attribute_timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
        hook: SessionHook | None = None,
        shown: Shown | None = None,
    ) -> None:
        """`shown`: as whose, and with which mode, everything appears."""
        super().__init__()
        self._shown = shown
        self._hook = hook or SessionHook()
        self.enable_acl = filesystem.has_acls
        self._chunk_bytes = chunk_bytes
        self._filesystem = filesystem
        self._files = filesystem.files
        self._entry_timeout_seconds = entry_timeout_seconds
        self._attribute_timeout_seconds = attribute_timeout_seconds
        self._requests = Counter[str]()

    def statistics(self) -> Mapping[str, int]:
        """How many requests the kernel has made, by handler, FORGET left out. What its caches answer does not count."""
        return dict(self._requests)

    def request_count(self) -> int:
        """How many requests the kernel has made, as `statistics`."""
        return self._requests.total()

    def _entry(self, attributes: Attributes | None) -> EntryAttributes:
        entry = EntryAttributes()
        entry.entry_timeout = self._entry_timeout_seconds
        entry.attr_timeout = self._attribute_timeout_seconds
        if attributes is None:
            entry.st_ino = InodeNumber(0)  # an answer that the kernel remembers: no such name
            return entry
        inode, mode, nlink, uid, gid, rdev, size_bytes, atime_ns, mtime_ns, ctime_ns, chunk_count = attributes
        entry.st_ino = inode
        entry.st_mode = mode
        entry.st_nlink = nlink
        entry.st_uid = uid
        entry.st_gid = gid
        entry.st_rdev = rdev
        entry.st_size = size_bytes
        entry.st_blocks = allocated_bytes(size_bytes, chunk_count, self._chunk_bytes) // _SECTOR_BYTES
        entry.st_atime_ns = atime_ns
        entry.st_mtime_ns = mtime_ns
        entry.st_ctime_ns = ctime_ns
        if self._shown is not None:
            _disguise(entry, self._shown)
        return entry

    def _file_info(self, fh: int) -> FileInfo:
        # Who does not let the kernel remember attributes wants to be asked for contents too.
        keeps = self._files.keeps_page_cache(fh) and self._attribute_timeout_seconds > 0
        return FileInfo(fh=fh, keep_cache=keeps, direct_io=self._files.is_report(fh))

    # Names

    @_answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await self._filesystem.lookup(InodeNumber(parent_inode), name))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            try:
                await self._filesystem.forget([(InodeNumber(inode), count)])
            except Exception as error:
                # There is nobody to answer, and not even a FUSEError may leave. The others must go all the same.
                errno_of(error, "forget")

    @_answered
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        new = _new_inode(mode, ctx, rdev)
        return self._entry(await self._filesystem.make_inode(InodeNumber(parent_inode), name, new))

    @_answered
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        new = _new_inode(stat.S_IFDIR | stat.S_IMODE(mode), ctx)
        return self._entry(await self._filesystem.make_inode(InodeNumber(parent_inode), name, new))

    @_answered
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        parent = InodeNumber(parent_inode)
        return self._entry(await self._filesystem.symlink(parent, name, target, ctx.uid, ctx.gid))

    @_answered
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        parent = InodeNumber(new_parent_inode)
        return self._entry(await self._filesystem.link(InodeNumber(inode), parent, new_name))

    @_answered
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._filesystem.unlink(InodeNumber(parent_inode), name)

    @_answered
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._filesystem.rmdir(InodeNumber(parent_inode), name)

    @_answered
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        old, new = InodeNumber(parent_inode_old), InodeNumber(parent_inode_new)
        await self._filesystem.rename(old, name_old, new, name_new, flags)

    @_answered
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return await self._filesystem.symlink_target(InodeNumber(inode))

    # Attributes

    @_answered
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await self._filesystem.attributes(InodeNumber(inode)))

    @_answered
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        changes = _changes(attr, fields)
        return self._entry(await self._filesystem.change_attributes(InodeNumber(inode), changes))

    @_answered
    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        # Asked only without default_permissions; then nobody but the user who mounted gets here.
        await self._filesystem.attributes(InodeNumber(inode))
        return True

    @_answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return _statvfs(await self._filesystem.space())

    @_answered
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        return _present(await self._filesystem.get_xattr(InodeNumber(inode), name))

    @_answered
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        # XATTR_CREATE and XATTR_REPLACE: pyfuse3 asks getxattr first, and the kernel lets nothing come between.
        await self._filesystem.set_xattr(InodeNumber(inode), name, value, RequestCaller(ctx))

    @_answered
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        return await self._filesystem.list_xattrs(InodeNumber(inode), RequestCaller(ctx))

    @_answered
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._filesystem.remove_xattr(InodeNumber(inode), name)

    # Files

    @_answered
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        new = _new_inode(stat.S_IFREG | stat.S_IMODE(mode), ctx)
        fh, made = await self._filesystem.create(InodeNumber(parent_inode), name, new, flags)
        return self._file_info(fh), self._entry(made)

    @_answered
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        return self._file_info(await self._files.open(InodeNumber(inode), flags, RequestCaller(ctx)))

    # Not `async` themselves: what they would await is awaited by `_answered` all the same, a layer earlier.

    @_answered
    def read(self, fh: int, off: int, size: int) -> Coroutine[Any, Any, bytes]:
        return self._files.read(fh, off, size)

    @_answered
    def write(self, fh: int, off: int, buf: bytes) -> Coroutine[Any, Any, int]:
        return self._files.write(fh, off, buf)

    @_answered
    async def flush(self, fh: int) -> None:
        # At close(2) there is nothing to do: what is written is kept already. The kernel does not ask again after this,
        # which spares every close a round trip.
        raise FUSEError(errno.ENOSYS)

    @_answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        # Size and location of the data are metadata that fdatasync must keep too, so both are one.
        await self._files.fsync(fh)

    @_answered
    async def release(self, fh: int) -> None:
        await self._filesystem.release(fh)

    # Directories

    @_answered
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        return self._hook.open_directory(inode)

    @_answered
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        def add(name: bytes, attributes: Attributes, cookie: int) -> bool:
            return pyfuse3.readdir_reply(token, name, self._entry(attributes), cookie)

        directory = InodeNumber(self._hook.directory_of(fh))
        await self._filesystem.read_directory(directory, start_id, add)

    @_answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._filesystem.sync_names()

    @_answered
    async def releasedir(self, fh: int) -> None:
        """Nothing to do: the kernel holds a lookup count of what it has open."""


async def forget_name(directory: int, name: bytes) -> None:
    """Let the kernel ask again: for a directory's attributes and listing, and for a name in it, unless it is empty.

    In a worker thread: the kernel may hold the directory until a request is answered. What it does not know is fine.
    """
    await trio.to_thread.run_sync(_invalidate, directory, name)


def _invalidate(directory: int, name: bytes) -> None:
    with contextlib.suppress(OSError):
        pyfuse3.invalidate_inode(directory)
    if name:
        with contextlib.suppress(OSError):
            pyfuse3.invalidate_entry(directory, name)
