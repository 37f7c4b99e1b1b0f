"""The installed program on metadata that are damaged: a refusal in one line, or a mount that serves what is sound."""

from __future__ import annotations

import errno
import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest
from support.product import product
from support.trouble import told

from disfs.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.product import Product

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
PAGE = 4096
FILES = 150
SAMPLES = 8


def content(number: int) -> bytes:
    """What a file holds."""
    return b"file %d " % number * 300


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """An unmounted volume with some files; `state.sound` beside its state is a copy of it."""
    with product(tmp_path_factory.mktemp("damage")) as disk:
        disk.mount()
        folder = disk.mountpoint / "folder"
        folder.mkdir()
        for number in range(FILES):
            (folder / f"file {number}").write_bytes(content(number))
            os.setxattr(folder / f"file {number}", "user.number", b"%d" % number * 30)
        disk.umount()
        shutil.copytree(state_of(disk), disk.home / "state.sound")
        yield disk


def state_of(disk: Product) -> Path:
    """Where the volume's metadata lie."""
    (found,) = (disk.home / "state" / "volumes").iterdir()
    return found


def restore(disk: Product) -> Path:
    """Put the sound state back, as the refusal says, and return the metadata's path."""
    directory = state_of(disk)
    shutil.rmtree(directory)
    shutil.copytree(disk.home / "state.sound", directory)
    return directory / "metadata.db"


def damage(path: Path, dice: random.Random) -> None:
    """Wipe a page, flip some bytes, or cut the end off."""
    raw = bytearray(path.read_bytes())
    kind = dice.choice(["page", "page", "flip", "cut"])
    if kind == "page":
        start = dice.randrange(1, len(raw) // PAGE) * PAGE
        raw[start : start + PAGE] = bytes(PAGE)
    elif kind == "flip":
        for _ in range(4):
            raw[dice.randrange(len(raw))] ^= dice.randrange(1, 256)
    else:
        del raw[dice.randrange(len(raw)) :]
    path.write_bytes(raw)


def use(root: Path) -> set[str]:
    """Look at everything and change something; the errors there were, by name, and wrong contents."""
    seen: set[str] = set()

    def attempt(action: object, *arguments: object) -> object:
        try:
            return action(*arguments)  # type: ignore[operator] # each caller passes a function
        except OSError as error:
            seen.add(errno.errorcode[error.errno or 0])
            return None

    attempt(os.listdir, root / "folder")
    for number in range(FILES):
        path = root / "folder" / f"file {number}"
        if attempt(path.read_bytes) not in (None, content(number)):
            seen.add(f"wrong content of {path.name}")
        attempt(os.getxattr, path, "user.number")
    for number in range(0, FILES, 10):
        path = root / "folder" / f"file {number}"
        attempt((root / f"new {number}").write_bytes, b"new")
        attempt(path.chmod, 0o600)
        attempt(os.setxattr, path, "user.new", b"x" * 100)
        attempt(path.rename, root / f"moved {number}")
    return seen


@pytest.mark.parametrize("seed", range(SAMPLES))
def test_damaged_metadata_are_refused_or_served(volume: Product, seed: int) -> None:
    """Wherever the metadata are damaged: the mount is refused in one line, or it serves, and ends when told to."""
    dice = random.Random(seed)
    path = restore(volume)
    damage(path, dice)
    done = volume.run("mount", "--emulator", str(volume.mountpoint), check=False)
    if done.returncode != 0:
        assert done.returncode in (ExitCode.VOLUME_DAMAGED, ExitCode.STATE_UNUSABLE), done.stderr
        assert 1 == len(done.stderr.splitlines())
        return
    seen = use(volume.mountpoint)
    # What SQLite cannot notice reads otherwise, such as a name; what it notices is EIO.
    assert seen <= {"EIO", "ENOENT", "ESTALE", "ENODATA", "ENOTDIR", "EACCES", "EISDIR"}, seen
    told(volume)
    volume.run("umount", str(volume.mountpoint), "--no-wait", check=False)
    assert not os.path.ismount(volume.mountpoint)


def test_a_page_that_cannot_be_read_is_a_problem_in_status(volume: Product) -> None:
    """Files whose metadata are sound are served; the others are EIO; status and one line of the log say why."""
    path = restore(volume)
    raw = path.read_bytes()
    # The first page with the value of an extended attribute that is nowhere else.
    start = raw.index(b"%d" % 77 * 30) // PAGE * PAGE
    path.write_bytes(raw[:start] + bytes(PAGE) + raw[start + PAGE :])
    volume.mount()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        os.getxattr(volume.mountpoint / "folder" / "file 77", "user.number")
    assert content(77) == (volume.mountpoint / "folder" / "file 77").read_bytes()
    assert "the volume's metadata are damaged" in told(volume)
    (volume.mountpoint / "new").write_bytes(b"new")
    volume.umount()
    log = (state_of(volume) / "disfs.log").read_text()
    assert 1 == log.count("The volume's metadata are damaged")
    assert "Traceback" not in log
