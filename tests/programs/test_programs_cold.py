"""What programs stored is whole when every byte of it has to come from Discord again; no more comes than they need."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from support.product import Product

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
VIDEO_SECONDS = 20
GIT = ("git", "-c", "user.name=me", "-c", "user.email=me@here", "-c", "init.defaultBranch=main", "-c", "gc.auto=0")


def run(*command: str | Path) -> str:
    """What a command that must succeed prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def make_video(path: Path) -> None:
    """A moving test picture with noise, 1 MB a second; its index stands at the end of the file, as cameras write it."""
    source = f"testsrc=size=320x180:rate=25:duration={VIDEO_SECONDS},noise=alls=60:allf=t"
    encoder = ("-threads", "1", "-c:v", "mpeg4", "-b:v", "8M")
    run("ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", source, *encoder, path)


def picture(video: Path, second: float) -> str:
    """The digest of the picture shown at that moment."""
    command = ("ffmpeg", "-loglevel", "error", "-ss", str(second), "-i", video, "-frames:v", "1", "-f", "framemd5", "-")
    return run(*command).splitlines()[-1].rpartition(",")[2].strip()


def fetched_bytes(disk: Product) -> int:
    """How much has been fetched since the mount."""
    return int(disk.status()["fetch"]["fetched_bytes"])


@pytest.fixture(scope="module")
def stored(shared_disk: Product, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Things of several programs on the mount, which is cold then; the local directory that has the same files."""
    local, mount = tmp_path_factory.mktemp("local"), shared_disk.mountpoint
    if shutil.which("ffmpeg"):
        make_video(local / "video.mp4")
        shutil.copy(local / "video.mp4", mount / "video.mp4")
    for number in range(40):
        (local / "tree" / str(number % 4)).mkdir(parents=True, exist_ok=True)
        (local / "tree" / str(number % 4) / str(number)).write_bytes(hashlib.sha512(bytes([number])).digest() * number)
    run("setfacl", "-m", "u:1234:rw", local / "tree" / "0" / "4")
    run("setfattr", "-n", "user.colour", "-v", "blue", local / "tree" / "1" / "5")
    (local / "tree" / "second name").hardlink_to(local / "tree" / "2" / "6")
    run("rsync", "-aHAX", f"{local}/tree/", mount / "tree")
    run(*GIT, "init", "-q", mount / "work")
    shutil.copytree(local / "tree", mount / "work" / "tree")
    run(*GIT, "-C", mount / "work", "add", "-A")
    run(*GIT, "-C", mount / "work", "commit", "-qm", "one")
    run(*GIT, "clone", "-q", "--no-hardlinks", mount / "work", mount / "clone")
    run(*GIT, "-C", mount / "clone", "gc", "-q", "--prune=now")
    for mode in ("delete", "wal"):
        rows = "INSERT INTO t SELECT hex(randomblob(50)) FROM generate_series(1, 2000);"
        run("sqlite3", mount / f"{mode}.db", f"PRAGMA journal_mode={mode}; CREATE TABLE t (v); {rows}")
    shared_disk.cold()
    return local


@pytest.mark.needs("ffmpeg")
def test_a_seek_in_a_cold_video_fetches_a_part_of_it(shared_disk: Product, stored: Path) -> None:
    """The picture shortly before the end is the right one, and an eighth of the video at most was fetched for it."""
    before = fetched_bytes(shared_disk)
    video = shared_disk.mountpoint / "video.mp4"
    size = video.stat().st_size
    assert size > 15_000_000
    assert picture(stored / "video.mp4", VIDEO_SECONDS - 2) == picture(video, VIDEO_SECONDS - 2)
    assert 0 < fetched_bytes(shared_disk) - before < size / 8


def test_rsync_finds_nothing_to_do_in_a_cold_copy(shared_disk: Product, stored: Path) -> None:
    """Contents, times, modes, hard links, ACLs and extended attributes are what `rsync -aHAX` copied."""
    assert "" == run("rsync", "-aHAXnic", "--delete", f"{stored}/tree/", shared_disk.mountpoint / "tree")


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("repository", ["work", "clone"])
def test_git_finds_a_cold_repository_whole(shared_disk: Product, repository: str) -> None:
    """`git fsck` has nothing to say of what was committed, cloned and packed, and git sees no change."""
    assert "" == run(*GIT, "-C", shared_disk.mountpoint / repository, "fsck", "--full", "--strict")
    assert "" == run(*GIT, "-C", shared_disk.mountpoint / repository, "status", "--porcelain")


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_finds_a_cold_database_whole(shared_disk: Product, mode: str) -> None:
    """Every page of a database is what SQLite wrote, with a rollback journal and with a write-ahead log."""
    database = shared_disk.mountpoint / f"{mode}.db"
    assert f"{mode}\nok\n2000\n" == run(
        "sqlite3", database, "PRAGMA journal_mode; PRAGMA integrity_check; SELECT count(*) FROM t;"
    )
