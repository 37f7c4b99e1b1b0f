"""Commands that are told of a place or a volume that is none: one line, and an exit code that says which."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.volumes import VOLUME

from disfs.cli.commands import disfs
from disfs.cli.exits import run
from disfs.config import Paths, save_volume
from disfs.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

OF_A_MOUNT = (
    ["umount"],
    ["umount", "--force"],
    ["umount", "--timeout", "1"],
    ["sync"],
    ["status"],
    ["pause"],
    ["resume"],
    ["limits"],
    ["usage"],
)
OF_A_VOLUME = (["config", "list"], ["config", "get", "size"], ["config", "set", "size", "1G"], ["install-service"])
WRONG_VALUES = (
    ["umount", "--timeout", "-1", "/"],
    ["umount", "--timeout", "soon", "/"],
    ["completion", "tcsh"],
    ["install-service", "-o", "nonsense", "/"],
    ["mount", "-o", "uid=me", "/"],
    ["mount", "--bwlimit", "25:00,1M", "/"],
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with a volume that is not mounted."""
    monkeypatch.setenv("DISFS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    save_volume(Paths.from_environment(os.environ), VOLUME)


def refused(capsys: pytest.CaptureFixture[str], command: list[str]) -> tuple[int, str]:
    """The exit code, and the one line."""
    code = run(disfs, command)
    said = capsys.readouterr().err
    assert 1 == said.count("\n"), said
    return code, said


@pytest.mark.parametrize("command", OF_A_MOUNT, ids=" ".join)
@pytest.mark.parametrize("place", ["nosuch", ".", "/proc"])
def test_place_that_is_no_mount_of_ours(
    command: list[str], place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A place that does not exist, a directory on the disk, and somebody else's mount are left alone."""
    code, said = refused(capsys, [*command, place if place.startswith("/") else str(tmp_path / place)])
    assert code == ExitCode.NOT_MOUNTED
    assert "disfs volumes" in said


@pytest.mark.parametrize("command", OF_A_VOLUME, ids=" ".join)
def test_volume_that_does_not_exist(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, and so are those that there are."""
    code, said = refused(capsys, [*command, "--volume", "nosuch"])
    assert code == ExitCode.NO_SUCH_VOLUME
    assert "photos" in said


@pytest.mark.parametrize("command", WRONG_VALUES, ids=" ".join)
def test_value_that_makes_no_sense(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It is a wrong command line, before anything is done."""
    assert refused(capsys, command)[0] == ExitCode.USAGE
