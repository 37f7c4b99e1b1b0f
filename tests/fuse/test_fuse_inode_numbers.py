"""Inode numbers last as long as their files, over remounts and crashes, and so do file handles as NFS uses them."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

import pytest
from support.mounted import mounted

if TYPE_CHECKING:
    from pathlib import Path

    from support.mounted import Mounted

MAX_HANDLE_BYTES = 128
AT_FDCWD = -100
LIBC = ctypes.CDLL(None, use_errno=True)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="open_by_handle_at needs CAP_DAC_READ_SEARCH")


class FileHandle(ctypes.Structure):
    """struct file_handle with room for the largest."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * MAX_HANDLE_BYTES),
    )


def handle_of(path: Path) -> FileHandle:
    """name_to_handle_at(2)."""
    handle, mount = FileHandle(MAX_HANDLE_BYTES), ctypes.c_int()
    if LIBC.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return handle


def opened(mount: Mounted, handle: FileHandle, flags: int = os.O_RDONLY) -> os.stat_result:
    """What fstat says of the inode that open_by_handle_at(2) opens."""
    root = os.open(mount.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        descriptor = LIBC.open_by_handle_at(root, ctypes.byref(handle), flags)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)
    finally:
        os.close(root)


def numbers(root: Path) -> dict[str, int]:
    """Inode numbers by path."""
    return {str(path.relative_to(root)): path.lstat().st_ino for path in root.rglob("*")}


def make_tree(root: Path) -> None:
    """A file of every sort."""
    (root / "directory" / "below").mkdir(parents=True)
    (root / "directory" / "below" / "file").write_bytes(b"x")
    (root / "link").symlink_to("file")
    os.mkfifo(root / "fifo")
    os.link(root / "directory" / "below" / "file", root / "second name")


def crash(mount: Mounted) -> None:
    """kill -9 of the daemon, after what is there was made safe."""
    directory = os.open(mount.root, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    mount.process.kill()
    mount.process.wait()


@pytest.mark.parametrize("crashes", [False, True])
def test_inode_numbers_are_stable(tmp_path: Path, crashes: bool) -> None:
    """After unmounting and after kill -9 every file has the number that it had; all names of a file have the same."""
    with mounted(tmp_path, ends_itself=crashes) as mount:
        make_tree(mount.root)
        before = numbers(mount.root)
        if crashes:
            crash(mount)
    assert before["second name"] == before["directory/below/file"]
    assert len(before) - 1 == len(set(before.values()))
    with mounted(tmp_path) as mount:
        assert before == numbers(mount.root)


def test_inode_numbers_are_never_used_again(tmp_path: Path) -> None:
    """A number of a deleted file comes back for no other, whether the mount is still there, ended or was killed."""
    used: list[int] = []
    for life, ends_itself in enumerate((False, True, True, False)):
        with mounted(tmp_path, ends_itself=ends_itself) as mount:
            for number in range(20):
                path = mount.root / f"file {number} of life {life}"
                path.touch()
                used.append(path.stat().st_ino)
                path.unlink()
            if ends_itself:
                # No sync here: what never reached the disk may have been seen all the same.
                mount.process.kill()
                mount.process.wait()
    assert sorted(set(used)) == used


@needs_root
def test_file_handles_outlive_a_remount(tmp_path: Path) -> None:
    """name_to_handle_at and open_by_handle_at work, as NFS needs them, at once and after a remount, when the kernel
    knows nothing of the inode; a renamed file keeps its handle."""
    with mounted(tmp_path) as mount:
        make_tree(mount.root)
        file, below = mount.root / "second name", mount.root / "directory" / "below"
        handles = [handle_of(file), handle_of(below), handle_of(mount.root)]
        expected = [path.stat().st_ino for path in (file, below, mount.root)]
        assert expected == [opened(mount, handle).st_ino for handle in handles]
        file.rename(mount.root / "renamed")
        assert expected[0] == opened(mount, handles[0]).st_ino
    with mounted(tmp_path) as mount:
        assert expected == [opened(mount, handle).st_ino for handle in handles]
        assert 1 == opened(mount, handles[0], os.O_RDWR).st_size


@needs_root
@pytest.mark.parametrize("remounts", [False, True])
def test_file_handle_of_a_deleted_file_is_stale(tmp_path: Path, remounts: bool) -> None:
    """The handle of a file that is gone opens nothing, and above all not the file that was made next."""
    with mounted(tmp_path) as mount:
        (mount.root / "gone").touch()
        handle = handle_of(mount.root / "gone")
        (mount.root / "gone").unlink()
        (mount.root / "next").touch()
        if not remounts:
            with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
                opened(mount, handle)
    if remounts:
        with mounted(tmp_path) as mount, pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            opened(mount, handle)
