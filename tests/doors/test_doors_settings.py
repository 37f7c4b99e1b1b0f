"""`disfs config`: settings by the names that people use, kept, checked, and taken on by a mount that is up."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from support.controls_world import controls, write
from support.fake_daemon import asked, served
from support.volumes import VOLUME

from disfs.chunkstore.settings import ChunkStoreSettings
from disfs.cli.commands import disfs
from disfs.cli.exits import run
from disfs.config import Paths, VolumeSettings, load_volume, save_volume
from disfs.errors import ExitCode, UserError
from disfs.mount_options import LIVE_SETTINGS, SETTINGS, changed_setting, written_setting
from disfs.quantities import parse_size, written_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock

VALUES = {
    "size": "100G",
    "cache_size": "1536M",
    "dirty_limit": "200M",
    "message_size": "20M",
    "readahead": "0",
    "bwlimit": "512K:off",
    "writeback_delay": "0.25",
    "sweep_grace": "90",
    "stray_grace": "700",
    "kernel_listings": "off",
    "kernel_cache": "1.5",
    "trash_days": "30",
    "acl": "off",
    "notifications": "off",
}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A home with one volume."""
    monkeypatch.setenv("DISFS_HOME", str(tmp_path))
    paths = Paths.from_environment(os.environ)
    save_volume(paths, VOLUME)
    return paths


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert ExitCode.OK == run(disfs, ["config", *arguments])
    return capsys.readouterr().out


@given(st.integers(0, 10**15 - 1) | st.integers(0, 1 << 20).map(lambda count: count << 40))
def test_size_is_written_as_it_is_read(size_bytes: int) -> None:
    """What is printed for a size is read back equal."""
    assert size_bytes == parse_size(written_size(size_bytes))


def test_there_is_a_value_for_each_setting() -> None:
    """The tests below leave no setting out."""
    assert SETTINGS.keys() == VALUES.keys()


@pytest.mark.parametrize("name", VALUES)
def test_setting_is_kept_and_read_back(name: str, paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """What is set is what is printed and what the next mount has; unset, it is the default again."""
    default = printed(capsys, "get", name).strip()
    assert f"{name} = {VALUES[name]}\n" == printed(capsys, "set", name, VALUES[name])
    assert f"{VALUES[name]}\n" == printed(capsys, "get", name)
    assert VALUES[name] != default
    assert VALUES[name] == json.loads(printed(capsys, "list", "--json"))[name]
    assert f"{name} = {VALUES[name]}\n" in printed(capsys, "list")
    assert load_volume(paths, "photos").settings != VolumeSettings()
    printed(capsys, "unset", name)
    assert VolumeSettings() == load_volume(paths, "photos").settings
    assert f"{default}\n" == printed(capsys, "get", name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["set", "colour", "red"], "there are acl, bwlimit"),
        (["get", "colour"], "no setting 'colour'"),
        (["unset", "colour"], "no setting 'colour'"),
        (["set", "cache_size", "1K"], "cache_size must be at least 16 MiB"),
        (["set", "cache_size", "big"], "not a size such as"),
        (["set", "acl", "maybe"], "say on or off"),
        (["set", "writeback_delay", "nan"], "writeback_delay must lie between 0 and 3600"),
        (["set", "bwlimit", "1"], "at least 1K"),
        (["set", "trash_days", "4000"], "between 0 and 3650"),
        (["set", "cache_size"], "Missing argument"),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(
    arguments: Sequence[str], words: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown name, and a value of the wrong kind or out of range, is one line that says what is right."""
    before = paths.volume_file("photos").read_text()
    assert ExitCode.USAGE == run(disfs, ["config", *arguments])
    said = capsys.readouterr().err
    assert words in said
    assert 1 == said.count("\n")
    assert before == paths.volume_file("photos").read_text()


def test_volume_that_does_not_exist(paths: Paths) -> None:
    """It has the exit code for that."""
    assert ExitCode.NO_SUCH_VOLUME == run(disfs, ["config", "list", "--volume", "nosuch"])


# A mount that is up


async def test_mount_is_told(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """A daemon that is there hears of the change; where it cannot change that now, the person is told when it will."""
    paths.make_volume_directories("photos")
    async with served(paths.volume_state("photos")) as daemon:
        assert ExitCode.OK == await trio.to_thread.run_sync(run, disfs, ["config", "set", "bwlimit", "1M"])
        assert "" == capsys.readouterr().err
        assert ExitCode.OK == await trio.to_thread.run_sync(run, disfs, ["config", "unset", "message_size"])
        assert "changes at its next mount" in capsys.readouterr().err
        assert [("bwlimit", "1M"), ("message_size", None)] == daemon.settings
        daemon.error = UserError("no", ExitCode.USAGE)
        with pytest.raises(UserError, match="no"):
            await asked(paths.volume_state("photos"), lambda client: client.change_setting("bwlimit", "x"))


async def test_cache_size_changes_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A smaller cache evicts what is too much, and what is unsent may be less; both show in status."""
    async with controls(tmp_path) as (made, world, _):
        assert {"applied": True} == await made.change_setting("cache_size", "16M")
        now = world.chunks.statistics()
        assert (16 << 20, 8 << 20, 12 << 20) == (now.cache_limit_bytes, now.dirty_limit_bytes, now.pinned_limit_bytes)
        await made.change_setting("dirty_limit", "2M")
        assert 2 << 20 == world.chunks.statistics().dirty_limit_bytes
        for number in range(10):
            await write(world, b"%d" % number, os.urandom(50_000))
        await world.chunks.drain()
        assert world.chunks.statistics().cache_bytes > 400_000
        await world.chunks.adjust(ChunkStoreSettings(cache_bytes=128 << 10))  # less than a person may ask for
        assert world.chunks.statistics().cache_bytes <= 128 << 10
        await write(world, b"more", os.urandom(100_000))
        assert world.chunks.statistics().cache_bytes <= 128 << 10


async def test_larger_dirty_limit_lets_waiting_writers_go_on(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Who waits for room under the old limit goes on under the new one."""
    async with controls(tmp_path) as (made, world, _):
        await made.change_setting("cache_size", "64M")
        await made.change_setting("dirty_limit", "1M")
        made.pause()
        await write(world, b"small", bytes(900_000))
        written = trio.Event()

        async def writer() -> None:
            await write(world, b"large", bytes(4 << 20))
            written.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer)
            await trio.sleep(60)
            assert not written.is_set()
            await made.change_setting("dirty_limit", "8M")
            await trio.sleep(1)
            assert written.is_set()
        made.resume()


async def test_writeback_delay_changes_for_what_waits_already(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What would have waited for longer is sent when the delay is shortened."""
    async with controls(tmp_path) as (made, world, _):
        await made.change_setting("writeback_delay", "50")
        await write(world, b"file", b"x" * 5000)
        await trio.sleep(30)
        assert 5000 == world.chunks.statistics().dirty_bytes
        await made.change_setting("writeback_delay", "1")
        await trio.sleep(2)
        # Packed, or being packed: that is done in threads, which this clock does not see.
        assert world.chunks._writeback._messages or not world.chunks.statistics().dirty_bytes


async def test_bandwidth_readahead_and_trash_change(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Each reaches the part that keeps to it; what needs another mount says so; nonsense is refused."""
    async with controls(tmp_path) as (made, world, limits):
        await made.change_setting("bwlimit", "1M:2M")
        assert [(1 << 20, 2 << 20)] == limits
        await made.change_setting("readahead", "0")
        assert 0 == world.chunks._readahead_budget.share(world.chunks.new_readahead())
        await made.change_setting("trash_days", "0")
        assert (0, False) == (world.metadata.trash._keep_ns, world.metadata.trash._dentries.notes_paths)
        for name in SETTINGS.keys() - LIVE_SETTINGS:
            assert {"applied": False} == await made.change_setting(name, VALUES[name])
        with pytest.raises(UserError, match="at least 16 MiB"):
            await made.change_setting("cache_size", "1K")


def test_each_setting_has_a_default() -> None:
    """None gives a setting back its default, whatever it was."""
    for name, value in VALUES.items():
        changed = changed_setting(VolumeSettings(), name, value)
        assert value == written_setting(changed, name)
        assert VolumeSettings() == changed_setting(changed, name, None)
