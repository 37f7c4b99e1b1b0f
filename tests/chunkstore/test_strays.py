"""Messages of ours that no record refers to are found and deleted; everybody else's, and those being sent, are not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from support.chunk_worlds import CHUNK, FILE, chunk_world
from support.fake_ledger import FakeLedger

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.keys import VolumeKey
from disfs.chunkstore.packer import PackBuilder, open_directory
from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.faults import Fault
from disfs.chunkstore.underway import SendsUnderway
from disfs.errors import (
    CorruptDataError,
    FilesystemError,
    NotFoundError,
    PermissionMissingError,
    TokenRejectedError,
    TransientStorageError,
)
from disfs.values import ChunkIndex, ChunkKey, Revision

if TYPE_CHECKING:
    from pathlib import Path

    from support.chunk_worlds import ChunkWorld

    from disfs.values import ChannelId

SETTINGS: dict[str, Any] = {"sweep_interval_seconds": 1e9, "compaction_share": 0.0, "stray_seconds": 600.0}


def stored(world: ChunkWorld) -> list[int]:
    """Every message of the data channels."""
    return [message.message for channel in world.channels for message in world.memory.messages(channel)]


def recorded(world: ChunkWorld) -> list[int]:
    """Every message that the ledger knows."""
    return sorted({record.location.message for record in world.ledger.state.packs.values()})


async def look_twice(world: ChunkWorld) -> None:
    """Sweep, wait until what was there is old enough, and sweep again."""
    await world.store.sweep()
    await trio.sleep(600)
    await world.store.sweep()


def a_pack_of(key: VolumeKey, kind: PackKind = PackKind.CHUNKS, slots: int = 1) -> Upload:
    """A pack that nobody recorded."""
    builder = PackBuilder(key, limit_bytes=1 << 20, chunk_bytes=CHUNK, kind=kind)
    for slot in range(slots):
        builder.add(ChunkKey(FILE, ChunkIndex(slot)), Revision(1), b"x" * 50)
    return builder.finish().upload


async def send(
    world: ChunkWorld, *uploads: Upload, nonce: str = "n", channel: ChannelId | None = None, noted: bool = True
) -> int:
    """Put a message into a channel, as a send that nobody recorded; `noted`: the ledger knows of that send."""
    for upload in uploads if noted else ():
        with contextlib.suppress(CorruptDataError):  # another volume's
            world.ledger.note_sending([open_directory(world.key, b"".join(upload.parts)).pack])
    message = await world.memory.send(channel or world.channels[0], uploads, nonce=nonce)
    return message.message


async def test_stray_is_deleted(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A message of ours that nobody recorded goes once it was there for a while, not before; recorded ones stay."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        await world.write(FILE, 0, b"data")
        await world.store.drain()
        await send(world, a_pack_of(world.key), a_pack_of(world.key, slots=600))
        assert 2 == len(stored(world))
        await world.store.sweep()
        await trio.sleep(599)
        await world.store.sweep()
        assert 2 == len(stored(world))
        await trio.sleep(1)
        await world.store.sweep()
        assert recorded(world) == stored(world)
        assert 1 == world.store.statistics().sweep.stray_messages
        world.store.evict_all()
        assert b"data" == await world.contents(FILE)


async def test_cancelled_send(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What a send left that was cancelled by unmounting is found after the next mount."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        fault = world.transport.plan("send", 1, Fault(hold_after=trio.Event()))
        await world.write(FILE, 0, b"data")
        await fault.reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert 1 == len(stored(world))
        await world.restart(nursery)
        await world.store.drain()
        assert 2 == len(stored(world))
        await look_twice(world)
        assert recorded(world) == stored(world)
        world.store.evict_all()
        assert b"data" == await world.contents(FILE)


async def test_killed_between_record_and_commit(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A message whose record kill -9 took is sent again, and the first one is found."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        await world.write(FILE, 0, b"data")
        world.ledger.commit()
        durable = world.ledger.make_durable

        async def never() -> None:
            await trio.sleep_forever()

        world.ledger.make_durable = never  # type: ignore[method-assign] # the disk is slow
        await trio.sleep(10)
        assert 1 == len(recorded(world))
        await world.crash(nursery)
        world.ledger.make_durable = durable  # type: ignore[method-assign] # and now it is not
        assert ([], 1) == (recorded(world), len(stored(world)))
        await world.store.drain()
        assert 2 == len(stored(world))
        await look_twice(world)
        assert recorded(world) == stored(world)
        world.store.evict_all()
        assert b"data" == await world.contents(FILE)


@pytest.mark.parametrize(
    "error", [TransientStorageError("lost answer", maybe_done=True), PermissionMissingError("403", "Attach Files")]
)
async def test_chunks_go_elsewhere(tmp_path: Path, autojump_clock: trio.abc.Clock, error: Exception) -> None:
    """A send that failed after it took effect leaves a message; its chunks are sent anew, and the first is found."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        world.transport.plan("send", 1, Fault(after=error))
        await world.write(FILE, 0, b"data")
        await world.store.drain()
        assert (2, 1) == (len(stored(world)), len(recorded(world)))
        await look_twice(world)
        assert recorded(world) == stored(world)


async def test_message_that_is_being_sent_is_none(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A send whose answer takes hours keeps its message, and may record it then."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        answered = trio.Event()
        fault = world.transport.plan("send", 1, Fault(hold_after=answered))
        await world.write(FILE, 0, b"data")
        await fault.reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            await look_twice(world)
        assert 1 == len(stored(world))
        answered.set()
        await trio.testing.wait_all_tasks_blocked()
        assert recorded(world) == stored(world)
        await look_twice(world)
        await look_twice(world)
        assert recorded(world) == stored(world)
        assert 1 == len(stored(world))


async def test_what_came_later_is_not_looked_at_yet(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A message that came after the channel's newest one was noted waits for its own turn, being sent or not."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        await send(world, a_pack_of(world.key), nonce="1")
        await world.store.sweep()
        await trio.sleep(590)
        later = await send(world, a_pack_of(world.key), nonce="2")
        await trio.sleep(10)
        await world.store.sweep()
        assert [later] == stored(world)
        await look_twice(world)
        assert [] == stored(world)


async def test_message_that_cannot_be_recorded_yet_is_none(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the ledger refuses the record of a message that arrived, the message is not touched."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        record = world.ledger.record_in_steps
        works = False

        async def sometimes(*args: Any) -> None:
            if not works:
                raise FilesystemError(28, "full")
            await record(*args)

        monkeypatch.setattr(world.ledger, "record_in_steps", sometimes)
        await world.write(FILE, 0, b"data")
        await trio.sleep(10)
        for _ in range(3):
            await look_twice(world)
        assert ([], 1) == (recorded(world), len(stored(world)))
        works = True
        await world.store.drain()
        await look_twice(world)
        assert (1, recorded(world)) == (len(stored(world)), stored(world))
        caplog.clear()


async def test_others_are_left_alone(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """What is not wholly made of this volume's packs of chunks is never deleted, whatever it is called."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        ours, name = a_pack_of(world.key), f"{bytes(16).hex()}.bin"
        await send(world, a_pack_of(VolumeKey(bytes(32))), nonce="1")
        await send(world, Upload(name, (b"a text file, and not a pack, of somebody",)), nonce="2")
        await send(world, Upload(name, (b"short",)), nonce="3")
        await send(world, ours, Upload(name, (bytes(1000),)), nonce="4")
        await send(world, a_pack_of(world.key, PackKind.JOURNAL), nonce="5")
        await send(world, Upload(name, (b"".join(ours.parts)[:-1],)), nonce="6")
        before = stored(world)
        for _ in range(3):
            await look_twice(world)
        assert before == stored(world)


async def test_renamed_stray_is_deleted(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Names do not count: Discord changes them."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        await send(world, Upload("renamed.dat", a_pack_of(world.key).parts))
        await look_twice(world)
        assert [] == stored(world)


async def test_pack_that_was_stored_twice(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Of two messages with the same pack the one that is recorded stays."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        await world.write(FILE, 0, b"data")
        await world.store.drain()
        (known,) = stored(world)
        (record,) = world.ledger.state.packs.values()
        raw = world.memory.stored_bytes(record.location.attachment)
        await send(world, Upload(f"{record.pack.hex()}.bin", (raw,)))
        await look_twice(world)
        assert [known] == stored(world)


async def test_regression_what_is_newer_than_this_state_is_kept(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A state that was put back from a backup does not delete what the volume got after it, now or after a remount."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, nursery):
        newer = await send(world, a_pack_of(world.key), noted=False)
        await world.restart(nursery)
        await world.write(FILE, 0, b"other")
        await world.store.drain()
        await trio.sleep(300)
        await world.restart(nursery)
        await look_twice(world)
        assert newer in stored(world)
        assert 1 == world.store.statistics().sweep.newer_messages
        await world.restart(nursery)
        await look_twice(world)
        assert newer in stored(world)


async def test_what_this_process_sent_in_vain_is_deleted(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A stray of this very process is one, however new it is."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        lost = Fault(after=PermissionMissingError("403", "Attach Files"))
        world.transport.plan("send", 1, lost)
        await world.write(FILE, 0, b"data")
        await world.store.drain()
        assert 2 == len(stored(world))
        await look_twice(world)
        assert recorded(world) == stored(world)


async def test_damaged_answer(tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that is damaged on its way here, even twice, is fetched again before it counts as none of ours."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        await send(world, a_pack_of(world.key))
        await world.store.sweep()
        await trio.sleep(600)
        fetch, count = world.memory.fetch, 0

        async def damaged_twice(*args: Any, **named: Any) -> bytes:
            nonlocal count
            count += 1
            raw = await fetch(*args, **named)
            return bytes(len(raw)) if count <= 2 else raw

        monkeypatch.setattr(world.memory, "fetch", damaged_twice)
        await world.store.sweep()
        assert ([], 3) == (stored(world), count)


@pytest.mark.parametrize("method", ["list_messages", "fetch", "delete"])
async def test_failing_request(tmp_path: Path, autojump_clock: trio.abc.Clock, method: Any) -> None:
    """A look that fails is repeated from where it was, and the other channels are looked at all the same."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        for channel in world.channels:
            await send(world, a_pack_of(world.key), nonce=f"n{channel}", channel=channel)
        await world.store.sweep()
        await trio.sleep(600)
        world.transport.plan(method, 1, Fault(before=TokenRejectedError("401")))
        with pytest.raises(TokenRejectedError):
            await world.store.sweep()
        assert 1 == len(stored(world))
        await world.store.sweep()
        assert [] == stored(world)


async def test_channel_that_is_gone(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A channel that was deleted is passed over, the others are looked at."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        gone, other = world.channels
        await send(world, a_pack_of(world.key), channel=other)
        world.memory.remove_channel(gone)
        for _ in range(3):
            await look_twice(world)
        assert [] == [message.message for message in world.memory.messages(other)]
        with pytest.raises(NotFoundError):
            await world.memory.list_messages(gone)


async def test_work_is_bounded_and_not_repeated(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """A long channel is looked through a few pages at a time, once, and goes on where it was after a restart."""
    async with chunk_world(tmp_path, channels=1, **SETTINGS) as (world, nursery):
        for number in range(1250):
            await send(world, Upload("a.txt", (b"x",)), nonce=f"n{number}")
        last = await send(world, a_pack_of(world.key), nonce="last")
        await world.store.sweep()
        await trio.sleep(600)
        lists = world.transport.calls["list_messages"]
        await world.store.sweep()
        assert 10 == world.transport.calls["list_messages"] - lists
        assert last in stored(world)
        await world.restart(nursery)
        lists = world.transport.calls["list_messages"]
        await look_twice(world)
        assert 4 == world.transport.calls["list_messages"] - lists
        assert last not in stored(world)
        lists = world.transport.calls["list_messages"]
        for _ in range(39):
            await world.store.sweep()
            await trio.sleep(15)
        assert 1 == world.transport.calls["list_messages"] - lists


def test_sends_underway() -> None:
    """A moment is over for the sends before it when all of them have ended, whatever began since."""
    underway = SendsUnderway(FakeLedger())
    before = underway.mark()
    with underway.sending([]):
        within = underway.mark()
        assert (True, False) == (underway.ended_before(before), underway.ended_before(within))
        with underway.sending([]):
            assert not underway.ended_before(within)
        assert not underway.ended_before(within)
    with underway.sending([]):
        assert underway.ended_before(within)
        assert not underway.ended_before(underway.mark())


class KnownCopies:
    """What a shipper says of the copies elsewhere."""

    shipped_revision = 0

    def __init__(self, *, may_delete: bool, confirmed: bool) -> None:
        self.may_delete = may_delete
        self.confirmed = confirmed

    async def confirm_deletions(self) -> bool:
        """Whether a look of this moment allows it."""
        await trio.lowlevel.checkpoint()
        return self.confirmed


@pytest.mark.parametrize(("may_delete", "confirmed"), [(False, True), (True, False)])
async def test_strays_stay_where_another_state_may_need_them(
    tmp_path: Path, autojump_clock: trio.abc.Clock, may_delete: bool, confirmed: bool
) -> None:
    """Before the first look, in a conflict, or when the look that comes before the deletion finds one."""
    async with chunk_world(tmp_path, **SETTINGS) as (world, _):
        copies = KnownCopies(may_delete=may_delete, confirmed=confirmed)
        world.store._sweeper._copies = copies
        await send(world, a_pack_of(world.key))
        for expected in (1, 0):
            await look_twice(world)
            assert expected == len(stored(world))
            copies.may_delete = copies.confirmed = True
