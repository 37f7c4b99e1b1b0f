"""What shells and `man` know of the commands: completion and manual pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner
from support.volumes import VOLUME

from disfs.cli import completion
from disfs.cli.commands import disfs
from disfs.config import Paths, save_volume
from disfs.mountpoint import Mount
from scripts import man_pages

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGES = man_pages.pages()


@pytest.fixture
def _volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One volume, mounted as far as the kernel says."""
    monkeypatch.setenv("DISFS_HOME", str(tmp_path))
    save_volume(Paths.from_environment(os.environ), VOLUME)
    found = [Mount(Path("/home/me/discord"), "fuse.disfs", "disfs:photos"), Mount(Path("/home/other"), "ext4", "x")]
    monkeypatch.setattr(completion, "mounts", lambda: found)


def completed(shell: str, *words: str) -> list[str]:
    """What a shell is told when somebody presses Tab after `words`, the last of which is not finished."""
    environment = {"_DISFS_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(["disfs", *words])}
    environment |= {"COMP_CWORD": words[-1] if shell == "fish" else str(len(words))}
    done = CliRunner().invoke(disfs, prog_name="disfs", env=environment)
    return done.output.split()


@pytest.mark.usefixtures("_volume")
@pytest.mark.parametrize(
    ("shell", "words", "told"),
    [
        ("bash", ["umo"], ["plain,umount"]),
        ("zsh", ["umo"], ["plain", "umount", "Unmount,"]),
        ("fish", ["umo"], ["plain,umount"]),
        ("bash", ["umount", "/home/m"], ["plain,/home/me/discord"]),
        ("bash", ["status", "/srv"], ["dir,/srv"]),
        ("bash", ["mount", "/srv"], ["dir,/srv"]),
        ("bash", ["mount", "--volume", "p"], ["plain,photos"]),
        ("bash", ["fsck", "p"], ["plain,photos"]),
        ("bash", ["umount", "--no-w"], ["plain,--no-wait"]),
    ],
)
def test_shell_is_told_what_may_come_next(shell: str, words: list[str], told: Sequence[str]) -> None:
    """Commands, options, volumes, and where they are mounted; directories where nothing of ours fits."""
    assert list(told) == completed(shell, *words)[: len(told)]


def test_completion_survives_a_broken_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the configuration cannot be read there is nothing to offer, and no error on the command line."""
    (tmp_path / "config").write_text("a file")
    monkeypatch.setenv("DISFS_HOME", str(tmp_path))
    assert [] == completed("bash", "mount", "--volume", "p")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_script_of_each_shell_names_us(shell: str) -> None:
    """`disfs completion SHELL` prints what that shell has to be told."""
    done = CliRunner().invoke(disfs, ["completion", shell])
    assert 0 == done.exit_code
    assert f"_DISFS_COMPLETE={shell}_complete" in done.output
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.output, text=True, check=True)


def test_bash_completes_a_command(tmp_path: Path) -> None:
    """A real bash that has read the script completes the name of a command."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    program = tmp_path / "disfs"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m disfs "$@"\n')
    program.chmod(0o755)
    script = CliRunner().invoke(disfs, ["completion", "bash"]).output
    ask = 'COMP_WORDS=(disfs umo); COMP_CWORD=1; _disfs_completion disfs; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "umount\n" == done.stdout


# Manual pages


def test_manual_pages_are_up_to_date() -> None:
    """Each page says what its command says now; `python -m scripts.man_pages` writes them anew."""
    kept = {path.name: path.read_text() for path in man_pages.DIRECTORY.glob("*.1")}
    assert PAGES == kept, "run python -m scripts.man_pages"


def test_each_command_has_a_page() -> None:
    """There is a page for each command, and one for all."""
    assert {"disfs.1", *(f"disfs-{name}.1" for name in disfs.commands)} == PAGES.keys()


def test_page_has_every_option() -> None:
    """No option and no subcommand is missing."""
    for name, command in disfs.commands.items():
        text = PAGES[f"disfs-{name}.1"].replace("\\-", "-")
        below = command.commands.values() if isinstance(command, click.Group) else []
        options = [option for each in (command, *below) for option in each.params if isinstance(option, click.Option)]
        assert [] == [option.name for option in options if not option.hidden and option.opts[-1] not in text]


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_pages_are_rendered_without_a_warning() -> None:
    """groff finds nothing to complain about in any page, mount.disfs(8) included."""
    paths = [str(path) for path in sorted(man_pages.DIRECTORY.parent.glob("*/*"))]
    done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", *paths], capture_output=True, text=True, check=True)
    assert "" == done.stderr
    assert "umount --no-wait ~/discord" in done.stdout


def test_a_command_brings_in_no_other() -> None:
    """`disfs status` is asked every few seconds, and starts without the modules of set-up, fsck and the like."""
    program = (
        "import sys; from disfs.cli.commands import disfs; disfs.commands['status']; "
        "print(*sorted(name for name in sys.modules if name.startswith('disfs.cli.')))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "disfs.cli.status" in ran.stdout.split()
    assert not {"disfs.cli.setup", "disfs.cli.fsck", "disfs.cli.mount", "trio"} & set(ran.stdout.split())
