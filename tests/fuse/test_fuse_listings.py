"""Listings that the kernel keeps: served without the daemon, never stale, and the same as without keeping."""

# ruff: noqa: PTH208 - these tests are about system calls

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.mounted import mounted
from support.syscalls import eventually, getdents

from bench.suites.posix.calls import EXCHANGE, renameat2

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.mounted import Mounted
    from support.syscalls import Listed

KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
ROUNDS = 150


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount whose requests are counted, after the listings that prove that the kernel may keep all others."""
    with mounted(tmp_path_factory.mktemp("counted"), logs_requests=True) as found:
        primed(found.root)
        yield found


@pytest.fixture(scope="module", params=["kernel", "stock"])
def either(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The root of a mount where the kernel keeps listings, and of one where it does not."""
    with mounted(tmp_path_factory.mktemp("either"), listings=request.param) as found:
        primed(found.root)
        yield found.root


@pytest.fixture
def here(either: Path, request: pytest.FixtureRequest) -> Path:
    """An empty directory on the mount."""
    directory = either / str(request.node.name)
    directory.mkdir()
    return directory


def asked(found: Mounted, action: Callable[[], object]) -> Counter[str]:
    """What the kernel asks the daemon while `action` runs."""
    before = found.requests()
    action()
    return found.requests() - before


def fill(directory: Path, count: int) -> list[str]:
    directory.mkdir(exist_ok=True)
    names = [f"{number:05d}" for number in range(count)]
    for name in names:
        (directory / name).touch()
    return names


def primed(directory: Path) -> set[str]:
    """The names, after the kernel has had reason to keep them."""
    os.listdir(directory)
    return set(os.listdir(directory))


def rest_of(fd: int, buffer_bytes: int = 32768) -> list[Listed]:
    """Everything from the present position of a directory on, without the dots."""
    found: list[Listed] = []
    while page := getdents(fd, buffer_bytes):
        found += page
    return [entry for entry in found if entry.name not in (".", "..")]


def test_second_listing_asks_nothing(counted: Mounted) -> None:
    """What was listed once is listed again without the daemon, and walked without opendir and releasedir."""
    tree = counted.root / "tree"
    for number in range(30):
        tree.mkdir(exist_ok=True)
        fill(tree / f"{number}", 5)

    def walk() -> None:
        for path in tree.rglob("*"):
            path.stat()

    first = asked(counted, walk)
    assert (0, 0) == (first["opendir"], first["releasedir"])
    assert 0 < first["readdir"] <= 2 * 31
    walk()
    assert not asked(counted, walk)


def test_empty_directory_is_kept_too(counted: Mounted) -> None:
    """A directory without names is not asked for again either."""
    empty = counted.root / "empty"
    empty.mkdir()
    primed(empty)
    assert not asked(counted, lambda: os.listdir(empty))


@pytest.mark.skipif(KERNEL < (6, 16), reason="older kernels read directories with buffers of one page")
def test_cold_listing_fills_the_buffer(counted: Mounted) -> None:
    """A first look at many files, attributes included, takes at most 2 requests for 100 of them."""
    names = fill(counted.root / "many", 3000)
    requests = asked(counted, lambda: [entry.stat() for entry in os.scandir(counted.root / "many")])
    assert len(names) == len(os.listdir(counted.root / "many"))
    assert sum(requests.values()) <= 2 * len(names) // 100


@pytest.mark.parametrize(("option", "questions"), [("noacl", 0), ("acl", 1)])
def test_long_listing_asks_each_file_for_its_acl_at_most(tmp_path: Path, option: str, questions: int) -> None:
    """`ls -l` is told once that there are no security labels; ACLs it asks for, where there can be any."""
    with mounted(tmp_path, options=[option], logs_requests=True) as found:
        fill(found.root / "labels", 200)
        command = ["ls", "-l", str(found.root / "labels")]
        requests = asked(found, lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    assert questions == round(requests["getxattr"] / 200, 1)


def test_without_keeping_every_listing_is_asked_for(tmp_path: Path) -> None:
    """Switched off, or not possible, each listing is an opendir, its readdirs and a releasedir."""
    with mounted(tmp_path, listings="stock", logs_requests=True) as found:
        primed(found.root)
        requests = asked(found, lambda: os.listdir(found.root))
        assert (1, 2) == (requests["opendir"], requests["readdir"])


def rename_in(directory: Path, outside: Path) -> None:
    (outside / "outer").rename(directory / "moved in")


def rename_over(directory: Path, outside: Path) -> None:
    (outside / "outer").rename(directory / "file")


def exchange_with_outside(directory: Path, outside: Path) -> None:
    renameat2(outside / "outer", directory / "file", EXCHANGE)


CHANGES: dict[str, tuple[Callable[[Path, Path], object], set[str], set[str]]] = {
    # What is done in (directory, outside), the names that go, the names that come.
    "create": (lambda d, _: (d / "new").touch(), set(), {"new"}),
    "mkdir": (lambda d, _: (d / "new").mkdir(), set(), {"new"}),
    "mknod": (lambda d, _: os.mkfifo(d / "new"), set(), {"new"}),
    "symlink": (lambda d, _: (d / "new").symlink_to("file"), set(), {"new"}),
    "link": (lambda d, _: (d / "new").hardlink_to(d / "file"), set(), {"new"}),
    "unlink": (lambda d, _: (d / "file").unlink(), {"file"}, set()),
    "rmdir": (lambda d, _: (d / "empty").rmdir(), {"empty"}, set()),
    "rename within": (lambda d, _: (d / "file").rename(d / "new"), {"file"}, {"new"}),
    "rename over": (lambda d, _: (d / "file").rename(d / "second"), {"file"}, set()),
    "rename in": (rename_in, set(), {"moved in"}),
    "rename in over": (rename_over, set(), set()),
    "rename out": (lambda d, o: (d / "file").rename(o / "moved out"), {"file"}, set()),
    "exchange within": (lambda d, _: renameat2(d / "file", d / "empty", EXCHANGE), set(), set()),
    "exchange with outside": (exchange_with_outside, set(), set()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_kept_listing_follows_every_change(here: Path, name: str) -> None:
    """After each kind of change the next listing is exact: names, inode numbers, kinds; seen afresh or rewound."""
    directory, outside = here / "directory", here / "outside"
    directory.mkdir()
    outside.mkdir()
    for made in (directory / "file", directory / "second", outside / "outer"):
        made.touch()
    (directory / "empty").mkdir()
    before = primed(directory)
    primed(outside)
    fd = os.open(directory, os.O_RDONLY)
    rest_of(fd)
    change, gone, come = CHANGES[name]
    change(directory, outside)
    os.lseek(fd, 0, os.SEEK_SET)
    seen = {entry.name: entry.inode for entry in rest_of(fd)}
    os.close(fd)
    assert before - gone | come == set(seen) == set(os.listdir(directory))
    for path in (directory, outside):
        with os.scandir(path) as entries:
            for entry in entries:
                found = os.lstat(entry.path)
                assert found.st_ino == entry.inode()
                assert stat.S_ISDIR(found.st_mode) == entry.is_dir(follow_symlinks=False)
    assert seen == {name: os.lstat(directory / name).st_ino for name in seen}


def test_kept_listing_is_exact_within_a_tick_of_the_clock(here: Path) -> None:
    """Changes that follow one another at once, with no new time stamp between them, are all seen."""
    expected = set(fill(here / "d", 10))
    for number in range(ROUNDS):
        primed(here / "d")
        (here / "d" / f"new-{number}").touch()
        assert expected | {f"new-{number}"} == set(os.listdir(here / "d"))
        os.utime(here / "d", ns=(1, 1))
        primed(here / "d")
        (here / "d" / f"new-{number}").unlink()
        # The same modification time as before, on purpose.
        os.utime(here / "d", ns=(1, 1))
        assert expected == set(os.listdir(here / "d"))


OTHER = """
import os, sys
os.chdir(sys.argv[1])
for line in sys.stdin:
    verb, *names = line.split()
    names = [name.encode() for name in names]
    if verb == "list":
        print(*sorted(os.fsdecode(n) for n in os.listdir(b".")), flush=True)
        continue
    {"make": lambda n: os.close(os.open(n, os.O_CREAT)), "remove": os.unlink, "rename": os.rename}[verb](*names)
    print(flush=True)
"""


def test_kept_listing_is_exact_across_processes(here: Path) -> None:
    """What one process changes, the other's next listing shows, whoever listed last, also in an open directory."""
    chance = random.Random(6)
    names = set(fill(here / "d", 20))
    fd = os.open(here / "d", os.O_RDONLY)
    command = [sys.executable, "-c", OTHER, str(here / "d")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        for number in range(ROUNDS):
            victim = chance.choice(sorted(names))
            order, gone, come = chance.choice(
                [
                    (f"make new-{number}", set(), {f"new-{number}"}),
                    (f"remove {victim}", {victim}, set()),
                    (f"rename {victim} moved-{number}", {victim}, {f"moved-{number}"}),
                    ("list", set(), set()),
                ]
            )
            other.stdin.write(order + "\n")
            other.stdin.flush()
            answer = other.stdout.readline().split()
            names = names - gone | come or set(fill(here / "d", 5))
            if order == "list":
                assert sorted(names) == answer
            os.lseek(fd, 0, os.SEEK_SET)
            assert names == {entry.name for entry in rest_of(fd)} == set(os.listdir(here / "d"))
        other.stdin.close()
    os.close(fd)


def test_stream_neither_repeats_nor_misses_what_stays(here: Path) -> None:
    """Names that stay come exactly once, although others come and go and other listings begin the kept one anew."""
    chance = random.Random(7)
    for turn in range(8):
        directory = here / f"{turn}"
        names = fill(directory, 120)
        stay = set(names[::3])
        passing = [name for name in names if name not in stay]
        if turn % 2:
            primed(directory)
        fd = os.open(directory, os.O_RDONLY)
        seen: list[str] = []
        while page := getdents(fd, 256):
            seen += [entry.name for entry in page]
            if passing:
                (directory / passing.pop(chance.randrange(len(passing)))).unlink()
            if len(seen) < 250:
                (directory / f"new-{len(seen)}").touch()
            if chance.random() < 0.3:
                os.listdir(directory)
        os.close(fd)
        assert len(seen) == len(set(seen))
        assert stay <= set(seen)


def test_positions_stay_valid_while_names_change(here: Path) -> None:
    """Going back to a position goes on with just what followed it, also after its own entry went.

    What was removed since the directory was opened or rewound may show, as POSIX leaves it open.
    """
    names = fill(here / "d", 300)
    primed(here / "d")
    fd = os.open(here / "d", os.O_RDONLY)
    listed = rest_of(fd, 512)
    assert names == [entry.name for entry in listed]
    for number in random.Random(8).sample(range(len(listed) - 1), 40):
        path = here / "d" / listed[number].name
        if path.exists() and number % 2:
            path.unlink()
            names.remove(path.name)
        if number % 3 == 0:
            os.listdir(here / "d")
        os.lseek(fd, listed[number].position, os.SEEK_SET)
        followed = [entry.name for entry in listed[number + 1 :]]
        seen = [entry.name for entry in rest_of(fd, 512)]
        assert [name for name in followed if name in names] == [name for name in seen if name in names]
        assert set(seen) <= set(followed)
    os.lseek(fd, 0, os.SEEK_SET)
    assert names == [entry.name for entry in rest_of(fd)]
    os.close(fd)


def test_removed_directory_that_is_open_lists_nothing(here: Path) -> None:
    """Neither its old names, kept or not, nor an error."""
    for turn in range(2):
        directory = here / "gone"
        fill(directory, 3)
        fd = os.open(directory, os.O_RDONLY)
        if turn:
            primed(directory)
        for name in os.listdir(directory):
            (directory / name).unlink()
        directory.rmdir()
        assert [] == os.listdir(fd)
        assert 0 == os.fstat(fd).st_nlink
        os.close(fd)


def test_directory_that_was_replaced_lists_nothing(here: Path) -> None:
    """A directory that another was renamed over is empty for those who have it open, and its path shows the other."""
    (here / "old").mkdir()
    fill(here / "new", 3)
    primed(here / "old")
    fd = os.open(here / "old", os.O_RDONLY)
    (here / "new").rename(here / "old")
    assert [] == os.listdir(fd)
    assert {"00000", "00001", "00002"} == set(os.listdir(here / "old"))
    os.close(fd)


def test_listing_after_a_change_moves_an_old_atime(here: Path) -> None:
    """As relatime asks, the atime is later than the mtime exactly if the directory was listed since it changed."""
    primed(here)
    for number in range(5):
        (here / f"{number}").touch()
        os.listdir(here)
        found = here.stat()
        assert found.st_mtime_ns <= found.st_atime_ns


def test_fsync_of_a_directory_succeeds(here: Path) -> None:
    """Also where the kernel has opened the directory by itself."""
    (here / "name").touch()
    fd = os.open(here, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def test_change_behind_the_kernel_shows_after_invalidation(tmp_path: Path) -> None:
    """The daemon can drop a listing that the kernel keeps."""
    with mounted(tmp_path, logs_requests=True) as found:
        (found.root / "file").touch()
        primed(found.root)
        assert {"file"} == primed(found.root)
        assert not asked(found, lambda: os.listdir(found.root))
        found.process.send_signal(signal.SIGHUP)
        eventually(lambda: "changed behind the kernel" in found.log())
        assert {"file", "behind the kernel"} == set(os.listdir(found.root))
