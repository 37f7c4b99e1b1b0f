"""What the documentation shows can be typed: commands and options exist, and its examples print what stands there."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.documentation import PAGES, ROOT, all_commands, blocks, command_lines, complaints, name_of, typed
from support.product import product

from disfs.cli.commands import disfs

if TYPE_CHECKING:
    from pathlib import Path

    from support.documentation import Block

_COMMAND = re.compile(r"^ *(?:\$ )?disfs .*", re.MULTILINE)
MARK = "-- end of a command --"
RUN_ELSEWHERE = {
    "docs/semantics.md": "tests/fuse/test_fuse_semantics.py::test_examples_print_what_the_page_shows",
}
"""Pages whose examples another test runs, and which."""
NOT_RUN_HERE = {
    "disfs metrics": "tests/e2e/test_e2e_files.py::test_metrics_command_says_what_the_file_says",
    "./try": "tests/e2e/test_e2e_try.py::test_try_mounts_and_says_what_to_do",
}
"""Blocks, by how they begin, that need something else than a volume on the emulator, and the test that covers them."""


def run_here(page: Path) -> list[Block]:
    """The blocks of a page that are run as they stand."""
    if name_of(page) in RUN_ELSEWHERE:
        return []
    return [
        block
        for block in blocks(page)
        if block.language in ("sh", "console") and not any(block.begin.startswith(begin) for begin in NOT_RUN_HERE)
    ]


EXAMPLES = [page for page in PAGES if run_here(page)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_option_exists(page: Path) -> None:
    """Each `disfs` command of a page, in blocks, tables and sentences, is one that the command line has, with such
    options; so is what stands behind `-o`."""
    wrong = [f"{line}: {complaint}" for line in command_lines(page) for complaint in complaints(disfs, line)]
    assert [] == wrong


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("disfs mounts ~/discord", ["disfs has no command mounts"]),
        ("disfs mount --emulated ~/discord", ["mount has no option --emulated"]),
        ("disfs snapshot make NAME", ["snapshot has no command make"]),
        ("disfs umount MOUNTPOINT [--no-wait]", []),
        ("disfs mount ~/discord -o cache_size=20G,noacl", []),
        ("disfs COMMAND --help", []),
    ],
)
def test_what_does_not_exist_is_found(line: str, complaint: list[str]) -> None:
    """The check above finds commands and options that do not exist, and takes synopses for what they are."""
    assert complaint == complaints(disfs, line)


def test_an_unknown_mount_option_is_found() -> None:
    """A word behind `-o` that a mount would refuse is refused here."""
    assert len(complaints(disfs, "disfs mount ~/discord -o cash_size=20G")) == 1


@pytest.mark.parametrize("command", all_commands(disfs))
def test_every_command_is_documented(command: str) -> None:
    """Each command stands on some page, or, as `list` of `snapshot`, behind another one of its group."""
    lines = [line for page in PAGES for line in command_lines(page)]
    words = command.split()
    group, name = " ".join(words[:-1]), words[-1]
    is_shown = any(re.match(rf"{re.escape(command)}\b", line) for line in lines)
    is_behind = len(words) > 2 and any(
        re.search(rf"`{re.escape(group)} .*`{name}\b", line) for page in PAGES for line in page.read_text().splitlines()
    )
    assert is_shown or is_behind


def test_lists_name_what_there_is() -> None:
    """Pages and blocks that are said not to be run here exist, as do the tests that stand in for them."""
    begins = [block.begin for page in PAGES for block in blocks(page)]
    assert [] == [listed for listed in NOT_RUN_HERE if not any(begin.startswith(listed) for begin in begins)]
    for test in [*RUN_ELSEWHERE.values(), *NOT_RUN_HERE.values()]:
        file, _, function = test.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text()
    assert set(RUN_ELSEWHERE) <= {name_of(page) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_say_what_they_are(page: Path) -> None:
    """A fenced block names its language, so that no commands of disfs hide in one that is not run."""
    hidden = [block.begin for block in blocks(page) if block.language == "" and _COMMAND.search(block.text)]
    assert [] == hidden


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.parametrize("page", EXAMPLES, ids=name_of)
def test_examples_run_as_they_stand(page: Path, tmp_path: Path) -> None:
    """The blocks of a page, one after another in the home of somebody new with a volume on the emulator: `sh` commands
    succeed, `console` commands print what stands below them."""
    commands = [(block.language, line, shown) for block in run_here(page) for line, shown in typed(block)]
    with product(tmp_path / "home") as disk:
        home = disk.mountpoint.parent
        disk.mountpoint = disk.mountpoint.rename(home / "discord")
        furnish(home)
        if "disfs mount" not in next((line for _, line, _ in commands if "disfs " in line), ""):
            disk.mount()
        script = "".join(f'{{ {line}\n}} 2>&1; code=$?; echo; echo "{MARK}$code"\n' for _, line, _ in commands)
        environment = disk.environment | {"PATH": f"{home}/bin:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["bash", "-c", script], cwd=home, capture_output=True, text=True, env=environment, check=False
        )
    printed = re.split(rf"\n{MARK}(\d+)\n", done.stdout.replace(str(disk.mountpoint), "~/discord"))
    for number, (language, line, shown) in enumerate(commands):
        output, code = printed[2 * number], int(printed[2 * number + 1])
        if language == "sh":
            assert 0 == code, f"{line}: {output}"
        else:
            assert shown.splitlines() == output.splitlines(), line


def furnish(home: Path) -> None:
    """The program as it is called on the pages, and pictures such as people have."""
    for directory in ("bin", ".venv/bin"):
        program = home / directory / "disfs"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m disfs "$@"\n')
        program.chmod(0o755)
    for name in ("Pictures", "photos"):
        (home / name / "2024").mkdir(parents=True)
        for number in range(3):
            (home / name / "2024" / f"{number}.jpg").write_bytes(os.urandom(30_000))


@functools.cache
def typed_in_tests() -> set[tuple[str, ...]]:
    """The words with which calls and lists in tests begin, as in `disk.run("snapshot", "create", name)`; one and two of
    them."""
    texts = (path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    begins = (match for text in texts for match in re.findall(r'[(\[]\s*"([\w-]+)"(?:,\s*"([\w-]+)")?', text))
    return {words for first, second in begins for words in ((first,), (first, second))}


@pytest.mark.parametrize("command", all_commands(disfs))
def test_every_command_is_run_by_a_test(command: str) -> None:
    """Each command is run by some test or by an example of a page that is run, so that none is only described."""
    in_examples = [line for page in EXAMPLES for block in run_here(page) for line, _ in typed(block)]
    words = tuple(command.split()[1:])
    assert words in typed_in_tests() or any(re.search(rf"\b{command}\b", line) for line in in_examples)
