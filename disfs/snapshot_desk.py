"""Makes and deletes snapshots of a mounted volume, and goes on with what an earlier mount did not finish."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

import trio

from disfs.errors import DisfsError, ExitCode, StorageError, UserError
from disfs.metadata.base import NAME_MAX
from disfs.metadata.snapshots import SnapshotState
from disfs.values import FIRST_VIEW_INODE, view_inode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from disfs.metadata.snapshots import SnapshotRecord
    from disfs.metadata.store import SqliteMetadataStore
    from disfs.recovery.snapshot_shipments import SnapshotShipments
    from disfs.values import InodeNumber

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
_NOT_SENT = "nothing of this mount is sent any more; 'disfs status' says why"
_DRAINS = 3
"""How often what is dirty is waited for, so that nothing is: writers who never rest are not waited for longer."""


class SnapshotChunks(Protocol):
    """What the desk needs of the chunk store."""

    @property
    def has_unsent(self) -> bool:
        """Whether any chunk is dirty."""
        ...

    async def drain(self) -> None:
        """See ChunkStore."""
        ...

    async def forget_between(self, first: InodeNumber, end: InodeNumber) -> None:
        """See ChunkStore."""
        ...


class SnapshotDesk:
    """The snapshots of one volume. `tell_kernel`: see TrashDesk."""

    def __init__(
        self,
        metadata: SqliteMetadataStore,
        chunks: SnapshotChunks,
        shipments: SnapshotShipments,
        make_durable: Callable[[], Awaitable[None]],
        tell_kernel: Callable[[InodeNumber, bytes], Awaitable[None]],
        *,
        read_only: bool,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_stopped`: whether another machine has the volume now, so that nothing is to be sent or deleted."""
        self._is_stopped = is_stopped
        self._metadata = metadata
        self._snapshots = metadata.snapshots
        self._chunks = chunks
        self._shipments = shipments
        self._make_durable = make_durable
        self._tell_kernel = tell_kernel
        self._read_only = read_only
        self._lock = trio.Lock()

    async def run(self) -> None:
        """Finish what was begun, by this mount or an earlier one, until cancelled."""
        while True:
            try:
                await self.finish()
            except (DisfsError, OSError) as error:
                log.warning("a snapshot cannot be finished now, trying again: %s", error)
            await trio.sleep(RETRY_SECONDS)

    async def finish(self) -> None:
        """Ship what is here only, remove what is not whole or was to be deleted. Errors as of `Transport`."""
        async with self._lock:
            for record in () if self._is_stopped() else self._snapshots.all():
                if record.state in (SnapshotState.MAKING, SnapshotState.DELETING):
                    await self._remove(record, looks_for_remains=record.state is SnapshotState.DELETING)
                elif record.state is SnapshotState.WHOLE:
                    await self._shipments.delete(record, looks_for_remains=True)
                    await self._ship(record)

    async def create(self, name: str) -> Mapping[str, object]:
        """Make a snapshot of this moment; says of how many files newer contents were not sent. USAGE.

        Waits first until what is dirty now is in Discord, then for the copy to get there. DISCORD_UNREACHABLE when that
        fails, or a cancel: the snapshot is there then, and `run` sends it; or none, if it was not made yet.
        """
        self._check_writable()
        encoded = _checked(name)
        async with self._lock:
            if self._snapshots.named(encoded) is not None:
                raise UserError(f"there is a snapshot {name!r} already; choose another name", ExitCode.USAGE)
            for _ in range(_DRAINS):
                await self._chunks.drain()
                if not self._chunks.has_unsent:
                    break
            examined = self._metadata.shipping.position().examined
            try:
                record = await self._snapshots.make(encoded, time.time_ns(), examined)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self._undo(encoded)
                raise
            await self._tell(encoded)
            await self._make_durable()
            try:
                await self._ship(record)
            except StorageError as error:
                raise UserError(
                    f"snapshot {name!r} is made, but is not in Discord yet ({error}); that is tried again",
                    ExitCode.DISCORD_UNREACHABLE,
                ) from error
            count, paths = self._snapshots.unsent(record.snapshot)
        return {"unsent_files": count, "unsent_paths": list(paths)}

    async def _undo(self, name: bytes) -> None:
        record = self._snapshots.named(name)
        if record is not None:
            try:
                await self._remove(record, looks_for_remains=False)
            except (DisfsError, OSError):
                log.exception("what is left of a snapshot that was not made is removed at the next mount")

    async def _ship(self, record: SnapshotRecord) -> None:
        await self._shipments.ship(record, self._snapshots.file(record.snapshot))
        self._snapshots.set_sent(record.snapshot)
        await self._make_durable()

    async def delete(self, name: str) -> None:
        """Delete a snapshot; what only it held goes from Discord with the next sweeps. USAGE when there is none.

        USAGE too, and it stays, when another machine has gone on with the volume. A cancel, or another error: it is not
        shown any more, and the next mount finishes it.
        """
        self._check_writable()
        async with self._lock:
            record = self._snapshots.named(name.encode(errors="surrogateescape"))
            if record is None:
                raise UserError(f"there is no snapshot {name!r}; 'disfs snapshot list' shows them", ExitCode.USAGE)
            await self._check_writer()
            self._snapshots.begin_removal(record.snapshot)
            await self._tell(record.name)
            await self._make_durable()
            await self._remove(record, looks_for_remains=record.state is not SnapshotState.SENT)

    async def _remove(self, record: SnapshotRecord, *, looks_for_remains: bool) -> None:
        # First: whatever copy there is in Discord, what it refers to is held.
        await self._shipments.delete(record, looks_for_remains=looks_for_remains)
        first = view_inode(record.snapshot, 1)
        await self._chunks.forget_between(first, view_inode(record.snapshot + 1, 1))
        await self._snapshots.remove(record.snapshot)

    def listed(self) -> Sequence[Mapping[str, object]]:
        """Every snapshot that can be used, oldest first."""
        return [
            {
                "name": record.name.decode(errors="surrogateescape"),
                "created_ns": record.created_ns,
                "in_discord": record.state is SnapshotState.SENT,
            }
            for record in self._snapshots.all()
            if record.state in (SnapshotState.WHOLE, SnapshotState.SENT)
        ]

    async def _tell(self, name: bytes) -> None:
        with trio.CancelScope(shield=True):
            await self._tell_kernel(FIRST_VIEW_INODE, name)

    async def _check_writer(self) -> None:
        """USAGE when this machine is not the volume's writer any more, as far as can be known now."""
        try:
            may_delete = await self._shipments.may_delete()
        except StorageError:
            return  # nothing is deleted in Discord before the next look
        if not may_delete:
            raise UserError(_NOT_SENT, ExitCode.USAGE)

    def _check_writable(self) -> None:
        if self._read_only:
            raise UserError("the volume is mounted read-only; mount it without 'ro' for that", ExitCode.USAGE)
        if self._is_stopped():
            raise UserError(_NOT_SENT, ExitCode.USAGE)


def _checked(name: str) -> bytes:
    encoded = name.encode(errors="surrogateescape")
    if not 1 <= len(encoded) <= NAME_MAX or "/" in name or ":" in name or "\0" in name or name in (".", ".."):
        raise UserError(
            f"{name!r} cannot name a snapshot: it is a file name of up to {NAME_MAX} bytes, without '/' and ':'",
            ExitCode.USAGE,
        )
    return encoded
