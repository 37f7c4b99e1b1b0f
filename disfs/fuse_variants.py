"""What mount options change about the answers to the kernel: mounts that only read, and mounts that sync each change.

The kernel refuses writes to a read-only mount by itself, until somebody remounts it; the daemon still refuses then.
"""

from __future__ import annotations

import errno
import functools
import os
from typing import TYPE_CHECKING, Any

from pyfuse3 import FUSEError

from disfs.fuse_ops import errno_of
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyfuse3 import EntryAttributes, FileInfo

    from disfs.filesystem import Filesystem
    from disfs.fuse_ops import FuseOperations
    from disfs.interrupts import SyncRequests
    from disfs.mount_options import Behaviour

    Handler = Callable[..., Awaitable[Any]]

_MAKING_NAMES = ("mknod", "mkdir", "symlink", "link", "create")
"""What they answer with counts as looked up."""
_CHANGING_NAMES = (*_MAKING_NAMES, "unlink", "rmdir", "rename")
_CHANGING_XATTRS = ("setxattr", "removexattr")
_WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_TRUNC


def vary_answers(
    operations: FuseOperations, behaviour: Behaviour, filesystem: Filesystem, syncs: SyncRequests | None = None
) -> None:
    """From now on `operations` answers as a mount does that was asked to behave so.

    With `syncs` a signal ends the waiting of an fsync: EINTR.
    """
    if behaviour.read_only:
        for name in (*_CHANGING_NAMES, *_CHANGING_XATTRS, "setattr", "write"):
            setattr(operations, name, _refused)
        _replace(operations, "open", _opened_to_read)
        return
    if behaviour.shown is not None and behaviour.shown.permissions is not None:
        _replace(operations, "setattr", functools.partial(_kept_permissions, filesystem, behaviour.shown.permissions))
    sync_file, sync_inode, sync_names = filesystem.files.fsync, filesystem.files.sync, filesystem.sync_names
    if behaviour.syncs_remotely:
        sync_file, sync_inode, sync_names = filesystem.files.send, filesystem.files.send_inode, filesystem.send_names
        # O_SYNC and O_DSYNC come as a write and then fsync.
        _replace(operations, "fsync", functools.partial(_synced, lambda fh, *_: sync_file(fh)))
        _replace(operations, "fsyncdir", functools.partial(_synced, lambda *_: sync_names()))
        if syncs is not None:
            _replace(operations, "fsync", functools.partial(_interruptible, syncs))
            _replace(operations, "fsyncdir", functools.partial(_interruptible, syncs))
    if behaviour.syncs_names:
        for name in _CHANGING_NAMES:
            let_go = functools.partial(_let_go, filesystem) if name in _MAKING_NAMES else None
            _replace(operations, name, functools.partial(_synced, lambda *_: sync_names(), let_go=let_go))
    if behaviour.syncs_everything:
        for name in _CHANGING_XATTRS:
            _replace(operations, name, functools.partial(_synced, lambda *_: sync_names()))
        _replace(operations, "setattr", functools.partial(_synced, lambda inode, *_: sync_inode(InodeNumber(inode))))
        _replace(operations, "write", functools.partial(_synced, lambda fh, *_: sync_file(fh)))


def _replace(operations: FuseOperations, name: str, variant: Callable[..., Awaitable[Any]]) -> None:
    """Answer a request by `variant(handler, arguments)`."""
    setattr(operations, name, functools.partial(variant, getattr(operations, name)))


async def _refused(*_: Any) -> Any:
    raise FUSEError(errno.EROFS)


async def _opened_to_read(handler: Handler, inode: int, flags: int, *rest: Any) -> Any:
    if flags & _WRITING_FLAGS:
        raise FUSEError(errno.EROFS)
    return await handler(inode, flags, *rest)


async def _kept_permissions(
    filesystem: Filesystem, shown: int, handler: Handler, inode: int, attr: EntryAttributes, *rest: Any
) -> Any:
    """A mode with the permissions that are shown changes none: so the kernel takes setuid away at a write."""
    if attr.st_mode & 0o777 == shown:
        try:
            stored = await filesystem.attributes(InodeNumber(inode))
        except Exception as error:
            raise FUSEError(errno_of(error, "setattr")) from error
        attr.st_mode = attr.st_mode & ~0o777 | stored.mode & 0o777
    return await handler(inode, attr, *rest)


async def _interruptible(syncs: SyncRequests, handler: Handler, fh: int, datasync: bool) -> None:
    try:
        handle, scope = syncs.take(fh)
        with scope:
            await handler(handle, datasync)
        if scope.cancelled_caught:
            raise FUSEError(errno.EINTR)
    finally:
        syncs.release(fh)


async def _synced(sync: Handler, handler: Handler, *arguments: Any, let_go: Handler | None = None) -> Any:
    """Answer only when the change would survive a loss of power; when that fails, the change itself stands.

    The kernel hears of the failure alone: what it would have held by the answer is for `let_go`.
    """
    answer = await handler(*arguments)
    try:
        await sync(*arguments)
    except Exception as error:
        if let_go is not None:
            await let_go(answer)
        raise FUSEError(errno_of(error, "sync")) from error
    return answer


async def _let_go(filesystem: Filesystem, answer: EntryAttributes | tuple[FileInfo, EntryAttributes]) -> None:
    """Close the handle and forget the lookup of an answer that does not reach the kernel."""
    info, entry = answer if isinstance(answer, tuple) else (None, answer)
    try:
        if info is not None:
            await filesystem.release(int(info.fh))
        await filesystem.forget([(InodeNumber(entry.st_ino), 1)])
    except Exception as error:
        # It was unlinked meanwhile and cannot go: the next mount removes it. The kernel gets the errno of the sync.
        errno_of(error, "release")
