"""The screen of `disfs status --watch`, drawn from reports at several sizes."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from rich.cells import cell_len
from support.controls_world import controls, write
from trio.testing import MockClock

from disfs.cli.screen import Canvas, Motion, screen

if TYPE_CHECKING:
    from pathlib import Path

SIZES = [(80, 24), (40, 15), (20, 6), (200, 60), (10, 3)]


@pytest.fixture(scope="module")
def real_report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a volume with a file to send says."""

    async def ask(directory: Path) -> dict[str, Any]:
        async with controls(directory) as (made, world, _):
            made.pause()
            await write(world, b"a", b"x")
            found: dict[str, Any] = json.loads(json.dumps(made.status()))
        return found

    directory = tmp_path_factory.mktemp("report")
    return trio.run(ask, directory, clock=MockClock(autojump_threshold=0))


@pytest.fixture
def report(real_report: dict[str, Any]) -> dict[str, Any]:
    """A report of a volume that sends three of four files, and fetches."""
    found = copy.deepcopy(real_report)
    found |= {"uploads": "sending", "dirty_bytes": 3 << 20, "cache_bytes": 1 << 29, "cache_limit_bytes": 1 << 30}
    found["fetch"] |= {"running": 4, "queued": 7, "fetched_bytes": 5 << 20}
    found["writeback"] |= {"bytes_per_second": float(1 << 20), "paused": False}
    found["transfers"] = {
        "unsent_files": 4,
        "oldest_unsent_seconds": 75.0,
        "messages": [{"bytes_per_second": float(1 << 19)}, {"bytes_per_second": float(1 << 19)}],
        "files": [
            file("/photos/summer/beach.jpg", 1 << 20, 2 << 20, 1 << 18),
            file("/notes.txt", 0, 500, None),
            file("/films/\x1b[31mred\u202e\n.mkv", 0, 5 << 30, None),
        ],
    }
    return found


def file(path: str, sent: int, total: int, rate: float | None) -> dict[str, Any]:
    return {
        "path": path,
        "sent_bytes": sent,
        "total_bytes": total,
        "bytes_per_second": rate,
        "sending": rate is not None,
    }


def drawn(report: dict[str, Any], width: int = 80, height: int = 24, most: int = 6 << 20) -> list[str]:
    return screen(report, Motion(2 << 20, most), Canvas(width, height)).plain.split("\n")


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("wide_names", [False, True])
def test_screen_fits_every_size(report: dict[str, Any], width: int, height: int, wide_names: bool) -> None:
    """No line is wider than the screen and there are no more than it has, whatever is wrong and whatever is sent."""
    report["transport"]["trouble"] = "Discord cannot be reached: " + "the network is down and " * 20
    report["writeback"]["failures"] = [f"channel {number}: gone" for number in range(30)]
    name = "\u6f22\u5b57" * 100 if wide_names else "a" * 300
    report["transfers"] |= {"files": [file(f"/{name}", 1, 2, 3.0)] * 20, "unsent_files": 50_000}
    lines = drawn(report, width, height)
    assert len(lines) <= height
    assert max(cell_len(line) for line in lines) <= width


def test_files_show_how_far_how_fast_and_how_large_they_are(report: dict[str, Any]) -> None:
    """A file on its way has percent, size, speed and time; one that waits says so; the rest is counted."""
    lines = drawn(report)
    (beach,) = (line for line in lines if "beach" in line)
    assert ["50", "%", "2.0", "MiB", "256.0", "KiB/s", "4", "s", "/photos/summer/beach.jpg"] == beach.split()
    (notes,) = (line for line in lines if "notes" in line)
    assert ["waits", "500", "bytes", "/notes.txt"] == notes.split()
    assert "and 1 file more" == lines[-1]


def test_head_says_what_is_left_and_how_long_it_takes(report: dict[str, Any]) -> None:
    """Uploads, the bar, speeds both ways, the age of the oldest change, cache and channels have a line each."""
    text = "\n".join(drawn(report))
    assert "photos at /mnt" in text
    assert "██████████░░░░░░░░░░ 3.0 MiB, 1.0 MiB/s, 3 s" in text
    assert "oldest   unsent change is 1 min old" in text
    assert "fetching 2.0 MiB/s, 4 fetches, 7 queued" in text
    assert "cache    █████░░░░░ 512.0 MiB of 1.0 GiB" in text
    assert "channels 2, 0 busy" in text


def test_small_screen_keeps_what_matters(report: dict[str, Any]) -> None:
    """At 40 columns and 15 lines trouble and files are both there, and a long path keeps its end."""
    report["writeback"]["failures"] = ["channel 7: the bot lacks the permission Send Messages"]
    report["transfers"]["files"][0]["path"] = "/a/very/long/way/to/the/file/that/is/called/beach.jpg"
    lines = drawn(report, 40, 15)
    assert any(line.startswith("! channel 7: the bot lacks") for line in lines)
    assert any("…" in line and line.endswith("beach.jpg") for line in lines)
    assert any("3.0 MiB, 1.0 MiB/s" in line for line in lines)


def test_names_cannot_control_the_terminal(report: dict[str, Any]) -> None:
    """Escape sequences, line ends and characters that turn the direction of writing are not passed on."""
    lines = drawn(report)
    assert any("/films/?[31mred??.mkv" in line for line in lines)
    assert not {"\x1b", "\u202e"} & set("".join(lines))


def test_terminal_without_other_characters_gets_ascii(report: dict[str, Any]) -> None:
    """Where only ASCII can be shown, bars and dots are made of it."""
    report["transfers"]["files"][0]["path"] = "/" + "a" * 200
    assert screen(report, Motion(0, 6 << 20), Canvas(40, 15, ascii_only=True)).plain.isascii()


def test_channels_at_their_limit_and_refusing_are_counted(report: dict[str, Any]) -> None:
    """How many channels wait for Discord's limit, and how many refuse."""
    free, waiting, refusing = (dict(report["writeback"]["channels"][0]) for _ in range(3))
    waiting["delay_seconds"], refusing["failure"] = 2.4, "gone"
    report["writeback"]["channels"] = [free, waiting, refusing]
    assert "channels 3, 0 busy, 1 at the limit for 2 s, 1 refusing" in drawn(report)


def test_idle_volume_says_that_all_is_sent(report: dict[str, Any]) -> None:
    """With nothing to send there is neither a bar of it nor a file."""
    report |= {"uploads": "idle", "dirty_bytes": 0}
    report["transfers"] = {"unsent_files": 0, "oldest_unsent_seconds": None, "messages": [], "files": []}
    report["journal"]["unshipped_seconds"] = None
    report["fetch"] |= {"running": 0, "queued": 0}
    lines = drawn(report)
    assert "uploads  everything is in Discord" in lines
    assert ["photos", "uploads", "cache", "channels"] == [line.split()[0] for line in lines]


def test_motion_follows_from_two_reports(report: dict[str, Any]) -> None:
    """Speed is what was fetched in between; the bar begins anew once everything was sent."""
    first = Motion().after(None, report, 1.0)
    assert Motion(0.0, 3 << 20) == first
    later = {**report, "dirty_bytes": 1 << 20, "fetch": {**report["fetch"], "fetched_bytes": 9 << 20}}
    assert Motion(float(2 << 20), 3 << 20) == first.after(report, later, 2.0)
    done = {**later, "dirty_bytes": 0}
    assert 0 == first.after(later, done, 1.0).most_bytes
