"""docs/semantics.md says what the mount does: its examples are run here as they stand there, and so is its table."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.mounted import mounted
from support.times import OPERATIONS, moved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.mounted import Mounted

PAGE = (Path(__file__).parents[2] / "docs" / "semantics.md").read_text()
EXAMPLES = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TIMES = re.findall(
    r"^\| ([^|]+?) \| ([amc ]*?)\| ([amc ]*?)\|$", PAGE.split("## Times")[1].split("\n## ")[0], re.MULTILINE
)
MARK = "-- end of a command --"


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount with chunks of the usual size."""
    with mounted(tmp_path_factory.mktemp("fuse"), parts="real", options=["allow_other"]) as found:
        yield found


def commands(example: str) -> list[tuple[str, str]]:
    """What is typed, and what is then shown."""
    pieces = re.split(r"^\$ ", example, flags=re.MULTILINE)
    assert pieces[0] == "", "an example begins with a command"
    return [(command, shown) for command, _, shown in (piece.partition("\n") for piece in pieces[1:])]


def shown(here: Path, typed: list[str]) -> list[str]:
    """What the commands print, run one after another in one shell."""
    script = "".join(f"{{ {command}\n}} 2>&1; echo '{MARK}'\n" for command in typed)
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(["bash", "-c", script], cwd=here, capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    return done.stdout.split(f"{MARK}\n")[:-1]


@pytest.mark.parametrize("example", EXAMPLES, ids=[commands(example)[0][0][:40] for example in EXAMPLES])
def test_examples_print_what_the_page_shows(here: Path, example: str) -> None:
    """Each command of docs/semantics.md prints, on a mount, what stands below it."""
    for command in ("setfattr", "setfacl", "lsattr"):
        if command in example and shutil.which(command) is None:
            pytest.skip(f"needs {command}")
    pairs = commands(example)
    assert [expected for _, expected in pairs] == shown(here, [typed for typed, _ in pairs])


@pytest.mark.parametrize(("operation", "inode", "directory"), TIMES, ids=[row[0] for row in TIMES])
def test_times_move_as_the_page_says_here_and_on_the_local_disk(
    here: Path, tmp_path: Path, operation: str, inode: str, directory: str
) -> None:
    """Each row of the table of times is true of the mount and of the local disk."""
    call, watched = OPERATIONS[operation]
    expected = [inode.strip(), directory.strip()]
    assert expected == moved(here / "tree", call, watched)
    assert expected == moved(tmp_path / "tree", call, watched)


def test_every_operation_has_its_row() -> None:
    """The table of times has a row for each operation that is known how to be tried, and no other."""
    assert list(OPERATIONS) == [row[0] for row in TIMES]
