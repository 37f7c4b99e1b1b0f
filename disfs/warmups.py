"""Files that are brought into the cache because somebody asked for it, and the mark that keeps them there.

A warm-up counts first, so that what can never fit is refused before a byte is fetched and a person sees how far it is;
then it marks, if it is to pin; then it brings file after file, several at once, since a small file costs one
latency whatever its size. It can be repeated at any time: what is there already costs nothing.

What is made in a pinned directory is pinned too (`Filesystem`); what is moved there is not. Marks survive a remount,
the cached contents only a stop in order, so a mount brings what is pinned and absent (`WarmupDesk.run`).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import stat
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from disfs.control.protocol import WarmProgress
from disfs.errors import DisfsError, ExitCode, FilesystemError, UserError
from disfs.quantities import human_count, human_size
from disfs.tree_walk import TreeWalk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from disfs.metadata.base import MetadataStore
    from disfs.values import Attributes, InodeNumber

log = logging.getLogger(__name__)

FILES_AT_ONCE = 8
MAX_WARMUPS = 8
"""How many warm-ups run at once, waited for or not."""
AGAIN_SECONDS = 60.0
"""How soon pinned files that could not be read at the start of a mount are tried again; it doubles."""
LONGEST_PAUSE_SECONDS = 6 * 3600.0
_NAME_SECONDS = 0.1
"""How often the file that is being brought is named: people read no faster."""
_PATH_CHARACTERS = 200


class WarmChunks(Protocol):
    """What warming needs of the chunk store."""

    @property
    def pinned(self) -> frozenset[InodeNumber]:
        """The inodes that have the mark."""
        ...

    def set_pinned(self, inodes: Iterable[InodeNumber], pinned: bool) -> None:
        """Set or take the mark of inodes, files or not."""
        ...

    async def warm(self, inode: InodeNumber, size_bytes: int, on_bytes: Callable[[int], None]) -> None:
        """Bring a file's absent chunks into the cache, telling `on_bytes` of each piece.

        FilesystemError: ENOSPC when they cannot fit beside pinned and dirty data, EIO when they cannot be had.
        """
        ...


class Names(Protocol):
    """Where an inode can be found."""

    async def paths(self, inode: InodeNumber) -> Sequence[bytes]:
        """Its paths from the root of the volume; none for an orphan."""
        ...


@dataclass(frozen=True, slots=True)
class CacheRoom:
    """What keeps new contents out of the cache."""

    limit_bytes: int
    pinned_limit_bytes: int
    """How much of it pinned files may take: the rest is for work."""
    pinned_bytes: int
    dirty_bytes: int

    def refusal(self, total_bytes: int, *, pin: bool, fresh_bytes: int) -> str | None:
        """Why so much can never fit, whatever is evicted; None when it may. Of it, `fresh_bytes` are not pinned yet."""
        if pin and fresh_bytes and fresh_bytes + self.pinned_bytes > self.pinned_limit_bytes:
            most, whole = human_size(self.pinned_limit_bytes), human_size(self.limit_bytes)
            taken = f", and {human_size(self.pinned_bytes)} are taken" if self.pinned_bytes else ""
            return (
                f"{human_size(fresh_bytes)} cannot be pinned: pins may take {most} of the cache of {whole}{taken}; "
                "pin less, or mount with a larger -o cache_size="
            )
        if total_bytes > self.limit_bytes:
            return (
                f"{human_size(total_bytes)} cannot fit: the cache takes {human_size(self.limit_bytes)}; choose less, "
                "or mount with a larger -o cache_size="
            )
        return None

    def shortage(self) -> str:
        """What takes the room that was missing in the end."""
        return (
            f"of the cache of {human_size(self.limit_bytes)}, {human_size(self.limit_bytes - self.pinned_limit_bytes)} "
            f"are kept for work, {human_size(self.pinned_bytes)} are pinned and {human_size(self.dirty_bytes)} not "
            "sent yet; unpin something, or mount with a larger -o cache_size="
        )


class OneWarmup:
    """One `disfs pin` or `disfs warmup` on its way; a `Warmup` of the control protocol."""

    def __init__(self, desk: WarmupDesk, inodes: Sequence[InodeNumber], *, pin: bool, descend: bool = True) -> None:
        self._desk = desk
        self._inodes = inodes
        self._pin = pin
        self._descend = descend
        self._done_bytes = self._total_bytes = 0
        self._done_files = self._total_files = self._unreadable_files = 0
        self._path = ""
        self._named_at = float("-inf")
        self._no_room = False

    def progress(self) -> WarmProgress:
        """See Warmup."""
        return WarmProgress(
            # A file that has grown since it was counted must not take the figure past its end.
            min(self._done_bytes, self._total_bytes),
            self._total_bytes,
            self._done_files,
            self._total_files,
            self._path,
            self._unreadable_files,
        )

    async def run(self) -> Mapping[str, object]:
        """See Warmup."""
        with self._desk.counted(self):
            await self.prepare()
            await self.bring()
            return asdict(self.progress())

    async def start(self) -> Mapping[str, object]:
        """See Warmup."""
        with self._desk.counted(self):
            await self.prepare()
        self._desk.go_on(self)
        return asdict(self.progress())

    async def count(self) -> int:
        """Find out how much there is to bring; returns how many bytes of it are not pinned yet."""
        walk = self._walk()
        pinned = self._desk.chunks.pinned
        fresh_bytes = 0
        while (batch := await walk.step()) is not None:
            for attributes in filter(_has_contents, batch):
                size_bytes = self._desk.stored_bytes(attributes)
                self._total_bytes += size_bytes
                self._total_files += 1
                fresh_bytes += 0 if attributes.inode in pinned else size_bytes
        return fresh_bytes

    async def prepare(self) -> None:
        """Count, refuse what can never fit, and mark. STATE_FULL: nothing is marked then."""
        fresh_bytes = await self.count()
        refusal = self._desk.room().refusal(self._total_bytes, pin=self._pin, fresh_bytes=fresh_bytes)
        if refusal is not None:
            raise UserError(refusal, ExitCode.STATE_FULL)
        if self._pin:
            await self._desk.mark(self._walk(), pinned=True)

    async def bring(self) -> None:
        """Bring what is absent. STATE_FULL when it does not fit beside the rest: what has come is kept.

        FilesystemError when the metadata cannot be read.
        """
        refused: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                send, receive = trio.open_memory_channel["Attributes"](0)
                async with send, receive:
                    for _ in range(FILES_AT_ONCE):
                        nursery.start_soon(self._work, receive.clone(), nursery.cancel_scope)
                    walk = self._walk()
                    while (batch := await walk.step()) is not None:
                        for attributes in filter(_has_contents, batch):
                            await send.send(attributes)
        except* FilesystemError as group:
            refused = group.exceptions[0]  # callers know single errors, and a nursery raises a group
        if refused is not None:
            raise refused
        if self._no_room:
            raise UserError(
                f"no room for more: {human_size(self._done_bytes)} of {human_size(self._total_bytes)} are in the "
                f"cache; {self._desk.room().shortage()}",
                ExitCode.STATE_FULL,
            )

    def _walk(self) -> TreeWalk:
        return self._desk.walk(self._inodes, descend=self._descend)

    async def _work(self, files: trio.MemoryReceiveChannel[Attributes], everything: trio.CancelScope) -> None:
        async with files:
            async for attributes in files:
                await self._bring_file(attributes)
                if self._no_room:
                    everything.cancel()

    async def _bring_file(self, attributes: Attributes) -> None:
        expected = self._desk.stored_bytes(attributes)
        counted = 0

        def on_bytes(count: int) -> None:
            nonlocal counted
            # What was there already is not told of, so the rest is added at the end, and never twice.
            step = min(count, expected - counted)
            counted += step
            self._done_bytes += step

        await self._name(attributes.inode)
        try:
            await self._desk.chunks.warm(attributes.inode, attributes.size_bytes, on_bytes)
        except FilesystemError as error:
            if error.errno == errno.ENOSPC:
                self._no_room = True
                return
            self._unreadable_files += 1
            # Whoever could not fetch it has logged its name.
            log.debug("inode %d cannot be brought into the cache: %s", attributes.inode, error)
        on_bytes(expected)
        self._done_files += 1

    async def _name(self, inode: InodeNumber) -> None:
        now = trio.current_time()
        if now - self._named_at >= _NAME_SECONDS:
            self._named_at = now
            paths = await self._desk.names.paths(inode)
            self._path = paths[0].decode(errors="replace")[-_PATH_CHARACTERS:] if paths else ""


class WarmupDesk:
    """Takes orders for warm-ups, knows those that run, and holds those that nobody waits for."""

    def __init__(
        self,
        metadata: MetadataStore,
        names: Names,
        chunks: WarmChunks,
        *,
        chunk_bytes: int,
        room: Callable[[], CacheRoom],
    ) -> None:
        self.names = names
        self.chunks = chunks
        self.room = room
        self._metadata = metadata
        self._chunk_bytes = chunk_bytes
        self._running: dict[OneWarmup, None] = {}
        self._nursery: trio.Nursery | None = None
        self._problem: str | None = None

    async def run(self, pinned: Sequence[InodeNumber]) -> None:
        """Hold the warm-ups that nobody waits for, until cancelled; first of all, that of what is `pinned` already."""
        async with trio.open_nursery() as self._nursery:
            if pinned:
                await self._bring_again(pinned)
            await trio.sleep_forever()

    def order(self, inodes: Sequence[InodeNumber], *, pin: bool) -> OneWarmup:
        """A warm-up that has not begun. MOUNT_BUSY when enough of them run already."""
        if len(self._running) >= MAX_WARMUPS:
            raise UserError(
                f"{human_count(MAX_WARMUPS, 'warm-up')} run already; try again when one of them has ended",
                ExitCode.MOUNT_BUSY,
            )
        return OneWarmup(self, inodes, pin=pin)

    async def unpin(self, inodes: Sequence[InodeNumber]) -> None:
        """Take the mark from the inodes and everything below them."""
        await self.mark(self.walk(inodes), pinned=False)

    def statistics(self) -> list[WarmProgress]:
        """How far each warm-up is that runs now."""
        return [warmup.progress() for warmup in self._running]

    @property
    def problem(self) -> str | None:
        """Why the last warm-up that nobody waited for did not come to its end; None when it did."""
        return self._problem

    # For the warm-ups

    def walk(self, inodes: Sequence[InodeNumber], *, descend: bool = True) -> TreeWalk:
        """A walk over the inodes and, with `descend`, everything below them."""
        return TreeWalk(self._metadata, inodes, descend=descend)

    async def mark(self, walk: TreeWalk, *, pinned: bool) -> None:
        """Set or take the mark of everything that is met, directories too: what is made in them inherits it."""
        while (batch := await walk.step()) is not None:
            self.chunks.set_pinned([attributes.inode for attributes in batch], pinned)

    def stored_bytes(self, attributes: Attributes) -> int:
        """About how much of the cache a file takes when all of it is there: holes take nothing."""
        return min(attributes.size_bytes, attributes.chunk_count * self._chunk_bytes)

    @contextlib.contextmanager
    def counted(self, warmup: OneWarmup) -> Iterator[None]:
        """A block in which the warm-up counts among those that run."""
        self._running[warmup] = None
        try:
            yield
        finally:
            del self._running[warmup]

    def go_on(self, warmup: OneWarmup) -> None:
        """Bring the rest of a prepared warm-up, with nobody waiting for it."""
        if self._nursery is not None:
            self._nursery.start_soon(self._in_background, warmup)

    async def _bring_again(self, pinned: Sequence[InodeNumber]) -> None:
        """A crash, or a cache that was deleted, takes pinned contents too; they come back with the mount.

        Files that cannot be read now, for want of a network perhaps, are tried again later.
        """
        pause_seconds = AGAIN_SECONDS
        while True:
            warmup = OneWarmup(self, pinned, pin=False, descend=False)
            await self._in_background(warmup, count=True)
            if not warmup.progress().unreadable_files:
                return
            await trio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
            still_pinned = self.chunks.pinned
            pinned = [inode for inode in pinned if inode in still_pinned]

    async def _in_background(self, warmup: OneWarmup, *, count: bool = False) -> None:
        try:
            with self.counted(warmup):
                if count:
                    await warmup.count()
                await warmup.bring()
            self._problem = None
        except DisfsError as error:
            log.warning("a warm-up in the background ended early: %s", error)
            self._problem = str(error)


def _has_contents(attributes: Attributes) -> bool:
    return stat.S_ISREG(attributes.mode) and attributes.chunk_count > 0
