"""Volumes whose names in Discord, or whose snapshots, are not what this machine believes them to be."""

from __future__ import annotations

import contextlib
import copy
import errno
import shutil
import sqlite3
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
from support.fsck_world import KEY, FsckWorld, kinds
from support.shipments import header, sealed

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.transport.base import Upload
from disfs.cli.recover import report_lines, warnings
from disfs.errors import ExitCode, FilesystemError, UserError
from disfs.metadata.base import XattrMode
from disfs.metadata.store import SqliteMetadataStore
from disfs.recovery.chain import gather
from disfs.recovery.frames import SHIPMENT_KINDS, Header
from disfs.recovery.fsck_findings import Kind
from disfs.recovery.holding import LeaseHolder
from disfs.recovery.index_channel import IndexChannel
from disfs.recovery.lease import Lease
from disfs.recovery.rebuild import rebuild
from disfs.values import ROOT_INODE, ChunkIndex, MessageId, NewInode

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.recovery.chain import Shipment
    from disfs.recovery.fsck_findings import Finding
    from disfs.recovery.rebuild import Report


async def _make(world: FsckWorld) -> None:
    """A copy of the names, a journal after it, a snapshot; then `first` is deleted, which a second journal tells."""
    await world.make()
    async with world.mounted():
        await world.ship("monday")
        await world.metadata.make_inode(ROOT_INODE, b"made later", NewInode(stat.S_IFREG | 0o644, 0, 0), 5)
        await world.ship()


@pytest.fixture(scope="module")
def shipped_once(tmp_path_factory: pytest.TempPathFactory) -> FsckWorld:
    """The volume as it is made."""
    world = FsckWorld(tmp_path_factory.mktemp("shipped"))
    trio.run(_make, world)
    return world


@pytest.fixture
def shipped(shipped_once: FsckWorld, tmp_path: Path) -> FsckWorld:
    """A copy of it."""
    mine = FsckWorld(tmp_path / "volume")
    shutil.copytree(shipped_once.directory, mine.directory)
    mine.volume, mine.index, mine.channels = shipped_once.volume, shipped_once.index, shipped_once.channels
    mine.inodes, mine.memory = dict(shipped_once.inodes), copy.deepcopy(shipped_once.memory)
    return mine


async def shipments(world: FsckWorld, *wanted: PackKind) -> list[Shipment]:
    """What lies in the index channel, oldest first."""
    index = IndexChannel(world.memory, world.index, KEY, world.volume.superblock.volume_id, wanted or SHIPMENT_KINDS)
    return gather(await index.parts(await index.messages(MessageId(0))))


def spoil(world: FsckWorld, shipment: Shipment) -> None:
    """Bit rot in the rows of its first part: header and directory are what was sent."""
    attachment = shipment.parts[0].location.attachment
    content = bytearray(world.memory.stored_bytes(attachment))
    content[300] ^= 1
    world.memory.damage(attachment, bytes(content))


async def recovered(world: FsckWorld, path: Path) -> Report:
    """What a recovery on an empty machine says."""
    volume = world.volume.superblock
    index = IndexChannel(world.memory, world.index, KEY, volume.volume_id, SHIPMENT_KINDS)
    return await rebuild(
        index,
        world.memory,
        path,
        volume=volume.volume_id,
        chunk_bytes=volume.chunk_bytes,
        device=None,
        settings={},
        on_progress=lambda progress: None,
    )


def of_kind(findings: list[Finding], kind: Kind) -> list[str]:
    """What findings of a kind say."""
    return [finding.what for finding in findings if finding.kind is kind]


async def test_what_was_shipped_is_clean(shipped: FsckWorld) -> None:
    """Names, snapshot, copy and journals agree: nothing is found, mounted or not, and nothing is left behind."""
    assert [] == kinds(await shipped.check())
    assert [] == kinds(await shipped.check(mounted=True))
    assert not list(shipped.directory.glob("*.checking*"))


@pytest.mark.parametrize("kind", [PackKind.CHECKPOINT, PackKind.JOURNAL])
@pytest.mark.parametrize("how", ["deleted", "spoiled"])
async def test_damaged_names_in_discord_are_found_and_sent_again(
    shipped: FsckWorld, tmp_path: Path, kind: PackKind, how: str
) -> None:
    """A recovery would fail or bring back less; after the repair and a mount it brings back everything."""
    (*_, damaged) = await shipments(shipped, kind)
    if how == "deleted":
        await shipped.memory.delete(shipped.index, sorted(damaged.messages))
    else:
        spoil(shipped, damaged)
    (told,) = of_kind(await shipped.check(), Kind.COPY)
    assert "cannot be recovered" in told
    assert [] == await shipped.repair()
    assert "send a whole copy of the names to Discord, at the next mount" in shipped.plan
    assert [Kind.NOTE] == kinds(await shipped.check()), "the next mount sends it"
    async with shipped.mounted():
        await shipped.ship()
    assert [] == kinds(await shipped.check())
    (tmp_path / "new").mkdir()
    report = await recovered(shipped, tmp_path / "new" / "rebuilt.db")
    assert (8, ("monday",)) == (report.rebuilt.inode_count, report.snapshots)


async def test_change_that_nobody_noted_is_found_and_sent(shipped: FsckWorld) -> None:
    """A row that Discord was told otherwise, and that no note of changes names."""
    shipped.sql("UPDATE inodes SET mtime_ns = mtime_ns + 1 WHERE inode = 1", "DELETE FROM xattrs")
    (told,) = of_kind(await shipped.check(), Kind.OUTBOX)
    assert "something else of 1 inodes" in told
    assert [] == of_kind(await shipped.check(mounted=True), Kind.OUTBOX), "a daemon changes rows meanwhile"
    assert [] == await shipped.repair()
    async with shipped.mounted():
        await shipped.ship()
    assert [] == kinds(await shipped.check())


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM dentries WHERE name = CAST('made later' AS BLOB)", "1 names"),
        ("UPDATE extents SET stored_bytes = 7 WHERE rowid = 1 OR first_chunk = 0", "runs of chunks"),
        ("INSERT INTO xattrs (inode, name, value) VALUES (1, CAST('user.x' AS BLOB), x'31')", "1 extended attributes"),
        ("UPDATE packs SET attachment = attachment + 1 WHERE pack = 1", "1 packs"),
    ],
)
async def test_every_table_is_compared(shipped: FsckWorld, statement: str, what: str) -> None:
    """Names, runs, attributes and packs, each by its key."""
    shipped.sql(statement.replace("rowid = 1 OR ", ""))
    assert any(what in each for each in of_kind(await shipped.check(), Kind.OUTBOX))


async def test_noted_change_is_no_finding(shipped: FsckWorld) -> None:
    """What is still to be sent may differ: that is what the notes are for."""
    async with shipped.mounted() as filesystem:
        await filesystem.unlink(ROOT_INODE, b"second")
        await shipped.metadata.set_xattr(ROOT_INODE, b"user.x", b"1", XattrMode.EITHER, 7)
    assert [] == kinds(await shipped.check())


async def test_unreadable_notes_are_found_and_everything_is_sent(shipped: FsckWorld) -> None:
    """A row of the outbox that is not what was written: what has changed is not known any more."""
    async with shipped.mounted() as filesystem:
        await filesystem.unlink(ROOT_INODE, b"second")
    shipped.sql("UPDATE outbox SET keys = substr(keys, 1, length(keys) - 1)")
    assert any("cannot be read" in each for each in of_kind(await shipped.check(online=False), Kind.OUTBOX))
    assert [] == await shipped.repair(online=False)
    assert [] == [kind for kind in kinds(await shipped.check()) if kind is Kind.OUTBOX]
    async with shipped.mounted():
        await shipped.ship()
    assert [] == kinds(await shipped.check())


async def test_setting_that_makes_no_sense_is_found(shipped: FsckWorld) -> None:
    """Nobody knows any more what was sent: nothing is compared with it, and nothing is deleted in Discord."""
    shipped.sql("UPDATE settings SET value = 'no state' WHERE name = 'state'")
    findings = await shipped.check()
    assert {Kind.DATABASE} == set(kinds(findings))
    await shipped.send_pack()
    before = len(shipped.messages())
    await shipped.repair(delete_unknown=True)
    assert before == len(shipped.messages())


async def another_machine(world: FsckWorld) -> None:
    """A journal of another device, newer than what this machine knows."""
    made = header("elsewhere", "unknown", 9, device=b"another machine.")
    head = Header(**{name: getattr(made, name) for name in Header.__slots__} | {"volume": bytes(16)})
    parts = sealed(head, PackKind.JOURNAL, [], key=KEY)
    await world.memory.send(world.index, [Upload("part.bin", (part,)) for part in parts], nonce="elsewhere")


async def test_fork_is_named_and_nothing_is_deleted_in_discord(shipped: FsckWorld) -> None:
    """Another machine has gone on: what looks left over may be what it refers to, whatever was asked for."""
    await shipped.send_pack()
    before = len(shipped.messages())
    await another_machine(shipped)
    findings = await shipped.check()
    assert ["another machine has gone on"] == [each[:27] for each in of_kind(findings, Kind.FORK)]
    (left,) = await shipped.repair(delete_unknown=True)
    assert "another machine has gone on" in left, "and so it is not called repaired"
    assert before == len(shipped.messages())
    assert any("in Discord nothing is changed any more" in line for line in shipped.lines)


async def test_each_batch_of_a_repair_is_confirmed(shipped: FsckWorld) -> None:
    """Without another machine the same repair deletes; the transport refuses what was not confirmed."""
    await shipped.send_pack()
    before = len(shipped.messages())
    await shipped.repair(delete_unknown=True)
    assert before - 1 == len(shipped.messages())


async def test_repair_holds_the_lease(shipped: FsckWorld) -> None:
    """While another machine has the volume mounted nothing is repaired; else nobody can mount it meanwhile."""
    superblock = shipped.volume.superblock
    lease = Lease(volume=superblock.volume_id, device=b"x" * 16, place=b"y" * 16, session=b"z" * 16, host="elsewhere")
    other = LeaseHolder(shipped.memory, shipped.index, KEY, lease, remember=lambda posted: None, text="a lease")
    await other.claim()
    shipped.sql("UPDATE inodes SET nlink = 9 WHERE inode = 1")
    with pytest.raises(UserError, match="is mounted on elsewhere") as refused:
        await shipped.repair()
    assert ExitCode.VOLUME_HELD == refused.value.exit_code
    assert Kind.METADATA in kinds(await shipped.check()), "nothing was repaired"
    await other.release()
    leases = len(shipped.memory.messages(shipped.index))
    assert [] == await shipped.repair()
    assert leases == len(shipped.memory.messages(shipped.index)), "it was given back"


# -- snapshots ------------------------------------------------------------------------------------------------------


def snapshot_file(world: FsckWorld) -> Path:
    return next((world.directory / "snapshots").glob("*.db"))


async def test_snapshot_without_its_contents_is_named(shipped: FsckWorld) -> None:
    """A message that only the snapshot refers to was deleted: its file is named, and there is nothing to repair."""
    async with shipped.mounted() as filesystem:
        await filesystem.unlink(ROOT_INODE, b"second")
        await shipped.ship()
    await shipped.memory.delete(shipped.messages()[1].channel, [shipped.messages()[1].message])
    findings = await shipped.check()
    assert ["/.snapshots/monday/second"] == [each.path for each in findings if each.kind is Kind.SNAPSHOT]
    assert {Kind.SNAPSHOT, Kind.MISSING} == set(kinds(findings))
    assert ["contents of snapshot monday; 'disfs snapshot delete' ends that"] == await shipped.repair()


async def test_damaged_snapshot_comes_back_from_discord(shipped: FsckWorld) -> None:
    """Its names are taken from Discord, and can be read again."""
    file = snapshot_file(shipped)
    sound = sqlite_dump(file)
    file.write_bytes(file.read_bytes()[:8192])
    assert any("cannot be read on this machine" in each for each in of_kind(await shipped.check(), Kind.SNAPSHOT))
    assert [] == await shipped.repair()
    assert sound == sqlite_dump(file)
    assert [] == kinds(await shipped.check())


def sqlite_dump(path: Path) -> list[tuple[bytes, int]]:
    """The names in a snapshot."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name, inode FROM dentries ORDER BY parent, name").fetchall()


@pytest.mark.parametrize("how", ["deleted", "spoiled"])
async def test_snapshot_that_is_not_in_discord_is_sent_again(shipped: FsckWorld, tmp_path: Path, how: str) -> None:
    """A recovery would not bring it back; after the repair and a mount it does."""
    (copied,) = await shipments(shipped, PackKind.SNAPSHOT)
    if how == "deleted":
        await shipped.memory.delete(shipped.index, sorted(copied.messages))
    else:
        spoil(shipped, copied)
    assert any("not whole in Discord" in each for each in of_kind(await shipped.check(), Kind.SNAPSHOT))
    assert [] == await shipped.repair()
    async with shipped.mounted():
        await shipped.ship()
    assert [] == kinds(await shipped.check())
    (tmp_path / "new").mkdir()
    assert ("monday",) == (await recovered(shipped, tmp_path / "new" / "rebuilt.db")).snapshots


async def test_snapshot_that_holds_nothing_holds_again(shipped: FsckWorld) -> None:
    """What keeps its messages from being deleted is gone: a repair makes it anew."""
    shipped.sql("DELETE FROM holds", "UPDATE messages SET held = 0")
    assert any("from being deleted" in each for each in of_kind(await shipped.check(), Kind.SNAPSHOT))
    assert [] == await shipped.repair()
    assert [] == kinds(await shipped.check())


async def test_regression_repair_deletes_nothing_that_a_snapshot_refers_to(shipped: FsckWorld) -> None:
    """The record of a message that only a snapshot needs is gone: it comes back from there, and the message stays."""
    async with shipped.mounted() as filesystem:
        await filesystem.unlink(ROOT_INODE, b"second")
        await shipped.ship()
    message = shipped.messages()[1]
    forget_message(shipped, message.message)
    assert [] == await shipped.repair(delete_unknown=True)
    assert message in shipped.messages()
    async with shipped.mounted():
        await shipped.ship()
    assert [] == kinds(await shipped.check())


def forget_message(world: FsckWorld, message: int) -> None:
    """As damage may leave the metadata: they know nothing of a message, but that it was sent from here."""
    world.sql(
        f"DELETE FROM holds WHERE message = {message}",
        f"DELETE FROM packs WHERE message = {message}",
        f"DELETE FROM messages WHERE message = {message}",
    )


async def test_regression_repair_of_damage_deletes_nothing_that_was_told(shipped: FsckWorld) -> None:
    """What Discord was told of is no left-over: not now, and not once the damaged names have been sent there."""
    message = shipped.messages()[1]
    shipped.sql("DELETE FROM snapshots", "DELETE FROM holds", "UPDATE messages SET held = 0")
    forget_message(shipped, message.message)
    await shipped.repair()
    assert message in shipped.messages()
    async with shipped.mounted():
        await shipped.ship()
    await shipped.repair()
    assert message in shipped.messages()


# -- a recovery ------------------------------------------------------------------------------------------------------


async def test_recovery_tells_what_snapshots_and_the_trash_have_lost(shipped: FsckWorld, tmp_path: Path) -> None:
    """A message that only a snapshot and a deleted file need is looked for; each other one is asked for once."""
    shipped.trash_seconds = 3600
    async with shipped.mounted() as filesystem:
        await filesystem.unlink(ROOT_INODE, b"second")
        await shipped.ship()
    (tmp_path / "whole").mkdir()
    whole = await recovered(shipped, tmp_path / "whole" / "rebuilt.db")
    assert ((), 0) == (whole.missing, whole.rebuilt.lost_trash)
    assert whole.rebuilt == replace(whole.rebuilt, lost_chunks=0, problems=())
    await shipped.memory.delete(shipped.messages()[1].channel, [shipped.messages()[1].message])
    (tmp_path / "less").mkdir()
    report = await recovered(shipped, tmp_path / "less" / "rebuilt.db")
    assert "snapshot monday: not all contents of 1 file are in Discord any more" in report.missing
    assert (1, 0) == (report.rebuilt.lost_trash, report.rebuilt.lost_chunks)
    told = [*report_lines("photos", report), *warnings(report)]
    assert "1 deleted file cannot be restored any more: Discord has not got all contents" in told
    assert not [line for line in told if "nothing is missing" in line]
    with contextlib.closing(SqliteMetadataStore.open(tmp_path / "less" / "rebuilt.db")) as store:
        store.snapshots.show()
        top = await store.lookup(ROOT_INODE, b".snapshots")
        second = await store.lookup((await store.lookup(top.inode, b"monday")).inode, b"second")
        with pytest.raises(FilesystemError) as caught:
            await store.extents(second.inode, ChunkIndex(0), ChunkIndex(0))
        assert errno.EIO == caught.value.errno


# -- the trash ------------------------------------------------------------------------------------------------------


async def test_damaged_file_in_the_trash_is_named_and_no_error(shipped: FsckWorld) -> None:
    """Who has deleted what was damaged is done with it: it is told of, nothing is moved, and the volume is clean."""
    shipped.trash_seconds = 3600
    async with shipped.mounted() as filesystem:
        await filesystem.unlink(ROOT_INODE, b"second")
        await shipped.ship()
        shipped.chunks.evict_all()
    await shipped.memory.delete(shipped.messages()[1].channel, [shipped.messages()[1].message])
    shipped.sql("DELETE FROM snapshots", "DELETE FROM holds", "UPDATE messages SET held = 0")
    with shipped.opened() as check:
        await check.run(shipped.memory, KEY, None)
        (found,) = [each for each in check.findings if each.kind is Kind.IN_TRASH]
        assert ("/second", 5) == (found.path, found.chunks)
        assert found.what.startswith("/second (deleted): 5 of 5 chunks cannot be read")
        assert 0 == check.findings.error_count
    assert [] == await shipped.repair()
    assert [] == shipped.plan
