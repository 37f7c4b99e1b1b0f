"""Snapshots stay what they were, whatever happens to the volume; and what only they hold goes with them."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from support.metadata_invariants import faults_of
from support.real_stores import VOLUME_ID, real_stores
from support.trash_worlds import Paths

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.transport.faults import Fault
from disfs.errors import ExitCode, FilesystemError, TransientStorageError, UserError
from disfs.metadata.base import XattrMode
from disfs.metadata.shipping import ShippedMessage
from disfs.metadata.snapshots import Snapshots
from disfs.metadata.store import SqliteMetadataStore
from disfs.recovery.frames import SHIPMENT_KINDS
from disfs.recovery.index_channel import IndexChannel
from disfs.recovery.rebuild import rebuild
from disfs.recovery.retention import superfluous
from disfs.recovery.snapshot_shipments import SnapshotShipments
from disfs.values import FIRST_VIEW_INODE, ROOT_INODE, MessageId, view_inode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.real_stores import RealStores

    from disfs.recovery.rebuild import Report

CHUNK = 4096


@asynccontextmanager
async def a_volume(directory: Path, **changes: int) -> AsyncIterator[tuple[Paths, RealStores, trio.Nursery]]:
    """One that ships; what is in its tables makes sense at the end."""
    os.makedirs(directory, exist_ok=True)  # noqa: PTH103 - nothing else runs yet
    async with real_stores(directory, 2, ships=True, trash_seconds=0, **changes) as (world, nursery):
        yield Paths(world), world, nursery
        await world.filesystem.close()
        await world.metadata.commit()
        assert [] == faults_of(directory / "volume.db")
        assert [] == wrong_holds(directory / "volume.db")


def wrong_holds(path: Path) -> list[object]:
    """Messages whose count of holds is not how many there are, and holds of what is not there."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT message, held FROM messages WHERE held <> (SELECT count(*) FROM holds"
            " WHERE holds.message = messages.message) UNION ALL SELECT snapshot, message FROM holds"
            " WHERE message NOT IN (SELECT message FROM messages) OR snapshot NOT IN (SELECT snapshot FROM snapshots)"
        ).fetchall()


async def create(world: RealStores, name: str) -> dict[str, object]:
    return dict(await world.make_snapshot_desk().create(name))


def packs_in_discord(world: RealStores) -> int:
    return sum(len(world.memory.messages(channel)) for channel in world.channels)


async def swept(world: RealStores) -> int:
    """How many data messages there are once everything is shipped and swept."""
    await world.chunks.drain()
    await world.shipper.drain()
    for _ in range(2):
        await world.chunks.sweep()
        await trio.sleep(1)
    return packs_in_discord(world)


async def recovered(world: RealStores, path: Path) -> Report:
    """Rebuild from Discord alone."""
    path.parent.mkdir()
    return await rebuild(
        IndexChannel(world.memory, world.index, world.key, VOLUME_ID, SHIPMENT_KINDS),
        world.memory,
        path,
        volume=VOLUME_ID,
        chunk_bytes=CHUNK,
        device=None,
        settings={},
        on_progress=lambda progress: None,
    )


async def test_snapshot_holds_what_it_refers_to(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Deleted files stay in Discord for it, and go when it goes; what is in no snapshot goes at once."""
    async with a_volume(tmp_path, sweep_grace_seconds=0) as (paths, world, _):
        await paths.write(b"/kept", b"1" * 3 * CHUNK)
        await create(world, "one")
        await paths.write(b"/other", b"2" * 3 * CHUNK)
        await paths.sent()
        for path in (b"/kept", b"/other"):
            await paths.unlink(path)
        assert 1 == await swept(world)
        world.chunks.evict_all()
        assert {b"/.snapshots/one/kept": b"1" * 3 * CHUNK} == await paths.tree(b"/.snapshots/one")
        await world.make_snapshot_desk().delete("one")
        assert 0 == await swept(world)


async def test_message_of_two_snapshots_goes_with_the_second(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Each holds on its own."""
    async with a_volume(tmp_path, sweep_grace_seconds=0) as (paths, world, _):
        await paths.write(b"/file", b"1" * CHUNK)
        for name in ("one", "two"):
            await create(world, name)
        await paths.unlink(b"/file")
        desk = world.make_snapshot_desk()
        await desk.delete("one")
        assert 1 == await swept(world)
        assert b"1" * CHUNK == await paths.read(b"/.snapshots/two/file")
        await desk.delete("two")
        assert 0 == await swept(world)


async def test_held_message_is_not_compacted(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """However little of it is live: rewriting it would give nothing back."""
    async with a_volume(tmp_path) as (paths, world, _):
        for number in range(8):
            await paths.write(b"/%d" % number, b"1" * CHUNK)
        await create(world, "one")
        for number in range(1, 8):
            await paths.unlink(b"/%d" % number)
        assert [] == await world.metadata.sparse_messages(10)
        await world.make_snapshot_desk().delete("one")
        assert [] != await world.metadata.sparse_messages(10)


async def test_what_dies_while_it_is_made_is_kept(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the moment of the snapshot and its holds nothing is swept that was live at that moment."""
    async with a_volume(tmp_path, sweep_grace_seconds=0) as (paths, world, _):
        await paths.write(b"/file", b"1" * CHUNK)
        hold = Snapshots._hold

        async def late(self: Snapshots, snapshot: int, messages: list[int]) -> None:
            await paths.unlink(b"/file")
            assert 1 == await swept(world)
            await hold(self, snapshot, messages)

        monkeypatch.setattr(Snapshots, "_hold", late)
        await create(world, "one")
        assert 1 == await swept(world)
        assert b"1" * CHUNK == await paths.read(b"/.snapshots/one/file")
        monkeypatch.undo()
        assert world.metadata.snapshots.protected_revision > world.metadata.shipping.shipped_revision


async def test_snapshot_waits_for_what_is_dirty(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What was written just before is in it."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.write(b"/file", b"just now")
        assert {"unsent_files": 0, "unsent_paths": []} == await create(world, "one")
        assert b"just now" == await paths.read(b"/.snapshots/one/file")


async def test_what_was_not_sent_is_an_error_and_told(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is written all the time: its unsent chunks cannot be read, all others can; after a recovery too."""
    async with a_volume(tmp_path / "volume") as (paths, world, _):
        await paths.write(b"/file", b"1" * 2 * CHUNK)
        await paths.write(b"/other", b"x")
        await paths.sent()
        await paths.write(b"/file", b"2" * CHUNK)

        async def nothing() -> None:
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(world.chunks, "drain", nothing)
        told = await create(world, "one")
        monkeypatch.undo()
        assert {"unsent_files": 1, "unsent_paths": ["/.snapshots/one/file"]} == told
        inode = await paths.inode(b"/.snapshots/one/file")
        with pytest.raises(FilesystemError) as caught:
            await world.chunks.read(inode, 0, CHUNK)
        assert errno.EIO == caught.value.errno
        assert b"1" * CHUNK == await world.chunks.read(inode, CHUNK, CHUNK)
        assert b"x" == await paths.read(b"/.snapshots/one/other")
        await world.shipper.drain()
        assert ("one",) == (await recovered(world, tmp_path / "new" / "volume.db")).snapshots
        with contextlib.closing(SqliteMetadataStore.open(tmp_path / "new" / "volume.db")) as store:
            store.snapshots.show()
            (record,) = store.snapshots.all()
            assert (1, ["/.snapshots/one/file"]) == store.snapshots.unsent(record.snapshot)


async def test_open_file_of_a_deleted_snapshot_is_stale(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Whoever reads on gets an error, and never what another snapshot has."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.write(b"/file", b"1" * 2 * CHUNK)
        await create(world, "one")
        handle = await world.filesystem.files.open(await paths.inode(b"/.snapshots/one/file"), os.O_RDONLY)
        assert b"1" == await world.filesystem.files.read(handle, 0, 1)
        await world.make_snapshot_desk().delete("one")
        await create(world, "one")
        with pytest.raises(FilesystemError) as caught:
            await world.filesystem.files.read(handle, CHUNK, 1)
        assert errno.ESTALE == caught.value.errno
        await world.filesystem.release(handle)


async def test_inode_numbers_never_collide(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Of two snapshots and the volume; they are the same after a restart."""
    async with a_volume(tmp_path) as (paths, world, nursery):
        await paths.write(b"/file", b"x")
        for name in ("one", "two"):
            await create(world, name)
        places = (b"/", b"/file", b"/.snapshots", b"/.snapshots/one", b"/.snapshots/two/file", b"/.snapshots/one/file")
        found = [await paths.inode(path) for path in places]
        assert len(places) == len(set(found))
        assert [ROOT_INODE, FIRST_VIEW_INODE, view_inode(1, ROOT_INODE)] == [found[0], found[2], found[3]]
        await world.restart(nursery)
        world.metadata.snapshots.show()
        assert found == [await paths.inode(path) for path in places]


async def test_way_back_from_a_snapshot(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """`..`, and the paths that a log names."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.make_directory(b"/a")
        await paths.write(b"/a/file", b"x")
        await world.metadata.set_xattr(await paths.inode(b"/a/file"), b"user.a", b"b", XattrMode.EITHER, 5)
        await create(world, "one")
        places = (b"/.snapshots/one/a", b"/.snapshots/one", b"/.snapshots", b"/")
        inodes = [await paths.inode(path) for path in places]
        assert [*inodes[1:], ROOT_INODE] == [await world.metadata.parent_of(inode) for inode in inodes]
        assert list(places[:3]) == [(await world.metadata.paths(inode))[0] for inode in inodes[:3]]
        file = await paths.inode(b"/.snapshots/one/a/file")
        assert ([b"user.a"], b"b") == (
            await world.metadata.list_xattrs(file),
            await world.metadata.get_xattr(file, b"user.a"),
        )


async def test_name_of_the_volume_itself_comes_first(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A volume that has had a .snapshots of its own keeps it."""
    async with a_volume(tmp_path) as (paths, world, _):
        await paths.make_directory(b"/mine")
        world.metadata._database.flush()
        with world.metadata._database.changing:
            world.metadata._database.write("UPDATE dentries SET name = ? WHERE name = ?", (b".snapshots", b"mine"))
        world.metadata._dentries._known.clear()
        world.metadata._dentries._complete.clear()
        await paths.write(b"/.snapshots/file", b"x")
        assert b"x" == await paths.read(b"/.snapshots/file")


async def test_large_snapshot_goes_in_small_attachments(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Discord takes less than was thought: it is sent again, in smaller parts, and what was refused is no snapshot."""
    async with a_volume(tmp_path / "volume") as (paths, world, _):
        for number in range(300):
            await paths.write(b"/%d" % number, os.urandom(10))
        world.memory.attachment_limit_bytes = 300_000
        world.attachment_bytes = 1 << 20
        await create(world, "one")
        await world.shipper.drain()
        assert ("one",) == (await recovered(world, tmp_path / "new" / "volume.db")).snapshots


async def test_damaged_snapshot_is_named_and_others_come_back(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A recovery says which one is missing."""
    async with a_volume(tmp_path / "volume") as (paths, world, _):
        await paths.write(b"/file", b"x" * CHUNK)
        for name in ("one", "two"):
            await create(world, name)
        await world.shipper.drain()
        (first, *_) = [each.message for each in world.metadata.shipping.messages() if each.kind == PackKind.SNAPSHOT]
        (stored,) = [each for each in world.memory.messages(world.index) if each.message == first]
        attachment = stored.attachments[0].attachment
        raw = bytearray(world.memory.stored_bytes(attachment))
        raw[len(raw) // 2] ^= 1
        world.memory.damage(attachment, bytes(raw))
        report = await recovered(world, tmp_path / "new" / "volume.db")
        assert ("two",) == report.snapshots
        assert ["snapshot 1 is damaged"] == [each.split(" (")[0] for each in report.missing]


def test_snapshots_outlive_old_journals() -> None:
    """Cleaning up after a checkpoint copy leaves them alone, however old they are."""
    copies = [ShippedMessage(MessageId(number), PackKind.CHECKPOINT, number) for number in (5, 6, 7)]
    snapshot = ShippedMessage(MessageId(1), PackKind.SNAPSHOT, 1)
    assert [MessageId(5)] == superfluous([snapshot, *copies])


@pytest.mark.parametrize("name", ["", "a/b", "a:b", ".", "..", "a\0b", "x" * 256])
async def test_name_that_cannot_be_is_refused(tmp_path: Path, autojump_clock: trio.abc.Clock, name: str) -> None:
    """It is a file name, and the command line puts a colon behind it."""
    async with a_volume(tmp_path) as (_, world, _):
        with pytest.raises(UserError, match="cannot name a snapshot") as caught:
            await create(world, name)
        assert ExitCode.USAGE == caught.value.exit_code


class Killed(BaseException):
    """Here the process ends."""


CREATION = (
    (Snapshots, "_set_state", 1),
    (Snapshots, "_hold", 1),
    (SnapshotShipments, "ship", 1),
    ("shipping", "note", 1),
    (Snapshots, "set_sent", 1),
    (Snapshots, "_set_state", 2),
)
DELETION = (
    (Snapshots, "begin_removal", 1),
    (SnapshotShipments, "delete", 1),
    ("shipping", "forget_messages", 1),
    (Snapshots, "remove", 1),
    (Snapshots, "_set_state", 1),
)


def kill_at(world: RealStores, patched: pytest.MonkeyPatch, where: tuple[object, str, int], *, after: bool) -> None:
    """End the process when something is called for the nth time, before or after it does its work."""
    owner, name, count = where
    owner = type(world.metadata.shipping) if owner == "shipping" else owner
    original = getattr(owner, name)
    calls = [0]

    def due() -> bool:
        calls[0] += 1
        return calls[0] == count

    if name in ("_hold", "ship", "delete", "remove"):

        async def dies(*arguments: object, **named: object) -> object:
            is_due = due()
            if is_due and not after:
                raise Killed
            result = await original(*arguments, **named)
            if is_due:
                raise Killed
            return result

        patched.setattr(owner, name, dies)
        return

    def dies_at_once(*arguments: object, **named: object) -> object:
        is_due = due()
        if is_due and not after:
            raise Killed
        result = original(*arguments, **named)
        if is_due:
            raise Killed
        return result

    patched.setattr(owner, name, dies_at_once)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(len(CREATION) + len(DELETION)))
async def test_kill_at_each_step_leaves_a_snapshot_or_none(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    """After a kill anywhere in making or deleting one, and the next start: it is whole, here and in Discord, or gone.

    Then nothing of it is left, neither a hold nor a file nor a message; one from before is never touched.
    """
    async with a_volume(tmp_path / "volume", sweep_grace_seconds=0) as (paths, world, nursery):
        await paths.write(b"/file", b"1" * 3 * CHUNK)
        await create(world, "before")
        await paths.write(b"/more", b"2" * 3 * CHUNK)
        desk = world.make_snapshot_desk()
        deletes = step >= len(CREATION)
        if deletes:
            await desk.create("one")

        async def no_cleaning_up(name: bytes) -> None:
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(desk, "_undo", no_cleaning_up)
        kill_at(world, monkeypatch, (CREATION + DELETION)[step], after=after)
        with pytest.raises(Killed):
            await (desk.delete("one") if deletes else desk.create("one"))
        monkeypatch.undo()
        await world.crash(nursery)
        world.metadata.snapshots.show()
        desk = world.make_snapshot_desk()
        await desk.finish()
        here = [each["name"] for each in desk.listed()]
        assert here in (["before"], ["before", "one"])
        assert all(each["in_discord"] for each in desk.listed())
        await world.shipper.drain()
        report = await recovered(world, tmp_path / "new" / "volume.db")
        assert tuple(here) == report.snapshots
        for path in (b"/file", b"/more"):
            await paths.unlink(path)
        await swept(world)
        world.chunks.evict_all()
        assert {b"/.snapshots/before/file": b"1" * 3 * CHUNK} == await paths.tree(b"/.snapshots/before")
        if "one" in here:
            tree = await paths.tree(b"/.snapshots/one")
            assert {b"/.snapshots/one/file": b"1" * 3 * CHUNK, b"/.snapshots/one/more": b"2" * 3 * CHUNK} == tree
        files = [path.name for path in (tmp_path / "volume" / "snapshots").iterdir()]
        assert len(here) == len(files)
        assert len(here) == len([e for e in world.metadata.shipping.messages() if e.kind == PackKind.SNAPSHOT])


@pytest.mark.parametrize("call", range(3))
async def test_refused_request_is_tried_again_at_the_next_start(
    tmp_path: Path, autojump_clock: trio.abc.Clock, call: int
) -> None:
    """Discord fails while a snapshot is shipped: it is there, said not to be in Discord, and goes there later."""
    async with a_volume(tmp_path) as (paths, world, nursery):
        await paths.write(b"/file", b"1" * CHUNK)
        await world.chunks.drain()
        await world.shipper.drain()
        lost = TransientStorageError("no answer", maybe_done=True)
        world.transport.plan("send", 1, Fault(after=lost) if call == 1 else Fault(before=lost))
        with pytest.raises(UserError, match="is made, but is not in Discord yet") as caught:
            await create(world, "one")
        assert ExitCode.DISCORD_UNREACHABLE == caught.value.exit_code
        desk = world.make_snapshot_desk()
        assert [False] == [each["in_discord"] for each in desk.listed()]
        if call == 2:
            await desk.delete("one")
            assert [] == desk.listed()
            return
        await world.restart(nursery)
        world.metadata.snapshots.show()
        desk = world.make_snapshot_desk()
        await desk.finish()
        assert [True] == [each["in_discord"] for each in desk.listed()]
        assert b"1" * CHUNK == await paths.read(b"/.snapshots/one/file")
