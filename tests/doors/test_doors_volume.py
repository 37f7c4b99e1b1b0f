"""Making a volume in a guild, its local half, and its lock, against the transport in memory."""

from __future__ import annotations

import contextlib
import gzip
import os
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from disfs.chunkstore.transport.base import Guild, StoredMessage, Upload
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.errors import ExitCode, NotFoundError, PermissionMissingError, TransientStorageError, UserError
from disfs.local_volume import make_metadata, open_metadata
from disfs.metadata.store import SqliteMetadataStore
from disfs.superblock import ATTACHMENT_NAME, Superblock
from disfs.values import ROOT_INODE, ChannelId, GuildId, MessageId, NewInode
from disfs.volume import NewVolume, find_guild, find_superblock, is_unused, place_volume
from disfs.volume_state import METADATA_NAME, VolumeLock

if TYPE_CHECKING:
    from collections.abc import Callable

NEW = NewVolume("photos", b"wrapped", data_channel_count=3)
GUILD = MemoryTransport.GUILD.guild


class FailingOnce:
    """A Discord whose Nth call fails once; what a crash at that point leaves is what the calls before it made."""

    def __init__(self, inner: MemoryTransport, fail_at: int, *, after: bool) -> None:
        self._inner = inner
        self._left = fail_at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._inner, name)
        if name == "statistics":
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise TransientStorageError("the network is down")
            result = await method(*args, **kwargs)
            if self._left == 0:
                raise TransientStorageError("the answer was lost", maybe_done=True)
            return result

        return call


async def channels_of(discord: MemoryTransport) -> list[tuple[str, bool]]:
    return [(info.name, info.is_category) for info in await discord.channels(GUILD)]


async def test_new_volume_has_category_channels_and_superblock() -> None:
    """A volume is a category with an index and data channels, and a superblock that says which they are."""
    discord = MemoryTransport()
    placed = await place_volume(discord, discord, NEW)
    names = [("disfs photos", True), ("index", False), ("data-1", False), ("data-2", False), ("data-3", False)]
    assert names == await channels_of(discord)
    assert placed.superblock == await find_superblock(discord, placed.index_channel)
    assert b"wrapped" == placed.superblock.wrapped_key
    assert 3 == len(placed.superblock.data_channels)
    assert not placed.adopted


async def test_superblock_message_tells_people_what_it_is() -> None:
    """Who finds it reads what this is, what to leave alone, and how it is opened; the channels say it too."""
    discord = MemoryTransport()
    placed = await place_volume(discord, discord, NEW)
    (message,) = discord.messages(placed.index_channel)
    for word in ("disk", "`photos`", "do not delete", "disfs recover photos"):
        assert word in message.content
    topics = [info.topic for info in await discord.channels(GUILD) if not info.is_category]
    assert 4 == sum("photos" in topic and "deleting messages destroys files" in topic for topic in topics)


async def test_channel_without_topic_gets_one() -> None:
    """Its own words are left alone, and a bot that may not change it makes the volume all the same."""
    discord = MemoryTransport()
    category = await discord.create_category(GUILD, "disfs photos")
    index = await discord.create_channel(GUILD, "index", parent=category.channel, topic="")
    data = await discord.create_channel(GUILD, "data-1", parent=category.channel, topic="mine")
    await place_volume(discord, discord, NEW)
    topics = {info.channel: info.topic for info in await discord.channels(GUILD)}
    assert "photos" in topics[index.channel]
    assert "mine" == topics[data.channel]


async def test_topic_that_may_not_be_set_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The volume is made in channels that somebody else has made."""
    discord = MemoryTransport()
    category = await discord.create_category(GUILD, "disfs photos")
    for name in ("index", "data-1", "data-2", "data-3"):
        await discord.create_channel(GUILD, name, parent=category.channel, topic="")

    async def refused(*_: object) -> None:
        raise PermissionMissingError("403", "Manage Channels")

    monkeypatch.setattr(discord, "set_topic", refused)
    placed = await place_volume(discord, discord, NEW)
    assert 3 == len(placed.superblock.data_channels)


async def test_what_people_write_is_no_data() -> None:
    """An interrupted init is finished although somebody wrote into the channels meanwhile."""
    discord = MemoryTransport()
    placed = await place_volume(discord, discord, NEW)
    for channel in (placed.index_channel, placed.superblock.data_channels[0]):
        people_write(discord, channel)
    again = await place_volume(discord, discord, NEW)
    assert again.adopted
    assert await is_unused(discord, again)


def people_write(discord: MemoryTransport, channel: ChannelId) -> None:
    """A message of somebody else as a bot sees it: without content and attachments."""
    message = MessageId(discord._snowflake())
    discord._channels[channel][message] = StoredMessage(channel, message, "", ())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(1, 12))
async def test_interrupted_init_is_finished_by_the_next(call: int, after: bool) -> None:
    """Whatever call failed, before or after it took effect: repeating makes one volume with one superblock."""
    discord = MemoryTransport()
    failing = FailingOnce(discord, call, after=after)
    try:
        await place_volume(failing, failing, NEW)
    except TransientStorageError:
        placed = await place_volume(discord, discord, NewVolume("photos", b"other key", data_channel_count=3))
        index = discord.messages(placed.index_channel)
        assert 1 == sum(a.name == ATTACHMENT_NAME for message in index for a in message.attachments)
        assert placed.superblock == await find_superblock(discord, placed.index_channel)
        assert placed.adopted == (placed.superblock.wrapped_key == b"wrapped")
    assert 5 == len(await channels_of(discord))


async def test_category_without_superblock_is_adopted() -> None:
    """A category that its owner made under the volume's plain name is used, and what it lacks is made."""
    discord = MemoryTransport()
    category = await discord.create_category(GUILD, "photos")
    index = await discord.create_channel(GUILD, "index", parent=category.channel, topic="mine")
    placed = await place_volume(discord, discord, NEW)
    assert (category.channel, index.channel) == (placed.category, placed.index_channel)


async def test_volume_with_data_is_not_adopted() -> None:
    """A guild that holds files under this name is left alone: empty metadata would turn them into garbage."""
    discord = MemoryTransport()
    placed = await place_volume(discord, discord, NEW)
    await discord.send(placed.superblock.data_channels[1], [Upload("pack", (b"data",))], nonce="n")
    with pytest.raises(UserError, match="already holds a volume 'photos'") as caught:
        await place_volume(discord, discord, NEW)
    assert ExitCode.VOLUME_EXISTS == caught.value.exit_code


async def test_several_volumes_share_a_guild() -> None:
    """Volumes of different names do not meet."""
    discord = MemoryTransport()
    first = await place_volume(discord, discord, NEW)
    second = await place_volume(discord, discord, NewVolume("music", b"k"))
    assert first.superblock.volume_id != second.superblock.volume_id
    assert not set(first.superblock.data_channels) & set(second.superblock.data_channels)


async def test_unreadable_superblock_is_not_overwritten() -> None:
    """Something in the superblock's place that cannot be read stops init: it may be a newer version's."""
    discord = MemoryTransport()
    category = await discord.create_category(GUILD, "disfs photos")
    index = await discord.create_channel(GUILD, "index", parent=category.channel, topic="")
    await discord.send(index.channel, [Upload(ATTACHMENT_NAME, (b"{}",))], nonce="n")
    with pytest.raises(UserError, match="superblock") as caught:
        await place_volume(discord, discord, NEW)
    assert ExitCode.VOLUME_DAMAGED == caught.value.exit_code


async def test_unknown_guild_is_named() -> None:
    """A guild that the bot is not in has its own exit code."""
    discord = MemoryTransport()
    with pytest.raises(UserError, match="no guild 5") as caught:
        await find_guild(discord, GuildId(5))
    assert ExitCode.UNKNOWN_GUILD == caught.value.exit_code


@pytest.mark.parametrize(
    ("guilds", "problem"),
    [([], "invite it"), ([Guild(GuildId(1), "one", 1), Guild(GuildId(2), "two", 1)], r"--guild: 1 \(one\), 2 \(two\)")],
)
async def test_guild_must_be_clear(guilds: list[Guild], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --guild the bot must be in exactly one, and the message says what else to do."""
    discord = MemoryTransport()

    async def listed() -> list[Guild]:
        return guilds

    monkeypatch.setattr(discord, "guilds", listed)
    with pytest.raises(UserError, match=problem) as caught:
        await find_guild(discord, None)
    assert ExitCode.UNKNOWN_GUILD == caught.value.exit_code


async def test_bot_that_cannot_read_back_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discord lists nothing without Read Message History; init finds out, not the recovery years later."""
    discord = MemoryTransport()

    async def nothing(_channel: ChannelId, **_range: object) -> list[object]:
        return []

    monkeypatch.setattr(discord, "list_messages", nothing)
    with pytest.raises(UserError, match="Read Message History") as caught:
        await place_volume(discord, discord, NEW)
    assert ExitCode.MISSING_PERMISSION == caught.value.exit_code


async def test_missing_permission_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which permission is missing is the transport's knowledge, and is not lost."""
    discord = MemoryTransport()

    async def refused(_guild: GuildId, _name: str) -> None:
        raise PermissionMissingError("403", "Manage Channels")

    monkeypatch.setattr(discord, "create_category", refused)
    with pytest.raises(PermissionMissingError):
        await place_volume(discord, discord, NEW)


async def test_vanished_data_channel_stops_adoption(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leftover whose channels are gone is not finished silently."""
    discord = MemoryTransport()
    placed = await place_volume(discord, discord, NEW)
    real = discord.list_messages

    async def gone(channel: ChannelId, **arguments: Any) -> Any:
        if channel in placed.superblock.data_channels:
            raise NotFoundError("Unknown Channel")
        return await real(channel, **arguments)

    monkeypatch.setattr(discord, "list_messages", gone)
    with pytest.raises(UserError) as caught:
        await place_volume(discord, discord, NEW)
    assert ExitCode.VOLUME_DAMAGED == caught.value.exit_code


def superblock(volume_id: bytes = bytes(16)) -> Superblock:
    return Superblock(volume_id, "photos", "2026-11-22T20:00:00+00:00", 131072, (ChannelId(1),), b"k")


def test_metadata_of_a_new_volume_can_be_opened(tmp_path: Path) -> None:
    """Metadata is made once, privately; making it again for the same volume changes nothing."""
    make_metadata(tmp_path, superblock())
    make_metadata(tmp_path, superblock())
    open_metadata(tmp_path, superblock()).close()
    assert 0o600 == stat.S_IMODE((tmp_path / METADATA_NAME).stat().st_mode)


def test_empty_metadata_of_another_attempt_is_replaced(tmp_path: Path) -> None:
    """An init that was interrupted before its volume counted does not stand in the way."""
    make_metadata(tmp_path, superblock())
    make_metadata(tmp_path, superblock(b"\1" * 16))
    open_metadata(tmp_path, superblock(b"\1" * 16)).close()


def test_metadata_that_a_crash_left_without_tables_is_replaced(tmp_path: Path) -> None:
    """An init that was killed before it made the tables does not stand in the way of the next one."""
    with contextlib.closing(sqlite3.connect(tmp_path / METADATA_NAME)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert (tmp_path / METADATA_NAME).stat().st_size
    make_metadata(tmp_path, superblock())
    open_metadata(tmp_path, superblock()).close()


def test_metadata_whose_tables_cannot_be_found_is_not_replaced(tmp_path: Path) -> None:
    """A damaged list of tables is not an empty volume: what follows it may be files."""
    make_metadata(tmp_path, superblock())
    with contextlib.closing(sqlite3.connect(tmp_path / METADATA_NAME, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_master")
    before = (tmp_path / METADATA_NAME).read_bytes()
    with pytest.raises(UserError):
        make_metadata(tmp_path, superblock())
    assert before == (tmp_path / METADATA_NAME).read_bytes()


def test_regression_old_metadata_of_another_volume_is_left_alone(tmp_path: Path) -> None:
    """Neither init nor mount upgrades what belongs to another volume before it is refused."""
    sample = Path(__file__).parent.parent / "golden" / "metadata-v1.db.gz"
    path = tmp_path / METADATA_NAME
    path.write_bytes(gzip.decompress(sample.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(UserError, match="files of another volume") as at_init:
        make_metadata(tmp_path, superblock())
    with pytest.raises(UserError, match="belongs to another volume") as at_mount:
        open_metadata(tmp_path, superblock())
    assert (ExitCode.VOLUME_EXISTS, ExitCode.VOLUME_DAMAGED) == (at_init.value.exit_code, at_mount.value.exit_code)
    assert (before, [path]) == (path.read_bytes(), list(tmp_path.iterdir()))


async def test_metadata_with_files_is_never_replaced(tmp_path: Path) -> None:
    """Files of a volume whose description is gone are kept, and init says where they are."""
    make_metadata(tmp_path, superblock())
    store = SqliteMetadataStore.open(tmp_path / METADATA_NAME)
    await store.make_inode(ROOT_INODE, b"precious", NewInode(stat.S_IFREG | 0o600, 0, 0), 1)
    store.close()
    with pytest.raises(UserError, match=str(tmp_path)) as caught:
        make_metadata(tmp_path, superblock(b"\1" * 16))
    assert ExitCode.VOLUME_EXISTS == caught.value.exit_code


@pytest.mark.parametrize("made_for", [None, b"\1" * 16])
def test_missing_or_foreign_metadata_is_damage(tmp_path: Path, made_for: bytes | None) -> None:
    """A mount takes missing metadata for no empty volume, nor another volume's for its own; it says what to do."""
    if made_for is not None:
        make_metadata(tmp_path, superblock(made_for))
    with pytest.raises(UserError, match=f"'cp -a BACKUP {tmp_path}'") as caught:
        open_metadata(tmp_path, superblock())
    assert ExitCode.VOLUME_DAMAGED == caught.value.exit_code


def test_lock_names_its_holder(tmp_path: Path) -> None:
    """A volume that is in use says by which process; once released it is free."""
    lock = VolumeLock.acquire(tmp_path, "photos")
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}") as caught:
        VolumeLock.acquire(tmp_path, "photos")
    assert ExitCode.VOLUME_BUSY == caught.value.exit_code
    lock.release()
    VolumeLock.acquire(tmp_path, "photos").release()
