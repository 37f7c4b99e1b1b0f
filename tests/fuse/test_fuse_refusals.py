"""Each system call with each kind of path, and of two paths, answers as on the local disk, errno for errno.

Where several rules are broken at once this is the order of precedence. An ordinary run takes a part of the table, the
same each time; `DISFS_REFUSALS=all` takes all of it, some minutes.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
from support.mounted import mounted
from support.refusals import MOVED, ONE_PATH, OTHER_USER, PATHS, TWO_PATHS, answer_of, remake_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from support.mounted import Mounted


EVERYTHING = os.environ.get("DISFS_REFUSALS") == "all"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 if EVERYTHING else 300)]
READING = {"stat", "lstat", "access", "statvfs", "readlink", "listdir", "getxattr", "listxattr", "open O_RDONLY"}


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """One kind of mount is enough: nothing here depends on where contents lie."""
    with mounted(tmp_path_factory.mktemp("fuse"), options=["allow_other"]) as found:
        yield found


@pytest.fixture(params=["root", "somebody else"])
def user(request: pytest.FixtureRequest) -> int:
    """Whose privileges the calls have."""
    if os.getuid() != 0:
        pytest.skip("needs root, to have owners and to be somebody else")
    return 0 if request.param == "root" else OTHER_USER


@pytest.fixture
def roots(here: Path, tmp_path: Path) -> Iterator[list[Path]]:
    """A directory on the local disk and one on the mount, one level down, so that `..` is the same in both."""
    before = os.open(".", os.O_RDONLY)
    yield [tmp_path / "above" / "root", here / "above" / "root"]
    os.fchdir(before)
    os.close(before)


def answers(
    roots: list[Path], user: int, name: str, call: Callable[..., object], paths: tuple[str, ...]
) -> list[object]:
    """What the call gave on both; the trees are made anew where it changed something."""
    found = []
    for root in roots:
        os.chdir(root)
        os.seteuid(user)
        try:
            found.append(answer_of(call, *paths))
        finally:
            os.seteuid(0)
    if any(not isinstance(answer, str) or not answer.startswith("E") for answer in found) and name not in READING:
        for root in roots:
            remake_tree(root)
    return found


def differing(
    roots: list[Path],
    user: int,
    calls: Mapping[str, Callable[..., object]],
    arguments: Iterable[tuple[str, ...]],
    every: int,
) -> list[str]:
    """Each call that answers differently on the two, what it was given and what it gave; one in `every` is tried."""
    for root in roots:
        remake_tree(root)
    wrong = []
    whole = itertools.product(arguments, calls.items())
    for paths, (name, call) in itertools.islice(whole, 0, None, 1 if EVERYTHING else every):
        local, mount = answers(roots, user, name, call, paths)
        if local != mount:
            shown = tuple(path if len(path) < 40 else f"{path[:9]}... ({len(path)} bytes)" for path in paths)
            wrong.append(f"{name}{shown}: {local} on the local disk, {mount} on the mount")
    return wrong


def test_calls_with_one_path(roots: list[Path], user: int) -> None:
    """Calls with one path give what they give on the local disk, for every kind of path."""
    assert [] == differing(roots, user, ONE_PATH, [(path,) for path in PATHS], every=5)


def test_calls_with_two_paths(roots: list[Path], user: int) -> None:
    """Calls with two paths give what they give on the local disk, for every pair of kinds."""
    assert [] == differing(roots, user, TWO_PATHS, itertools.product(MOVED, MOVED), every=13)
