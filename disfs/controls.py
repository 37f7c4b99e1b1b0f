"""What the control socket can ask of a mounted volume: how it is, and to do something else from now on.

Each method answers from what the parts say of themselves; nothing here decides how the volume is served. Coming up and
going down is the daemon's, a `Served`.
"""

from __future__ import annotations

import enum
import logging
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

import trio

from disfs.chunkstore.writeback_values import Waiting
from disfs.config import VolumeSettings
from disfs.control.protocol import Progress
from disfs.event_desk import EventDesk, Situation
from disfs.file_desk import FileDesk
from disfs.local_volume import chunk_store_settings
from disfs.mount_options import LIVE_SETTINGS, changed_setting, written_setting
from disfs.mount_plan import DAY_SECONDS
from disfs.quantities import NO_LIMIT, Timetable, human_size
from disfs.report_files import report_text
from disfs.warmups import CacheRoom, WarmupDesk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from disfs.chunkstore.store import ChunkStore
    from disfs.chunkstore.store_values import ChunkStoreStatistics
    from disfs.chunkstore.transport.stack import Connection
    from disfs.control.protocol import Undeletion, Warmup
    from disfs.discord_watch import DiscordWatch
    from disfs.event_desk import Listener
    from disfs.filesystem import Filesystem
    from disfs.metadata.store import SqliteMetadataStore
    from disfs.mount_plan import MountPlan
    from disfs.mount_recovery import MountRecovery
    from disfs.quantities import Bandwidth
    from disfs.recovery.holding import LeaseHolder
    from disfs.recovery.shipper import Shipper
    from disfs.snapshot_desk import SnapshotDesk
    from disfs.trash_desk import TrashDesk
    from disfs.values import InodeNumber, Trashed


LOOK_SECONDS = 10.0
"""How late a limit of a timetable may begin to hold."""
_FULL = 0.9
"""The part of the dirty limit at which it counts as reached: a large write waits before it would pass it."""


log = logging.getLogger(__name__)


def minute_of_this_week() -> int:
    """How many minutes have passed since Monday 00:00, by the clock on the wall here."""
    now = time.localtime()
    return (now.tm_wday * 24 + now.tm_hour) * 60 + now.tm_min


class UploadState(enum.StrEnum):
    """What uploading does, in one word; part of what `disfs status --json` promises."""

    IDLE = "idle"
    """Everything is in Discord."""
    WAITING = "waiting"
    """What is unsent is not due yet."""
    SENDING = "sending"
    RATE_LIMITED = "rate_limited"
    """Discord allows no further message at this moment."""
    RETRYING = "retrying"
    """Discord cannot be reached, or some channel refuses."""
    REFUSED = "refused"
    """Every channel refuses for good: somebody must change something."""
    PAUSED = "paused"


def upload_state(chunks: ChunkStoreStatistics, trouble: str | None) -> UploadState:
    """What uploading does. `trouble`: why requests are being repeated now."""
    writeback = chunks.writeback
    if writeback.paused:
        return UploadState.PAUSED
    if writeback.stopped:
        return UploadState.REFUSED
    if not chunks.dirty_chunks:
        return UploadState.IDLE
    if trouble or (writeback.failures and not writeback.in_flight):
        return UploadState.RETRYING
    if writeback.in_flight:
        return UploadState.SENDING
    return UploadState.RATE_LIMITED if writeback.waiting_for is Waiting.RATE_LIMIT else UploadState.WAITING


class Served(Protocol):
    """A mount, as far as its coming and going."""

    def facts(self) -> Mapping[str, object]:
        """Which volume is mounted where, whether it is going, and what the kernel has asked."""
        ...

    async def sync(self) -> None:
        """See Controlled."""
        ...

    async def unmount(self, *, wait: bool) -> None:
        """See Controlled."""
        ...


class Controls:
    """A `Controlled` over the parts of a mounted volume."""

    def __init__(
        self,
        served: Served,
        metadata: SqliteMetadataStore,
        connection: Connection,
        chunks: ChunkStore,
        shipper: Shipper,
        holder: LeaseHolder,
        filesystem: Filesystem,
        watch: DiscordWatch,
        trash: TrashDesk,
        snapshots: SnapshotDesk,
        plan: MountPlan | None = None,
        minute_of_week: Callable[[], int] = minute_of_this_week,
    ) -> None:
        """`plan`: what the volume was mounted with; without one its settings cannot be changed."""
        self._plan = plan
        self._settings = VolumeSettings() if plan is None else plan.settings
        self._trash = trash
        self._snapshots = snapshots
        self._served = served
        self._metadata = metadata
        self._connection = connection
        self._chunks = chunks
        self._shipper = shipper
        self._holder = holder
        self._filesystem = filesystem
        self._watch = watch
        self.recovery: MountRecovery | None = None
        """What the mount did to go on where the last one ended; None before it is done."""
        self._bandwidth = NO_LIMIT
        self._timetable: Timetable | None = None
        self._minute_of_week = minute_of_week
        self._started = time.monotonic()
        self._files = FileDesk(metadata, chunks)
        self._events = EventDesk(self._situation, self._files.known_path)
        chunks.listen_sent(self._events.file_sent)
        chunks.listen_damage(self._events.damage_found)
        self._warmups = WarmupDesk(metadata, metadata, chunks, chunk_bytes=metadata.chunk_bytes, room=self._room)

    async def run(self) -> None:
        """Carry what was asked for and is not waited for, and bring what is pinned and absent, until cancelled.

        Limits of a timetable change at their time, and whoever listens is told what happens.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_timetable)
            nursery.start_soon(self._events.run)
            await self._warmups.run(sorted(self._chunks.pinned))

    async def _follow_timetable(self) -> None:
        # By looking, not by sleeping until then: clocks are set, and machines sleep.
        while True:
            self._apply_timetable()
            await trio.sleep(LOOK_SECONDS)

    def keep_limits(self, limits: Bandwidth | Timetable) -> None:
        """From now on keep to a limit, or to what a timetable says of each time of the week."""
        if isinstance(limits, Timetable):
            self._timetable = limits
            self._apply_timetable()
        else:
            self.limit_bandwidth(limits)

    def _apply_timetable(self) -> None:
        if self._timetable is None:
            return
        limit = self._timetable.at(self._minute_of_week())
        if limit != self._bandwidth:
            log.info("bandwidth by the timetable: %s", limit)
            self._set_bandwidth(limit)

    def _situation(self) -> Situation:
        writeback = self._chunks.statistics().writeback
        lease = self._holder.statistics()
        return Situation(
            paused=writeback.paused,
            failures=writeback.failures,
            trouble=self._connection.transport.statistics().trouble,
            writers_wait=writeback.waiting_writers > 0,
            lease_held=lease.held,
            lease_failure=lease.failure,
            conflict=self._shipper.statistics().conflict,
        )

    def _room(self) -> CacheRoom:
        chunks = self._chunks.statistics()
        return CacheRoom(
            limit_bytes=chunks.cache_limit_bytes,
            pinned_limit_bytes=chunks.pinned_limit_bytes,
            pinned_bytes=chunks.pinned_bytes,
            dirty_bytes=chunks.dirty_bytes,
        )

    def troubles(self) -> Mapping[str, str]:
        """What somebody should hear of at once, a sentence for each kind; empty while all is well."""
        chunks, found = self._chunks.statistics(), {}
        if self._metadata.statistics().damage or chunks.lost_chunks or chunks.fetch.damaged_chunks:
            found["damage"] = (
                "Something is damaged or lost: 'disfs status' says what, and 'disfs fsck' names the files."
            )
        if chunks.writeback.waiting_writers and chunks.dirty_bytes >= chunks.dirty_limit_bytes * _FULL:
            found["full"] = (
                f"{human_size(chunks.dirty_bytes)} wait to be sent, which is as much as may: programs that write have "
                "to wait. 'disfs status' says what uploading does."
            )
        if self._shipper.conflict is not None:
            found["lease"] = f"Nothing more is sent: {self._shipper.conflict}"
        if self._watch.rejects_token and self._watch.warning:
            found["token"] = self._watch.warning
        return found

    # Controlled

    def status(self) -> Mapping[str, object]:
        """See Controlled."""
        chunks = self._chunks.statistics()
        requests = self._connection.transport.statistics()
        return {
            "pid": os.getpid(),
            **self._served.facts(),
            "uptime_seconds": round(time.monotonic() - self._started),
            "warning": self._watch.warning,
            "uploads": upload_state(chunks, requests.trouble),
            **asdict(chunks),
            "transfers": self._files.transfers(),
            "requests": requests.requests,
            "transport": asdict(requests),
            "metadata": asdict(self._metadata.statistics()),
            "journal": asdict(self._shipper.statistics()),
            "lease": asdict(self._holder.statistics()),
            "recovery": None if self.recovery is None else asdict(self.recovery),
            **asdict(self._filesystem.statistics()),
            "bandwidth": asdict(self.bandwidth()),
            "warmups": [asdict(progress) for progress in self._warmups.statistics()],
            "warmup_problem": self._warmups.problem,
        }

    def report(self, inode: InodeNumber) -> bytes:
        """What a file below `.disfs` says at this moment."""
        return report_text(inode, self.status())

    def progress(self) -> Progress:
        """See Controlled."""
        chunks = self._chunks.statistics()
        failures = chunks.writeback.failures
        trouble = failures[0] if failures else self._connection.transport.statistics().trouble
        trouble = trouble or self._shipper.statistics().failure
        return Progress(
            chunks.dirty_bytes,
            chunks.dirty_chunks,
            self._watch.warning or trouble,
            paused=self._chunks.paused,
            taken_bytes=self._chunks.transfers.taken_plain_bytes(),
        )

    async def sync(self) -> None:
        """See Controlled."""
        await self._served.sync()

    async def unmount(self, *, wait: bool) -> None:
        """See Controlled."""
        await self._served.unmount(wait=wait)

    def pause(self) -> None:
        """See Controlled."""
        self._chunks.pause()
        self._shipper.pause()
        self._events.look()

    def resume(self) -> None:
        """See Controlled."""
        self._chunks.resume()
        self._shipper.resume()
        self._events.look()

    def listener(self) -> AbstractContextManager[Listener]:
        """See Controlled."""
        return self._events.listener()

    def bandwidth(self) -> Bandwidth:
        """See Controlled."""
        return self._bandwidth

    def limit_bandwidth(self, limit: Bandwidth) -> None:
        """See Controlled."""
        self._timetable = None
        self._set_bandwidth(limit)

    def _set_bandwidth(self, limit: Bandwidth) -> None:
        self._connection.limit_bandwidth(limit.up_bytes_per_second, limit.down_bytes_per_second)
        self._bandwidth = limit

    async def change_setting(self, name: str, value: str | None) -> Mapping[str, object]:
        """See Controlled."""
        changed = changed_setting(self._settings, name, value)
        plan = self._plan
        if plan is None or name not in LIVE_SETTINGS:
            return {"applied": False}
        self._settings = changed
        log.info("%s is %s from now on", name, written_setting(changed, name))
        if name == "bwlimit":
            self.keep_limits(changed.bandwidth)
        elif name == "trash_days":
            self._trash.keep_for(changed.trash_days * DAY_SECONDS)
        else:
            await self._chunks.adjust(chunk_store_settings(plan.volume.superblock, changed, plan.cache_directory))
        return {"applied": True}

    def warmup(self, inodes: Sequence[InodeNumber], *, pin: bool) -> Warmup:
        """See Controlled."""
        return self._warmups.order(inodes, pin=pin)

    async def unpin(self, inodes: Sequence[InodeNumber]) -> None:
        """See Controlled."""
        await self._warmups.unpin(inodes)

    async def states(self, inodes: Sequence[InodeNumber]) -> Mapping[str, object]:
        """See Controlled."""
        return await self._files.states(inodes)

    async def history(self, inode: InodeNumber) -> Mapping[str, object]:
        """See Controlled."""
        return await self._files.history(inode)

    async def trash(
        self, directory: InodeNumber, rest: str, after: tuple[str, InodeNumber] | None
    ) -> Mapping[str, object]:
        """See Controlled."""
        path = await self._trash.path(directory, rest)
        place = None if after is None else (after[0].encode(errors="surrogateescape"), after[1])
        entries, has_more = self._trash.listed(path, place)
        last = [_text(entries[-1].path), entries[-1].inode] if has_more else None
        return {"entries": [_shown(entry) for entry in entries], "after": last}

    def undeletion(
        self, directory: InodeNumber, rest: str, version: InodeNumber | None, since_ns: int | None
    ) -> Undeletion:
        """See Controlled."""
        return self._trash.order(directory, rest, version, since_ns)

    def snapshots(self) -> Mapping[str, object]:
        """See Controlled."""
        return {"snapshots": self._snapshots.listed()}

    async def create_snapshot(self, name: str) -> Mapping[str, object]:
        """See Controlled."""
        return await self._snapshots.create(name)

    async def delete_snapshot(self, name: str) -> None:
        """See Controlled."""
        await self._snapshots.delete(name)


def _text(path: bytes) -> str:
    return path.decode(errors="surrogateescape")


def _shown(entry: Trashed) -> Mapping[str, object]:
    """What is in the trash, for `disfs undelete --list`."""
    return {
        "version": entry.inode,
        "path": _text(entry.path),
        "trashed_ns": entry.trashed_ns,
        "reason": entry.reason.name.lower(),
        "mode": entry.mode,
        "size_bytes": entry.size_bytes,
        "mtime_ns": entry.mtime_ns,
    }
