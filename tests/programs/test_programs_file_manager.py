"""A file manager on a mount below the home directory: it looks, shows thumbnails, copies, throws away and ejects."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.desktop import HEIGHT, NEEDED, desktop, wait_until
from support.product import product

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.desktop import Desktop
    from support.product import Product

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.needs(*NEEDED)]
PHOTOS = 5
USUAL_LINE_Y = 203
"""Where the mount stands in the side pane of a home without further places."""


def make_photos(directory: Path) -> None:
    """Photographs of some hundred kilobytes each."""
    directory.mkdir(parents=True)
    for number in range(PHOTOS):
        source = f"mandelbrot=size=800x600:start_scale=0.{3 * number + 2}:inner=period"
        options = ["-loglevel", "error", "-threads", "1", "-f", "lavfi", "-i", source, "-frames:v", "1", "-q:v", "2"]
        subprocess.run(["ffmpeg", *options, directory / f"photo{number}.jpg"], check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A mount called `discord` in the user's home, with cold photographs and an empty folder."""
    with product(tmp_path_factory.mktemp("ada", numbered=False)) as running:
        running.mountpoint = running.mountpoint.rename(running.mountpoint.with_name("discord"))
        running.mount()
        make_photos(running.mountpoint / "photos")
        shutil.copytree(running.mountpoint / "photos", home_of(running) / "holiday" / "2024")
        for folder in ("letters", "photos/mountains", "photos/sea"):
            (running.mountpoint / folder).mkdir()
        (home_of(running) / "holiday" / "notes.txt").write_text("sunny\n")
        running.cold()
        yield running


@pytest.fixture(scope="module")
def desk(disk: Product) -> Iterator[Desktop]:
    """The file manager showing the photographs; with DISFS_PICTURE, what it looks like is kept there."""
    with desktop(home_of(disk)) as screen, screen.file_manager(disk.mountpoint / "photos"):
        yield screen


def home_of(disk: Product) -> Path:
    """The user's home directory."""
    return disk.mountpoint.parent


def test_thumbnails_of_cold_photographs_appear(disk: Product, desk: Desktop) -> None:
    """Every photograph gets its thumbnail; for that each is read, once, and nothing else is fetched."""
    photos = sorted((disk.mountpoint / "photos").glob("*.jpg"))
    assert PHOTOS == len(photos)
    wait_until(lambda: all(desk.thumbnail(photo).exists() for photo in photos), "thumbnails")
    status = disk.status()
    assert 0 < status["fetch"]["fetched_bytes"] <= sum(photo.stat().st_size for photo in photos)
    if picture := os.environ.get("DISFS_PICTURE"):
        desk.picture(Path(picture))


def test_a_folder_is_copied_in_by_copy_and_paste(disk: Product, desk: Desktop) -> None:
    """Ctrl+C on a folder of the local disk and Ctrl+V on the mount copies everything below it."""
    desk.go_to(home_of(disk) / "holiday")
    desk.xdotool("key", "ctrl+a", "key", "ctrl+c")
    desk.go_to(disk.mountpoint / "letters")
    desk.xdotool("key", "ctrl+v")

    def is_copied() -> bool:
        folders = (home_of(disk) / "holiday", disk.mountpoint / "letters")
        return subprocess.run(["diff", "-rq", *folders], capture_output=True, check=False).returncode == 0

    wait_until(is_copied, "the copy")


@pytest.mark.needs("gio")
def test_what_is_thrown_away_goes_to_the_trash_of_the_mount(disk: Product) -> None:
    """What a desktop's programs do for "Move to trash" puts a file into `.Trash-UID` in the root of the mount, with a
    note of where it was."""
    (disk.mountpoint / "draft.txt").write_text("no good")
    subprocess.run(["gio", "trash", disk.mountpoint / "draft.txt"], env=disk.environment, check=True)
    trash = disk.mountpoint / f".Trash-{os.geteuid()}"
    assert "no good" == (trash / "files" / "draft.txt").read_text()
    assert "Path=draft.txt" in (trash / "info" / "draft.txt.trashinfo").read_text().splitlines()
    assert not (disk.mountpoint / "draft.txt").exists()


def test_eject_unmounts_and_loses_nothing(disk: Product, desk: Desktop) -> None:
    """The eject button of the mount in the side pane unmounts it and ends disfs; what was not sent yet is there at the
    next mount."""
    (disk.mountpoint / "last.txt").write_text("written just before")
    desk.go_to(home_of(disk))
    (daemon,) = disk.daemons()
    lines = iter(sorted(range(100, HEIGHT, 14), key=lambda line_y: abs(line_y - USUAL_LINE_Y)))

    def is_ejected() -> bool:
        if os.path.ismount(disk.mountpoint):
            desk.eject(next(lines, 0))
        return not os.path.ismount(disk.mountpoint)

    wait_until(is_ejected, "eject")
    wait_until(lambda: not Path(f"/proc/{daemon}").exists(), "the daemon's end")
    disk.mount()
    assert "written just before" == (disk.mountpoint / "last.txt").read_text()
    assert "sunny\n" == (disk.mountpoint / "letters" / "notes.txt").read_text()
