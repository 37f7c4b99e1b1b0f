"""How large the volume is, what `df` and `du` say of it, and what a full one refuses, through the kernel."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from support.mounted import mounted
from support.product import Product

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.mounted import Mounted

MIB = 1 << 20
SIZE = 8 * MIB
NO_SPACE = os.strerror(errno.ENOSPC)


@pytest.fixture(scope="module", params=["sqlite", "real"])
def volume(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """A mounted volume of 8 MiB."""
    with mounted(tmp_path_factory.mktemp("space"), parts=request.param, size_bytes=SIZE) as found:
        yield found


@pytest.fixture
def root(volume: Mounted) -> Iterator[Path]:
    """Its root, empty at first."""
    yield volume.root
    for path in volume.root.iterdir():
        path.unlink()
    # The kernel tells of the end of a deleted file a moment after rm has returned.
    Product.wait_for(lambda: used(volume.root) == 0)


def used(root: Path) -> int:
    """What statfs counts as used."""
    found = os.statvfs(root)
    assert found.f_bfree == found.f_bavail
    assert found.f_files - found.f_ffree >= 1
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def fill(path: Path) -> int:
    """Write until there is no room; how many bytes there were room for."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        with pytest.raises(OSError, match=NO_SPACE):
            write_for_ever(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def write_for_ever(descriptor: int) -> None:
    """Until there is an error."""
    while os.write(descriptor, os.urandom(64 * 1024)):
        pass


def said_by(*command: str) -> list[str]:
    """The words of the last line that a program prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_regression_longer_truncate_went_beyond_the_size(root: Path) -> None:
    """On a full volume a file does not grow within its last chunk, and keeps its size; shorter always works."""
    (root / "short").write_bytes(b"x")
    fill(root / "full")
    taken = used(root)
    with pytest.raises(OSError, match=NO_SPACE):
        os.truncate(root / "short", 100_000)
    assert (1, b"x", taken) == ((root / "short").stat().st_size, (root / "short").read_bytes(), used(root))
    os.truncate(root / "full", 1)
    os.truncate(root / "short", 100_000)
    assert b"x" + bytes(99_999) == (root / "short").read_bytes()


def test_df_and_du_agree(root: Path) -> None:
    """`df` shows the size that was set, and as used what `du` finds; a sparse file of 1 PB takes one chunk."""
    (root / "small").write_bytes(b"x" * 5000)
    (root / "large").write_bytes(b"x" * (MIB + 1))
    with (root / "sparse").open("wb") as file:
        file.truncate(10**15)
        file.seek(10**12)
        file.write(b"x")
    os.link(root / "large", root / "again")
    size, taken, left = (int(word) for word in said_by("df", "-B1", "--output=size,used,avail", str(root)))
    assert (SIZE, SIZE) == (size, taken + left)
    assert taken == int(said_by("du", "-s", "-B1", str(root))[0])
    assert 8192 + MIB + 4096 + 128 * 1024 == taken


def test_full_volume_refuses_and_recovers(root: Path) -> None:
    """The last block can be written; then what needs room gets ENOSPC, overwriting works, and deleting makes room."""
    assert SIZE == fill(root / "full")
    assert SIZE == used(root)
    with pytest.raises(OSError, match=NO_SPACE):
        (root / "other").write_bytes(b"x")
    assert 0 == (root / "other").stat().st_size
    (root / "name").touch()
    (root / "name").rename(root / "renamed")
    with (root / "full").open("r+b") as file:
        file.write(b"overwritten")
        file.flush()
        os.fsync(file.fileno())
    assert b"overwritten" == (root / "full").read_bytes()[:11]
    os.truncate(root / "full", SIZE // 2)
    (root / "other").write_bytes(b"x" * (SIZE // 2))
    (root / "full").unlink()
    (root / "last").write_bytes(b"x" * (SIZE // 2))
    assert SIZE == used(root)


def test_writers_at_once_never_pass_the_size(root: Path) -> None:
    """Whatever several writers do at the same time, together they get the room there is and not more."""
    with ThreadPoolExecutor(4) as pool:
        lengths = list(pool.map(fill, [root / str(number) for number in range(4)]))
    # Requests come in pieces of up to 128 KiB, and one that does not fit is refused whole.
    assert SIZE - 4 * 128 * 1024 < sum(lengths) <= SIZE
    assert sum(-(-length // 4096) * 4096 for length in lengths) == used(root)


def test_mapped_write_into_a_hole_of_a_full_volume_fails_at_sync(root: Path) -> None:
    """What mmap wrote and has no room is told by msync; nothing of it counts."""
    with (root / "sparse").open("w+b") as file:
        file.truncate(MIB)
        fill(root / "full")
        with mmap.mmap(file.fileno(), MIB) as mapped:
            mapped[0] = 1
            with pytest.raises(OSError, match=f"{NO_SPACE}|{os.strerror(errno.EIO)}"):
                mapped.flush()
    assert SIZE == used(root)


def test_room_of_an_open_deleted_file_comes_back_at_close(root: Path) -> None:
    """A deleted file counts until the last who has it open closes it."""
    with (root / "held").open("w+b") as file:
        file.write(b"x" * MIB)
        file.flush()
        (root / "held").unlink()
        assert MIB == used(root)
