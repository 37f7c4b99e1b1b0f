"""The cache directory: one sparse file per inode, read and written at the file's own offsets.

`<cache>/files/<2 hex>/<inode hex>`. Everything is opened relative to the directory that was opened at the
start, so renaming a parent directory under a running mount is harmless. At most `open_files` descriptors are
held, the least recently used is closed first. Foreign errors leave here as `FilesystemError` with their errno.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections import OrderedDict
from typing import TYPE_CHECKING

from disfs.errors import FilesystemError
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from disfs.chunkstore.transport.base import Buffer

_FILES = "files"
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.syncfs.argtypes = [ctypes.c_int]


@contextlib.contextmanager
def _errno_kept(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(action, error) from error


def _failed(action: str, error: OSError) -> FilesystemError:
    # A cache file or folder that somebody removed under us is damage, not "no such file" for the caller's name.
    code = errno.EIO if error.errno in {None, errno.ENOENT, errno.ESTALE} else error.errno
    return FilesystemError(code or errno.EIO, f"{action} the cache: {error.strerror}")


def _make_durable_directory(directory: Path) -> None:
    """Make it and its parents, as far as they are missing, so that a power cut does not take them away again."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in missing:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Give the blocks of a range back; it then reads as zeros. OSError where the file system cannot do that."""
    if _libc.fallocate(descriptor, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class CacheFiles:
    """The files of one cache directory. Not thread-safe: `duplicate` gives a worker thread a descriptor of its own."""

    def __init__(self, directory: Path, open_files: int) -> None:
        assert open_files >= 1
        self._open_files = open_files
        self._descriptors: OrderedDict[InodeNumber, int] = OrderedDict()
        with _errno_kept("opening"):
            _make_durable_directory(directory)
            self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._make_folders()

    def _make_folders(self) -> None:
        # Made all at once and synced once, so that a new cache file needs the sync of one folder and no more.
        with contextlib.suppress(FileExistsError):
            os.mkdir(_FILES, mode=0o700, dir_fd=self._root)
        for number in range(256):
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{_FILES}/{number:02x}", mode=0o700, dir_fd=self._root)
        folder = os.open(_FILES, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        try:
            os.fsync(folder)
            os.fsync(self._root)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Close every descriptor; closing twice is harmless."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    @property
    def open_count(self) -> int:
        """How many cache files are open."""
        return len(self._descriptors)

    def free_bytes(self) -> int:
        """What the disk under the cache has left for us."""
        with _errno_kept("measuring"):
            found = os.fstatvfs(self._root)
        return found.f_bavail * found.f_frsize

    def inodes(self) -> list[InodeNumber]:
        """Every inode that has a cache file; other files are none of ours and are left alone."""
        found: list[InodeNumber] = []
        with _errno_kept("listing"):
            for number in range(256):
                folder = f"{number:02x}"
                for name in self._names(f"{_FILES}/{folder}"):
                    with contextlib.suppress(ValueError):
                        inode = InodeNumber(int(name, 16))
                        if _path(inode) == f"{_FILES}/{folder}/{name}":
                            found.append(inode)
        return found

    def _names(self, folder: str) -> list[str]:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        try:
            with os.scandir(descriptor) as entries:
                return [entry.name for entry in entries]
        finally:
            os.close(descriptor)

    def set_aside(self) -> str:
        """Move all cache files to another name in the directory, begin with none, and return that name."""
        aside = f"{_FILES}.{os.urandom(4).hex()}"
        with _errno_kept("setting aside"):
            os.rename(_FILES, aside, src_dir_fd=self._root, dst_dir_fd=self._root)
            self._make_folders()
        return aside

    def length(self, inode: InodeNumber) -> int | None:
        """How long a cache file is; None when there is none."""
        try:
            return os.stat(_path(inode), dir_fd=self._root, follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def read(self, inode: InodeNumber, offset: int, length: int) -> bytes:
        """What the file holds there; shorter at its end."""
        # Not `_errno_kept`, here and in `write`: a context manager costs a microsecond, and these are the hot paths.
        try:
            return os.pread(self._descriptor(inode), length, offset)
        except OSError as error:
            raise _failed("reading", error) from error

    def write(self, inode: InodeNumber, offset: int, data: Buffer, *, create: bool) -> None:
        """Write all of `data`, or raise; how much of it got there is then unknown.

        `create` only where the file has no content yet, and in the first write: a file that should be there and is not
        must never come back as an empty one, whose zeros would look like data. What an earlier life left is cut off.
        """
        view = memoryview(data)
        try:
            descriptor = self._descriptor(inode, create=create)
            while view:
                written = os.pwrite(descriptor, view, offset)
                offset += written
                view = view[written:]
        except OSError as error:
            raise _failed("writing", error) from error

    def punch(self, inode: InodeNumber, offset: int, length: int) -> None:
        """Give the blocks back; the range then reads as zeros, the file's length stays."""
        with _errno_kept("evicting from"):
            punch_hole(self._descriptor(inode), offset, length)

    def truncate(self, inode: InodeNumber, length: int) -> None:
        """Make the file `length` bytes long."""
        with _errno_kept("truncating"):
            os.ftruncate(self._descriptor(inode), length)

    def remove(self, inode: InodeNumber) -> None:
        """Remove the file; there being none is fine."""
        descriptor = self._descriptors.pop(inode, None)
        if descriptor is not None:
            os.close(descriptor)
        with _errno_kept("removing from"), contextlib.suppress(FileNotFoundError):
            os.unlink(_path(inode), dir_fd=self._root)

    def duplicate(self, inode: InodeNumber) -> int:
        """A descriptor that the caller closes."""
        with _errno_kept("opening"):
            return os.dup(self._descriptor(inode))

    def open_folder(self, inode: InodeNumber) -> int:
        """A descriptor of the folder that holds the inode's file, to sync a new name; the caller closes it."""
        with _errno_kept("opening"):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            return os.open(_path(inode).rpartition("/")[0], flags, dir_fd=self._root)

    def sync_disk(self) -> None:
        """Sync the whole file system under the cache; for a clean stop, in a worker thread."""
        with _errno_kept("syncing"):
            if _libc.syncfs(self._root):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))

    def read_note(self, name: str) -> bytes | None:
        """A small file of the cache directory itself; None when there is none."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._root)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb") as file, _errno_kept("reading"):
            return file.read()

    def write_note(self, name: str, content: bytes) -> None:
        """Replace a small file of the cache directory: all of it or nothing, and durable on return."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with _errno_kept("writing"):
            with open(os.open(f"{name}.new", flags, 0o600, dir_fd=self._root), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(f"{name}.new", name, src_dir_fd=self._root, dst_dir_fd=self._root)
            os.fsync(self._root)

    def remove_note(self, name: str) -> None:
        """Remove such a file, durably; there being none is fine."""
        with _errno_kept("writing"), contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._root)
            os.fsync(self._root)

    def _descriptor(self, inode: InodeNumber, *, create: bool = False) -> int:
        descriptor = self._descriptors.get(inode)
        if descriptor is not None:
            self._descriptors.move_to_end(inode)
            return descriptor
        while len(self._descriptors) >= self._open_files:
            os.close(self._descriptors.popitem(last=False)[1])
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_TRUNC if create else 0)
        descriptor = os.open(_path(inode), flags, 0o600, dir_fd=self._root)
        self._descriptors[inode] = descriptor
        return descriptor


def _path(inode: InodeNumber) -> str:
    # The low byte spreads consecutive inode numbers over the folders.
    return f"{_FILES}/{inode & 0xFF:02x}/{inode:x}"
