"""What status says: the daemon's own report over real stores, and the lines that people read."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner
from support.controls_world import controls, write

from disfs.cli.daemons import RunningDaemon
from disfs.cli.status import status
from disfs.control.protocol import MAX_ANSWER_BYTES, encode
from disfs.controls import UploadState, upload_state
from disfs.errors import UserError
from disfs.quantities import Bandwidth
from disfs.status_report import status_lines
from disfs.values import ROOT_INODE, NewInode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock


def told(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """The lines by their first word."""
    lines: dict[str, list[str]] = {}
    for line in status_lines(report):
        name, _, text = line.partition(" ")
        lines.setdefault(name, []).append(text.strip())
    return lines


async def test_report_is_json_and_becomes_lines(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A report of the real parts survives JSON within the bound of an answer, and every line of it can be printed."""
    async with controls(tmp_path) as (made, world, _):
        await write(world, b"file", b"x" * 5000)
        report = json.loads(json.dumps(made.status()))
        assert len(encode(made.status())) < MAX_ANSWER_BYTES // 8
        lines = told(report)
        assert ["volume", "holds", "uploads", "cache", "reads", "requests", "names", "garbage"] == list(lines)
        assert f"photos, mounted at /mnt, process {os.getpid()}" == lines["volume"][0]
        assert "4.9 KiB to send, a moment after they were last written" == lines["uploads"][0]
        await world.chunks.drain()
        lines = told(made.status())
        assert lines["uploads"][0].startswith("everything is in Discord; ")


async def test_pause_and_bandwidth_reach_the_parts(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Pausing keeps data here until it is resumed; a bandwidth limit goes to the connection; both show in status."""
    async with controls(tmp_path) as (made, world, limits):
        made.pause()
        made.limit_bandwidth(Bandwidth(2048, None))
        await write(world, b"file", b"x" * 5000)
        await trio.sleep(600)
        report = made.status()
        assert (UploadState.PAUSED, 5000) == (report["uploads"], report["dirty_bytes"])
        assert made.progress().paused
        assert [(2048, None)] == limits
        assert Bandwidth(2048, None) == made.bandwidth()
        assert "paused: 'disfs resume' goes on; 4.9 KiB to send" == told(report)["uploads"][0]
        assert "up 2.0 KiB/s, down no limit" in told(report)["requests"][0]
        made.resume()
        await world.chunks.drain()
        assert UploadState.IDLE == made.status()["uploads"]
        assert not made.progress().paused


async def test_what_of_the_names_is_in_discord_shows(report: dict[str, Any]) -> None:
    """How old the oldest change is that Discord does not have, what was sent, and what keeps it from getting there."""
    report["journal"] |= {"sequence": 0, "unshipped_seconds": None}
    assert ["nothing to send yet"] == told(report)["names"]
    report["journal"] |= {"sequence": 7, "journals": 1, "copies": 2, "sent_bytes": 3 << 20}
    sent = "1 journal and 2 whole copies sent since it was mounted, 3.0 MiB"
    assert [f"all in Discord; {sent}"] == told(report)["names"]
    report["journal"] |= {"unshipped_seconds": 65.0}
    assert [f"the oldest change that Discord does not have is 1 min old; {sent}"] == told(report)["names"]
    assert "problem" not in told(report)
    report["journal"] |= {"failure": "no network"}
    assert ["no network"] == told(report)["problem"]
    report["journal"] |= {"failure": None, "conflict": "another machine"}
    assert (["not sent to Discord any more, see below"], ["another machine"]) == (
        told(report)["names"],
        told(report)["problem"],
    )


async def test_how_full_the_volume_is_shows(report: dict[str, Any]) -> None:
    """What files hold, what they take of the volume's size, and that nothing is left of it."""
    report["metadata"] |= {"logical_bytes": 1 << 40, "allocated_bytes": 3 << 20, "capacity_bytes": 4 << 20}
    assert ["1.0 TiB in 2 inodes, taking 3.0 MiB of at most 4.0 MiB"] == told(report)["holds"]
    assert "problem" not in told(report)
    report["metadata"]["allocated_bytes"] = 4 << 20
    assert ["the volume is full: delete something, or mount it with a larger --size"] == told(report)["problem"]


async def test_pins_and_warmups_show(tmp_path: Path, autojump_clock: MockClock) -> None:
    """How much is pinned, and how far a warm-up is, is a line each."""
    async with controls(tmp_path) as (made, world, _):
        new = NewInode(mode=stat.S_IFDIR | 0o755, uid=0, gid=0)
        top = (await world.filesystem.make_inode(ROOT_INODE, b"top", new)).inode
        file = await write(world, b"file", b"x" * 5000)
        await made.warmup([top, file], pin=True).run()
        assert "2 files and directories" in told(made.status())["pinned"][0]
        warmup = {"done_bytes": 1024, "total_bytes": 4096, "done_files": 1, "total_files": 3}
        report = {**made.status(), "warmups": [warmup]}
        assert ["1.0 KiB of 4.0 KiB, 1 of 3 files"] == told(report)["warming"]
        await made.unpin([top, file])
        assert "pinned" not in told(made.status())


@pytest.fixture
async def report(tmp_path: Path, autojump_clock: MockClock) -> dict[str, Any]:
    """A report of a volume with something to send, to be changed."""
    async with controls(tmp_path) as (made, world, _):
        await write(world, b"file", b"x" * 10_240)
        found: dict[str, Any] = json.loads(json.dumps(made.status()))
        return found


@pytest.mark.parametrize(
    ("state", "writeback", "line"),
    [
        ("idle", {"sent_bytes": 2048}, "everything is in Discord; 2.0 KiB sent since it was mounted"),
        ("waiting", {}, "10.0 KiB to send, a moment after they were last written"),
        ("rate_limited", {}, "10.0 KiB to send, waiting for Discord's rate limit"),
        ("sending", {"in_flight": [{}]}, "10.0 KiB to send, 1 message on the way"),
        (
            "sending",
            {"in_flight": [{}, {}], "bytes_per_second": 512.0},
            "10.0 KiB to send, 2 messages on the way at 512 bytes/s, about 20 s left",
        ),
        ("retrying", {}, "held up, see below; 10.0 KiB to send"),
        ("refused", {}, "stopped: every channel refuses, see below; 10.0 KiB to send, kept on this machine"),
        (
            "paused",
            {"waiting_writers": 2},
            "paused: 'disfs resume' goes on; 10.0 KiB to send, 2 programs waiting to write more",
        ),
        ("something newer", {}, "10.0 KiB to send, a moment after they were last written"),
    ],
)
async def test_uploads_are_one_clear_line(
    report: dict[str, Any], state: str, writeback: dict[str, Any], line: str
) -> None:
    """Each state of uploading has a sentence that says what it waits for, and what to do where one can."""
    report["uploads"] = state
    report["writeback"] |= writeback
    assert [line] == told(report)["uploads"]


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        (None, {"warning": "Discord rejects the bot token"}, "rejects the bot token"),
        (None, {"warmup_problem": "no room for more"}, "no room for more"),
        (None, {"lost_chunks": 3}, "3 chunks were lost"),
        ("transport", {"trouble": "the network is down"}, "the network is down"),
        ("writeback", {"failures": ["channel 7: gone", "channel 8: read-only"]}, "channel 7: gone"),
        ("writeback", {"failures": ["channel 7: gone", "channel 8: read-only"]}, "channel 8: read-only"),
        ("sweep", {"failure": "cannot delete"}, "cannot delete"),
        ("compaction", {"failure": "cannot move"}, "cannot move"),
        ("metadata", {"failure": "the log cannot be synced"}, "cannot be synced"),
        ("metadata", {"low_space": True}, "nearly full"),
        ("fetch", {"damaged_chunks": 2}, "2 chunks in Discord are gone or damaged"),
    ],
)
async def test_each_problem_is_a_line(
    report: dict[str, Any], part: str | None, changes: dict[str, Any], words: str
) -> None:
    """Whatever is wrong is told in a line of its own; without it there is no such line."""
    assert "problem" not in told(report)
    (report if part is None else report[part]).update(changes)
    assert any(words in line for line in told(report)["problem"])


async def test_time_left_keeps_to_the_bandwidth_limit(report: dict[str, Any]) -> None:
    """What is left is not said to take as long as it took before the limit was set."""
    report["uploads"] = "sending"
    report["writeback"] |= {"in_flight": [{}], "bytes_per_second": 5e6}
    report["bandwidth"] = {"up_bytes_per_second": 1024, "down_bytes_per_second": None}
    assert ["10.0 KiB to send, 1 message on the way at 1.0 KiB/s, about 10 s left"] == told(report)["uploads"]


async def test_same_problem_is_told_once(report: dict[str, Any]) -> None:
    """What two parts complain of in the same words is one line."""
    report["transport"]["trouble"] = report["sweep"]["failure"] = "the network is down"
    assert ["the network is down"] == told(report)["problem"]


async def test_fetches_and_garbage_are_told(report: dict[str, Any]) -> None:
    """Reading shows how much came from the cache and what is under way; garbage what waits to go or to be rewritten."""
    report["reads"] |= {"cached_chunks": 3, "missed_chunks": 1}
    report["fetch"] |= {"running": 1, "queued": 4}
    report["sweep"] |= {"swept_messages": 1, "waiting_messages": 2}
    report["compaction"] |= {"rewritten_messages": 5, "garbage_bytes": 1024}
    lines = told(report)
    assert lines["reads"][0].endswith("75 % of what was read was in the cache; 1 fetch running, 4 queued")
    report["transport"]["whole_downloads"] = 2
    assert told(report)["reads"][0].endswith("the CDN sent a whole attachment where a part was asked for, 2 times")
    assert ["1 message deleted, 2 waiting; 5 rewritten, 1.0 KiB to gain"] == lines["garbage"]


async def test_upload_state_follows_what_the_parts_say(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is unsent waits, is held up by trouble, or is refused by every channel; trouble alone does not say so."""
    async with controls(tmp_path) as (_, world, _limits):
        assert UploadState.IDLE == upload_state(world.chunks.statistics(), "trouble with reading")
        await write(world, b"file", b"x" * 5000)
        assert UploadState.WAITING == upload_state(world.chunks.statistics(), None)
        assert UploadState.RETRYING == upload_state(world.chunks.statistics(), "the network is down")
        for channel in world.channels:
            world.memory.remove_channel(channel)
        # The clock runs on while a thread seals, so no fixed time is enough.
        while not world.chunks.statistics().writeback.stopped:  # noqa: ASYNC110 - the store tells nobody of it
            await trio.sleep(10)
        assert UploadState.REFUSED == upload_state(world.chunks.statistics(), None)


async def test_regression_status_of_another_version(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is older than the command is told of in one line, not with an internal error."""
    del report["sweep"]["newer_messages"]
    daemon = RunningDaemon("photos", Path("/nowhere"), report)
    monkeypatch.setattr("disfs.cli.status.only_daemon", lambda _: daemon)
    done = CliRunner().invoke(status, [])
    assert isinstance(done.exception, UserError)
    assert "another version of disfs" in str(done.exception)
