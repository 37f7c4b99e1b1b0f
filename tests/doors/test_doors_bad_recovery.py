"""Bad input that comes from Discord, or from a machine's past: one line, its own exit code, and nothing is touched.

The commands run in this process, against an emulator that all of these tests share.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from typing import TYPE_CHECKING

import pytest
import trio
from support.home import PASSPHRASE
from support.shipments import header, sealed

from disfs.chunkstore.codec import PackKind
from disfs.chunkstore.keys import WrappedKey, unwrap
from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.stack import open_connection
from disfs.cli.commands import disfs
from disfs.cli.exits import run
from disfs.config import Paths, load_volume, save_volume
from disfs.errors import ExitCode
from disfs.recovery import frames
from disfs.superblock import ATTACHMENT_NAME, VERSION
from disfs.volume import INDEX_NAME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import TypeVar

    from support.emulator import Emulator
    from support.home import Home

    from disfs.chunkstore.keys import VolumeKey
    from disfs.chunkstore.transport.stack import Connection
    from disfs.config import VolumeConfig
    from disfs.values import ChannelId

    T = TypeVar("T")


class Command:
    """`disfs`, in this process, with the home and the Discord of a test."""

    def __init__(
        self, home: Home, discord: Emulator, patch: pytest.MonkeyPatch, printed: pytest.CaptureFixture[str]
    ) -> None:
        self._home = home
        self._discord = discord
        self._patch = patch
        self._printed = printed
        for name in [name for name in os.environ if name.startswith(("DISFS_", "XDG_"))]:
            patch.delenv(name)
        for name, value in home.environment.items():
            patch.setenv(name, value)

    def ok(self, *arguments: str) -> str:
        """Run what must succeed; what it printed, on both streams."""
        code = run(disfs, list(arguments))
        printed = self._printed.readouterr()
        assert ExitCode.OK == code, printed.err
        return printed.out + printed.err

    def refused(self, code: ExitCode, *arguments: str) -> str:
        """Run what must fail with that code, and one line, which is returned."""
        assert code == run(disfs, list(arguments))
        printed = self._printed.readouterr().err
        assert "Traceback" not in printed
        (line,) = [line for line in printed.splitlines() if line.startswith("disfs: ")]
        return line

    def init(self, name: str) -> VolumeConfig:
        """Make a volume."""
        self.ok("init", name)
        return load_volume(self.paths, name)

    @property
    def paths(self) -> Paths:
        """Where the home keeps things."""
        return Paths.from_environment(os.environ)

    def forget(self, name: str) -> None:
        """The machine does not know the volume any more."""
        shutil.rmtree(self.paths.volume_state(name))
        self.paths.volume_file(name).unlink()

    def knows_nothing(self, name: str) -> None:
        """What was refused has left nothing behind."""
        assert not self.paths.volume_file(name).exists()
        assert not (self.paths.volume_state(name) / "metadata.db").exists()

    def in_discord(self, act: Callable[[Connection], Awaitable[T]]) -> T:
        """Do something there, as the bot."""

        async def connected() -> T:
            async with open_connection(self._discord.token, self._discord.api_url) as connection:
                return await act(connection)

        return trio.run(connected)

    def send(self, channel: ChannelId, name: str, content: bytes, text: str = "") -> None:
        """Send an attachment."""

        async def act(connection: Connection) -> None:
            await connection.transport.send(
                channel, [Upload(name, (content,))], nonce=os.urandom(8).hex(), content=text
            )

        self.in_discord(act)

    def another_category(self, name: str, superblock: bytes) -> ChannelId:
        """A category as of volume `name`, with a superblock in it; its id."""

        async def act(connection: Connection) -> tuple[ChannelId, ChannelId]:
            guild = (await connection.admin.guilds())[0].guild
            category = await connection.admin.create_category(guild, f"disfs {name}")
            index = await connection.admin.create_channel(guild, INDEX_NAME, parent=category.channel, topic="")
            return category.channel, index.channel

        category, index = self.in_discord(act)
        self.send(index, ATTACHMENT_NAME, superblock)
        return category


@pytest.fixture
def command(
    home: Home, discord: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """A machine that knows nothing."""
    return Command(home, discord, monkeypatch, capsys)


def key_of(volume: VolumeConfig) -> VolumeKey:
    """Its key."""
    return unwrap(WrappedKey.from_bytes(volume.superblock.wrapped_key), PASSPHRASE)


def test_recover_with_a_wrong_passphrase(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment or a key file, or none at all: each is said, and nothing is made."""
    command.init("secret")
    command.forget("secret")
    file = tmp_path / "passphrase"
    file.write_text("wrong-secret\n")
    file.chmod(0o600)
    monkeypatch.setenv("DISFS_PASSPHRASE", "wrong-secret")
    line = command.refused(ExitCode.WRONG_PASSPHRASE, "recover", "secret")
    assert "does not open volume 'secret'; try again" in line
    monkeypatch.delenv("DISFS_PASSPHRASE")
    line = command.refused(ExitCode.WRONG_PASSPHRASE, "recover", "secret", "--passphrase-file", str(file))
    assert "wrong-secret" not in line
    missing = command.refused(ExitCode.NO_PASSPHRASE, "recover", "secret", "--passphrase-file", str(tmp_path / "no"))
    assert str(tmp_path / "no") in missing
    assert "--passphrase-file" in command.refused(ExitCode.NO_PASSPHRASE, "recover", "secret")
    command.knows_nothing("secret")


def test_superblock_of_another_volume(command: Command) -> None:
    """Found under this one's name, or under the name of one that this machine describes otherwise."""
    music = command.init("music")
    command.another_category("pictures", music.superblock.to_json().encode())
    line = command.refused(ExitCode.VOLUME_DAMAGED, "recover", "pictures")
    assert "that of volume 'music', not of 'pictures'" in line
    command.knows_nothing("pictures")
    other = dataclasses.replace(music.superblock, volume_id=bytes(range(16)))
    shutil.rmtree(command.paths.volume_state("music"))
    save_volume(command.paths, dataclasses.replace(music, superblock=other))
    line = command.refused(ExitCode.VOLUME_EXISTS, "recover", "music")
    assert "describes another volume than the one in Discord; put that file aside" in line


def test_two_volumes_of_one_name(command: Command) -> None:
    """Neither is preferred: the line has both numbers, and how to choose."""
    first = command.init("twice")
    other = dataclasses.replace(first.superblock, volume_id=bytes(range(16)))
    second = command.another_category("twice", other.to_json().encode())
    command.forget("twice")
    line = command.refused(ExitCode.USAGE, "recover", "twice")
    assert "there are 2 volumes 'twice'; choose one with --category: " in line
    assert str(first.category) in line
    assert str(second) in line
    command.knows_nothing("twice")


@pytest.mark.parametrize("version", [VERSION + 1, 0, "a"])
def test_superblock_of_another_version(command: Command, version: object) -> None:
    """A newer one is refused with the version that is needed; what never was a version is damage."""
    name = f"version{version}"
    volume = command.init(name + "real")
    text = volume.superblock.to_json().replace('"version": 1', f'"version": {version!r}'.replace("'", '"'))
    command.another_category(name, text.encode())
    line = command.refused(ExitCode.VOLUME_DAMAGED, "recover", name)
    if version == VERSION + 1:
        assert line.endswith(f"it has format version {version}, this disfs knows {VERSION}; use a newer disfs")
    else:
        assert "it has no format version that there is; delete that message and run 'disfs fsck --repair'" in line
    command.knows_nothing(name)


def test_newer_journal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later disfs has gone on with the volume: recovery does not guess, and says what is needed."""
    volume = command.init("later")
    with monkeypatch.context() as later:
        later.setattr(frames, "ROWS_VERSION", 2)
        (newer,) = sealed(header("a"), PackKind.JOURNAL, [], key=key_of(volume))
    command.send(volume.index_channel, "x.bin", newer)
    command.forget("later")
    line = command.refused(ExitCode.VOLUME_DAMAGED, "recover", "later")
    assert "journal has format version 2, this disfs knows 1: use a newer disfs" in line
    command.knows_nothing("later")


@pytest.mark.fuse
def test_what_people_write_and_what_a_backup_brings_back(command: Command, home: Home) -> None:
    """Chat in the channels is ignored; a state directory from a backup sends and deletes nothing, and says why."""
    volume = command.init("real")
    state, kept = command.paths.volume_state("real"), home.root / "backup"
    home.ok("mount", str(home.mountpoint), "--volume", "real")
    (home.mountpoint / "one").write_bytes(b"1" * 200_000)
    home.ok("umount", str(home.mountpoint))
    shutil.copytree(state, kept)
    for channel in (volume.index_channel, *volume.superblock.data_channels):
        command.send(channel, "cat.png", b"meow", "look at this")
    home.ok("mount", str(home.mountpoint), "--volume", "real")
    (home.mountpoint / "two").write_bytes(b"2" * 200_000)
    home.ok("umount", str(home.mountpoint))
    assert "clean" in command.ok("fsck", "real", "--read-data")
    shutil.rmtree(state)
    assert "2 files" in command.ok("recover", "real")
    shutil.rmtree(state)
    kept.rename(state)
    home.ok("mount", str(home.mountpoint), "--volume", "real")
    (home.mountpoint / "three").write_bytes(b"3")
    line = command.refused(ExitCode.UNSENT_DATA, "sync", str(home.mountpoint))
    assert "which knows it only up to" in line
    assert "put the state directory aside and run 'disfs recover'" in line
    home.run("umount", "--no-wait", str(home.mountpoint))
    shutil.rmtree(state)
    assert "2 files" in command.ok("recover", "real")
