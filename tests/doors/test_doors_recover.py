"""Finding a volume that only Discord knows of, and telling what came back of it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.cli.recover import metadata_explained, put_in_place, refuse_existing, report_lines, warnings
from disfs.errors import ExitCode, UserError
from disfs.metadata.completing import Incomplete, Rebuilt
from disfs.metadata.replicated import Block, Table
from disfs.metadata.restoring import Restoration
from disfs.private_files import explained
from disfs.recovery.rebuild import Report
from disfs.superblock import ATTACHMENT_NAME
from disfs.values import GuildId
from disfs.volume import INDEX_NAME, NewVolume, find_volume, place_volume

if TYPE_CHECKING:
    from disfs.superblock import Superblock
    from disfs.values import ChannelId
    from disfs.volume import PlacedVolume

NONE = Incomplete((), 0)
REBUILT = Rebuilt(3, 5, 3 << 20, 0, NONE, NONE, 0, ())
REPORT = Report(REBUILT, 7, 10**18, 2, ())


async def placed(discord: MemoryTransport, name: str) -> PlacedVolume:
    """A volume in the guild."""
    return await place_volume(discord, discord, NewVolume(name, b"wrapped", data_channel_count=1))


async def found(
    discord: MemoryTransport, name: str, guild: GuildId | None = None, category: ChannelId | None = None
) -> PlacedVolume:
    """What a recovery finds."""
    return await find_volume(discord, discord, name, guild, category)


async def second_of_that_name(discord: MemoryTransport, superblock: Superblock) -> ChannelId:
    """Somebody made another category of the same name, with a superblock in it."""
    category = await discord.create_category(discord.GUILD.guild, "disfs photos")
    index = await discord.create_channel(discord.GUILD.guild, INDEX_NAME, parent=category.channel, topic="")
    upload = Upload(ATTACHMENT_NAME, (superblock.to_json().encode(),))
    await discord.send(index.channel, [upload], nonce="another")
    return category.channel


async def test_volume_is_found_by_its_name() -> None:
    """In the guild that is named, or in whichever the bot is in; others are not taken for it."""
    discord = MemoryTransport()
    wanted = await placed(discord, "photos")
    await placed(discord, "music")
    for guild in (None, discord.GUILD.guild):
        volume = await found(discord, "photos", guild)
        assert (wanted.superblock, wanted.index_channel) == (volume.superblock, volume.index_channel)


async def test_volume_that_is_not_there_is_said_so() -> None:
    """A category of that name that holds no superblock is none."""
    discord = MemoryTransport()
    await discord.create_category(discord.GUILD.guild, "disfs photos")
    with pytest.raises(UserError, match="no volume 'photos' in the server 'memory'") as caught:
        await found(discord, "photos")
    assert ExitCode.NO_SUCH_VOLUME == caught.value.exit_code
    with pytest.raises(UserError) as caught:
        await found(discord, "photos", GuildId(77))
    assert ExitCode.UNKNOWN_GUILD == caught.value.exit_code


async def test_two_volumes_of_one_name_are_told_apart_by_category() -> None:
    """Neither is preferred; the line says how to choose, and with which numbers."""
    discord = MemoryTransport()
    first = await placed(discord, "photos")
    other = dataclasses.replace(first.superblock, volume_id=bytes(range(16)))
    second = await second_of_that_name(discord, other)
    with pytest.raises(UserError, match="--category") as caught:
        await found(discord, "photos")
    assert ExitCode.USAGE == caught.value.exit_code
    assert str(first.category) in str(caught.value)
    assert str(second) in str(caught.value)
    assert other == (await found(discord, "photos", category=second)).superblock


async def test_superblock_of_another_volume_is_refused() -> None:
    """A category that was renamed to another volume's name does not become that volume."""
    discord = MemoryTransport()
    music = await placed(discord, "music")
    await second_of_that_name(discord, music.superblock)
    with pytest.raises(UserError, match="that of volume 'music'") as caught:
        await found(discord, "photos")
    assert ExitCode.VOLUME_DAMAGED == caught.value.exit_code


async def test_renamed_category_is_found_by_its_id() -> None:
    """Whatever it is called now."""
    discord = MemoryTransport()
    photos = await placed(discord, "photos")
    discord._infos[photos.category] = dataclasses.replace(discord._infos[photos.category], name="old pictures")
    with pytest.raises(UserError):
        await found(discord, "photos")
    assert photos.superblock == (await found(discord, "photos", category=photos.category)).superblock


def test_whole_recovery_is_two_lines() -> None:
    """What there is, as of when, and that nothing is missing."""
    first, second = report_lines("photos", REPORT)
    assert "3 files among 5 inodes, 3.0 MiB" in first
    assert "2001-09-0" in first
    assert "nothing is missing" in second
    assert [] == list(warnings(REPORT))


def test_what_is_missing_is_named() -> None:
    """Files by path, as many as one reads, and what could not be used."""
    lost = Incomplete(tuple(f"/{n}" for n in range(30)), 2000)
    rebuilt = dataclasses.replace(
        REBUILT, lost=lost, older=Incomplete(("/a\nb",), 1), problems=("3 wrong link counts",)
    )
    report = dataclasses.replace(REPORT, rebuilt=rebuilt, missing=("journal 8 is damaged",))
    assert 1 == len(list(report_lines("photos", report)))
    damaged, problem, gone, older = warnings(report)
    assert "journal 8 is damaged" == damaged
    assert "3 wrong link counts" in problem
    assert gone.startswith("2000 files had contents that Discord has not got")
    assert gone.endswith("/19 and 1980 more")
    assert older.endswith(r": /a\nb")


@pytest.mark.parametrize("left", ["metadata.db", "metadata.db-wal", "metadata.db-journal"])
def test_regression_log_of_a_database_that_is_gone_is_not_applied_to_the_rebuilt_one(tmp_path: Path, left: str) -> None:
    """A damaged database was moved away and its log was not: SQLite would write the log over what is rebuilt."""
    refuse_existing(tmp_path, "photos")
    (tmp_path / left).write_bytes(b"x")
    with pytest.raises(UserError, match="aside first") as caught:
        refuse_existing(tmp_path, "photos")
    assert ExitCode.VOLUME_EXISTS == caught.value.exit_code


def test_disk_that_fills_up_is_one_line(tmp_path: Path) -> None:
    """While the metadata are built: it says which disk, and the exit code is that of a full one."""
    restoration = Restoration(tmp_path / "rebuilt.db")
    restoration._connection.execute("PRAGMA max_page_count = 64")
    restoration._connection.execute("PRAGMA cache_size = 8")
    many = Block.of_rows(Table.NAMES, [(1, n, n, b"%0200d" % n) for n in range(5000)])
    try:
        with pytest.raises(UserError, match="is full") as caught, explained(tmp_path), metadata_explained():
            restoration.apply(many)
    finally:
        restoration.close()
    assert ExitCode.STATE_FULL == caught.value.exit_code


def test_recovered_metadata_are_there_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is synced after the rename."""
    synced = []

    def fsync(descriptor: int) -> None:
        assert (tmp_path / "there").exists()
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "unfinished").touch()
    put_in_place(tmp_path / "unfinished", tmp_path / "there")
    assert [tmp_path] == synced
