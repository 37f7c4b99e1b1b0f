"""Other ways into a volume: a new passphrase, a key file; and its end."""

from __future__ import annotations

import dataclasses
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from doors.test_doors_volume import FailingOnce
from support.home import PASSPHRASE
from support.home import home as home_in
from support.rest_client import RestClient

from disfs.chunkstore.key_file import KeyFileError, key_file_text, key_of_text
from disfs.chunkstore.keys import ScryptCost, VolumeKey, wrap
from disfs.chunkstore.transport.base import Upload
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.cli.unlock import unlock
from disfs.config import Paths, load_volume
from disfs.errors import ExitCode, StorageError, TransientStorageError, UserError
from disfs.new_superblock import replace_superblock
from disfs.superblock import ATTACHMENT_NAME
from disfs.volume import NewVolume, find_superblock, place_volume

if TYPE_CHECKING:
    from support.emulator import Emulator
    from support.home import Home

    from disfs.superblock import Superblock
    from disfs.values import ChannelId

KEY = VolumeKey(bytes(range(32)))
VOLUME_ID = bytes(range(16, 32))
NEW = "another horse battery staple"
CHEAP = ScryptCost(log2_n=4)


# Key files


def test_key_file_is_read_back() -> None:
    """With whatever spaces and empty lines typing it from paper brings."""
    text = key_file_text(VOLUME_ID, KEY)
    assert KEY == key_of_text(text, VOLUME_ID)
    assert KEY == key_of_text("\n" + text.replace("\n", "  \n\n"), VOLUME_ID)


def test_released_key_file_opens_for_ever() -> None:
    """The sample of version 1."""
    text = (Path(__file__).parent.parent / "golden" / "key-file-v1.txt").read_text()
    assert KEY == key_of_text(text, VOLUME_ID)
    assert text == key_file_text(VOLUME_ID, KEY)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("00010203", "00010204", "mistyped or damaged"),
        ("-04050607", "", "mistyped or damaged"),
        ("\nkey ", "\nkye ", "missing or mistyped"),
        ("00010203", "0001020x", "missing or mistyped"),
        ("version 1", "version 2", "no key file"),
        ("volume 10", "volume 11", "of another volume"),
    ],
)
def test_wrong_key_file_is_refused(old: str, new: str, problem: str) -> None:
    """Each mistake is found before anything is opened with it, and the key is not in the message."""
    text = key_file_text(VOLUME_ID, KEY)
    assert old in text
    with pytest.raises(KeyFileError, match=problem) as caught:
        key_of_text(text.replace(old, new), VOLUME_ID)
    assert "08090a0b" not in str(caught.value)


# Another superblock


async def rewrapped(discord: MemoryTransport) -> tuple[ChannelId, Superblock, Superblock]:
    """An index channel, its superblock, and what is to replace it."""
    wrapped = wrap(KEY, PASSPHRASE, CHEAP).to_bytes()
    placed = await place_volume(discord, discord, NewVolume("photos", wrapped, data_channel_count=1))
    new = dataclasses.replace(placed.superblock, wrapped_key=wrap(KEY, NEW, CHEAP).to_bytes())
    return placed.index_channel, placed.superblock, new


def superblock_count(discord: MemoryTransport, index: ChannelId) -> int:
    return sum(a.name == ATTACHMENT_NAME for message in discord.messages(index) for a in message.attachments)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(1, 9))
async def test_interrupted_replacement_never_leaves_a_volume_without_superblock(call: int, after: bool) -> None:
    """Whatever call failed, before or after it took effect: one of both counts, and repeating leaves the new one."""
    discord = MemoryTransport()
    index, old, new = await rewrapped(discord)
    failing: Any = FailingOnce(discord, call, after=after)
    try:
        await replace_superblock(failing, index, new)
    except TransientStorageError:
        assert await find_superblock(discord, index) in (old, new)
    else:
        assert call > 5
    other = dataclasses.replace(new, wrapped_key=wrap(KEY, "a third one", CHEAP).to_bytes())
    await replace_superblock(discord, index, other)
    assert other == await find_superblock(discord, index)
    assert 1 == superblock_count(discord, index)


async def test_superblock_that_comes_back_wrong_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent is read before the old one goes."""
    discord = MemoryTransport()
    index, old, new = await rewrapped(discord)
    real = discord.send

    async def damaging(*arguments: Any, **options: Any) -> Any:
        stored = await real(*arguments, **options)
        discord.damage(stored.attachments[0].attachment, old.to_json().encode())
        return stored

    monkeypatch.setattr(discord, "send", damaging)
    with pytest.raises(StorageError, match="does not come back"):
        await replace_superblock(discord, index, new)
    assert old == await find_superblock(discord, index)
    assert 2 == superblock_count(discord, index)


@pytest.mark.parametrize("content", [b"{}", b'{"format": "disfs-superblock", "version": 2}'])
async def test_superblock_that_cannot_be_read_is_not_deleted(content: bytes) -> None:
    """It may be a newer disfs's."""
    discord = MemoryTransport()
    index, _, new = await rewrapped(discord)
    await discord.send(index, [Upload(ATTACHMENT_NAME, (content,))], nonce="other")
    with pytest.raises(UserError, match="nothing is replaced"):
        await replace_superblock(discord, index, new)
    assert 2 == superblock_count(discord, index)


async def test_two_replacements_at_once_leave_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The later message counts, and the one whose was deleted is told."""
    discord = MemoryTransport()
    index, _, new = await rewrapped(discord)
    other = dataclasses.replace(new, wrapped_key=b"other")
    real = discord.send

    async def overtaken(*arguments: Any, **options: Any) -> Any:
        stored = await real(*arguments, **options)
        monkeypatch.setattr(discord, "send", real)
        await replace_superblock(discord, index, other)
        return stored

    monkeypatch.setattr(discord, "send", overtaken)
    with pytest.raises((UserError, StorageError)):
        await replace_superblock(discord, index, new)
    assert other == await find_superblock(discord, index)
    assert 1 == superblock_count(discord, index)


# The commands


def private(path: Path, text: str) -> str:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


def volume_of(home: Home, name: str) -> Superblock:
    return load_volume(Paths.from_environment(home.environment), name).superblock


def messages(discord: Emulator) -> int:
    return int(discord.counters()["messages"])


def test_passwd_needs_the_passphrase_that_holds(home: Home, discord: Emulator, tmp_path: Path) -> None:
    """A wrong one, or no new one, is refused, and nothing is sent."""
    home.done("init", "kept-as-it-is", "--channels", "1")
    before = messages(discord)
    new = private(tmp_path / "new", NEW)
    done = home.here("passwd", "--new-passphrase-file", new, DISFS_PASSPHRASE="wrong")
    assert ExitCode.WRONG_PASSPHRASE == done.returncode
    done = home.here("passwd")
    assert ExitCode.NO_PASSPHRASE == done.returncode
    assert "--new-passphrase-file" in done.stderr
    assert before == messages(discord)


@pytest.mark.fuse
def test_passphrase_is_changed_while_mounted(home: Home, discord: Emulator, tmp_path: Path) -> None:
    """The mount goes on; here and on another machine the old one does not open the volume any more.

    There a key file that was exported before brings it back, and mounts it, without any passphrase.
    """
    home.done("init", "repassed", "--channels", "1")
    home.ok("mount", str(home.mountpoint))
    (home.mountpoint / "file").write_text("content")
    new = private(tmp_path / "new", NEW)
    home.done("key", "export", str(tmp_path / "key"))
    home.done("passwd", str(home.mountpoint), "--new-passphrase-file", new)
    (home.mountpoint / "file").write_text("changed")
    home.ok("umount", str(home.mountpoint))
    assert unlock(volume_of(home, "repassed"), NEW) is not None
    done = home.run("mount", str(home.mountpoint))  # a process of its own: what fails keeps the lock until it ends
    assert ExitCode.WRONG_PASSPHRASE == done.returncode
    assert 0 == home.here("fsck", "repassed", DISFS_PASSPHRASE=NEW).returncode
    with home_in(tmp_path / "second", discord) as second:
        assert ExitCode.WRONG_PASSPHRASE == second.here("recover", "repassed").returncode
        assert ExitCode.NO_PASSPHRASE == second.here("recover", "repassed", DISFS_PASSPHRASE=None).returncode
        second.done("recover", "repassed", "--key-file", str(tmp_path / "key"), DISFS_PASSPHRASE=None)
        del second.environment["DISFS_PASSPHRASE"]
        second.ok("mount", str(second.mountpoint))
        assert "changed" == (second.mountpoint / "file").read_text()
        second.ok("umount", str(second.mountpoint))


def test_new_passphrase_is_taken_over_elsewhere(home: Home, discord: Emulator, tmp_path: Path) -> None:
    """A machine that still has the old superblock is told how, and takes the new one if its passphrase is known."""
    home.done("init", "wandering", "--channels", "1")
    with home_in(tmp_path / "second", discord) as second:
        shutil.copytree(home.root, second.root)
        home.done("passwd", "--new-passphrase-file", private(tmp_path / "new", NEW))
        done = second.here("key", "export", str(tmp_path / "key"), DISFS_PASSPHRASE=NEW)
        assert ExitCode.WRONG_PASSPHRASE == done.returncode
        assert "'disfs passwd --fetch wandering'" in done.stderr
        assert ExitCode.WRONG_PASSPHRASE == second.here("passwd", "--fetch").returncode
        second.done("passwd", "--fetch", DISFS_PASSPHRASE=NEW)
        assert volume_of(home, "wandering") == volume_of(second, "wandering")


def test_key_file_opens_the_volume(home: Home, discord: Emulator, tmp_path: Path) -> None:
    """Exported, private, never over something; imported it opens the volume for all commands, without a passphrase."""
    home.done("init", "keyed", "--channels", "1")
    file = tmp_path / "stick.key"
    home.done("key", "export", str(file))
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    again = home.here("key", "export", str(file))
    assert ExitCode.USAGE == again.returncode
    assert "exists" in again.stderr
    without = {"DISFS_PASSPHRASE": None}
    new = private(tmp_path / "new", NEW)
    assert ExitCode.NO_PASSPHRASE == home.here("passwd", "--new-passphrase-file", new, **without).returncode
    home.done("passwd", "--key-file", str(file), "--new-passphrase-file", new, **without)
    home.done("key", "import", str(file), **without)
    copy = tmp_path / "second.key"
    home.done("key", "export", str(copy), **without)
    assert file.read_text() == copy.read_text()
    copy.chmod(0o644)
    open_to_all = home.run("mount", str(home.mountpoint), "--key-file", str(copy), **without)
    assert ExitCode.NO_PASSPHRASE == open_to_all.returncode
    assert "chmod 600" in open_to_all.stderr
    with home_in(tmp_path / "other", discord) as other:
        other.done("init", "another", "--channels", "1")
        done = other.here("key", "import", str(file))
    assert ExitCode.WRONG_PASSPHRASE == done.returncode
    assert "of another volume" in done.stderr


@pytest.mark.fuse
def test_what_another_machine_has_mounted_is_left_alone(home: Home, discord: Emulator, tmp_path: Path) -> None:
    """Neither its passphrase nor the volume itself is touched while a lease holds; afterwards all of it goes."""
    home.done("init", "doomed", "--channels", "2")
    home.ok("mount", str(home.mountpoint))
    (home.mountpoint / "file").write_text("content")
    mounted_here = home.here("delete-volume", "doomed", "--yes", "doomed")
    assert ExitCode.VOLUME_BUSY == mounted_here.returncode
    home.ok("umount", str(home.mountpoint))
    new = private(tmp_path / "new", NEW)
    with home_in(tmp_path / "second", discord) as second:
        second.done("recover", "doomed")
        second.ok("mount", str(second.mountpoint))
        for command in (["passwd", "--new-passphrase-file", new], ["delete-volume", "doomed", "--yes", "doomed"]):
            done = home.here(*command)
            assert ExitCode.VOLUME_HELD == done.returncode, done.stderr
            assert "is mounted on" in done.stderr
        assert "content" == (second.mountpoint / "file").read_text()
        second.ok("umount", str(second.mountpoint))
    home.done("delete-volume", "doomed", "--yes", "doomed")
    assert [] == [each for each in channels(discord) if "doomed" in f"{each['name']} {each.get('topic')}"]
    assert ExitCode.NO_SUCH_VOLUME == home.here("mount", str(home.mountpoint), "--volume", "doomed").returncode
    assert [] == [path for path in home.root.rglob("*") if "doomed" in path.name]


def test_volume_is_not_deleted_by_mistake(home: Home, discord: Emulator) -> None:
    """Nobody to ask, another name, no passphrase: everything stays, until --without-key says that it is lost."""
    home.done("init", "stays", "--channels", "1")
    before = len(channels(discord))
    for arguments, code in (
        ((), ExitCode.USAGE),
        (("--yes", "other"), ExitCode.USAGE),
        (("--yes", "stays", "--passphrase-file", "/nonexistent"), ExitCode.NO_PASSPHRASE),
    ):
        done = home.here("delete-volume", "stays", *arguments, DISFS_PASSPHRASE=None)
        assert code == done.returncode, done.stderr
        assert before == len(channels(discord))
        assert "stays" == volume_of(home, "stays").name
    home.done("delete-volume", "stays", "--yes", "stays", "--without-key", DISFS_PASSPHRASE=None)


def test_name_must_be_typed_to_delete(home: Home, discord: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one deletes nothing; before it is asked for, it is told what goes."""
    home.done("init", "typed", "--channels", "1")
    before = len(channels(discord))
    typed = iter(["tpyed", "typed"])
    monkeypatch.setattr("disfs.cli.delete_volume.interactive", lambda: True)
    monkeypatch.setattr("disfs.cli.delete_volume.click.prompt", lambda *_, **__: next(typed))
    done = home.here("delete-volume", "typed")
    assert ExitCode.USAGE == done.returncode
    assert "nothing was deleted" in done.stderr
    assert before == len(channels(discord))
    done = home.here("delete-volume", "typed")
    assert 0 == done.returncode, done.stderr
    for told in ("#data-1, #index", str(home.root / "state" / "volumes" / "typed"), "nothing brings it back"):
        assert told in done.stderr
    assert before - 3 == len(channels(discord))


def test_interrupted_deletion_is_finished(home: Home, discord: Emulator) -> None:
    """Discord fails in the middle; the same command goes on. A channel of somebody else keeps its category."""
    home.done("init", "halved", "--channels", "2")
    category = str(load_volume(Paths.from_environment(home.environment), "halved").category)
    mine = {"name": "mine", "parent_id": category}
    RestClient(discord)("POST", f"/guilds/{discord.guild_id}/channels", mine)
    discord.fault(kind="missing_permissions", route="delete_channel", nth=2)
    done = home.here("delete-volume", "halved", "--yes", "halved")
    assert ExitCode.MISSING_PERMISSION == done.returncode
    assert "Manage Channels" in done.stderr
    assert "halved" == volume_of(home, "halved").name
    home.done("delete-volume", "halved", "--yes", "halved")
    left = [each["name"] for each in channels(discord) if category in (each["id"], each["parent_id"])]
    assert ["disfs halved", "mine"] == sorted(left)


def channels(discord: Emulator) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = RestClient(discord)("GET", f"/guilds/{discord.guild_id}/channels").json
    return found
