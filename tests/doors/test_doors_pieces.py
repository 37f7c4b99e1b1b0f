"""The small parts of the doors: mountinfo, going into the background, secrets, progress, the emulator's traces."""

from __future__ import annotations

import json
import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from disfs import background, local_emulator, mountpoint
from disfs.background import Ready
from disfs.cli.progress import _Lines
from disfs.cli.secrets import ask_passphrase, ask_token, clean_token, find_passphrase, find_token
from disfs.config import GlobalConfig
from disfs.control.protocol import Progress
from disfs.errors import ExitCode, UserError
from disfs.mountpoint import Mount, parse_mounts
from disfs.private_files import explained, write_text
from disfs.quantities import human_size

if TYPE_CHECKING:
    from collections.abc import Callable

MOUNTINFO = """\
22 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw
40 22 0:44 / /home/me/my\\040disk rw,nosuid,nodev,relatime shared:9 - fuse.disfs disfs:photos rw,user_id=0
41 22 0:45 / /home/me/\xf6\\134 rw - fuse.sshfs me@host:/x rw
42 22 0:46 / /mnt rw - tmpfs none rw
"""


def test_mountinfo_is_read_with_its_escapes() -> None:
    """Spaces and backslashes in mountpoints are undone; a mount of ours tells its volume."""
    found = parse_mounts(MOUNTINFO)
    assert [None, "photos", None, None] == [mount.volume for mount in found]
    assert Path("/home/me/my disk") == found[1].mountpoint
    assert "/home/me/\xf6\\" == str(found[2].mountpoint)


def test_topmost_mount_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where mounts lie upon one another, the one that is seen is the last."""
    stacked = [Mount(tmp_path, "tmpfs", "a"), Mount(tmp_path, "fuse.disfs", "disfs:b")]
    monkeypatch.setattr(mountpoint, "mounts", lambda: stacked)
    assert stacked[1] == mountpoint.mount_at(tmp_path)


def test_link_to_a_mountpoint_is_followed(tmp_path: Path) -> None:
    """A symbolic link stands for the directory that it leads to."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert tmp_path / "real" == mountpoint.resolve(tmp_path / "link")
    assert tmp_path == mountpoint.resolve(tmp_path / "real" / "..")


# Background


def as_user_error(error: Exception) -> UserError:
    return error if isinstance(error, UserError) else UserError(f"unknown: {error}", ExitCode.INTERNAL)


def test_background_process_reports_when_it_is_ready() -> None:
    """`start` returns what the process in the background says, warnings included."""

    def serve(ready: object) -> int:
        assert callable(ready)
        ready(Ready(("careful",), ("recovered",)))
        return 0

    assert Ready(("careful",), ("recovered",)) == background.start(serve, explain=as_user_error)


def test_background_process_goes_on_detached(tmp_path: Path) -> None:
    """After it has said that it is ready, the process has its own session and nobody's terminal."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def serve(ready: object) -> int:
        assert callable(ready)
        ready(Ready())
        with fifo.open("w") as stream:
            json.dump(
                {
                    "session": os.getsid(0),
                    "directory": str(Path.cwd()),
                    "stdin": str(Path("/proc/self/fd/0").readlink()),
                },
                stream,
            )
        return 0

    background.start(serve, explain=as_user_error)
    told = json.loads(fifo.read_text())
    assert os.getsid(0) != told["session"]
    assert ("/", "/dev/null") == (told["directory"], told["stdin"])


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (UserError("busy; wait", ExitCode.VOLUME_BUSY), "busy; wait", ExitCode.VOLUME_BUSY),
        (ValueError("x"), "unknown: x", ExitCode.INTERNAL),
    ],
)
def test_failure_in_the_background_is_raised_here(error: Exception, message: str, code: ExitCode) -> None:
    """What keeps the background process from starting reaches the person who started it."""

    def serve(_ready: object) -> int:
        raise error

    with pytest.raises(UserError, match=message) as caught:
        background.start(serve, explain=as_user_error)
    assert code == caught.value.exit_code


def test_silent_death_in_the_background_is_noticed() -> None:
    """A process that dies without a word does not leave its starter waiting."""

    def serve(_ready: object) -> int:
        os._exit(9)

    with pytest.raises(UserError, match="died while it was starting") as caught:
        background.start(serve, explain=as_user_error)
    assert ExitCode.INTERNAL == caught.value.exit_code


# Secrets


@pytest.fixture
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISFS_TOKEN", raising=False)
    monkeypatch.delenv("DISFS_PASSPHRASE", raising=False)
    monkeypatch.setattr("disfs.cli.secrets.interactive", lambda: False)


@pytest.mark.usefixtures("no_secrets")
def test_token_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment before file before config.toml before a file that config.toml names."""
    named, kept = tmp_path / "named", tmp_path / "kept"
    named.write_text("from-file\n")
    kept.write_text("from-kept-file\n")
    for file in (named, kept):
        file.chmod(0o600)
    assert "from-kept-file" == find_token(GlobalConfig(token_file=kept), None)
    assert "from-config" == find_token(GlobalConfig(token="from-config", token_file=kept), None)
    assert "from-file" == find_token(GlobalConfig(token="from-config"), named)
    monkeypatch.setenv("DISFS_TOKEN", "from-environment")
    assert "from-environment" == find_token(GlobalConfig(token="from-config"), named)


@pytest.mark.usefixtures("no_secrets")
def test_secrets_that_others_may_read_are_refused(tmp_path: Path) -> None:
    """Files of ours, whether named or kept, with the command that mends them."""
    file = tmp_path / "secret"
    file.write_text("very.secret\n")
    for mode in (0o640, 0o604, 0o622):
        file.chmod(mode)
        findings: list[Callable[[], object]] = [
            partial(find_token, GlobalConfig(), file),
            partial(find_token, GlobalConfig(token_file=file), None),
            partial(find_passphrase, file),
        ]
        for finding in findings:
            with pytest.raises(UserError, match=f"'chmod 600 {file}'") as caught:
                finding()
            assert "very.secret" not in str(caught.value)


@pytest.mark.usefixtures("no_secrets")
def test_passphrase_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment before file; spaces belong to a passphrase."""
    file = tmp_path / "file"
    file.write_text("  two words \n")
    file.chmod(0o600)
    assert find_passphrase(None) is None
    assert "  two words " == find_passphrase(file)
    monkeypatch.setenv("DISFS_PASSPHRASE", "from environment")
    assert "from environment" == find_passphrase(file)


@pytest.mark.usefixtures("no_secrets")
def test_nobody_is_asked_without_a_terminal() -> None:
    """In a script a missing secret is an error, not a prompt that waits for ever."""
    with pytest.raises(UserError) as caught:
        ask_token()
    assert ExitCode.NO_TOKEN == caught.value.exit_code
    with pytest.raises(UserError) as caught:
        ask_passphrase("photos", confirm=True)
    assert ExitCode.NO_PASSPHRASE == caught.value.exit_code


@pytest.mark.parametrize("raw", ["abc.def", " abc.def\n", "Bot abc.def"])
def test_token_is_taken_as_people_paste_it(raw: str) -> None:
    """White space and Discord's own prefix are dropped."""
    assert "abc.def" == clean_token(raw)


@pytest.mark.parametrize("raw", ["", "a\r\nHost: evil", "t\xf6ken", "a b"])
def test_token_that_could_break_a_header_is_refused(raw: str) -> None:
    """What no token contains never reaches a request."""
    with pytest.raises(UserError) as caught:
        clean_token(raw)
    assert ExitCode.NO_TOKEN == caught.value.exit_code


# Progress


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")]
)
def test_size_is_shown_as_people_read_it(size_bytes: int, text: str) -> None:
    """Sizes have at most one decimal and a binary unit."""
    assert text == human_size(size_bytes)


def test_lines_are_few_and_failures_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal progress is a line now and then, and each new failure one more."""
    lines = _Lines()
    for _ in range(5):
        lines.show(Progress(2048, 1))
    for _ in range(5):
        lines.show(Progress(2048, 1, "the network is down"))
    printed = capsys.readouterr().err.splitlines()
    assert ["2.0 KiB still to send"] == printed[:1]
    assert 2 == len(printed)
    assert "the network is down" in printed[1]


# Files and the emulator


@pytest.mark.parametrize(
    ("number", "code"), [(28, ExitCode.STATE_FULL), (122, ExitCode.STATE_FULL), (30, ExitCode.STATE_UNUSABLE)]
)
def test_disk_errors_have_their_exit_codes(number: int, code: ExitCode) -> None:
    """ENOSPC and EDQUOT are a full disk, everything else one that cannot be used; the file is named."""
    with pytest.raises(UserError, match="/some/file") as caught, explained(Path("/other")):
        raise OSError(number, os.strerror(number), "/some/file")
    assert code == caught.value.exit_code


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose replacement could not be made durable still holds what it held, and nothing lies about."""
    file = tmp_path / "file"
    write_text(file, "old")

    def failing(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("disfs.private_files.os.fsync", failing)
    with pytest.raises(UserError):
        write_text(file, "new")
    assert ["file"] == [path.name for path in tmp_path.iterdir()]
    assert "old" == file.read_text()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": "x"}', "\x00"])
def test_broken_emulator_info_means_not_running(tmp_path: Path, text: str) -> None:
    """Whatever a crash left in info.json, no emulator runs there."""
    (tmp_path / local_emulator.INFO_NAME).write_text(text)
    assert local_emulator.running(tmp_path) is None


def test_emulator_info_of_a_dead_process_means_not_running(tmp_path: Path) -> None:
    """A process number alone is no proof: something must answer at the address."""
    info = {
        "pid": os.getpid(),
        "api_url": "http://127.0.0.1:1/api/v10",
        "token": "secret",
        "guild_id": "1",
        "control_url": "http://127.0.0.1:1/control",
    }
    (tmp_path / local_emulator.INFO_NAME).write_text(json.dumps(info))
    known = local_emulator.last_known(tmp_path)
    assert known is not None
    assert "secret" not in repr(known)
    assert local_emulator.running(tmp_path) is None
