"""Mounts that sync each change, as the handlers of the kernel's requests see it."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, Any, cast

import pyfuse3
import pytest
import trio
import trio.testing
from support.filesystem_world import World
from support.kernel_requests import CONTEXT
from support.memory_metadata import MemoryMetadataStore

from disfs.errors import FilesystemError
from disfs.fuse_ops import FuseOperations
from disfs.fuse_variants import vary_answers
from disfs.interrupts import SyncRequests
from disfs.mount_options import Behaviour
from disfs.values import ROOT_INODE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Durability:
    """One open file and a directory on a mount; counts what is made durable."""

    def __init__(self, behaviour: Behaviour, syncs: SyncRequests | None = None) -> None:
        self.metadata = MemoryMetadataStore()
        self.world = World(self.metadata)
        self.operations = FuseOperations(self.world.filesystem)
        vary_answers(self.operations, behaviour, self.world.filesystem, syncs)
        self.fh = 0
        self.inode = 0

    async def prepare(self) -> None:
        """Make what the requests are about."""
        info, entry = await self.operations.create(ROOT_INODE, b"file", 0o644, 0, CONTEXT)
        self.fh, self.inode = int(info.fh), int(entry.st_ino)

    async def is_durable(self, request: Callable[[Durability], Awaitable[Any]]) -> bool:
        """Whether the metadata are made durable before the request is answered."""
        before = self.metadata.durable_count
        await request(self)
        return self.metadata.durable_count > before


def setattr_request(world: Durability) -> Awaitable[Any]:
    """chmod."""
    fields = cast("Any", type("Fields", (), dict.fromkeys(FIELDS, False) | {"update_mode": True})())
    entry = pyfuse3.EntryAttributes()
    entry.st_mode = stat.S_IFREG | 0o600
    return world.operations.setattr(world.inode, entry, fields, None, CONTEXT)


FIELDS = [f"update_{what}" for what in ("mode", "uid", "gid", "size", "atime", "mtime", "ctime")]
NAMES: dict[str, Callable[[Durability], Awaitable[Any]]] = {
    "mkdir": lambda w: w.operations.mkdir(ROOT_INODE, b"dir", 0o755, CONTEXT),
    "mknod": lambda w: w.operations.mknod(ROOT_INODE, b"fifo", stat.S_IFIFO, 0, CONTEXT),
    "symlink": lambda w: w.operations.symlink(ROOT_INODE, b"symlink", b"x", CONTEXT),
    "link": lambda w: w.operations.link(w.inode, ROOT_INODE, b"link", CONTEXT),
    "create": lambda w: w.operations.create(ROOT_INODE, b"other", 0o644, 0, CONTEXT),
    "rename": lambda w: w.operations.rename(ROOT_INODE, b"link", ROOT_INODE, b"renamed", 0, CONTEXT),
    "unlink": lambda w: w.operations.unlink(ROOT_INODE, b"renamed", CONTEXT),
    "rmdir": lambda w: w.operations.rmdir(ROOT_INODE, b"dir", CONTEXT),
}
OTHERS: dict[str, Callable[[Durability], Awaitable[Any]]] = {
    "write": lambda w: w.operations.write(w.fh, 0, b"x"),
    "setattr": setattr_request,
    "setxattr": lambda w: w.operations.setxattr(w.inode, b"user.x", b"x", CONTEXT),
    "removexattr": lambda w: w.operations.removexattr(w.inode, b"user.x", CONTEXT),
}
READS: dict[str, Callable[[Durability], Awaitable[Any]]] = {
    "getattr": lambda w: w.operations.getattr(w.inode, CONTEXT),
    "read": lambda w: w.operations.read(w.fh, 0, 1),
    "lookup": lambda w: w.operations.lookup(ROOT_INODE, b"file", CONTEXT),
}

SYNCS: dict[str, Callable[[Durability], Awaitable[Any]]] = {
    "fsync": lambda w: w.operations.fsync(w.fh, False),
    "fsyncdir": lambda w: w.operations.fsyncdir(ROOT_INODE, False),
}


@pytest.mark.parametrize(
    ("behaviour", "durable"),
    [
        (Behaviour(), set()),
        (Behaviour(syncs_names=True), set(NAMES)),
        (Behaviour(syncs_names=True, syncs_everything=True), {*NAMES, *OTHERS}),
    ],
)
async def test_changes_are_durable_before_they_are_answered(behaviour: Behaviour, durable: set[str]) -> None:
    """dirsync: those of names; sync: all of them, written contents included; reads never."""
    world = Durability(behaviour)
    await world.prepare()
    found = {name for name, request in (NAMES | OTHERS | READS).items() if await world.is_durable(request)}
    assert durable == found
    assert ("write" in durable) == (world.inode in world.world.chunks.synced)


@pytest.mark.parametrize(
    ("behaviour", "sent"),
    [
        (Behaviour(), set()),
        (Behaviour(syncs_remotely=True), {"fsync"}),
        (
            Behaviour(syncs_names=True, syncs_everything=True, syncs_remotely=True),
            {"fsync", "write", "setattr"},
        ),
    ],
)
async def test_what_is_synced_is_in_discord_if_that_is_asked_for(behaviour: Behaviour, sent: set[str]) -> None:
    """fsync=remote: the file's contents are sent before fsync is answered; with `sync`, before a write is."""
    world = Durability(behaviour)
    await world.prepare()
    found = set()
    for name, request in (OTHERS | READS | SYNCS).items():
        world.world.chunks.drained.clear()
        await request(world)
        if world.inode in world.world.chunks.drained:
            found.add(name)
    assert sent == found


@pytest.mark.parametrize("name", ["fsync", "fsyncdir"])
async def test_an_interrupt_ends_the_waiting_of_its_own_request(name: str) -> None:
    """EINTR for the one whose caller got a signal; another for the same file goes on, and nothing is left behind."""
    syncs = SyncRequests()
    world = Durability(Behaviour(syncs_remotely=True), syncs)
    await world.prepare()
    shipped = trio.Event()
    world.world.filesystem.files.ship = shipped.wait
    answers: list[str] = []

    async def request(number: int) -> None:
        try:
            await getattr(world.operations, name)(number, False)
            answers.append("done")
        except pyfuse3.FUSEError as error:
            answers.append(errno.errorcode[error.errno])

    first, second = syncs._begin(world.fh), syncs._begin(world.fh)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request, first)
        nursery.start_soon(request, second)
        await trio.testing.wait_all_tasks_blocked()
        syncs._interrupt(None, second)
        syncs._interrupt(None, second + 1)
        await trio.testing.wait_all_tasks_blocked()
        assert ["EINTR"] == answers
        shipped.set()
    assert ["EINTR", "done"] == answers
    assert {} == syncs._waiting
    await request(world.fh)
    assert ["EINTR", "done", "done"] == answers


@pytest.mark.parametrize("name", ["fsync", "fsyncdir"])
async def test_metadata_are_shipped_before_a_remote_sync_is_answered(name: str) -> None:
    """Whoever ships metadata is waited for; what keeps them from being shipped is the caller's errno."""
    world = Durability(Behaviour(syncs_remotely=True))
    await world.prepare()
    shipped = []

    async def ship() -> None:
        shipped.append(world.metadata.durable_count)
        raise FilesystemError(5)

    before = world.metadata.durable_count
    world.world.filesystem.files.ship = ship
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await SYNCS[name](world)
    assert 5 == caught.value.errno
    assert len(shipped) == 1
    assert shipped[0] > before


@pytest.mark.parametrize("name", ["mkdir", "mknod", "symlink", "link", "create"])
async def test_regression_refused_answer_held_its_inode(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel is not told of because the sync failed is neither open nor looked up: once unlinked it goes."""
    world = Durability(Behaviour(syncs_names=True))
    await world.prepare()
    before = world.world.filesystem.statistics()
    with monkeypatch.context() as patched:
        patched.setattr(world.metadata, "make_durable", refuse)
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await NAMES[name](world)
    assert (28, before) == (caught.value.errno, world.world.filesystem.statistics())
    (made,) = [entry for entry in await world.metadata.list_directory(ROOT_INODE, 0, 9) if entry.name != b"file"]
    remove = world.operations.rmdir if name == "mkdir" else world.operations.unlink
    await remove(ROOT_INODE, made.name, CONTEXT)
    assert [] == list(await world.metadata.orphans())


async def refuse() -> None:
    """A sync that fails."""
    raise FilesystemError(28)


async def test_change_that_cannot_be_synced_is_an_errno(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only FUSEError may reach pyfuse3: anything else would end the mount."""
    world = Durability(Behaviour(syncs_names=True))
    monkeypatch.setattr(world.metadata, "make_durable", refuse)
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await world.prepare()
    assert 28 == caught.value.errno
