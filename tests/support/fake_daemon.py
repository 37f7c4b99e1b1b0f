"""A daemon made of a few fields behind a real control socket, and clients of it."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import trio

from disfs.control.address import short_address
from disfs.control.client import ControlClient
from disfs.control.protocol import Progress, Undeleted, WarmProgress, decode
from disfs.control.server import serve
from disfs.quantities import Bandwidth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from disfs.errors import DisfsError
    from disfs.values import InodeNumber


class FakeDaemon:
    """Answers at once, unless told to wait."""

    def __init__(self) -> None:
        self.dirty_bytes = 7
        self.may_finish = trio.Event()
        self.unmounted: list[bool] = []
        self.cancelled = trio.Event()
        self.error: DisfsError | None = None
        self.paused = False
        self.settings: list[tuple[str, str | None]] = []
        self.limit = Bandwidth()
        self.asked: list[tuple[list[InodeNumber], bool | None]] = []

    def status(self) -> Mapping[str, object]:
        return {"pid": 1, "dirty_bytes": self.dirty_bytes}

    def progress(self) -> Progress:
        return Progress(self.dirty_bytes, 1)

    async def sync(self) -> None:
        try:
            await self.may_finish.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        if self.error:
            raise self.error

    async def unmount(self, *, wait: bool) -> None:
        if self.error:
            raise self.error
        self.unmounted.append(wait)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def bandwidth(self) -> Bandwidth:
        return self.limit

    def limit_bandwidth(self, limit: Bandwidth) -> None:
        self.limit = limit

    async def change_setting(self, name: str, value: str | None) -> Mapping[str, object]:
        if self.error:
            raise self.error
        self.settings.append((name, value))
        return {"applied": name == "bwlimit"}

    def warmup(self, inodes: Sequence[InodeNumber], *, pin: bool) -> FakeWarmup:
        self.asked.append((list(inodes), pin))
        return FakeWarmup(self)

    async def unpin(self, inodes: Sequence[InodeNumber]) -> None:
        self.asked.append((list(inodes), None))

    async def states(self, inodes: Sequence[InodeNumber]) -> Mapping[str, object]:
        return {"states": [["discord", None, 100, inode == 7] for inode in inodes]}

    @contextmanager
    def listener(self) -> Iterator[FakeDaemon]:
        if self.error:
            raise self.error
        yield self

    async def next(self) -> Mapping[str, object]:
        await self.may_finish.wait()
        return {"event": "paused", "at": 1.5}

    async def history(self, inode: InodeNumber) -> Mapping[str, object]:
        if self.error:
            raise self.error
        return {"path": f"/{inode}"}

    async def trash(
        self, directory: InodeNumber, rest: str, after: tuple[str, InodeNumber] | None
    ) -> Mapping[str, object]:
        if self.error:
            raise self.error
        place = None if after is None else list(after)
        return {"entries": [{"asked": [directory, rest, place]}], "after": ["/a/b", 7] if after is None else None}

    def undeletion(
        self, directory: InodeNumber, rest: str, version: InodeNumber | None, since_ns: int | None
    ) -> FakeUndeletion:
        self.asked_since = since_ns
        return FakeUndeletion(self, rest, version)

    def snapshots(self) -> Mapping[str, object]:
        return {"snapshots": [{"name": "monday"}]}

    async def create_snapshot(self, name: str) -> Mapping[str, object]:
        await self.may_finish.wait()
        return {"made": name}

    async def delete_snapshot(self, name: str) -> None:
        if self.error:
            raise self.error


class FakeUndeletion:
    """One that restores a single file; it ends when the daemon may finish."""

    def __init__(self, daemon: FakeDaemon, rest: str, version: InodeNumber | None) -> None:
        self._daemon = daemon
        self._done = Undeleted(1, version or 0, f"/{rest}")

    def progress(self) -> Undeleted:
        return Undeleted()

    async def run(self) -> Mapping[str, object]:
        await self._daemon.may_finish.wait()
        if self._daemon.error:
            raise self._daemon.error
        return self._done.to_json()


class FakeWarmup:
    """One of which half has come; it ends when the daemon may finish."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def progress(self) -> WarmProgress:
        return WarmProgress(5, 10, 1, 2, "/music/\u00e4 song", 0)

    async def run(self) -> Mapping[str, object]:
        await self._daemon.sync()
        return asdict(WarmProgress(10, 10, 2, 2))

    async def start(self) -> Mapping[str, object]:
        return asdict(self.progress())


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, daemon, directory)
        yield daemon
        nursery.cancel_scope.cancel()


async def asked(directory: Path, question: Callable[[ControlClient], Any]) -> Any:
    """Ask from a worker thread, as another process would."""

    def ask() -> Any:
        with ControlClient.connect(directory) as client:
            return question(client)

    return await trio.to_thread.run_sync(ask)


async def raw_answer(directory: Path, request: bytes) -> dict[str, Any]:
    """Send bytes as they are; the line that comes back."""
    with short_address(directory) as address:
        stream = await trio.open_unix_socket(address)
    async with stream:
        await stream.send_all(request)
        await stream.send_eof()
        answer = b""
        while not answer.endswith(b"\n"):
            piece = await stream.receive_some()
            assert piece, "no answer"
            answer += piece
    return decode(answer)
