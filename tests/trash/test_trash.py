"""What is deleted or replaced can be restored for a while, and then it goes."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from support.metadata_invariants import faults_of
from support.real_stores import real_stores
from support.shipped_rows import shipped_rows
from support.trash_worlds import DAY, Paths

from disfs.errors import ExitCode, FilesystemError, UserError
from disfs.kernel_clock import KernelClock
from disfs.metadata.base import XattrMode
from disfs.metadata.trash import PATH_BYTES, UNSENT_CHUNKS
from disfs.trash_desk import TrashDesk
from disfs.values import ROOT_INODE, AttributeChanges, NewInode, TrashReason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.real_stores import RealStores

    from disfs.values import InodeNumber

CHUNK = 4096
FILE = NewInode(stat.S_IFREG | 0o644, 0, 0)


@asynccontextmanager
async def a_volume(directory: Path, **changes: int) -> AsyncIterator[tuple[Paths, RealStores, trio.Nursery]]:
    """One with a trash of a day; what is in its tables makes sense at the end."""
    async with real_stores(directory, 2, ships=False, trash_seconds=DAY, **changes) as (world, nursery):
        yield Paths(world), world, nursery
        await world.filesystem.close()
        await world.metadata.commit()
        assert [] == faults_of(directory / "volume.db")


async def test_deleted_file_comes_back_as_it_was(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Content, mode, owner, times and extended attributes; only ctime is another, as it moved just now."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.write(b"/file", b"1" * 3 * CHUNK + b"end")
        inode = await paths.inode(b"/file")
        await world.metadata.set_xattr(inode, b"user.colour", b"blue", XattrMode.EITHER, 5)
        changes = AttributeChanges(mode=0o604, uid=11, gid=12, atime_ns=21, mtime_ns=22)
        await world.filesystem.change_attributes(inode, changes)
        await paths.sent()
        before = await world.metadata.attributes(inode)
        await paths.unlink(b"/file")
        assert None is await paths.find(b"/file")
        assert 0 == (await world.metadata.usage()).allocated_bytes
        order = await paths.undelete(b"/file")
        assert (1, 0, "/file") == (order.progress().restored, order.progress().taken, order.progress().path)
        after = await world.metadata.attributes(await paths.inode(b"/file"))
        assert before._replace(ctime_ns=0) == after._replace(ctime_ns=0)
        assert b"blue" == await world.metadata.get_xattr(after.inode, b"user.colour")
        assert b"1" * 3 * CHUNK + b"end" == await paths.read(b"/file")
        assert [] == paths.trash()
        assert (0, 0) == world.metadata.trash.totals


async def test_restored_file_is_read_from_discord(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Nothing of it need be in the cache."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.write(b"/file", b"abc" * CHUNK)
        await paths.sent()
        await paths.unlink(b"/file")
        world.chunks.evict_all()
        await paths.undelete(b"/file")
        assert b"abc" * CHUNK == await paths.read(b"/file")


async def test_replaced_file_comes_back_beside_the_new_one(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What a rename has covered, as editors and rsync save files; and again, under the next name."""
    async with a_volume(tmp_path) as (paths, _, _):
        for content in (b"first", b"second", b"third"):
            await paths.write(b"/new", content)
            await paths.sent()
            await paths.rename(b"/new", b"/file")
        assert [TrashReason.REPLACED] * 2 == [entry.reason for entry in paths.trash()]
        await paths.undelete(b"/file")
        await paths.undelete(b"/file")
        expected = {b"/file": b"third", b"/file.undeleted": b"second", b"/file.undeleted-2": b"first"}
        assert expected == await paths.tree()


@pytest.mark.parametrize("way", ["open", "truncate"])
async def test_emptied_file_leaves_what_was_in_it(tmp_path: Path, autojump_clock: trio.abc.Clock, way: str) -> None:
    """O_TRUNC and truncate to nothing: the old content, with the attributes of then, comes back beside the file."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.write(b"/file", b"old" * CHUNK)
        inode = await paths.inode(b"/file")
        await world.metadata.set_xattr(inode, b"user.colour", b"blue", XattrMode.EITHER, 5)
        await paths.sent()
        before = await world.metadata.attributes(inode)
        if way == "open":
            await paths.write(b"/file", b"new", flags=os.O_TRUNC)
        else:
            await world.truncate(inode, 0)
        (entry,) = paths.trash()
        assert (TrashReason.EMPTIED, b"/file", 3 * CHUNK) == (entry.reason, entry.path, entry.size_bytes)
        await paths.undelete(b"/file")
        assert b"old" * CHUNK == await paths.read(b"/file.undeleted")
        assert (b"new" if way == "open" else b"") == await paths.read(b"/file")
        after = await world.metadata.attributes(await paths.inode(b"/file.undeleted"))
        assert (before.mode, before.uid, before.mtime_ns) == (after.mode, after.uid, after.mtime_ns)
        assert b"blue" == await world.metadata.get_xattr(after.inode, b"user.colour")


async def test_emptied_file_keeps_what_lies_before_what_is_unsent(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """Up to the first chunk that was written since it was sent; nothing that it never held."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.write(b"/log", b"1" * CHUNK + b"2" * CHUNK + b"3" * 100)
        await paths.sent()
        handle = await world.filesystem.files.open(await paths.inode(b"/log"), os.O_WRONLY)
        await world.filesystem.files.write(handle, 2 * CHUNK + 100, b"4" * 100)
        await world.filesystem.release(handle)
        await world.truncate(await paths.inode(b"/log"), 0)
        await paths.undelete(b"/log")
        assert b"1" * CHUNK + b"2" * CHUNK == await paths.read(b"/log.undeleted")


async def test_emptied_file_whose_beginning_is_unsent_is_not_kept(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """There is nothing before it."""
    async with a_volume(tmp_path) as (paths, _, _):
        await paths.write(b"/file", b"1" * 2 * CHUNK)
        await paths.sent()
        await paths.write(b"/file", b"2")
        await paths.write(b"/file", b"3", flags=os.O_TRUNC)
        assert [] == paths.trash()


async def test_what_was_never_sent_is_gone(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A new file that is deleted leaves nothing, neither here nor in Discord."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.write(b"/file", b"1" * CHUNK)
        await world.metadata.commit()
        await paths.unlink(b"/file")
        assert [] == paths.trash()
        assert 0 == world.chunks.statistics().dirty_chunks
        with pytest.raises(UserError, match="nothing of /file") as caught:
            await paths.undelete(b"/file")
        assert ExitCode.USAGE == caught.value.exit_code


async def test_deleted_file_of_which_little_is_unsent_is_whole(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Its last words are sent after its deletion; over a remount, a crash too."""
    async with a_volume(tmp_path) as (paths, world, nursery):
        await paths.write(b"/file", b"1" * 3 * CHUNK)
        await paths.sent()
        await paths.write(b"/file", b"last words")
        await paths.unlink(b"/file")
        assert 1 == world.chunks.statistics().dirty_chunks
        await world.metadata.commit()
        await world.crash(nursery)
        assert 1 == world.chunks.statistics().dirty_chunks
        await paths.sent()
        world.chunks.evict_all()
        await paths.undelete(b"/file")
        assert b"last words" + b"1" * (3 * CHUNK - 10) == await paths.read(b"/file")


async def test_deleted_file_of_which_much_is_unsent_is_not_kept(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Whoever deletes a large file in the middle of its upload does not have the rest of it sent."""
    async with a_volume(tmp_path, cache_bytes=300 * CHUNK) as (paths, world, _):
        await paths.write(b"/file", b"1" * (UNSENT_CHUNKS + 2) * CHUNK)
        await paths.sent()
        await paths.write(b"/file", b"2" * (UNSENT_CHUNKS + 1) * CHUNK)
        await paths.unlink(b"/file")
        assert ([], 0) == (paths.trash(), world.chunks.statistics().dirty_chunks)


async def test_one_of_two_names_is_no_deletion(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A file goes to the trash with its last name, and comes back under that."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.write(b"/one", b"x")
        await world.metadata.link(await paths.inode(b"/one"), ROOT_INODE, b"two", 5)
        await paths.sent()
        await paths.unlink(b"/one")
        assert [] == paths.trash()
        await paths.unlink(b"/two")
        await paths.undelete(b"/")
        assert {b"/two": b"x"} == await paths.tree()


async def test_file_that_is_open_goes_to_the_trash_when_it_is_closed(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """With what was written to it after it had lost its name."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.write(b"/file", b"before")
        await paths.sent()
        handle = await world.filesystem.files.open(await paths.inode(b"/file"), os.O_RDWR)
        await paths.unlink(b"/file")
        assert [] == paths.trash()
        await world.filesystem.files.write(handle, 0, b"after ")
        await world.filesystem.release(handle)
        await paths.undelete(b"/file")
        assert b"after " == await paths.read(b"/file")


async def test_directory_comes_back_with_all_that_was_in_it(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """`rm -r`: directories with mode, owner and times, links, empty files; what is there now is left alone."""
    async with a_volume(tmp_path) as (paths, world, _):
        for path in (b"/top", b"/top/deep"):
            await paths.make_directory(path, mode=0o711)
        await paths.write(b"/top/file", b"1" * CHUNK)
        await paths.write(b"/top/deep/file", b"2" * CHUNK)
        await paths.write(b"/top/deep/empty", b"")
        link = NewInode(mode=stat.S_IFLNK | 0o777, uid=0, gid=0, target=b"deep/file")
        made = await world.filesystem.make_inode(await paths.inode(b"/top"), b"link", link)
        await world.filesystem.forget([(made.inode, 1)])
        await paths.sent()
        deep = await paths.inode(b"/top/deep")
        await world.filesystem.change_attributes(deep, AttributeChanges(mtime_ns=77, atime_ns=66))
        for path in (b"/top/deep/empty", b"/top/deep/file", b"/top/file", b"/top/link"):
            await paths.unlink(path)
        await world.filesystem.change_attributes(deep, AttributeChanges(mtime_ns=77, atime_ns=66))
        await paths.rmdir(b"/top/deep")
        await paths.rmdir(b"/top")
        await paths.make_directory(b"/top", mode=0o700)
        await paths.write(b"/top/file", b"new")
        order = await paths.undelete(b"/top")
        assert (4, 1) == (order.progress().restored, order.progress().taken)
        assert b"deep/file" == await world.metadata.symlink_target(await paths.inode(b"/top/link"))
        await paths.unlink(b"/top/link")
        expected = {
            b"/top": None,
            b"/top/file": b"new",
            b"/top/deep": None,
            b"/top/deep/file": b"2" * CHUNK,
            b"/top/deep/empty": b"",
        }
        assert expected == await paths.tree()
        after = await world.metadata.attributes(await paths.inode(b"/top/deep"))
        assert (0o711, 3, 77, 66) == (after.mode & 0o7777, after.uid, after.mtime_ns, after.atime_ns)


async def test_file_alone_brings_its_directories_along(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Those that are gone are made again, from the trash; one that became a file is in the way, and named."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.make_directory(b"/a", mode=0o701)
        await paths.make_directory(b"/a/b", mode=0o702)
        await paths.write(b"/a/b/file", b"x")
        await paths.sent()
        await paths.unlink(b"/a/b/file")
        await paths.rmdir(b"/a/b")
        await paths.rmdir(b"/a")
        await paths.write(b"/a", b"in the way")
        with pytest.raises(UserError, match="/a is no directory now"):
            await paths.undelete(b"/a/b/file")
        await paths.unlink(b"/a")
        await paths.undelete(b"/a/b/file")
        assert {b"/a": None, b"/a/b": None, b"/a/b/file": b"x"} == await paths.tree()
        found = [(await world.metadata.attributes(await paths.inode(path))).mode for path in (b"/a", b"/a/b")]
        assert [0o40701, 0o40702] == found


async def test_path_is_the_one_of_the_deletion(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A directory that was renamed before counts with its new name, one that was renamed later with its old one."""
    async with a_volume(tmp_path) as (paths, _, _):
        await paths.make_directory(b"/one")
        for name in (b"/one/a", b"/one/b"):
            await paths.write(name, name)
        await paths.sent()
        await paths.unlink(b"/one/a")
        await paths.rename(b"/one", b"/two")
        await paths.unlink(b"/two/b")
        await paths.rename(b"/two", b"/three")
        assert [b"/one/a", b"/two/b"] == [entry.path for entry in paths.trash()]


async def test_version_can_be_chosen(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """By its number; a number of another path, or of nothing, is refused."""
    async with a_volume(tmp_path) as (paths, _, _):
        for content in (b"1", b"2"):
            await paths.write(b"/file", content)
            await paths.sent()
            await paths.unlink(b"/file")
        oldest = paths.trash()[0].inode
        with pytest.raises(UserError, match="nothing of /other"):
            await paths.undelete(b"/other", oldest)
        await paths.undelete(b"/file", oldest)
        assert b"1" == await paths.read(b"/file")


async def test_what_was_deleted_before_stays_in_the_trash(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Since a moment: an older version of the same path, and older deletions below a directory, are left alone."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.make_directory(b"/all")
        clock = KernelClock()
        for name, content in ((b"/all/a", b"old"), (b"/all/b", b"b"), (b"/all/a", b"new")):
            await paths.write(name, content)
            await paths.sent()
            await paths.unlink(name)
            deleted_ns = clock.now_ns()
            while clock.now_ns() == deleted_ns:  # the next one at another tick
                pass
        old, new = sorted((e for e in paths.trash() if e.path == b"/all/a"), key=lambda entry: entry.inode)
        (other,) = (entry for entry in paths.trash() if entry.path == b"/all/b")
        desk = world.make_trash_desk()
        with pytest.raises(UserError, match="nothing of /all in the trash since then"):
            await desk.order(ROOT_INODE, "all", None, new.trashed_ns + 1).run()
        result = await desk.order(ROOT_INODE, "all", None, new.trashed_ns).run()
        assert 1 == result["restored"]
        assert b"new" == await paths.read(b"/all/a")
        assert {old.inode, other.inode} == {entry.inode for entry in paths.trash()}


async def test_what_lies_very_deep_is_not_kept(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Its path could not be told to Discord; at the bound it is kept."""
    async with a_volume(tmp_path) as (_, world, _):
        make, new = world.metadata.make_inode, NewInode(stat.S_IFDIR | 0o755, 0, 0)
        parent = ROOT_INODE
        for _ in range(PATH_BYTES // 256 - 1):
            parent = (await make(parent, b"d" * 255, new, 1)).inode
        names = (b"f" * 255, b"g" * 254)
        paths = [next(iter(await world.metadata.paths((await make(parent, name, FILE, 1)).inode))) for name in names]
        assert [PATH_BYTES, PATH_BYTES - 1] == [len(path) for path in paths]
        deeper = (await make(parent, b"d", new, 1)).inode
        await make(deeper, b"h" * 254, FILE, 1)
        await world.metadata.commit()
        for directory, name in ((deeper, b"h" * 254), (parent, names[0])):
            gone = await world.metadata.unlink(directory, name, 2)
            world.metadata.trash.take_orphan(gone.inode, 3)
        assert [paths[0]] == [entry.path for entry in world.metadata.trash.at(paths[0])]
        assert (1, 0) == world.metadata.trash.totals
        await world.filesystem.remove_orphans()


async def test_old_things_go_for_good(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """After their time: rows, extents, attributes; then their message in Discord too."""
    async with a_volume(tmp_path, sweep_grace_seconds=0) as (paths, world, _):
        await paths.write(b"/file", b"1" * 10 * CHUNK)
        await world.metadata.set_xattr(await paths.inode(b"/file"), b"user.a", b"b", XattrMode.EITHER, 5)
        await paths.sent()
        await paths.unlink(b"/file")
        (entry,) = paths.trash()
        now = [entry.trashed_ns + DAY * 10**9 - 1]
        desk = TrashDesk(world.metadata, world.chunks, DAY, world._no_kernel, lambda: now[0])
        await desk.empty()
        await world.chunks.sweep()
        assert ([entry], 1) == (paths.trash(), sum(len(world.memory.messages(each)) for each in world.channels))
        now[0] += 1
        await desk.empty()
        await world.metadata.commit()
        rows = shipped_rows(tmp_path / "volume.db")
        assert ([], [], []) == (rows["trash"], rows["extents"], rows["xattrs"])
        assert (0, 0) == world.metadata.trash.totals
        await world.chunks.sweep()
        assert 0 == sum(len(world.memory.messages(each)) for each in world.channels)


async def test_without_a_trash_nothing_is_kept(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """`--trash-days 0`: what is in it from before goes at once."""
    async with real_stores(tmp_path, trash_seconds=DAY) as (world, nursery):
        paths = Paths(world)
        for name in (b"/one", b"/two"):
            await paths.write(name, b"x")
        await paths.sent()
        await paths.unlink(b"/one")
        world.trash_seconds = 0
        await world.restart(nursery)
        await paths.unlink(b"/two")
        assert [b"/one"] == [entry.path for entry in paths.trash()]
        await world.make_trash_desk().empty()
        assert [] == paths.trash()


async def test_full_volume_restores_nothing_and_loses_nothing(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Deleting gives room at once; what does not fit any more stays in the trash, and the error says why."""
    async with a_volume(tmp_path) as (paths, world, nursery):
        await paths.write(b"/file", b"1" * 4 * CHUNK)
        await paths.sent()
        world.capacity_bytes = 5 * CHUNK
        await world.restart(nursery)
        await paths.unlink(b"/file")
        await paths.write(b"/other", b"2" * 4 * CHUNK)
        with pytest.raises(FilesystemError) as caught:
            await paths.undelete(b"/file")
        assert errno.ENOSPC == caught.value.errno
        await paths.unlink(b"/other")
        await paths.undelete(b"/file")
        assert b"1" * 4 * CHUNK == await paths.read(b"/file")


async def test_full_disk_keeps_nothing_new(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Without room for the metadata deleting still works, and is for good."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.write(b"/file", b"1" * CHUNK)
        await paths.sent()
        world.free_bytes = 0
        world.metadata._database.room.measure()
        await paths.unlink(b"/file")
        assert [] == paths.trash()
        assert [] == world.metadata._database.rows("SELECT * FROM extents")
        world.free_bytes = 1 << 40


async def test_orphan_of_a_crash_goes_to_the_trash(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """The kernel had not let go of it when the daemon was killed: the next mount keeps it, path included."""
    async with a_volume(tmp_path) as (paths, world, nursery):
        await paths.write(b"/file", b"x")
        await paths.sent()
        await world.filesystem.files.open(await paths.inode(b"/file"), os.O_RDONLY)
        await paths.unlink(b"/file")
        await world.metadata.commit()
        await world.crash(nursery)
        assert [b"/file"] == [entry.path for entry in paths.trash()]
        await paths.undelete(b"/file")
        assert b"x" == await paths.read(b"/file")


async def test_deletion_that_was_not_committed_did_not_happen(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """After a kill the file is there, or it is in the trash: never in neither."""
    async with a_volume(tmp_path) as (paths, world, nursery):
        await paths.write(b"/file", b"x")
        await paths.sent()
        await paths.unlink(b"/file")
        await world.crash(nursery)
        assert ([], b"x") == (paths.trash(), await paths.read(b"/file"))


async def test_listing_goes_on_where_it_ended(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page, each entry once: what was at the path itself, then what was below it."""
    monkeypatch.setattr("disfs.trash_desk._PAGE_COUNT", 3)
    async with a_volume(tmp_path) as (paths, world, _):
        for _ in range(2):
            await paths.write(b"/d", b"a file then")
            await paths.sent()
            await paths.unlink(b"/d")
        await paths.make_directory(b"/d")
        for number in range(7):
            await paths.write(b"/d/%d" % number, b"x")
            await paths.write(b"/dd%d" % number, b"y")
        await paths.sent()
        for number in range(7):
            await paths.unlink(b"/d/%d" % number)
            await paths.unlink(b"/dd%d" % number)
        desk = world.make_trash_desk()
        found: list[bytes] = []
        after: tuple[bytes, InodeNumber] | None = None
        while True:
            entries, has_more = desk.listed(b"/d", after)
            found += [entry.path for entry in entries]
            if not has_more:
                break
            after = entries[-1].path, entries[-1].inode
        assert [b"/d", b"/d", *(b"/d/%d" % number for number in range(7))] == found


async def test_content_of_an_emptied_file_can_be_compacted(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Its slots were written under the number of the file; moved, they are what they were."""
    async with a_volume(tmp_path) as (paths, world, _):
        contents = {b"/%d" % number: os.urandom(CHUNK) for number in range(0, 24, 6)}
        for number in range(24):
            path = b"/%d" % number
            await paths.write(path, contents.get(path) or os.urandom(CHUNK))
            if number % 6 == 5:
                await paths.sent()
        for number in range(24):
            path = b"/%d" % number
            if path in contents:
                await paths.write(path, b"new", flags=os.O_TRUNC)
            else:
                await paths.unlink(path)
        for entry in paths.trash():
            if entry.path not in contents:
                world.chunks.discard(entry.inode)
                world.metadata.trash.remove(entry.inode)
        await paths.sent()
        world.chunks.evict_all()
        for _ in range(4):
            await world.chunks.compact()
            await trio.sleep(700)
        assert 4 <= world.chunks.statistics().compaction.rewritten_messages
        for path, content in contents.items():
            await paths.undelete(path)
            assert content == await paths.read(path + b".undeleted")
