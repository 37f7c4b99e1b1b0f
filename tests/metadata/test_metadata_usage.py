"""What lies below a directory, and what that takes in Discord."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest
from support.controls_world import write
from support.real_stores import real_stores

from disfs.cli import usage as usage_command
from disfs.cli.commands import disfs
from disfs.cli.daemons import RunningDaemon
from disfs.cli.exits import run
from disfs.cli.usage import usage_lines
from disfs.errors import ExitCode, UserError
from disfs.metadata.usage import Usage, usage_below
from disfs.values import FIRST_VIEW_INODE, ROOT_INODE, InodeNumber, NewInode

if TYPE_CHECKING:
    from pathlib import Path

    from support.real_stores import RealStores
    from trio.testing import MockClock

MODE = stat.S_IFDIR | 0o755


async def directory(world: RealStores, parent: InodeNumber, name: bytes) -> InodeNumber:
    made = await world.filesystem.make_inode(parent, name, NewInode(mode=MODE, uid=0, gid=0))
    return made.inode


async def file(world: RealStores, parent: InodeNumber, name: bytes, size_bytes: int) -> InodeNumber:
    inode = await write(world, name, os.urandom(size_bytes))
    await world.filesystem.rename(ROOT_INODE, name, parent, name, 0)
    return inode


async def test_each_name_has_what_lies_below_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Sizes, files, what is stored and what is not sent yet are summed over all depths; a file with two names counts
    once; what is deleted is garbage of those whose messages it lies in."""
    async with real_stores(tmp_path, 2) as (world, _):
        photos = await directory(world, ROOT_INODE, b"photos")
        deep = await directory(world, photos, b"2024")
        await directory(world, ROOT_INODE, b"empty")
        await file(world, photos, b"one", 10_000)
        two = await file(world, deep, b"two", 20_000)
        gone = await file(world, deep, b"gone", 30_000)
        await write(world, b"alone", b"")
        await world.chunks.drain()
        await world.filesystem.link(two, photos, b"again")
        await world.filesystem.unlink(deep, b"gone")
        await world.filesystem.forget([(gone, 1)])
        await write(world, b"late", b"x" * 5000)
        await world.chunks.make_ledger_durable()

        found = {entry.name: entry for entry in usage_below(tmp_path / "volume.db", ROOT_INODE)}
        assert {b"photos", b"empty", b"alone", b"late"} == found.keys()
        assert (True, 2, 30_000, 0) == fields(found[b"photos"])
        assert 30_000 < found[b"photos"].stored_bytes < 31_000  # random bytes do not compress
        assert (True, 0, 0, 0) == fields(found[b"empty"])
        assert (False, 1, 0, 0) == fields(found[b"alone"])
        assert (False, 1, 5000, 2) == fields(found[b"late"])
        assert 0 == found[b"late"].stored_bytes
        below = usage_below(tmp_path / "volume.db", photos)
        assert [(b"again", 1), (b"one", 1), (b"2024", 0)] == [(entry.name, entry.file_count) for entry in below]
        assert sum(entry.stored_bytes for entry in below) == found[b"photos"].stored_bytes


def fields(entry: Usage) -> tuple[bool, int, int, int]:
    return entry.is_directory, entry.file_count, entry.logical_bytes, entry.unsent_chunks


async def test_garbage_is_shared_by_those_in_its_messages(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What was deleted out of a message is divided among what is left in it, by size; nothing is lost in the sum."""
    async with real_stores(tmp_path, 1, sweep_grace_seconds=3600.0, compaction_share=0.0) as (world, _):
        for name, size_bytes in ((b"a", 4000), (b"b", 12_000), (b"gone", 8000)):
            inode = await write(world, name, os.urandom(size_bytes))
        await world.chunks.drain()
        assert 1 == sum(len(world.memory.messages(channel)) for channel in world.channels)
        await world.filesystem.unlink(ROOT_INODE, b"gone")
        await world.filesystem.forget([(inode, 1)])
        await world.chunks.make_ledger_durable()
        found = {entry.name: entry for entry in usage_below(tmp_path / "volume.db", ROOT_INODE)}
        assert 8000 == pytest.approx(found[b"a"].garbage_bytes + found[b"b"].garbage_bytes, rel=0.02)
        assert 3 == pytest.approx(found[b"b"].garbage_bytes / found[b"a"].garbage_bytes, rel=0.05)


async def test_circle_of_damaged_metadata_ends(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Directories that contain each other, which only damage can make, do not keep it busy for ever."""
    async with real_stores(tmp_path, 1) as (world, _):
        outer = await directory(world, ROOT_INODE, b"outer")
        inner = await directory(world, outer, b"inner")
    with sqlite3.connect(tmp_path / "volume.db") as damaged:
        damaged.execute("INSERT INTO dentries VALUES (?, x'78', ?, 999)", (inner, outer))
    damaged.close()
    assert [b"outer"] == [entry.name for entry in usage_below(tmp_path / "volume.db", ROOT_INODE)]


# The command


def test_table_is_for_people() -> None:
    """Sizes in columns, directories with a slash and a count, the sum below, and no control codes of names."""
    lines = list(
        usage_lines(
            [
                Usage(b"photos", True, 3, 5 << 20, 40, 2, 4 << 20, 1 << 20),
                Usage(b"a\x1b[31m\xff", False, 1, 100, 1, 0, 80, 0),
            ]
        )
    )
    assert "   5.0 MiB     4.0 MiB     1.0 MiB  photos/  (3 files, 2 chunks to send)" == lines[1]
    assert " 100 bytes    80 bytes     0 bytes  a\\x1b[31m\\xff" == lines[2]
    assert lines[3].endswith("in all (4 files)")


@pytest.mark.parametrize(
    ("inode", "rest", "words"),
    [(1, "file", "is no directory"), (FIRST_VIEW_INODE + 7, "", "is in a snapshot")],
)
def test_what_is_no_directory_of_the_volume(
    inode: int,
    rest: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file, and a snapshot, are refused in one line."""
    daemon = RunningDaemon("v", tmp_path, {})
    monkeypatch.setattr(usage_command, "daemon_of_path", lambda *_: (daemon, InodeNumber(inode), rest))
    assert ExitCode.USAGE == run(disfs, ["usage", str(tmp_path)])
    said = capsys.readouterr().err
    assert words in said
    assert 1 == said.count("\n")


def test_directory_of_no_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is on no mount, and no mount at all, have the exit code for that."""
    monkeypatch.setenv("DISFS_HOME", str(tmp_path))
    assert ExitCode.NOT_MOUNTED == run(disfs, ["usage", str(tmp_path)])
    assert ExitCode.NOT_MOUNTED == run(disfs, ["usage"])


async def test_json_is_for_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], autojump_clock: MockClock
) -> None:
    """Names that are no text are as Python decodes them; all numbers are there."""
    async with real_stores(tmp_path, 1) as (world, _):
        await write(world, b"\xff", b"x" * 10)
        await world.chunks.make_ledger_durable()
    monkeypatch.setattr(usage_command, "METADATA_NAME", "volume.db")
    daemon = RunningDaemon("v", tmp_path, {})
    monkeypatch.setattr(usage_command, "daemon_of_path", lambda *_: (daemon, ROOT_INODE, ""))
    assert ExitCode.OK == run(disfs, ["usage", str(tmp_path), "--json"])
    (entry,) = json.loads(capsys.readouterr().out)
    assert ("\udcff", 10, 1) == (entry["name"], entry["logical_bytes"], entry["unsent_chunks"])


def test_metadata_that_are_missing(tmp_path: Path) -> None:
    """They are named, with the exit code of damage."""
    with pytest.raises(UserError, match="missing") as caught:
        usage_below(tmp_path / "none.db", ROOT_INODE)
    assert ExitCode.VOLUME_DAMAGED == caught.value.exit_code
