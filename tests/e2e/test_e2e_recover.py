"""A machine that burns loses seconds: the volume comes back from Discord with every attribute."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from support.product import PASSPHRASE, product

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.product import Product

pytestmark = pytest.mark.fuse


def tree(root: Path) -> dict[str, dict[str, Any]]:
    """Every attribute of everything below a directory, and the directory itself. Reading moves no atime here."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        facts = path.lstat()
        entry: dict[str, Any] = {
            name: getattr(facts, f"st_{name}")
            for name in (
                "ino",
                "mode",
                "nlink",
                "uid",
                "gid",
                "rdev",
                "size",
                "blocks",
                "atime_ns",
                "mtime_ns",
                "ctime_ns",
            )
        }
        entry["xattrs"] = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        if stat.S_ISLNK(facts.st_mode):
            entry["target"] = str(path.readlink())
        found[str(path.relative_to(root))] = entry
    return found


def contents(root: Path) -> dict[str, bytes]:
    """What is in all files."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def fill(root: Path) -> None:
    """Something of every kind."""
    (root / "docs" / "deep").mkdir(parents=True)
    (root / "docs" / "report.txt").write_text("numbers\n" * 1000)
    (root / "docs" / "deep" / "large").write_bytes(os.urandom(700_000))
    (root / "docs" / "empty").touch()
    os.link(root / "docs" / "report.txt", root / "second name")
    (root / "link").symlink_to("docs/report.txt")
    os.mkfifo(root / "pipe", 0o640)
    with (root / "sparse").open("wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"in the middle")
    os.setxattr(root / "docs", "user.colour", b"blue\0")
    os.setxattr(root / "docs" / "report.txt", "user.long", os.urandom(5000))
    (root / "docs" / "empty").chmod(0o4751)
    os.chown(root / "docs" / "empty", 1234, 4321)
    os.utime(root / "docs" / "empty", ns=(1_000_000_001, 2_000_000_002))
    (root / b"\xff odd".decode(errors="surrogateescape")).write_bytes(b"x")
    (root / "gone").write_bytes(b"y" * 100_000)
    (root / "gone").unlink()


def burn(disk: Product, *, config: bool = True) -> None:
    """The machine is gone: all that it knew of the volume. The emulator, which is Discord here, is not."""
    shutil.rmtree(disk.home / "state" / "volumes")
    shutil.rmtree(disk.home / "cache")
    if config:
        kept = disk.home / "config" / "volumes" / "emulator.passphrase"
        for path in (disk.home / "config" / "volumes").iterdir():
            if path != kept:
                path.unlink()


def recover(disk: Product, *arguments: str) -> str:
    """`disfs recover`; what it printed, both streams together."""
    done = disk.run("recover", "emulator", "--emulator", *arguments)
    return done.stdout + done.stderr


def test_volume_comes_back_with_every_attribute(disk: Product) -> None:
    """What Discord holds is enough, with the passphrase, to rebuild the volume on an empty machine, as of the last
    journal.

    State and cache are destroyed after a sync: `disfs recover` and a mount give the same tree, to the last bit.
    """
    fill(disk.mountpoint)
    tree(disk.mountpoint)  # moves the atimes of directories, once
    disk.run("sync", str(disk.mountpoint))
    before = tree(disk.mountpoint)
    disk.kill()
    burn(disk)
    told = recover(disk)
    assert "nothing is missing" in told
    assert "recovered as it was at" in told
    disk.mount("-o", "noatime")
    assert before == tree(disk.mountpoint)
    found = contents(disk.mountpoint)
    assert "numbers\n" * 1000 == found["second name"].decode()
    assert 700_000 == len(found["docs/deep/large"])
    assert bytes(5 << 20) + b"in the middle" + bytes((5 << 20) - 13) == found["sparse"]
    (disk.mountpoint / "new").write_bytes(b"life goes on")
    disk.umount()
    disk.mount()
    assert b"life goes on" == (disk.mountpoint / "new").read_bytes()


def test_kill_while_writing_then_burn_gives_the_last_journal(disk: Product) -> None:
    """Killed in the middle of work and burnt: a consistent tree as of the last journal, and nothing that is not so."""
    expected = {}
    for number in range(40):
        content = os.urandom(20_000)
        (disk.mountpoint / f"before {number}").write_bytes(content)
        expected[f"before {number}"] = content
    disk.run("sync", str(disk.mountpoint))
    for number in range(400):
        (disk.mountpoint / f"after {number}").write_bytes(os.urandom(5_000))
    disk.kill()
    burn(disk)
    recover(disk)
    disk.mount()
    found = {path.name for path in disk.mountpoint.iterdir()}
    assert expected.keys() <= found
    assert expected == {name: (disk.mountpoint / name).read_bytes() for name in expected}
    # A journal may have gone out meanwhile: its files are whole, or an error.
    assert {5_000, errno.EIO} >= {outcome(disk.mountpoint / name) for name in found - expected.keys()}
    status = disk.status()
    assert None is status["metadata"]["damage"]


def outcome(path: Path) -> int | None:
    """How long a file's content is, or why it cannot be read."""
    try:
        return len(path.read_bytes())
    except OSError as error:
        return error.errno


@pytest.fixture
def second(disk: Product, tmp_path: Path) -> Iterator[Product]:
    """Another machine, with a home of its own, the same Discord, the token and the passphrase."""
    info = disk.emulator()
    with product(tmp_path / "second") as other:
        other.environment |= {"DISFS_API_URL": info["api_url"], "DISFS_TOKEN": info["token"]}
        yield other


def test_old_machine_notices_that_the_volume_lives_elsewhere(disk: Product, second: Product) -> None:
    """A machine that finds that the volume has gone on elsewhere says so, and overwrites and deletes nothing.

    Recovered and mounted on a second machine while the first one is still up.
    """
    (disk.mountpoint / "one").write_bytes(b"1")
    disk.run("sync", str(disk.mountpoint))
    second.run("recover", "emulator")
    second.run("mount", "--takeover", str(second.mountpoint))
    second.run("sync", str(second.mountpoint))
    (disk.mountpoint / "two").write_bytes(b"2")
    assert 29 == disk.run("sync", str(disk.mountpoint), check=False).returncode
    conflict = disk.status()["journal"]["conflict"]
    assert "has had this volume mounted since" in conflict
    assert conflict in disk.run("status", str(disk.mountpoint)).stdout
    assert ["one"] == [path.name for path in second.mountpoint.iterdir()]
    second.umount()
    done = disk.run("umount", str(disk.mountpoint), check=False)
    assert (29, True) == (done.returncode, "has had this volume mounted since" in done.stderr)


def refused(disk: Product, *arguments: str) -> tuple[int, str]:
    """The exit code and the one line."""
    done = disk.run("recover", *arguments, check=False)
    assert 1 == len(done.stderr.splitlines()), done.stderr
    return done.returncode, done.stderr


def test_what_cannot_be_recovered_is_said_in_one_line(disk: Product, second: Product) -> None:
    """Nothing on either side is touched by a recovery that is refused."""
    (disk.mountpoint / "one").write_bytes(b"1")
    assert 26 == refused(disk, "emulator", "--emulator")[0]
    disk.umount()
    assert 26 == refused(disk, "emulator", "--emulator")[0]
    assert 25 == refused(second, "photos")[0]
    assert 13 == refused(second, "emulator", "--guild", "12345")[0]
    second.environment["DISFS_PASSPHRASE"] = "wrong"
    assert 14 == refused(second, "emulator")[0]
    second.environment["DISFS_PASSPHRASE"] = PASSPHRASE
    guild = disk.emulator()["guild_id"]
    category = make_channel(disk, guild, "disfs emulator", None)
    index = make_channel(disk, guild, "index", category)
    assert 0 == second.run("recover", "emulator").returncode, "a category without a superblock is none"
    assert 26 == refused(second, "emulator")[0]
    assert index > category


def make_channel(disk: Product, guild: str, name: str, parent: int | None) -> int:
    """A category, or a text channel in one."""
    info = disk.emulator()
    body = {"name": name, "type": 4} if parent is None else {"name": name, "type": 0, "parent_id": str(parent)}
    request = urllib.request.Request(
        f"{info['api_url']}/guilds/{guild}/channels",
        method="POST",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": f"Bot {info['token']}",
            "User-Agent": "DiscordBot (tests, 1)",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(json.loads(answer.read())["id"])


def index_messages(disk: Product) -> list[dict[str, Any]]:
    """Everything in the index channel but superblock and leases, newest first."""
    guild = disk.emulator()["guild_id"]
    (index,) = [c for c in disk.api("GET", f"/guilds/{guild}/channels") if c["name"] == "index"]
    messages = disk.api("GET", f"/channels/{index['id']}/messages?limit=100")
    shipped = [each for each in messages if each["attachments"][0]["filename"] != "superblock.json"]
    return [each for each in shipped if not each["content"].startswith("lease of")]


def test_message_of_the_newest_journal_that_is_deleted_costs_that_state(disk: Product, second: Product) -> None:
    """The volume comes back as it was before."""
    for name in ("one", "two"):
        (disk.mountpoint / name).write_bytes(b"x")
        disk.run("sync", str(disk.mountpoint))
    newest = index_messages(disk)[0]
    disk.api("DELETE", f"/channels/{newest['channel_id']}/messages/{newest['id']}")
    second.run("recover", "emulator")
    second.run("mount", "--takeover", str(second.mountpoint))
    assert ["one"] == [path.name for path in second.mountpoint.iterdir()]
    second.umount()


def test_packs_alone_bring_contents_back(disk: Product, second: Product) -> None:
    """Without anything of the index channel but the superblock: each content, newest version, by inode number."""
    wanted = {}
    for name in ("one", "two"):
        content = os.urandom(300_000)
        (disk.mountpoint / name).write_bytes(b"older" * 30_000)
        disk.run("sync", str(disk.mountpoint))
        (disk.mountpoint / name).write_bytes(content)
        wanted[f"inode-{(disk.mountpoint / name).stat().st_ino}"] = content
    disk.run("sync", str(disk.mountpoint))
    disk.umount()
    for message in index_messages(disk):
        disk.api("DELETE", f"/channels/{message['channel_id']}/messages/{message['id']}")
    assert 32 == refused(second, "emulator")[0]
    told = second.run("recover", "emulator", "--from-packs")
    assert "all names and attributes" in told.stderr
    second.run("mount", str(second.mountpoint))
    found = {path.name: path.read_bytes() for path in (second.mountpoint / "lost+found").iterdir()}
    assert wanted == found
    second.umount()


def test_ten_thousand_small_files_take_few_messages(disk: Product) -> None:
    """Contents, journals and copies together: at most six messages, more only where writing takes long.

    While the writing goes on, contents and a journal are due in each `writeback_delay` of 5 s.
    """
    began = time.monotonic()
    for directory in range(10):
        (disk.mountpoint / f"{directory}").mkdir()
        for number in range(1000):
            (disk.mountpoint / f"{directory}" / f"{number}").write_bytes(b"%d" % number * 50)
    disk.run("sync", str(disk.mountpoint))
    seconds = time.monotonic() - began
    assert len(disk.data_messages()) + len(index_messages(disk)) <= max(6, 4 + 2 * seconds / 5)
