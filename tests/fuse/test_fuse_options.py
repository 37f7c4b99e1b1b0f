"""Mount options, each on a mount of its own: what the kernel was told, and what the daemon does about it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.mounted import mounted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.mounted import Mounted

READ_ONLY = os.strerror(errno.EROFS)
OTHER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act for other users, or to use devices")


def flags_of(mount: Mounted) -> set[str]:
    """What the kernel says of a mount: of the mount itself and of its super block."""
    (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {mount.root} " in line]
    words = line.split()
    return {*words[5].split(","), *words[-1].split(",")}


def as_other(*command: str) -> int:
    """The exit code of a command that another user runs."""
    done = subprocess.run(command, user=OTHER, group=OTHER, extra_groups=[], capture_output=True, check=False)
    return done.returncode


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory that every user can look into."""
    for parent in (tmp_path, *tmp_path.parents[:3]):
        with contextlib.suppress(OSError):
            parent.chmod(0o755)
    yield tmp_path
    shutil.rmtree(tmp_path / "mnt", ignore_errors=True)


@pytest.mark.parametrize(
    ("option", "seen"),
    [
        ("ro", "ro"),
        ("ro,rw", "rw"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("sync", "sync"),
        ("dirsync", "dirsync"),
        ("allow_other", "allow_other"),
        ("relatime,strictatime,nodiratime,async,users,user=joe,x-gvfs-show", "rw"),
    ],
)
def test_flag_reaches_the_kernel(directory: Path, option: str, seen: str) -> None:
    """What the kernel has a flag for is set on the mount; what only fstab or the daemon understands does no harm."""
    with mounted(directory, parts="memory", options=[option]) as mount:
        assert seen in flags_of(mount)
        assert ["nodev", "nosuid"] == sorted(flags_of(mount) & {"nodev", "nosuid"})


CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda root: (root / "new").touch(),
    "mkdir": lambda root: (root / "new").mkdir(),
    "mknod": lambda root: os.mkfifo(root / "new"),
    "symlink": lambda root: (root / "new").symlink_to("x"),
    "link": lambda root: os.link(root / "file", root / "new"),
    "unlink": lambda root: (root / "file").unlink(),
    "rmdir": lambda root: (root / "dir").rmdir(),
    "rename": lambda root: (root / "file").rename(root / "new"),
    "write": lambda root: os.open(root / "file", os.O_WRONLY),
    "open": lambda root: os.open(root / "file", os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda root: os.truncate(root / "file", 0),
    "chmod": lambda root: (root / "file").chmod(0o600),
    "chown": lambda root: os.chown(root / "file", 1, 1),
    "utime": lambda root: os.utime(root / "file", (1, 1)),
    "setxattr": lambda root: os.setxattr(root / "file", "user.new", b"x"),
    "removexattr": lambda root: os.removexattr(root / "file", "user.old"),
}


def refused(change: Callable[[Path], object], root: Path) -> bool:
    """Whether a change is refused as on any read-only file system."""
    try:
        change(root)
    except OSError as error:
        return error.errno == errno.EROFS
    return False


def rows_of(state: Path) -> list[str]:
    """All rows of the volume but this machine's bookkeeping."""
    with contextlib.closing(sqlite3.connect(f"file:{state / 'metadata.db'}?mode=ro", uri=True)) as connection:
        return [row for row in connection.iterdump() if '"settings"' not in row and '"counters"' not in row]


def fill(root: Path) -> None:
    """Something to change."""
    (root / "dir").mkdir()
    (root / "file").write_bytes(b"content")
    (root / "link").symlink_to("file")
    os.setxattr(root / "file", "user.old", b"x")
    for path in (root, root / "dir", root / "file"):
        os.utime(path, (1, 2))


def test_read_only_mount_changes_nothing(directory: Path) -> None:
    """Everything can be read; every change is EROFS; afterwards each row of the volume is as it was."""
    with mounted(directory) as mount:
        fill(mount.root)
    before = rows_of(directory / "state")
    with mounted(directory, options=["ro"]) as mount:
        assert ["dir", "file", "link"] == sorted(path.name for path in mount.root.iterdir())
        assert (7, Path("file"), b"x") == (
            len((mount.root / "file").read_bytes()),
            (mount.root / "link").readlink(),
            os.getxattr(mount.root / "file", "user.old"),
        )
        assert [] == list((mount.root / "dir").iterdir())
        assert [] == [name for name, change in CHANGES.items() if not refused(change, mount.root)]
        assert not os.access(mount.root / "file", os.W_OK)
        with (mount.root / "file").open("rb") as file:
            os.fsync(file.fileno())
        assert 1_000_000_000 == (mount.root / "file").stat().st_atime_ns
    assert before == rows_of(directory / "state")


@needs_root
def test_read_only_mount_that_is_remounted_writable_still_refuses(directory: Path) -> None:
    """The daemon has decided to change nothing, whatever the kernel is told later."""
    with mounted(directory) as mount:
        fill(mount.root)
    before = rows_of(directory / "state")
    with mounted(directory, options=["ro"]) as mount:
        subprocess.run(["mount", "-i", "-o", "remount,rw", str(mount.root)], check=True)
        assert "rw" in flags_of(mount)
        assert [] == [name for name, change in CHANGES.items() if not refused(change, mount.root)]
    assert before == rows_of(directory / "state")


def test_read_only_mount_leaves_the_orphans_of_a_crash(directory: Path) -> None:
    """What a crash left to be removed is removed by the next mount that may write."""
    with mounted(directory, ends_itself=True) as mount:
        gone = os.open(mount.root / "gone", os.O_WRONLY | os.O_CREAT)
        (mount.root / "gone").unlink()
        (mount.root / "kept").touch()
        os.fsync(gone)
        mount.process.kill()
        mount.process.wait()
        with contextlib.suppress(OSError):
            os.close(gone)
    for options, inodes in ((["ro"], 3), ([], 2)):
        with mounted(directory, options=options) as mount:
            found = os.statvfs(mount.root)
            assert inodes == found.f_files - found.f_ffree
            assert ["kept"] == [path.name for path in mount.root.iterdir()]


def atimes_after_reads(directory: Path, option: str) -> tuple[bool, bool, bool]:
    """Whether atimes move: of a file by its first and its second read, of a directory."""
    with mounted(directory, options=[option] if option else []) as mount:
        path, folder = mount.root / "file", mount.root / "folder"
        folder.mkdir()
        path.write_bytes(b"x" * 4096)
        moved = []
        for _ in range(2):
            before = path.stat().st_atime_ns
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                written = path.stat().st_mtime_ns
                while time.time_ns() <= max(before, written) + 20_000_000:  # the kernel's clock moves in ticks
                    pass
                file.read(100)
            moved.append(path.stat().st_atime_ns > before)
        before = folder.stat().st_atime_ns
        while time.time_ns() <= before + 20_000_000:
            pass
        assert [] == list(folder.iterdir())
        return moved[0], moved[1], folder.stat().st_atime_ns > before


@pytest.mark.parametrize(
    ("option", "moved"),
    [
        ("", (True, False, True)),
        ("relatime", (True, False, True)),
        ("noatime", (False, False, False)),
        ("nodiratime", (True, False, False)),
        ("strictatime", (True, True, True)),
        ("noatime,atime", (True, False, True)),
    ],
)
def test_atime_moves_as_was_asked_for(directory: Path, option: str, moved: tuple[bool, bool, bool]) -> None:
    """relatime: the first read after a change; noatime: none; strictatime: all; nodiratime: those of files."""
    assert moved == atimes_after_reads(directory, option)


@pytest.mark.parametrize(("option", "moved"), [("relatime", False), ("strictatime", True)])
def test_regression_strictatime_counts_every_listing(directory: Path, option: str, moved: bool) -> None:
    """strictatime: the kernel keeps no listings, so that each one moves the atime; else a kept one moves none."""
    with mounted(directory, options=[option]) as mount:
        folder = mount.root / "folder"
        folder.mkdir()
        for _ in range(3):  # the first shows that the kernel may keep them, the second is kept
            assert [] == list(folder.iterdir())
        os.utime(folder, ns=(1, folder.stat().st_mtime_ns))
        assert [] == list(folder.iterdir())
        assert moved == (folder.stat().st_atime_ns > 1)


@needs_root
def test_programs_and_devices_of_a_guarded_mount_are_not_used(directory: Path) -> None:
    """noexec: no program runs; nosuid and nodev, which are the default: no one gains rights, no device opens."""
    true = Path("/bin/true").read_bytes()
    with mounted(directory, options=["noexec", "allow_other"]) as mount:
        (mount.root / "true").write_bytes(true)
        (mount.root / "true").chmod(0o755)
        with pytest.raises(PermissionError):
            subprocess.run([mount.root / "true"], check=False)
        os.mknod(mount.root / "null", 0o20666, os.makedev(1, 3))
        with pytest.raises(PermissionError):
            (mount.root / "null").read_bytes()
    with mounted(directory, options=["exec", "dev", "suid"]) as mount:
        (mount.root / "true").write_bytes(true)
        assert 0 == subprocess.run([mount.root / "true"], check=False).returncode
        assert b"" == (mount.root / "null").read_bytes()


@needs_root
@pytest.mark.parametrize(("options", "code"), [([], 1), (["allow_root"], 1), (["allow_other"], 0)])
def test_who_else_may_look(directory: Path, options: list[str], code: int) -> None:
    """Nobody but the user who mounted, and root, unless all others were let in."""
    with mounted(directory, options=options) as mount:
        (mount.root / "file").touch()
        assert code == as_other("test", "-e", str(mount.root / "file"))
        assert (mount.root / "file").exists()


@needs_root
def test_owner_and_mode_are_shown_as_asked(directory: Path) -> None:
    """uid=, gid= and umask= change what is shown and what the kernel checks; what is stored stays as it was made, and a
    write by somebody else takes setuid away as ever."""
    with mounted(directory, options=["uid=12345,gid=7,umask=027,allow_other"]) as mount:
        (mount.root / "file").write_text("x")
        (mount.root / "file").chmod(0o4600)
        (mount.root / "dir").mkdir(mode=0o700)
        (mount.root / "link").symlink_to("file")
        for name, kind in (
            ("file", stat.S_IFREG | stat.S_ISUID),
            ("dir", stat.S_IFDIR),
            ("link", stat.S_IFLNK),
            (".", stat.S_IFDIR),
        ):
            found = (mount.root / name).lstat()
            assert (OTHER, 7, kind | 0o750) == (found.st_uid, found.st_gid, found.st_mode), name
        assert 0 == as_other("sh", "-c", f"echo more >> {mount.root}/file")
        assert "xmore\n" == (mount.root / "file").read_text()
    with mounted(directory) as mount:
        found = (mount.root / "file").stat()
        assert (0, 0, stat.S_IFREG | 0o600) == (found.st_uid, found.st_gid, found.st_mode)
