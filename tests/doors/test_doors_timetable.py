"""Bandwidth limits by the time of the week."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from support.controls_world import controls
from support.fake_daemon import served

from disfs.cli.commands import disfs
from disfs.cli.daemons import RunningDaemon
from disfs.cli.exits import run
from disfs.controls import LOOK_SECONDS, minute_of_this_week
from disfs.errors import ExitCode
from disfs.mount_options import parse_options
from disfs.quantities import MIN_BYTES_PER_SECOND, Bandwidth, Timetable, parse_limits

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

M = 1 << 20
DAY = 24 * 60
WORK = "08:00,512K:4M 18:00,off"

_LIMITS = st.builds(
    Bandwidth, *[st.none() | st.integers(MIN_BYTES_PER_SECOND, 1 << 40).map(lambda rate: rate // 1024 * 1024)] * 2
)
_TABLES = st.dictionaries(st.integers(0, 7 * DAY - 1), _LIMITS, min_size=1, max_size=12).map(
    lambda entries: Timetable(tuple(sorted(entries.items(), key=lambda entry: entry[0])))
)


@pytest.mark.parametrize(
    ("day", "clock", "limit"),
    [
        (0, "00:00", Bandwidth()),  # Sunday evening's entry holds on
        (0, "07:59", Bandwidth()),
        (0, "08:00", Bandwidth(M // 2, 4 * M)),
        (3, "17:59", Bandwidth(M // 2, 4 * M)),
        (6, "18:00", Bandwidth()),
    ],
)
def test_entry_holds_until_the_next_one(day: int, clock: str, limit: Bandwidth) -> None:
    """Each day the limit is that of the last entry before now; before the first one it is last night's."""
    table = parse_limits(WORK)
    assert isinstance(table, Timetable)
    hours, minutes = map(int, clock.split(":"))
    assert limit == table.at(day * DAY + hours * 60 + minutes)


@pytest.mark.parametrize("text", ["08:00,1M Sat-08:00,off", "Sat-08:00,off 08:00,1M", "08:00=1M;sat-8:00=off"])
def test_one_day_counts_before_all(text: str) -> None:
    """What is said for a day holds on that day, wherever it stands."""
    table = parse_limits(text)
    assert isinstance(table, Timetable)
    assert [Bandwidth(M, M)] * 5 + [Bandwidth()] + [Bandwidth(M, M)] == [table.at(day * DAY + 500) for day in range(7)]


@given(_TABLES)
def test_timetable_is_written_as_it_is_read(table: Timetable) -> None:
    """What is kept in a configuration file is read back equal, and has nothing in it that fstab would cut at."""
    assert table == parse_limits(table.to_option())
    assert not set(table.to_option()) & set(" ,\t")


def test_every_day_is_written_once() -> None:
    """What holds each day is not written seven times."""
    table = parse_limits(WORK)
    assert isinstance(table, Timetable)
    assert "08:00=512K:4M;18:00=off" == table.to_option()


@pytest.mark.parametrize(
    "text", ["24:00,1M", "08:60,1M", "08:00,1M off", "Fun-08:00,1M", "08:00,fast", "08:00,1", "08:00,"]
)
def test_timetable_that_is_none_is_refused(text: str) -> None:
    """Times that no clock shows, days that no week has, and limits that are none."""
    with pytest.raises(ValueError, match=r"timetable|bandwidth limit|not a size"):
        parse_limits(text)


def test_timetable_stands_in_an_option() -> None:
    """With ; and = it passes through -o, whose commas mean something else."""
    (change,) = parse_options(("ro,bwlimit=08:00=512K:4M;18:00=off",)).changes
    assert ("bandwidth", parse_limits(WORK)) == change


def test_minute_of_this_week_is_one() -> None:
    """It lies in the week."""
    assert 0 <= minute_of_this_week() < 7 * DAY


async def test_limits_change_at_their_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A mount follows the timetable, also when the clock is set or the machine slept; a limit by hand ends that."""
    minute = [7 * 60]
    async with controls(tmp_path, lambda: minute[0]) as (made, _, limits):
        assert {"applied": True} == await made.change_setting("bwlimit", WORK)
        assert Bandwidth() == made.bandwidth()
        minute[0] = 8 * 60
        await trio.sleep(LOOK_SECONDS + 1)
        assert Bandwidth(M // 2, 4 * M) == made.bandwidth()
        minute[0] = 2 * DAY + 19 * 60
        await trio.sleep(LOOK_SECONDS + 1)
        assert Bandwidth() == made.bandwidth()
        assert [(M // 2, 4 * M), (None, None)] == limits
        made.limit_bandwidth(Bandwidth(M, M))
        minute[0] = 2 * DAY + 9 * 60
        await trio.sleep(LOOK_SECONDS + 1)
        assert Bandwidth(M, M) == made.bandwidth()


async def test_command_takes_a_timetable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`disfs bwlimit` passes it on, and shows what holds now."""
    daemon = RunningDaemon("v", tmp_path, {"mountpoint": "/mnt"})
    monkeypatch.setattr("disfs.cli.limits.only_daemon", lambda _paths: daemon)
    async with served(tmp_path) as fake:
        assert ExitCode.OK == await trio.to_thread.run_sync(run, disfs, ["bwlimit", WORK])
        assert [("bwlimit", "08:00=512K:4M;18:00=off")] == fake.settings
    assert "bandwidth of /mnt: no limit\n" == capsys.readouterr().out
