"""The door to the kernel: what its replies look like, and that no exception but FUSEError leaves it."""

from __future__ import annotations

import errno
import logging
import stat
from typing import TYPE_CHECKING

import pyfuse3
import trio
from support.kernel_requests import CONTEXT, errno_of
from trio.testing import wait_all_tasks_blocked

from disfs.errors import FilesystemError, TransientStorageError
from disfs.filesystem import Filesystem
from disfs.fuse_ops import FuseOperations
from disfs.spans import DEFAULT_CHUNK_BYTES
from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    import pytest
    from support.filesystem_world import World

    from disfs.values import InodeNumber


async def test_reply_has_every_attribute(world: World) -> None:
    """Each field of the inode is in the reply, with the umask applied and the timeouts that were set."""
    operations = FuseOperations(world.filesystem, entry_timeout_seconds=5, attribute_timeout_seconds=7)
    info, entry = await operations.create(ROOT_INODE, b"file", 0o666, 0, CONTEXT)
    await operations.write(info.fh, 0, b"x" * 5000)
    found = await operations.getattr(entry.st_ino, CONTEXT)
    stored = await world.metadata.attributes(world.filesystem._handles.file(info.fh).opened.inode)
    assert (0o100644, 1000, 1001, 1, 5000, 16) == (
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_nlink,
        found.st_size,
        found.st_blocks,
    )
    assert stored[7:10] == (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    assert (5, 7) == (found.entry_timeout, found.attr_timeout)
    assert info.keep_cache


async def test_absent_name_is_an_answer_to_remember(world: World) -> None:
    """A name that is not there is inode 0 with a timeout, not an error."""
    operations = FuseOperations(world.filesystem, entry_timeout_seconds=9)
    found = await operations.lookup(ROOT_INODE, b"absent", CONTEXT)
    assert (0, 9) == (found.st_ino, found.entry_timeout)


async def test_kernel_without_caches_asks_for_contents_too(world: World) -> None:
    """Without attribute timeouts a file that is opened again is not read from the kernel's page cache."""
    operations = FuseOperations(world.filesystem, entry_timeout_seconds=0, attribute_timeout_seconds=0)
    made, entry = await operations.create(ROOT_INODE, b"file", 0o666, 0, CONTEXT)
    again = await operations.open(entry.st_ino, 0, CONTEXT)
    assert (False, False) == (made.keep_cache, again.keep_cache)


async def test_requests_are_counted_by_kind(world: World) -> None:
    """What the kernel asks is counted, whether it got an answer or an error."""
    operations = FuseOperations(world.filesystem)
    await operations.lookup(ROOT_INODE, b"absent", CONTEXT)
    await operations.getattr(ROOT_INODE, CONTEXT)
    await errno_of(operations.getattr(4711, CONTEXT))
    assert {"lookup": 1, "getattr": 2} == operations.statistics()


async def test_filesystem_errors_keep_their_errno(world: World) -> None:
    """The kernel gets the errno that POSIX names."""
    operations = FuseOperations(world.filesystem)
    assert errno.ESTALE == await errno_of(operations.getattr(4711, CONTEXT))
    assert errno.EBADF == await errno_of(operations.read(99, 0, 1))
    assert errno.ENAMETOOLONG == await errno_of(operations.mkdir(ROOT_INODE, b"x" * 256, 0o755, CONTEXT))
    assert errno.ENODATA == await errno_of(operations.getxattr(ROOT_INODE, b"user.absent", CONTEXT))


async def test_regression_labels_of_selinux_are_not_asked_for_each_file(world: World) -> None:
    """`security.selinux` is not supported rather than absent: then `ls -l` asks one file for it, and not each."""
    operations = FuseOperations(world.filesystem)
    assert errno.EOPNOTSUPP == await errno_of(operations.getxattr(ROOT_INODE, b"security.selinux", CONTEXT))
    assert errno.EOPNOTSUPP == await errno_of(operations.setxattr(ROOT_INODE, b"security.selinux", b"x", CONTEXT))
    assert errno.ENODATA == await errno_of(operations.getxattr(ROOT_INODE, b"security.capability", CONTEXT))


async def test_storage_errors_are_eio_and_one_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Discord's failures are EIO for the caller and one line without a traceback in the log."""
    operations = FuseOperations(world.filesystem)
    info, _ = await operations.create(ROOT_INODE, b"file", 0o666, 0, CONTEXT)
    world.chunks.fails_with = TransientStorageError("Discord is away")
    assert errno.EIO == await errno_of(operations.write(info.fh, 0, b"x"))
    assert [("write failed: TransientStorageError: Discord is away", None)] == [
        (record.message, record.exc_info) for record in caplog.records
    ]


async def test_unknown_errors_are_eio_and_a_traceback(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A bug is EIO for one caller, with a traceback in the log, and the mount goes on."""
    operations = FuseOperations(world.filesystem)
    info, _ = await operations.create(ROOT_INODE, b"file", 0o666, 0, CONTEXT)
    world.chunks.fails_with = ZeroDivisionError("bug")
    assert errno.EIO == await errno_of(operations.write(info.fh, 0, b"x"))
    assert ["ZeroDivisionError: bug"] == [line for line in caplog.text.splitlines() if "ZeroDivisionError" in line]
    world.chunks.fails_with = None
    assert 1 == await operations.write(info.fh, 0, b"x")


async def test_regression_forget_that_fails_loses_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many inodes are forgotten at once: one that cannot be removed keeps none of the others."""
    operations = FuseOperations(world.filesystem)
    inodes = []
    for name in (b"damaged", b"sound"):
        inodes.append((await operations.mknod(ROOT_INODE, name, stat.S_IFREG | 0o644, 0, CONTEXT)).st_ino)
        await operations.unlink(ROOT_INODE, name, CONTEXT)
    assert inodes == await world.metadata.orphans()
    remove_orphan = world.metadata.remove_orphan

    async def refuse(inode: InodeNumber) -> None:
        if inode == inodes[0]:
            raise FilesystemError(errno.EIO)
        await remove_orphan(inode)

    monkeypatch.setattr(world.metadata, "remove_orphan", refuse)
    await operations.forget([(inode, 1) for inode in inodes])
    assert inodes[:1] == await world.metadata.orphans()


async def test_forget_never_raises(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no caller to answer, so even a broken forget only logs."""

    async def broken(_: object) -> None:
        raise FilesystemError(errno.EIO) if world.chunks.fails_with is None else world.chunks.fails_with

    monkeypatch.setattr(world.filesystem, "forget", broken)
    world.chunks.fails_with = ZeroDivisionError("bug")
    await FuseOperations(world.filesystem).forget([(ROOT_INODE, 1)])
    assert "forget failed" in caplog.text


async def test_cancellation_passes(world: World) -> None:
    """A cancelled request is a cancellation, not EIO."""
    operations = FuseOperations(world.filesystem)
    info, _ = await operations.create(ROOT_INODE, b"file", 0o666, 0, CONTEXT)
    world.chunks.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(operations.write, info.fh, 0, b"x")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught


async def test_every_handler_is_answered() -> None:
    """Each method that pyfuse3 may call and that we define goes through the one place that turns errors into errno."""
    ours = {
        name: method
        for name, method in vars(FuseOperations).items()
        if callable(method) and not name.startswith("_") and hasattr(pyfuse3.Operations, name)
    }
    assert ["forget"] == [name for name, method in ours.items() if not hasattr(method, "__wrapped__")]
    unanswered = {"init", "stacktrace", "poll"}
    all_of_them = {name for name in vars(pyfuse3.Operations) if not name.startswith("_")}
    options = {"supports_dot_lookup", "enable_writeback_cache", "enable_acl"}
    assert unanswered == all_of_them - set(ours) - options


async def test_debug_log_names_operations_and_no_contents(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG each request is a line with its numbers; what is written is not in it."""
    caplog.set_level(logging.DEBUG, "disfs.fuse_ops")
    operations = FuseOperations(world.filesystem)
    info, _ = await operations.create(ROOT_INODE, b"file", 0o666, 0, CONTEXT)
    await operations.write(info.fh, 3, b"secret contents")
    assert f"write({info.fh}, 3)" in caplog.text
    assert "secret" not in caplog.text


async def test_full_volume_is_shown_as_full(world: World) -> None:
    """statfs never goes below zero when more is kept than the capacity that was set; holes do not count."""
    operations = FuseOperations(Filesystem(world.metadata, world.chunks, capacity_bytes=8192))
    info, entry = await operations.create(ROOT_INODE, b"file", 0o666, 0, CONTEXT)
    await operations.write(info.fh, 1 << 50, b"x" * 8193)
    found = await operations.statfs(CONTEXT)
    assert (0, 0) == (found.f_bfree, found.f_bavail)
    assert DEFAULT_CHUNK_BYTES == found.f_blocks * found.f_frsize
    assert await operations.access(entry.st_ino, 4, CONTEXT)
