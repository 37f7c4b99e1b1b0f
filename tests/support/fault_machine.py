"""The daemon as `disfs.daemon` puts it together, on a disk and a Discord that faults can happen to.

Everything is what a mount runs, in its order of starting and stopping, but for four things: Discord is in memory, work
of threads is done in place, there is no kernel, and nobody listens on a control socket. In the kernel's place there is
a script.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import trio
from trio._core import _run as trio_run

from disfs import daemon, serving
from disfs.chunkstore.keys import VolumeKey
from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.stack import Connection
from disfs.cli.recover import put_in_place
from disfs.config import VolumeConfig, VolumeSettings
from disfs.local_volume import CACHE_IDENTITY, make_metadata
from disfs.mount_options import Behaviour
from disfs.mount_plan import MountPlan
from disfs.recovery import assembly
from disfs.recovery.building import CopyRule
from disfs.recovery.frames import SHIPMENT_KINDS
from disfs.recovery.index_channel import IndexChannel
from disfs.recovery.rebuild import rebuild
from disfs.superblock import ATTACHMENT_NAME, Superblock
from disfs.volume_state import METADATA_NAME
from support.chunk_worlds import in_this_thread
from support.fault_disk import Disk, watch_disk
from support.fault_tape import Discord, Tape, TapedTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    import pytest

    from disfs.background import Ready
    from disfs.chunkstore.transport.base import GuildAdmin
    from disfs.errors import ExitCode
    from disfs.recovery.rebuild import Report
    from support.fault_disk import Image

CHUNK = 4096
KEY = VolumeKey(bytes(range(32)))
VOLUME_ID = bytes(range(16))
SETTINGS = VolumeSettings(
    cache_bytes=16 << 20, message_bytes=1 << 20, sweep_grace_seconds=0.0, stray_grace_seconds=10.0, trash_days=1.0
)
ATTACHMENT_BYTES = 8 * CHUNK
"""Small, so that a few chunks make several packs."""


class Life(serving.Daemon):
    """One mount: what the script uses of it, by the names that scripts know."""

    async def act(self) -> None:
        """What is done to the mount."""
        raise NotImplementedError

    @property
    def filesystem(self) -> Any:
        """Names and contents."""
        return self._filesystem

    @property
    def metadata(self) -> Any:
        """The metadata store."""
        return self._metadata

    @property
    def chunks(self) -> Any:
        """The chunk store."""
        return self._chunks

    @property
    def shipper(self) -> Any:
        """What ships journals and copies."""
        return self._shipper

    @property
    def snapshots(self) -> Any:
        """What makes snapshots."""
        return self._snapshots

    @property
    def trash(self) -> Any:
        """What restores from the trash."""
        return self._trash

    async def _serve_kernel(self, ready: Callable[[Ready], None]) -> None:
        """As with a kernel, until the script ends: it is unmounted then, by somebody who waits for the uploads."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sync_regularly)
            await self.act()
            self._wait_for_uploads = True
            await self._drain()
            nursery.cancel_scope.cancel()


def new_discord() -> tuple[Discord, VolumeConfig]:
    """A Discord with a volume that nobody has mounted yet."""
    discord = Discord()
    index = discord._create("index", is_category=False, parent=None, topic="")
    data = [discord._create(f"data-{number}", is_category=False, parent=None, topic="") for number in (1, 2)]
    superblock = Superblock(VOLUME_ID, "photos", "2026", CHUNK, tuple(info.channel for info in data), b"wrapped")
    volume = VolumeConfig("photos", Discord.GUILD.guild, index.channel, index.channel, superblock, settings=SETTINGS)
    return discord, volume


async def send_superblock(discord: Discord, volume: VolumeConfig) -> None:
    """What `disfs init` leaves in the index channel."""
    upload = Upload(ATTACHMENT_NAME, (volume.superblock.to_json().encode(),))
    await discord.send(volume.index_channel, [upload], nonce="superblock")


class Machine:
    """One machine, its disk, and the Discord that it sees."""

    def __init__(
        self, disk: Disk, discord: Discord, volume: VolumeConfig, tape: Tape | None, patch: pytest.MonkeyPatch
    ) -> None:
        self._patch = patch
        self.disk = disk
        self.discord = discord
        self.volume = volume
        self.tape = tape or Tape()
        disk.tape = self.tape
        self.transport = TapedTransport(discord, self.tape)
        self.takes_over = False

    @property
    def state(self) -> Path:
        """Where the metadata are."""
        return self.disk.directory / "state"

    @property
    def cache(self) -> Path:
        """Where the cache is."""
        return self.disk.directory / "cache"

    def make_directories(self) -> None:
        """As a mount and a recovery do."""
        for path in (self.state, self.cache):
            path.mkdir(exist_ok=True)
        self.disk.note_all(self.disk.directory)

    def init(self) -> None:
        """Make the metadata of a new volume."""
        self.make_directories()
        make_metadata(self.state, self.volume.superblock)
        self.disk.note_all(self.disk.directory)

    async def live(self, script: Callable[[Life], Awaitable[None]]) -> ExitCode:
        """Mount, run the script, unmount. What goes wrong comes as the daemon raises it."""
        self.make_directories()

        class ScriptedLife(Life):
            async def act(self) -> None:
                await script(self)

        plan = MountPlan(
            self.volume,
            Path("/nowhere"),
            frozenset(),
            Behaviour(),
            self.volume.settings,
            self.state,
            self.cache,
            KEY,
            "token",
            None,
            cast("Any", None),
            self.takes_over,
        )
        with self._patch.context() as composed:
            composed.setattr(daemon, "Daemon", ScriptedLife)
            composed.setattr(daemon, "open_connection", self._connection)
            return await daemon._serve(plan, lambda _report: None)

    @contextlib.asynccontextmanager
    async def _connection(self, _token: str, _api_url: str | None) -> AsyncIterator[Connection]:
        await trio.lowlevel.checkpoint()
        guild = dataclasses.replace(Discord.GUILD, attachment_limit_bytes=ATTACHMENT_BYTES)
        admin = cast("GuildAdmin", _Admin(guild))
        yield Connection(self.transport, admin, lambda _up, _down: None, self.transport)

    async def recover(self) -> Report:
        """As `disfs recover`, on a machine without metadata; what an earlier attempt left counts for nothing."""
        self.make_directories()
        unfinished = self.state / "metadata.db.recovering"
        unfinished.unlink(missing_ok=True)
        report = await self.rebuild(unfinished)
        put_in_place(unfinished, self.state / METADATA_NAME)
        self.takes_over = True
        return report

    async def rebuild(self, path: Path) -> Report:
        """Build the metadata anew at a path, from what Discord holds now."""
        return await rebuild(
            IndexChannel(self.transport, self.volume.index_channel, KEY, VOLUME_ID, SHIPMENT_KINDS),
            self.transport,
            path,
            volume=VOLUME_ID,
            chunk_bytes=CHUNK,
            device=None,
            settings={CACHE_IDENTITY.name: "none"},
            on_progress=lambda _progress: None,
        )


class _Admin:
    """As much of `GuildAdmin` as a mount asks."""

    def __init__(self, guild: Any) -> None:
        self._guild = guild

    async def guild(self, _guild: int) -> Any:
        """See `GuildAdmin.guild`."""
        await trio.lowlevel.checkpoint()
        return self._guild


class Worlds:
    """Makes machines, each on a disk of its own below `directory`; one of them runs at a time."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._patch = patch
        self._number = 0
        self._place = bytes(16)
        self._disk = Disk(directory / "none")
        patch.setattr(trio.to_thread, "run_sync", in_this_thread)
        patch.setattr(daemon, "forget_name", _tell_nobody)
        patch.setattr(serving, "forget_name", _tell_nobody)
        patch.setattr(serving, "serve_control", _listen_to_nobody)
        # Every journal is followed by a copy: there are as many of either as there can be.
        patch.setattr(assembly, "COPY_RULE", CopyRule(floor_bytes=0, share=0.0, journal_count=2))
        # The next life of a machine is in another directory here.
        patch.setattr(assembly, "place_of", lambda _host, _machine, _directory: self._place)
        # Tasks that can run take turns in an order that the seed decides.
        patch.setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        watch_disk(lambda: self._disk, patch)

    @contextlib.contextmanager
    def machine(
        self, image: Image, discord: Discord, volume: VolumeConfig, tape: Tape | None = None, *, elsewhere: bool = False
    ) -> Iterator[Machine]:
        """A machine with that on its disk; `elsewhere`: not the one that there was."""
        self._number += 1
        self._place = bytes([elsewhere]) * 16
        trio_run._r.seed(0)
        before = self._disk
        with Disk.holding(self._directory / str(self._number), image) as disk:
            self._disk = disk
            try:
                yield Machine(disk, discord, volume, tape, self._patch)
            finally:
                self._disk = before


async def _tell_nobody(_directory: int, _name: bytes) -> None:
    await trio.lowlevel.checkpoint()


async def _listen_to_nobody(
    _controls: object, _directory: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    task_status.started()
    await trio.sleep_forever()
