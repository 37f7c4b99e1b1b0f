"""What `disfs limits` says of Discord's limits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from support.controls_world import controls, write
from support.volumes import VOLUME

from disfs.chunkstore.transport.base import BucketView
from disfs.cli import discord_limits
from disfs.cli.commands import disfs
from disfs.cli.daemons import RunningDaemon
from disfs.cli.discord_limits import limit_lines, limits_of
from disfs.cli.exits import run
from disfs.errors import ExitCode
from disfs.values import ChannelId

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from trio.testing import MockClock

BUCKETS = (
    BucketView(ChannelId(10), "create_message", 5, 2, 0.0),
    BucketView(ChannelId(9), "create_message", None, 0, 1.25),
    BucketView(ChannelId(77), "get_messages", 5, 5, 0.0),
)


async def test_limits_of_a_real_volume_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], autojump_clock: MockClock
) -> None:
    """What the parts know becomes lines for people and JSON for programs: sizes, channels by name, and what is left."""
    async with controls(tmp_path) as (made, world, _):
        await write(world, b"file", b"x" * 5000)
        await world.chunks.drain()
        known = world.memory.statistics
        monkeypatch.setattr(world.memory, "statistics", lambda: replace(known(), buckets=BUCKETS, rate_limited=3))
        report = json.loads(json.dumps(made.status()))
    lines = list(limit_lines(limits_of(report, VOLUME)))
    assert "channels    2 channels: index, data-1" in lines
    assert "bucket      77, get_messages: 5 of 5 left" in lines
    assert "bucket      data-1, create_message: 2 of 5 left" in lines
    assert "bucket      index, create_message: 0 left, the next one in 1.2 s" in lines
    assert lines[-1].startswith("refused     3 times (429: 0 user, 0 shared, 0 global)")
    assert lines[0].startswith("attachment  at most ")

    monkeypatch.setattr(discord_limits, "only_daemon", lambda _: RunningDaemon("photos", tmp_path, report))
    monkeypatch.setattr(discord_limits, "load_volume", lambda *_: VOLUME)
    assert ExitCode.OK == run(disfs, ["limits", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {"index": "9", "data-1": "10"} == found["channels"]
    assert {"channel": "10", "name": "data-1", "limit": 5, "remaining": 2} == {
        key: found["buckets"][0][key] for key in ("channel", "name", "limit", "remaining")
    }


def test_limits_of_what_is_not_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing mounted, and a directory that is no mount, have the exit code for that."""
    monkeypatch.setenv("DISFS_HOME", str(tmp_path))
    assert ExitCode.NOT_MOUNTED == run(disfs, ["limits"])
    assert ExitCode.NOT_MOUNTED == run(disfs, ["limits", str(tmp_path)])
