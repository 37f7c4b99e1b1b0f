"""The composition root: builds every object of a mounted volume and takes them down in reverse order.

Start: metadata, connection to Discord, a look at Discord (which may fail: the volume mounts from what is here),
the lease, chunk store, what a crash left; then `serving` brings the mount up, and down again.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio

from disfs.allocator import return_freed_memory
from disfs.chunkstore.transport.stack import open_connection
from disfs.collector import keep_collections_short
from disfs.errors import (
    ExitCode,
    MetadataDamagedError,
    UserError,
)
from disfs.fuse_ops import forget_name
from disfs.local_volume import go_on, keep_marks, make_chunk_store, open_metadata
from disfs.recovery.admission import admit, give_back, take_over_later
from disfs.recovery.assembly import make_holder, make_shipper, make_snapshot_shipments
from disfs.serving import Daemon
from disfs.snapshot_desk import SnapshotDesk
from disfs.volume import look_at_discord

if TYPE_CHECKING:
    from collections.abc import Callable

    from disfs.background import Ready
    from disfs.errors import DisfsError
    from disfs.mount_plan import MountPlan

log = logging.getLogger(__name__)


def run(plan: MountPlan, ready: Callable[[Ready], None]) -> ExitCode:
    """Serve the mount until it is unmounted. Raises `UserError` if it cannot be mounted; a failure later is logged."""
    told = False

    def tell(report: Ready) -> None:
        nonlocal told
        told = True
        ready(report)

    return_freed_memory()
    keep_collections_short()
    try:
        code = trio.run(_serve, plan, tell)
    except BaseExceptionGroup as group:
        error = _first_known_error(group)
        if error is not None and not told:
            raise error from group
        log.critical("the daemon failed; what is unsent is kept for the next mount", exc_info=group)
        if told:
            return ExitCode.INTERNAL
        raise
    log.info("volume %s is unmounted", plan.volume.name)
    return code


def _first_known_error(group: BaseExceptionGroup[BaseException]) -> DisfsError | None:
    for error in group.exceptions:
        found = _first_known_error(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, UserError | MetadataDamagedError):
            return found
    return None


async def _serve(plan: MountPlan, ready: Callable[[Ready], None]) -> ExitCode:
    """Build from the bottom up; the stack takes down in reverse order."""
    log.info("mounting volume %s at %s", plan.volume.name, plan.mountpoint)
    async with AsyncExitStack() as stack:
        began = trio.current_time()
        metadata = open_metadata(plan.state_directory, plan.volume.superblock, plan.capacity_bytes, plan.trash_seconds)
        stack.callback(metadata.close)
        if not metadata.was_clean:
            log.warning("volume %s was not unmounted in order; what was synced is kept", plan.volume.name)
        opening_seconds = trio.current_time() - began
        connection = await stack.enter_async_context(open_connection(plan.token, plan.api_url))
        look = await look_at_discord(connection.admin, plan.volume)
        holder = make_holder(
            plan.volume,
            key=plan.key,
            metadata=metadata,
            transport=connection.transport,
            directory=plan.state_directory,
        )
        stack.push_async_callback(give_back, holder)
        warnings: list[str] = []
        may_change = not (look.warning or plan.behaviour.read_only)
        if may_change:
            warnings += await admit(holder, plan.volume.name, takes_over=plan.takes_over)
        elif plan.takes_over and not plan.behaviour.read_only:
            warnings += take_over_later(holder, plan.volume.name)
        chunks = make_chunk_store(
            plan.volume.superblock,
            plan.settings,
            cache_directory=plan.cache_directory,
            key=plan.key,
            metadata=metadata,
            transport=connection.transport,
            attachment_bytes=look.attachment_bytes,
            taken_bytes=connection.taken_bytes,
        )
        stack.callback(chunks.close)
        recovery = await go_on(metadata, chunks, may_reclaim=may_change, seconds=opening_seconds)
        shipper = make_shipper(
            plan.volume,
            plan.settings,
            key=plan.key,
            metadata=metadata,
            chunks=chunks,
            transport=connection.sending_once,
            directory=plan.state_directory,
            holder=holder,
        )
        snapshots = SnapshotDesk(
            metadata,
            chunks,
            make_snapshot_shipments(
                plan.volume,
                plan.settings,
                key=plan.key,
                metadata=metadata,
                chunks=chunks,
                transport=connection.transport,
                directory=plan.state_directory,
            ),
            chunks.make_ledger_durable,
            forget_name,
            read_only=plan.behaviour.read_only,
            is_stopped=lambda: shipper.is_stopped,
        )
        daemon = Daemon(plan, metadata, connection, chunks, shipper, holder, snapshots, look, recovery, warnings)
        code = await daemon.serve(ready)
        # Only after a stop in order: without these marks the next start drops what is cached and clean.
        keep_marks(metadata, await chunks.stop())
        return code
