"""What happens to a volume, as listeners are told of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.controls_world import controls, write
from trio.testing import wait_all_tasks_blocked

from disfs.errors import UserError
from disfs.event_desk import BUFFER_COUNT, MAX_LISTENERS, EventDesk, Situation, changes
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trio.testing import MockClock

    from disfs.event_desk import Listener

CALM = Situation(
    paused=False,
    failures=(),
    trouble=None,
    writers_wait=False,
    lease_held=True,
    lease_failure=None,
    conflict=None,
)


@pytest.mark.parametrize(
    ("change", "there", "back"),
    [
        ({"paused": True}, [{"event": "paused"}], [{"event": "resumed"}]),
        (
            {"failures": ("gone", "full")},
            [{"event": "upload_failed", "reason": "gone"}, {"event": "upload_failed", "reason": "full"}],
            [{"event": "uploads_recovered"}],
        ),
        (
            {"trouble": "no network"},
            [{"event": "connection_lost", "reason": "no network"}],
            [{"event": "connection_back"}],
        ),
        ({"writers_wait": True}, [{"event": "dirty_limit_reached"}], [{"event": "dirty_limit_left"}]),
        ({"lease_held": False, "lease_failure": "taken"}, [{"event": "lease_lost", "reason": "taken"}], []),
        ({"conflict": "another machine"}, [{"event": "lease_lost", "reason": "another machine"}], []),
    ],
)
def test_each_change_is_an_event(change: dict[str, Any], there: list[object], back: list[object]) -> None:
    """What becomes so and ceases to be so is told once each; what stays as it is, never."""
    other = dataclasses.replace(CALM, **change)
    assert there == [*changes(CALM, other)]
    assert back == [*changes(other, CALM)]
    assert [] == [*changes(other, other)]


async def test_slow_listener_loses_the_oldest_and_is_told_how_many() -> None:
    """A buffer that is full drops what is oldest; the others' are not concerned, and noting never waits."""
    desk = EventDesk(lambda: CALM, lambda inode: f"/{inode}")
    with desk.listener() as slow, desk.listener() as quick:
        for number in range(BUFFER_COUNT + 5):
            desk.file_sent(InodeNumber(number), 1)
            assert number == (await quick.next())["inode"]
        lost = await slow.next()
        assert ("events_lost", 5) == (lost["event"], lost["count"])
        first = await slow.next()
        assert ("file_sent", "/5", 5, 1) == (first["event"], first["path"], first["inode"], first["size_bytes"])


async def test_number_of_listeners_is_bounded() -> None:
    """One too many is refused with what to do; after one has gone there is room."""
    desk = EventDesk(lambda: CALM, lambda inode: None)
    scopes = [desk.listener() for _ in range(MAX_LISTENERS)]
    for scope in scopes:
        scope.__enter__()
    with pytest.raises(UserError, match="end one of them"), desk.listener():
        pass
    scopes.pop().__exit__(None, None, None)
    with desk.listener():
        pass


async def test_cancelled_listener_loses_nothing() -> None:
    """Who gives up waiting is told the next time."""
    desk = EventDesk(lambda: CALM, lambda inode: None)
    with desk.listener() as listener:
        with trio.move_on_after(0):
            await listener.next()
        desk.damage_found(InodeNumber(7))
        told = await listener.next()
        assert ("damage_found", 7, None) == (told["event"], told["inode"], told["path"])


async def until(listener: Listener, event: str) -> Mapping[str, object]:
    """The next one of that kind."""
    while True:
        told = await listener.next()
        if told["event"] == event:
            return told


async def test_volume_tells_of_files_failures_and_pauses(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The parts of a real volume tell of a pause at once, of a file that is in Discord, and of channels that refuse."""
    async with controls(tmp_path) as (made, world, _):
        with made.listener() as listener:
            await wait_all_tasks_blocked()
            made.pause()
            made.resume()
            assert ["paused", "resumed"] == [(await listener.next())["event"] for _ in range(2)]
            await write(world, b"file", b"x" * 5000)
            told = await until(listener, "file_sent")
            assert ("/file", 5000) == (told["path"], told["size_bytes"])
            for channel in world.channels:
                world.memory.remove_channel(channel)
            await write(world, b"other", b"x")
            assert (await until(listener, "upload_failed"))["reason"]
