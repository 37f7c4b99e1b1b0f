"""`disfs doctor`: what it looks at, and that it says what is wrong."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from support.home import home as home_in
from support.rest_client import RestClient

from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.chunkstore.transport.permissions import NEEDED, Permission
from disfs.cli import checks, discord_checks
from disfs.cli.checks import Check, Level, kernel_of
from disfs.cli.commands import disfs
from disfs.config import Paths, load_volume
from disfs.mountpoint import Mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.emulator import Emulator
    from support.home import Home

NAME = "checked"


@pytest.fixture(scope="module")
def volume(discord: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a volume that is not mounted."""
    with home_in(tmp_path_factory.mktemp("doctor"), discord) as made:
        made.done("init", NAME)
        yield made


@pytest.fixture(autouse=True)
def no_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others have mounted on this machine, and left behind, is not these tests' business."""
    monkeypatch.setattr(checks, "mounts", list)


@pytest.fixture
def sick(volume: Home, discord: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """The same for tests in this process; what they change in Discord is put back."""
    for name in ("DISFS_HOME", "DISFS_TOKEN", "DISFS_API_URL"):
        monkeypatch.setenv(name, volume.environment[name])
    monkeypatch.setattr(checks, "check_fuse", lambda _: None)
    monkeypatch.setattr("disfs.cli.checks.shutil.which", lambda _: "/bin/true")
    yield volume
    discord.settings(in_guild=True, permissions=(1 << 50) - 1, denied={}, token_revoked=False)


def doctor(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Its exit code, and what does not come out as `ok`."""
    result = CliRunner().invoke(disfs, ["doctor", "--json", *arguments])
    report = json.loads(result.stdout)
    assert report["ok"] == (result.exit_code == 0)
    return result.exit_code, [check for check in report["checks"] if check["level"] != "ok"]


@pytest.mark.fuse
def test_healthy_machine_is_all_well(volume: Home) -> None:
    """A line for each thing, exit code 0, and no control code in a pipe."""
    done = volume.here("doctor", NAME)
    assert 0 == done.returncode, done.stdout
    for topic in ("fuse", "kernel", "versions", "secrets", "disk", "mounts", "discord", "clock", "guild", "channels"):
        assert any(line.startswith(f"ok    {topic}") for line in done.stdout.splitlines()), topic
    assert "\x1b" not in done.stdout
    assert volume.environment["DISFS_TOKEN"] not in done.stdout


def test_rejected_token(sick: Home, discord: Emulator) -> None:
    """Discord's 401 is one failing line."""
    discord.settings(token_revoked=True)
    code, (check,) = doctor()
    assert (1, "discord", "fail") == (code, check["topic"], check["level"])
    assert "rejects the bot token" in check["text"]


def test_unreachable_discord(sick: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens."""
    monkeypatch.setenv("DISFS_API_URL", "http://127.0.0.1:1")
    code, (check,) = doctor()
    assert 1 == code
    assert "cannot be reached" in check["text"]


def test_bot_that_left_gets_its_invitation(sick: Home, discord: Emulator) -> None:
    """With the link that brings it back."""
    discord.settings(in_guild=False)
    code, (check,) = doctor(NAME)
    assert (1, "guild") == (code, check["topic"])
    assert f"&scope=bot&permissions={int(NEEDED)}" in check["text"]


def test_denied_channel_is_named(sick: Home, discord: Emulator) -> None:
    """Each channel by its name, with what is missing; Manage Messages is no failure."""
    volume = load_volume(Paths.from_environment(sick.environment), NAME)
    first, second = volume.superblock.data_channels[:2]
    denied = {
        str(first): int(Permission.ATTACH_FILES | Permission.READ_MESSAGE_HISTORY),
        str(second): int(Permission.MANAGE_MESSAGES),
    }
    discord.settings(permissions=int(NEEDED), denied=denied)
    code, found = doctor()
    assert 1 == code
    assert ["fail", "warn"] == [check["level"] for check in found]
    assert "#data-1 of volume 'checked' the bot lacks Attach Files, Read Message History" in found[0]["text"]
    assert "#data-2 of volume 'checked' the bot lacks Manage Messages" in found[1]["text"]


def test_deleted_channel_is_found(discord: Emulator, tmp_path: Path) -> None:
    """A data channel that somebody removed."""
    with home_in(tmp_path, discord) as home:
        home.done("init", "cut", "--channels", "2")
        volume = load_volume(Paths.from_environment(home.environment), "cut")
        RestClient(discord)("DELETE", f"/channels/{volume.superblock.data_channels[1]}")
        done = home.here("doctor", "--json")
    assert 1 == done.returncode
    assert f"is gone ({volume.superblock.data_channels[1]})" in done.stdout


def test_wrong_clock_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """By how much, and in which direction."""
    import trio

    async def ahead() -> float:
        return 600.0

    discord = MemoryTransport()
    assert Level.OK is trio.run(discord_checks._clock, discord).level
    monkeypatch.setattr(discord, "clock_ahead_seconds", ahead)
    check = trio.run(discord_checks._clock, discord)
    assert Level.WARN is check.level
    assert "10 min ahead of" in check.text


def test_open_secrets_are_found(sick: Home) -> None:
    """A passphrase that others may read, with the command that helps."""
    file = Paths.from_environment(sick.environment).passphrase_file(NAME)
    file.write_text("secret")
    file.chmod(0o640)
    try:
        code, (check,) = doctor()
    finally:
        file.unlink()
    assert (1, "secrets") == (code, check["topic"])
    assert f"'chmod 600 {file}'" in check["text"]
    assert "secret" not in check["text"].replace("holds a secret", "")


def test_broken_configuration_does_not_stop_it(sick: Home) -> None:
    """The rest is looked at all the same."""
    file = Paths.from_environment(sick.environment).config_file
    file.write_text("tokn = 'x'")
    file.chmod(0o600)
    try:
        code, (check,) = doctor()
    finally:
        file.unlink()
    assert (1, "config") == (code, check["topic"])


def test_disk_that_keeps_holes(sick: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache could not give space back there."""
    monkeypatch.setattr("disfs.chunkstore.files.punch_hole", lambda *_: None)
    code, (check,) = doctor()
    assert (0, "warn", "disk") == (code, check["level"], check["topic"])


def test_dead_mount_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that takes it away."""
    dead = Mount(Path("/mnt/x"), "fuse.disfs", "disfs:photos")
    monkeypatch.setattr(checks, "mounts", lambda: [dead])
    monkeypatch.setattr(checks, "is_dead", lambda _: True)
    assert [Check("mounts", Level.WARN, "the daemon of /mnt/x is gone; 'disfs umount /mnt/x' cleans up")] == list(
        checks.mount_checks()
    )


def test_mount_that_hangs_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which, and how to get rid of it."""
    never = threading.Event()
    monkeypatch.setattr(checks, "mounts", lambda: [Mount(Path("/mnt/x"), "fuse.disfs", "disfs:photos")])
    monkeypatch.setattr(checks, "is_dead", lambda _: never.wait())
    monkeypatch.setattr(checks, "ANSWER_SECONDS", 0.01)
    (check,) = checks.mount_checks()
    never.set()
    assert Level.FAIL is check.level
    assert "'fusermount3 -uz /mnt/x'" in check.text


def test_unknown_target_is_no_finding(sick: Home) -> None:
    """What is neither a volume nor a mountpoint is a mistake of the command line."""
    assert 0 != CliRunner().invoke(disfs, ["doctor", "other"]).exit_code
    assert 25 == sick.here("doctor", "other").returncode


@pytest.mark.parametrize(("release", "kernel"), [("6.18.1-x", (6, 18)), ("5.4", (5, 4)), ("?", (0, 0))])
def test_kernel_release_is_read(release: str, kernel: tuple[int, int]) -> None:
    """Its first two numbers."""
    assert kernel == kernel_of(release)


def test_root_owned_or_fixed_secrets_are_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of another user, and pipes, are as their owners want them."""
    from disfs.private_files import why_not_private

    file = tmp_path / "token"
    file.write_text("x")
    file.chmod(0o644)
    assert why_not_private(file) is not None
    reader, writer = os.pipe()
    assert why_not_private(Path(f"/dev/fd/{reader}")) is None
    os.close(reader)
    os.close(writer)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert why_not_private(file) is None
