"""Pins and warm-ups: which files are brought, in which order of steps, and what is said when they do not fit."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.memory_metadata import MemoryMetadataStore
from support.new_inodes import a_directory, a_file, a_symlink
from trio.testing import wait_all_tasks_blocked

from disfs.control.protocol import WarmProgress
from disfs.errors import ExitCode, FilesystemError, UserError
from disfs.tree_walk import PAGE_COUNT, TreeWalk
from disfs.values import ROOT_INODE, AttributeChanges, ChunkIndex, InodeNumber
from disfs.warmups import AGAIN_SECONDS, FILES_AT_ONCE, MAX_WARMUPS, CacheRoom, WarmupDesk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from trio.testing import MockClock

CHUNK = 1000


class Volume:
    """A tree with names, and a cache of a fixed size that files are brought into; itself the desk's chunk store."""

    def __init__(self, limit_bytes: int = 1_000_000) -> None:
        self.metadata = MemoryMetadataStore()
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.pinned: frozenset[InodeNumber] = frozenset()
        self.pinned_bytes = 0
        self.warmed: list[InodeNumber] = []
        self.damaged: set[InodeNumber] = set()
        self.gate: trio.Event | None = None
        self.busy = 0
        self.desk = WarmupDesk(
            self.metadata,
            self,
            self,
            chunk_bytes=CHUNK,
            room=lambda: CacheRoom(self.limit_bytes, self.limit_bytes, self.pinned_bytes, 0),
        )

    async def paths(self, inode: InodeNumber) -> Sequence[bytes]:
        return [b"/file-%d" % inode]

    def set_pinned(self, inodes: Iterable[InodeNumber], pinned: bool) -> None:
        self.pinned = self.pinned | frozenset(inodes) if pinned else self.pinned - frozenset(inodes)

    async def warm(self, inode: InodeNumber, size_bytes: int, on_bytes: Callable[[int], None]) -> None:
        self.busy += 1
        try:
            await trio.lowlevel.checkpoint()
            if self.gate is not None:
                await self.gate.wait()
            if inode in self.damaged:
                raise FilesystemError(errno.EIO)
            if self.used_bytes + size_bytes > self.limit_bytes:
                raise FilesystemError(errno.ENOSPC)
            self.used_bytes += size_bytes
            self.warmed.append(inode)
            on_bytes(size_bytes)
        finally:
            self.busy -= 1

    async def directory(self, name: bytes, parent: InodeNumber = ROOT_INODE) -> InodeNumber:
        return (await self.metadata.make_inode(parent, name, a_directory(), 1)).inode

    async def file(self, name: bytes, size_bytes: int = 10, parent: InodeNumber = ROOT_INODE) -> InodeNumber:
        inode = (await self.metadata.make_inode(parent, name, a_file(), 1)).inode
        await self.metadata.change_attributes(inode, AttributeChanges(size_bytes=size_bytes), 1)
        if size_bytes:
            self.metadata.mark_dirty(inode, ChunkIndex(0), -(-size_bytes // CHUNK))
        return inode

    async def met(self, *inodes: InodeNumber) -> list[InodeNumber]:
        walk = TreeWalk(self.metadata, inodes)
        found: list[InodeNumber] = []
        while (batch := await walk.step()) is not None:
            assert len(batch) <= PAGE_COUNT
            found += [attributes.inode for attributes in batch]
        return found


@asynccontextmanager
async def background(volume: Volume, pinned: Sequence[InodeNumber] = ()) -> AsyncIterator[None]:
    """The desk with its place for warm-ups that nobody waits for."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(volume.desk.run, pinned)
        await wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


# Walking


async def test_walk_meets_everything_below_once() -> None:
    """A directory, its files and subdirectories at any depth are met once; what lies beside it is not."""
    volume = Volume()
    top = await volume.directory(b"top")
    deep = await volume.directory(b"deep", await volume.directory(b"inner", top))
    wanted = {top, deep, await volume.file(b"a", parent=top), await volume.file(b"b", parent=deep)}
    await volume.file(b"beside")
    found = await volume.met(top)
    assert len(found) == len(set(found))
    assert wanted < set(found)
    assert len(wanted) + 1 == len(found)


async def test_walk_meets_hard_links_and_what_was_given_twice_once() -> None:
    """A file with two names counts once, and so does one that is given beside the directory that holds it."""
    volume = Volume()
    top = await volume.directory(b"top")
    file = await volume.file(b"one", parent=top)
    await volume.metadata.link(file, top, b"two", 1)
    alone = await volume.file(b"alone", parent=top)
    assert sorted([top, file, alone]) == sorted(await volume.met(top, alone, file, top))


async def test_walk_goes_on_when_things_disappear() -> None:
    """An inode that is gone, or a directory that goes while it is read, is left out; the rest is met."""
    volume = Volume()
    first, second = await volume.directory(b"1"), await volume.directory(b"2")
    file = await volume.file(b"file", parent=second)
    walk = TreeWalk(volume.metadata, [InodeNumber(999), first, second])
    assert [first, second] == [attributes.inode for attributes in await walk.step() or ()]
    gone = await volume.metadata.rmdir(ROOT_INODE, b"1", 2)
    await volume.metadata.remove_orphan(gone.inode)
    rest = []
    while (batch := await walk.step()) is not None:
        rest += [attributes.inode for attributes in batch]
    assert [file] == rest


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3 * PAGE_COUNT), min_size=1, max_size=4))
async def test_walk_of_any_tree_is_complete(counts: list[int]) -> None:
    """Whatever the directories hold, every file is met exactly once."""
    volume = Volume()
    files = []
    parent = ROOT_INODE
    for number, count in enumerate(counts):
        parent = await volume.directory(b"d%d" % number, parent)
        files += [await volume.file(b"f%d" % n, 0, parent) for n in range(count)]
    found = await volume.met(ROOT_INODE)
    assert set(files) <= set(found)
    assert len(files) + len(counts) + 1 == len(found) == len(set(found))


# Warming


async def test_warmup_brings_every_file_and_counts_them() -> None:
    """Everything below a directory is brought; what came is told in files and bytes."""
    volume = Volume()
    top = await volume.directory(b"top")
    files = [await volume.file(b"%d" % n, 100, top) for n in range(20)]
    await volume.metadata.make_inode(top, b"link", a_symlink(b"elsewhere"), 1)
    await volume.file(b"empty", 0, top)
    warmup = volume.desk.order([top], pin=False)
    assert WarmProgress() == warmup.progress()
    result = await warmup.run()
    assert sorted(files) == sorted(volume.warmed)
    assert (2000, 2000, 20, 20, 0) == tuple(
        result[name] for name in ("done_bytes", "total_bytes", "done_files", "total_files", "unreadable_files")
    )
    assert frozenset() == volume.pinned


async def test_small_files_come_several_at_once() -> None:
    """Files are brought side by side, in a bounded number: one latency each would make a directory take hours."""
    volume = Volume()
    top = await volume.directory(b"top")
    for n in range(3 * FILES_AT_ONCE):
        await volume.file(b"%d" % n, 100, top)
    volume.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(volume.desk.order([top], pin=False).run)
        await wait_all_tasks_blocked()
        assert FILES_AT_ONCE == volume.busy
        nursery.cancel_scope.cancel()


async def test_pin_marks_directories_too_and_before_anything_comes() -> None:
    """Pinning marks files and directories first: an interruption leaves the marks, and new files can inherit them."""
    volume = Volume()
    volume.gate = trio.Event()
    top = await volume.directory(b"top")
    file = await volume.file(b"file", parent=top)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(volume.desk.order([top], pin=True).run)
        await wait_all_tasks_blocked()
        assert {top, file} == volume.pinned
        assert [] == volume.warmed
        assert "/file-3" == volume.desk.statistics()[0].path
        nursery.cancel_scope.cancel()
    assert {top, file} == volume.pinned
    assert [] == volume.desk.statistics()


async def test_unpin_takes_the_marks_of_everything_below() -> None:
    """Unpinning a directory frees it and what lies below; what was not pinned is no error."""
    volume = Volume()
    top = await volume.directory(b"top")
    await volume.file(b"file", parent=top)
    other = await volume.file(b"other")
    await volume.desk.order([top, other], pin=True).run()
    await volume.desk.unpin([top, InodeNumber(999)])
    await volume.desk.unpin([top])
    assert {other} == volume.pinned


async def test_what_can_never_fit_is_refused_before_anything_is_done() -> None:
    """More than the whole cache is refused at once, by its sizes and with the option that helps; nothing is pinned."""
    volume = Volume(limit_bytes=1000)
    top = await volume.directory(b"top")
    for n in range(3):
        await volume.file(b"%d" % n, 500, top)
    with pytest.raises(UserError, match=r"1\.5 KiB cannot fit.*1000 bytes.*cache_size=") as caught:
        await volume.desk.order([top], pin=False).run()
    assert ExitCode.STATE_FULL == caught.value.exit_code
    with pytest.raises(UserError, match=r"1\.5 KiB cannot be pinned.*1000 bytes.*cache_size="):
        await volume.desk.order([top], pin=True).run()
    assert (frozenset(), []) == (volume.pinned, volume.warmed)


async def test_pins_count_what_is_pinned_already() -> None:
    """A pin that does not fit beside the others is refused before it is made; one that is repeated always fits."""
    volume = Volume(limit_bytes=1000)
    first, second = await volume.file(b"1", 600), await volume.file(b"2", 600)
    await volume.desk.order([first], pin=True).run()
    volume.pinned_bytes = 600
    with pytest.raises(UserError, match=r"600 bytes cannot be pinned.*and 600 bytes are taken"):
        await volume.desk.order([second], pin=True).run()
    assert {first} == volume.pinned
    volume.used_bytes = 0
    await volume.desk.order([first], pin=True).run()


async def test_full_cache_ends_a_warmup_in_one_sentence() -> None:
    """Where pinned and unsent data leave too little room, the rest is not tried, and what has come is told."""
    volume = Volume(limit_bytes=1000)
    volume.used_bytes = 700
    top = await volume.directory(b"top")
    for n in range(50):
        await volume.file(b"%d" % n, 20, top)
    with pytest.raises(UserError, match=r"no room for more: 300 bytes of 1000 bytes.*cache_size=") as caught:
        await volume.desk.order([top], pin=False).run()
    assert ExitCode.STATE_FULL == caught.value.exit_code
    assert 15 == len(volume.warmed)


def test_regression_shortage_names_the_room_for_work() -> None:
    """A file that is larger than all but the room for work is not put down to pins that nobody made."""
    assert (
        "of the cache of 16 bytes, 4 bytes are kept for work, 0 bytes are pinned" in CacheRoom(16, 12, 0, 0).shortage()
    )


async def test_holes_take_no_room() -> None:
    """A sparse file counts with what is stored of it, so a terabyte of holes can be pinned."""
    volume = Volume(limit_bytes=5000)
    file = await volume.file(b"sparse", 0)
    await volume.metadata.change_attributes(file, AttributeChanges(size_bytes=1 << 40), 1)
    volume.metadata.mark_dirty(file, ChunkIndex(7), 2)
    assert 2 * CHUNK == volume.desk.stored_bytes(await volume.metadata.attributes(file))


async def test_damaged_file_does_not_stop_the_others() -> None:
    """A file that cannot be read is counted; all others come."""
    volume = Volume()
    files = [await volume.file(b"%d" % n) for n in range(5)]
    volume.damaged = {files[2]}
    result = await volume.desk.order(files, pin=False).run()
    assert 4 == len(volume.warmed)
    assert (1, 5) == (result["unreadable_files"], result["done_files"])


async def test_file_that_grows_meanwhile_does_not_count_for_more() -> None:
    """Progress never passes its end, however much a file turns out to hold."""
    volume = Volume()
    file = await volume.file(b"file", 10)
    warmup = volume.desk.order([file], pin=False)
    await warmup.prepare()
    await volume.metadata.change_attributes(file, AttributeChanges(size_bytes=900), 2)
    await warmup.bring()
    assert (10, 10) == (warmup.progress().done_bytes, warmup.progress().total_bytes)


# In the background


async def test_warmup_without_waiting_goes_on_in_the_background() -> None:
    """`start` returns when all is counted and marked; the files come afterwards, and status can tell how far it is."""
    volume = Volume()
    volume.gate = trio.Event()
    file = await volume.file(b"file")
    async with background(volume):
        result = await volume.desk.order([file], pin=True).start()
        assert (1, 0) == (result["total_files"], result["done_files"])
        assert {file} == volume.pinned
        await wait_all_tasks_blocked()
        assert [(10, 0)] == [(p.total_bytes, p.done_bytes) for p in volume.desk.statistics()]
        volume.gate.set()
        await wait_all_tasks_blocked()
        assert ([file], []) == (volume.warmed, volume.desk.statistics())


async def test_background_failure_is_kept_for_status() -> None:
    """A warm-up that nobody waits for and that finds no room says so in status, until one comes to its end."""
    volume = Volume(limit_bytes=100)
    volume.used_bytes = 95
    file, small = await volume.file(b"file", 10), await volume.file(b"small", 5)
    async with background(volume):
        await volume.desk.order([file], pin=False).start()
        await wait_all_tasks_blocked()
        assert "no room" in (volume.desk.problem or "")
        await volume.desk.order([small], pin=False).start()
        await wait_all_tasks_blocked()
        assert volume.desk.problem is None


async def test_pinned_files_come_back_with_the_mount() -> None:
    """What is pinned is brought at the start of a mount, without what else lies in a pinned directory."""
    volume = Volume()
    top = await volume.directory(b"top")
    file = await volume.file(b"pinned", parent=top)
    await volume.file(b"not", parent=top)
    async with background(volume, [top, file, InodeNumber(999)]):
        await wait_all_tasks_blocked()
        assert [file] == volume.warmed


async def test_pinned_files_that_could_not_be_read_are_tried_again(autojump_clock: MockClock) -> None:
    """A mount without a network brings what is pinned as soon as there is one, unless it was unpinned meanwhile."""
    volume = Volume()
    files = [await volume.file(b"%d" % n) for n in range(3)]
    volume.set_pinned(files, True)
    volume.damaged = {*files}
    async with background(volume, files):
        await trio.sleep(10 * AGAIN_SECONDS)
        assert [] == volume.warmed
        volume.damaged = set()
        volume.set_pinned(files[:1], False)
        await trio.sleep(20 * AGAIN_SECONDS)
        assert files[1:] == sorted(volume.warmed)


async def test_warmups_are_bounded() -> None:
    """One warm-up more than may run at once is refused in a sentence."""
    volume = Volume()
    volume.gate = trio.Event()
    file = await volume.file(b"file")
    async with trio.open_nursery() as nursery:
        for _ in range(MAX_WARMUPS):
            nursery.start_soon(volume.desk.order([file], pin=False).run)
            await wait_all_tasks_blocked()
        with pytest.raises(UserError, match="run already") as caught:
            volume.desk.order([file], pin=False)
        assert ExitCode.MOUNT_BUSY == caught.value.exit_code
        nursery.cancel_scope.cancel()
