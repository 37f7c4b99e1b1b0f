"""Bad input, as the issue lists it: each gets one line, its own exit code, no traceback, and nothing is lost."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.home import home as home_in

from disfs import mountpoint as mounting
from disfs.cli.commands import disfs
from disfs.cli.exits import run
from disfs.errors import ExitCode, UserError
from disfs.volume_state import VolumeLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.emulator import Emulator
    from support.home import Home

REFUSED_URL = "http://127.0.0.1:1"
SIGNED_URL = "https://cdn.discordapp.com/attachments/1/2/x.bin?ex=6543&is=1234&hm=deadbeef"
fuse = pytest.mark.fuse


def assert_one_line(done: subprocess.CompletedProcess[str], code: ExitCode, *words: str) -> None:
    """What every refusal has in common."""
    assert code == done.returncode, done.stderr
    lines = done.stderr.splitlines()
    assert 1 == len(lines), done.stderr
    assert lines[0].startswith("disfs: ")
    assert "; " in lines[0], "it does not say what to do"
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module")
def volume(discord: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a volume, for the tests that only look at it."""
    with home_in(tmp_path_factory.mktemp("volume"), discord) as made:
        made.ok("init", f"v{os.getpid()}")
        yield made


# Token, guild, permission


def test_no_token(home: Home) -> None:
    """Without a token init says where it looks for one."""
    assert_one_line(home.run("init", DISFS_TOKEN=None), ExitCode.NO_TOKEN, "DISFS_TOKEN", "--token-file")


@pytest.mark.parametrize("content", [None, "", "two words"])
def test_useless_token_file(home: Home, tmp_path: Path, content: str | None) -> None:
    """A token file that is missing, empty or holds something else is NO_TOKEN too."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    assert_one_line(home.run("init", "--token-file", str(file), DISFS_TOKEN=None), ExitCode.NO_TOKEN)


def test_wrong_token(home: Home) -> None:
    """A token that Discord rejects is named as such, and does not appear in the message."""
    done = home.run("init", DISFS_TOKEN="wrong-secret")
    assert_one_line(done, ExitCode.TOKEN_REJECTED, "token", "Developer Portal")
    assert "wrong-secret" not in done.stderr + home.logs()


def test_wrong_token_comes_before_the_passphrase(home: Home) -> None:
    """Nobody thinks up a passphrase for a token or a guild that does not work."""
    done = home.run("init", DISFS_TOKEN="wrong-secret", DISFS_PASSPHRASE=None)
    assert_one_line(done, ExitCode.TOKEN_REJECTED)
    assert_one_line(home.run("init", "--guild", "123", DISFS_PASSPHRASE=None), ExitCode.UNKNOWN_GUILD)


def test_wrong_token_at_mount(volume: Home) -> None:
    """A rejected token cannot mend itself: the mount is refused before it takes in what can never be sent."""
    done = volume.run("mount", str(volume.mountpoint), DISFS_TOKEN="wrong-secret")
    assert_one_line(done, ExitCode.TOKEN_REJECTED, "token")
    assert mounting.mount_at(volume.mountpoint) is None


def test_missing_permission(home: Home, discord: Emulator) -> None:
    """A 403 names the permission that is missing."""
    discord.fault(kind="missing_permissions", route="create_channel", count=None)
    assert_one_line(home.run("init", "noperm"), ExitCode.MISSING_PERMISSION, "Manage Channels")


def test_missing_permission_to_send(home: Home, discord: Emulator) -> None:
    """The permissions that files need are tried at init, not at the first upload."""
    discord.fault(kind="missing_permissions", route="create_message", count=None)
    assert_one_line(home.run("init", "nosend"), ExitCode.MISSING_PERMISSION, "permission")


def test_unknown_guild(home: Home) -> None:
    """A guild that the bot is not in is named."""
    assert_one_line(home.run("init", "--guild", "4711"), ExitCode.UNKNOWN_GUILD, "4711")


def test_discord_unreachable_at_init(home: Home) -> None:
    """A volume cannot be made without Discord; the failed attempt does not stand in the way of the next."""
    assert_one_line(home.run("init", "later", DISFS_API_URL=REFUSED_URL), ExitCode.DISCORD_UNREACHABLE, "network")
    home.ok("init", "later")


# Passphrase


def test_no_passphrase(volume: Home) -> None:
    """Without a passphrase and nobody to ask, mount says where it looks for one."""
    done = volume.run("mount", str(volume.mountpoint), DISFS_PASSPHRASE=None)
    assert_one_line(done, ExitCode.NO_PASSPHRASE, "DISFS_PASSPHRASE", "--passphrase-file")


def test_wrong_passphrase(volume: Home) -> None:
    """A wrong passphrase is found out before anything is mounted, without Discord, and is not repeated."""
    done = volume.run("mount", str(volume.mountpoint), DISFS_PASSPHRASE="wrong-secret", DISFS_API_URL=REFUSED_URL)
    assert_one_line(done, ExitCode.WRONG_PASSPHRASE, "passphrase")
    assert "wrong-secret" not in done.stderr + volume.logs()


# Volume


def test_no_volume(home: Home) -> None:
    """On a new machine mount says how to get a volume."""
    assert_one_line(home.run("mount", str(home.mountpoint)), ExitCode.NO_SUCH_VOLUME, "disfs setup", "--emulator")


def test_unknown_volume(volume: Home) -> None:
    """A volume that is not there is refused with the names of those that are."""
    done = volume.run("mount", str(volume.mountpoint), "--volume", "other")
    assert_one_line(done, ExitCode.NO_SUCH_VOLUME, "'other'", f"v{os.getpid()}")


def test_volume_exists(volume: Home) -> None:
    """init never touches a volume that is there."""
    assert_one_line(volume.run("init", f"v{os.getpid()}"), ExitCode.VOLUME_EXISTS)


def test_volume_busy(volume: Home) -> None:
    """A volume that another process holds is refused with that process's number."""
    name = f"v{os.getpid()}"
    lock = VolumeLock.acquire(volume.root / "state" / "volumes" / name, name)
    try:
        done = volume.run("mount", str(volume.mountpoint))
    finally:
        lock.release()
    assert_one_line(done, ExitCode.VOLUME_BUSY, str(os.getpid()))


def test_damaged_configuration(home: Home) -> None:
    """A configuration file with an error says where."""
    (home.root / "config").mkdir(parents=True)
    (home.root / "config" / "config.toml").write_text("token = \n")
    assert_one_line(home.run("init"), ExitCode.CONFIG_INVALID, "config.toml", "line 1")


def test_lost_metadata(home: Home) -> None:
    """Missing metadata is not taken for an empty volume."""
    home.ok("init", "lost")
    (home.root / "state" / "volumes" / "lost" / "metadata.db").unlink()
    done = home.run("mount", str(home.mountpoint))
    assert_one_line(done, ExitCode.VOLUME_DAMAGED, "metadata.db")


# Mountpoint


def test_mountpoint_missing(volume: Home) -> None:
    """A mountpoint that does not exist is not made silently."""
    done = volume.run("mount", str(volume.mountpoint / "nothing"))
    assert_one_line(done, ExitCode.MOUNTPOINT_MISSING, "mkdir")


def test_mountpoint_is_a_file(volume: Home, tmp_path: Path) -> None:
    """A mountpoint must be a directory."""
    (tmp_path / "file").write_text("x")
    assert_one_line(volume.run("mount", str(tmp_path / "file")), ExitCode.MOUNTPOINT_MISSING, "not a directory")


def test_mountpoint_not_empty(volume: Home, tmp_path: Path) -> None:
    """A mount would hide files: refused, and the files are untouched."""
    (tmp_path / "file").write_text("x")
    assert_one_line(volume.run("mount", str(tmp_path)), ExitCode.MOUNTPOINT_NOT_EMPTY, "not empty")
    assert "x" == (tmp_path / "file").read_text()


@pytest.mark.parametrize("command", ["umount", "sync", "status"])
def test_nothing_mounted(volume: Home, command: str) -> None:
    """Commands for a mount say that there is none."""
    assert_one_line(volume.run(command, str(volume.mountpoint)), ExitCode.NOT_MOUNTED, "disfs volumes")


def test_foreign_mount(volume: Home) -> None:
    """Somebody else's mount is left alone."""
    assert_one_line(volume.run("umount", "/proc"), ExitCode.NOT_MOUNTED, "proc")
    assert_one_line(volume.run("mount", "/proc"), ExitCode.ALREADY_MOUNTED, "proc")


# FUSE


@pytest.mark.parametrize(("device", "words"), [("missing", "modprobe fuse"), (".", "allowed to use it")])
def test_fuse_unavailable(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: str,
    words: str,
) -> None:
    """Without a usable /dev/fuse the mount is refused before anything is asked or started."""
    monkeypatch.setenv("DISFS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(mounting, "FUSE_DEVICE", tmp_path / device)
    (tmp_path / "mnt").mkdir()
    assert ExitCode.FUSE_UNAVAILABLE == run(disfs, ["mount", str(tmp_path / "mnt")])
    printed = capsys.readouterr().err
    assert words in printed
    assert 1 == printed.count("\n")


def test_fusermount_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who is not root needs fusermount3, and is told which package has it."""
    monkeypatch.setattr(mounting, "FUSE_DEVICE", os.devnull)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="apt install fuse3") as caught:
        mounting.check_fuse(frozenset())
    assert ExitCode.FUSE_UNAVAILABLE == caught.value.exit_code


@pytest.mark.parametrize(("text", "is_allowed"), [("# user_allow_other\n", False), ("user_allow_other\n", True)])
def test_allow_other_needs_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, is_allowed: bool
) -> None:
    """allow_other is refused with the line that is missing, instead of by a mount that fails without a word."""
    (tmp_path / "fuse.conf").write_text(text)
    (tmp_path / "fusermount3").write_text("")
    (tmp_path / "fusermount3").chmod(0o755)
    monkeypatch.setattr(mounting, "FUSE_DEVICE", os.devnull)
    monkeypatch.setattr(mounting, "FUSE_CONFIG", tmp_path / "fuse.conf")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    if is_allowed:
        mounting.check_fuse(frozenset({"allow_other"}))
        return
    with pytest.raises(UserError, match="user_allow_other"):
        mounting.check_fuse(frozenset({"allow_other"}))


# State directory


def test_state_directory_cannot_be_made(home: Home) -> None:
    """A home that is no directory is named."""
    home.root.write_text("a file")
    assert_one_line(home.run("init"), ExitCode.STATE_UNUSABLE, str(home.root), "DISFS_HOME")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can make a small or read-only disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_state_disk_full(home: Home, small_disk: Path) -> None:
    """A full disk is named before anything is lost."""
    done = home.run("init", "full", DISFS_HOME=str(small_disk / "home"))
    assert_one_line(done, ExitCode.STATE_FULL, "full")


def test_state_disk_read_only(home: Home, small_disk: Path) -> None:
    """A read-only disk is named, both for a new volume and for one that is to be mounted."""
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    on_disk = str(small_disk / "home")
    assert 0 == home.run("init", f"r{os.getpid()}", DISFS_HOME=on_disk).returncode
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for command in (("init", "another"), ("mount", str(home.mountpoint))):
        assert_one_line(home.run(*command, DISFS_HOME=on_disk), ExitCode.STATE_UNUSABLE, "Read-only file system")


# Emulator


def test_emulator_not_running(home: Home) -> None:
    """--info without an emulator says how to start it."""
    assert_one_line(home.run("emulator", "--info"), ExitCode.EMULATOR_NOT_RUNNING, "disfs emulator")


def test_emulator_port_taken(home: Home) -> None:
    """A port that is taken has its own exit code."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = home.run("emulator", "--port", str(taken.getsockname()[1]))
    assert ExitCode.EMULATOR_PORT_TAKEN == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert "port" in done.stderr


def test_emulator_mount_of_another_volume(volume: Home) -> None:
    """--emulator with a volume that lives in a real guild is a mistake, and said so."""
    done = volume.run("mount", str(volume.mountpoint), "--emulator", "--volume", f"v{os.getpid()}")
    assert_one_line(done, ExitCode.USAGE, "not one of the emulator")


# The command line itself


@pytest.mark.parametrize(
    "arguments",
    [
        ["mount"],
        ["mount", "x", "--colour"],
        ["frobnicate"],
        ["init", "--channels", "0"],
        ["init", "--channels", "50"],
        ["init", "a/b"],
        ["mount", "{mountpoint}", "-o", "frobnicate"],
        ["mount", "{mountpoint}", "--cache-size", "big"],
        ["mount", "{mountpoint}", "-o", "cache_size=1K"],
    ],
)
def test_wrong_usage(volume: Home, arguments: list[str]) -> None:
    """A command line that makes no sense is one line with exit code 2."""
    filled = [argument.format(mountpoint=volume.mountpoint) for argument in arguments]
    assert_one_line(volume.run(*filled), ExitCode.USAGE)


def test_bad_api_url(home: Home) -> None:
    """An address that is none is refused before the token goes anywhere."""
    assert_one_line(home.run("init", DISFS_API_URL="discord.example"), ExitCode.CONFIG_INVALID, "discord.example")


def test_internal_error_is_one_line_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug is one line for the person, and a traceback in the log for whoever mends it; no secret is in either."""
    monkeypatch.setenv("DISFS_HOME", str(tmp_path))

    def broken(_paths: object) -> list[str]:
        raise ZeroDivisionError(f"a bug with {SIGNED_URL}")

    monkeypatch.setattr("disfs.cli.status.running_daemons", broken)
    assert ExitCode.INTERNAL == run(disfs, ["volumes"])
    printed = capsys.readouterr().err
    log_file = tmp_path / "state" / "disfs.log"
    assert str(log_file) in printed
    assert 1 == printed.count("\n")
    assert "Traceback" in log_file.read_text()
    assert "deadbeef" not in printed + log_file.read_text()


def test_no_command_shows_the_help(home: Home) -> None:
    """`disfs` alone prints the help as it is meant to be read, and exits as for a wrong command line."""
    done = home.run()
    assert ExitCode.USAGE == done.returncode
    assert "\n  mount " in done.stdout
    assert done.stderr == ""
