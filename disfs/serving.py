"""A volume being served: its mount comes up, everything runs in one nursery, and all of it stops in order.

Start: orphans of a crash, control socket, kernel. The mount counts as usable when the kernel's own question
about its root has been answered.

Stop, whoever asks: the mount goes first, so that nothing is written any more and it is known at once whether somebody
still uses it; then, if it was asked for, everything is sent; then everything is made durable here; then the tasks end
and the metadata is closed, which marks the stop as clean.

    asked by            mount in use                 waits for uploads
    control: unmount    refused, goes on             as the request says; a client that leaves ends the wait
    SIGTERM (INT, HUP)  detached when all is sent    until a second signal; not at all while uploads are paused
    fusermount3 -u      (the kernel refuses)         no: the next mount goes on with them
    a failed task       detached at once             no

Whatever is not sent stays in the cache and is noted in the metadata, and the next mount sends it.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyfuse3
import trio

from disfs import mountpoint as mounting
from disfs.background import Ready
from disfs.collector import collect_when_quiet
from disfs.control.server import serve as serve_control
from disfs.controls import Controls
from disfs.discord_watch import DiscordWatch
from disfs.errors import (
    ExitCode,
    FilesystemError,
    StorageError,
    UserError,
)
from disfs.filesystem import Filesystem
from disfs.fuse_ops import FuseOperations, forget_name
from disfs.fuse_variants import vary_answers
from disfs.interrupts import sync_requests
from disfs.late_forgets import LateForgets
from disfs.polled_loop import polled_loop
from disfs.quantities import human_size
from disfs.session_hook import SessionHook
from disfs.store_failures import while_it_works
from disfs.trash_desk import TrashDesk
from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from disfs.chunkstore.store import ChunkStore
    from disfs.chunkstore.transport.stack import Connection
    from disfs.metadata.store import SqliteMetadataStore
    from disfs.mount_plan import MountPlan
    from disfs.mount_recovery import MountRecovery
    from disfs.recovery.holding import LeaseHolder
    from disfs.recovery.shipper import Shipper
    from disfs.snapshot_desk import SnapshotDesk
    from disfs.volume import Look

log = logging.getLogger(__name__)

SYNC_SECONDS = 5.0
"""How often everything un-synced is made durable: what a power cut can take."""
ANSWER_SECONDS = 30.0
"""How long the kernel may take to get its first answer; it is milliseconds, so this is a hang."""
LAST_SYNC_SECONDS = 120.0
"""How long the last sync may take; a disk that takes longer is broken, and a shutdown must end."""
KERNEL_TASKS = 64
"""How many requests of the kernel are worked on at once."""


class Daemon:
    """A volume being served: its coming up and going down; a `Served`."""

    def __init__(
        self,
        plan: MountPlan,
        metadata: SqliteMetadataStore,
        connection: Connection,
        chunks: ChunkStore,
        shipper: Shipper,
        holder: LeaseHolder,
        snapshots: SnapshotDesk,
        look: Look,
        recovery: MountRecovery,
        warnings: Sequence[str] = (),
    ) -> None:
        """`warnings`: what a person should know who has just mounted."""
        self._snapshots = snapshots
        self._plan = plan
        self._metadata = metadata
        self._chunks = chunks
        self._shipper = shipper
        self._holder = holder
        self._recovery = recovery
        self._first_warnings = tuple(warnings)
        self._filesystem = Filesystem(
            metadata,
            chunks,
            capacity_bytes=plan.capacity_bytes,
            has_acls=plan.settings.has_acls,
            atime=plan.behaviour.atime,
            directory_atime=plan.behaviour.directory_atime,
        )
        self._prepare_operations(metadata.chunk_bytes)
        self._watch = DiscordWatch(
            connection.admin,
            plan.volume,
            look,
            is_refused=lambda: bool(chunks.statistics().writeback.failures),
            on_attachment_bytes=chunks.offer_attachment_limit,
        )
        self._trash = TrashDesk(metadata, chunks, plan.trash_seconds, forget_name)
        self._controls = Controls(
            self,
            metadata,
            connection,
            chunks,
            shipper,
            holder,
            self._filesystem,
            self._watch,
            self._trash,
            snapshots,
            plan,
        )
        self._controls.keep_limits(plan.settings.bandwidth)
        self._kernel_gone = trio.Event()
        self._is_asked_to_go = False
        """By somebody who talks to us: else it was fusermount3, umount, or a file manager."""
        self._stopping = trio.Event()
        self._drained = trio.Event()
        self._wait_for_uploads = False
        self._waiting = trio.CancelScope()

    def _prepare_operations(self, chunk_bytes: int) -> None:
        """What answers the kernel, as this mount was asked to behave."""
        plan = self._plan
        may_keep = plan.settings.kernel_listings and plan.settings.kernel_cache_seconds > 0
        syncs = sync_requests() if plan.behaviour.syncs_remotely else None
        self._hook = SessionHook(keeps_listings=may_keep and plan.behaviour.keeps_listings, syncs=syncs)
        self._operations = FuseOperations(
            self._filesystem,
            entry_timeout_seconds=plan.settings.kernel_cache_seconds,
            attribute_timeout_seconds=plan.settings.kernel_cache_seconds,
            chunk_bytes=chunk_bytes,
            hook=self._hook,
            shown=plan.behaviour.shown,
        )
        self._filesystem.files.ship = self._ship_metadata
        vary_answers(self._operations, plan.behaviour, self._filesystem, syncs)
        self._forgets = LateForgets(self._operations.forget)
        setattr(self._operations, "forget", self._forgets.put_off)  # noqa: B010 - mypy takes no assignment to a method

    async def serve(self, ready: Callable[[Ready], None]) -> ExitCode:
        """Mount, serve until something stops it, and leave everything in order."""
        self._filesystem.files.report = self._controls.report
        async with trio.open_nursery() as control:
            # Its own nursery: whoever asked for the end is still connected while the rest is taken down.
            await control.start(serve_control, self._controls, self._plan.state_directory)
            control.start_soon(self._plan.service.run, self._line, self._stopping)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._metadata.run)
                nursery.start_soon(partial(self._chunks.run, tidies=not self._plan.behaviour.read_only))
                nursery.start_soon(self._controls.run)
                nursery.start_soon(self._plan.desktop.run, f"disfs: {self._plan.volume.name}", self._controls.troubles)
                if not self._plan.behaviour.read_only:
                    nursery.start_soon(self._shipper.run)
                    nursery.start_soon(self._trash.run)
                    nursery.start_soon(self._snapshots.run)
                    nursery.start_soon(self._holder.run, self._shipper)
                    await self._remove_orphans()
                self._controls.recovery = self._recovery
                try:
                    await self._serve_kernel(ready)
                finally:
                    # Also when a task failed, or nobody waited for the mount: what is written is kept.
                    with trio.move_on_after(LAST_SYNC_SECONDS, shield=True):
                        await self._filesystem.close(removes_orphans=not self._plan.behaviour.read_only)
                        await self._filesystem.files.sync_everything()
                nursery.cancel_scope.cancel()
            control.cancel_scope.cancel()
        return ExitCode.UNSENT_DATA if self._abandoned() else ExitCode.OK

    async def _serve_kernel(self, ready: Callable[[Ready], None]) -> None:
        with polled_loop():
            self._init_fuse()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_fuse)
                    nursery.start_soon(self._forgets.run)
                    nursery.start_soon(self._sync_regularly)
                    nursery.start_soon(self._watch.run)
                    nursery.start_soon(collect_when_quiet, self._operations.request_count)
                    await nursery.start(self._watch_signals)
                    await self._wait_until_answering()
                    ready(Ready(tuple(self._warnings()), tuple(self._notes())))
                    self._plan.service.ready()
                    await self._stopping.wait()
                    await self._drain()
                    nursery.cancel_scope.cancel()
            finally:
                # Closes the device first, so what still waits for an answer gets an error and nothing can hang.
                pyfuse3.close(unmount=True)

    def _warnings(self) -> Iterator[str]:
        """What a person should know who has just mounted."""
        if self._watch.warning:
            yield self._watch.warning
        yield from self._first_warnings
        if self._metadata.statistics().low_space:
            yield f"the disk of {self._plan.state_directory} is nearly full: nothing new is taken in"

    def _line(self) -> str:
        """How it is, for whoever looks after services."""
        unsent = self._chunks.statistics().dirty_bytes
        state = f"{human_size(unsent)} to send" if unsent else "everything is in Discord"
        problem = f"; {self._watch.warning}" if self._watch.warning else ""
        return f"{self._plan.mountpoint}: {state}{problem}"

    def _notes(self) -> Iterator[str]:
        line = self._recovery.line()
        if line is not None:
            log.info("%s", line)
            yield line

    async def _remove_orphans(self) -> None:
        began = trio.current_time()
        orphans = await self._filesystem.remove_orphans()
        seconds = self._recovery.seconds + trio.current_time() - began
        self._recovery = replace(self._recovery, orphans=orphans, seconds=seconds)

    # Kernel

    def _init_fuse(self) -> None:
        volume = self._plan.volume
        options = set(self._plan.kernel_options) | {
            f"fsname={mounting.SOURCE_PREFIX}{volume.name}",
            f"subtype={mounting.FILESYSTEM_TYPE.removeprefix('fuse.')}",
            "default_permissions",
        }
        try:
            with self._hook.offered():
                pyfuse3.init(self._operations, str(self._plan.mountpoint), options)
        except RuntimeError as error:
            raise UserError(
                f"the kernel refused to mount at {self._plan.mountpoint}; are FUSE mounts allowed here (container, "
                "mount options, rights on the directory)?",
                ExitCode.FUSE_UNAVAILABLE,
            ) from error

    async def _run_fuse(self) -> None:
        """Answer the kernel until the mount is gone."""
        try:
            await pyfuse3.main(max_tasks=KERNEL_TASKS)
        finally:
            self._kernel_gone.set()
        if self._is_asked_to_go or self._stopping.is_set():
            log.info("%s is detached", self._plan.mountpoint)
        else:
            log.info(
                "%s was unmounted by another program; %d bytes that are not in Discord yet are kept for the next mount",
                self._plan.mountpoint,
                self._chunks.statistics().dirty_bytes,
            )
        self._stopping.set()

    async def _wait_until_answering(self) -> None:
        """Return when the kernel has had its first answer, through the mountpoint, as any program would ask."""
        with trio.move_on_after(ANSWER_SECONDS):
            root = await trio.to_thread.run_sync(os.stat, self._plan.mountpoint, abandon_on_cancel=True)
            if root.st_ino == ROOT_INODE:
                return
        raise UserError(
            f"the mount at {self._plan.mountpoint} does not answer; the log says more", ExitCode.FUSE_UNAVAILABLE
        )

    # Stopping

    async def _watch_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            asked = False
            async with trio.open_nursery() as nursery:
                async for number in signals:
                    log.info("received %s", signal.Signals(number).name)
                    if asked:
                        self._waiting.cancel()
                    else:
                        nursery.start_soon(self._stop_for_signal)
                    asked = True

    async def _stop_for_signal(self) -> None:
        # Whoever paused uploads may be long gone; a machine that is shut down must not wait for them.
        self._wait_for_uploads = not self._chunks.paused
        self._is_asked_to_go = True
        try:
            await trio.to_thread.run_sync(mounting.unmount, self._plan.mountpoint)
        except UserError as error:
            # In use, and nobody is there to be told. Send what there is, then go: those who use it get errors.
            log.warning("%s", error)
            self._stopping.set()

    async def _drain(self) -> None:
        """Wait for the uploads, if that is wanted; a second signal or a client that leaves ends it."""
        with self._waiting:
            if self._wait_for_uploads:
                await self._send_everything()
        self._drained.set()

    def _abandoned(self) -> bool:
        """Whether something that was to be sent is not."""
        never = self._wait_for_uploads and self._shipper.is_stopped
        gave_up = self._waiting.cancelled_caught or self._chunks.paused or never
        return gave_up and (self._chunks.statistics().dirty_bytes > 0 or self._metadata.shipping.has_unshipped)

    # Durability

    async def _send_everything(self) -> None:
        """Return when all that is dirty now is in Discord; safe on this machine first, as far as its disk allows."""
        try:
            await self._filesystem.files.sync_everything()
        except FilesystemError:
            if self._metadata.failure is not None:
                raise
            log.exception("not everything could be made durable on this machine; sending it all the same")
        await while_it_works(self._metadata, self._drain_both)

    async def _drain_both(self) -> None:
        await self._chunks.drain()
        if not self._plan.behaviour.read_only:
            await self._shipper.drain()

    async def _ship_metadata(self) -> None:
        """Return when the metadata of now are in Discord; FilesystemError(EIO) when they never will be."""
        await self._shipper.drain()
        if self._shipper.is_stopped:
            raise FilesystemError(errno.EIO, f"names are not in Discord: {self._shipper.conflict}")

    async def _sync_regularly(self) -> None:
        while True:
            await trio.sleep(SYNC_SECONDS)
            try:
                await self._filesystem.files.sync_everything()
            except (FilesystemError, StorageError, OSError):
                log.exception("data could not be made durable; trying again")

    # Served: what the control socket asks of a mount's coming and going

    def facts(self) -> Mapping[str, object]:
        """See Served."""
        return {
            "volume": self._plan.volume.name,
            "mountpoint": str(self._plan.mountpoint),
            "state": "unmounting" if self._stopping.is_set() else "mounted",
            "kernel_requests": self._operations.statistics(),
        }

    async def sync(self) -> None:
        """See Served."""
        await self._send_everything()
        self._check_conflict()

    async def unmount(self, *, wait: bool) -> None:
        """See Served."""
        before = self._wait_for_uploads, self._is_asked_to_go
        # Before the mount goes: the main task looks at it as soon as the kernel has let go.
        self._wait_for_uploads, self._is_asked_to_go = wait, True
        if not self._kernel_gone.is_set():
            try:
                await trio.to_thread.run_sync(mounting.unmount, self._plan.mountpoint)
            except UserError:
                self._wait_for_uploads, self._is_asked_to_go = before
                raise
        if not self._drained.is_set():  # else no checkpoint: the end of the daemon may have cancelled this task already
            try:
                await self._drained.wait()
            except trio.Cancelled:
                self._waiting.cancel()
                raise
        if wait:
            self._check_conflict()

    def _check_conflict(self) -> None:
        """Whoever was told to wait until everything is in Discord must hear that it will never be. UNSENT_DATA."""
        if self._shipper.conflict is not None:
            raise UserError(f"contents are in Discord, names are not: {self._shipper.conflict}", ExitCode.UNSENT_DATA)
