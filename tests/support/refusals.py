"""Every system call that takes a path, and every kind of path that it can be given."""

# ruff: noqa: PTH101, PTH116, PTH208, PTH211 - this file is about system calls

from __future__ import annotations

import errno
import os
import shutil
import stat
from functools import partial
from typing import TYPE_CHECKING

from bench.suites.posix.calls import EXCHANGE, NOREPLACE, renameat2
from support.syscalls import RENAME_WHITEOUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATHS = (
    *("file", "other", "second", "dir", "empty", "full", "full/inside", "full/sub", "fifo", "absent"),
    *("link", "dirlink", "dangling", "loop"),
    *("absent/x", "file/x", "fifo/x", "link/x", "dirlink/x", "dangling/x", "loop/x", "full/inside/x"),
    *("file/", "dir/", "link/", "dirlink/", "dangling/", "absent/", "loop/", "fifo/"),
    *("", ".", "..", "dir/.", "dir/..", "file/.", "file/..", "absent/.."),
    *("locked", "locked/inside", "locked/absent", "readonly/inside", "readonly/absent", "readonly/dir"),
    *("sticky/others", "sticky/own", "secret"),
    *("x" * 255, "x" * 256, f"{'x' * 256}/y", f"file/{'x' * 256}", f"absent/{'x' * 256}"),
    *(f"{'./' * 2045}file", f"{'./' * 2046}file"),
)
"""The last two are 4094 and 4096 bytes long: PATH_MAX counts the zero at the end."""
MOVED = (*(path for path in PATHS if len(path) < 300 and not path.endswith(("/x", "/.."))), "file/x", "full/sub/x")
"""For calls with two paths, whose number is squared."""
OTHER_USER = 54321


def make_tree(top: Path) -> None:
    """What the paths lead to."""
    for name in ("dir", "empty", "full/sub", "locked", "readonly/dir", "sticky"):
        (top / name).mkdir(parents=True)
    for name in ("file", "other", "full/inside", "locked/inside", "readonly/inside", "sticky/others", "sticky/own"):
        (top / name).write_bytes(b"contents")
    (top / "secret").touch(mode=0o600)
    os.link(top / "file", top / "second")
    os.mkfifo(top / "fifo")
    for name, target in (("link", "file"), ("dirlink", "dir"), ("dangling", "absent"), ("loop", "loop")):
        (top / name).symlink_to(target)
    for name, mode in (("locked", 0o700), ("readonly", 0o555), ("sticky", 0o1777), ("file", 0o666), (".", 0o777)):
        (top / name).chmod(mode)
    for name in ("sticky/own", "other", "full", "full/sub", "dir"):
        os.chown(top / name, OTHER_USER, OTHER_USER)


def remake_tree(top: Path) -> None:
    """As `make_tree`, whatever is there."""
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(parents=True)
    make_tree(top)


def _shown(path: str, *, follow: bool) -> tuple[object, ...]:
    found = os.stat(path, follow_symlinks=follow)
    own = () if stat.S_ISDIR(found.st_mode) else (found.st_nlink, found.st_size)
    return found.st_mode, found.st_uid, found.st_gid, *own


def _open(flags: int, path: str) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK, 0o644))


ONE_PATH: dict[str, Callable[[str], object]] = {
    "stat": partial(_shown, follow=True),
    "lstat": partial(_shown, follow=False),
    "access": lambda path: os.access(path, os.X_OK),
    "statvfs": lambda path: os.statvfs(path).f_namemax,
    "open O_RDONLY": partial(_open, os.O_RDONLY),
    "open O_WRONLY": partial(_open, os.O_WRONLY),
    "open O_RDWR": partial(_open, os.O_RDWR),
    "open O_TRUNC": partial(_open, os.O_WRONLY | os.O_TRUNC),
    "open O_CREAT": partial(_open, os.O_RDWR | os.O_CREAT),
    "open O_CREAT O_TRUNC": partial(_open, os.O_RDWR | os.O_CREAT | os.O_TRUNC),
    "open O_CREAT O_EXCL": partial(_open, os.O_RDWR | os.O_CREAT | os.O_EXCL),
    "open O_CREAT O_NOFOLLOW": partial(_open, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW),
    "open O_NOFOLLOW": partial(_open, os.O_RDONLY | os.O_NOFOLLOW),
    "open O_DIRECTORY": partial(_open, os.O_RDONLY | os.O_DIRECTORY),
    "open O_PATH": partial(_open, os.O_PATH),
    "open O_NOATIME": partial(_open, os.O_RDONLY | os.O_NOATIME),
    "mkdir": os.mkdir,
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "mkfifo": os.mkfifo,
    "mknod": lambda path: os.mknod(path, stat.S_IFREG | 0o644),
    "mknod device": lambda path: os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, 3)),
    "symlink": lambda path: os.symlink("somewhere", path),
    "symlink to nothing": lambda path: os.symlink("", path),
    "symlink too long": lambda path: os.symlink("x" * 4096, path),
    "readlink": os.readlink,
    "truncate": lambda path: os.truncate(path, 3),
    "truncate negative": lambda path: os.truncate(path, -1),
    "chmod": lambda path: os.chmod(path, 0o640),
    "chown": lambda path: os.chown(path, 7, 8),
    "lchown": lambda path: os.lchown(path, -1, OTHER_USER),
    "utime": lambda path: os.utime(path, ns=(5, 6)),
    "utime now": os.utime,
    "listdir": lambda path: sorted(os.listdir(path)),
    "setxattr": lambda path: os.setxattr(path, "user.a", b"1"),
    "setxattr replace": lambda path: os.setxattr(path, "user.a", b"1", os.XATTR_REPLACE, follow_symlinks=False),
    "setxattr trusted": lambda path: os.setxattr(path, "trusted.a", b"1"),
    "getxattr": lambda path: os.getxattr(path, "user.a"),
    "removexattr": lambda path: os.removexattr(path, "user.a"),
    "listxattr": os.listxattr,
    "link to itself": lambda path: os.link(path, path, follow_symlinks=False),
}
TWO_PATHS: dict[str, Callable[[str, str], object]] = {
    "rename": os.rename,
    "rename NOREPLACE": lambda old, new: renameat2(old, new, NOREPLACE),
    "rename EXCHANGE": lambda old, new: renameat2(old, new, EXCHANGE),
    "link": lambda old, new: os.link(old, new, follow_symlinks=False),
    "link, following": lambda old, new: os.link(old, new, follow_symlinks=True),
}
BAD_FLAGS = (RENAME_WHITEOUT, NOREPLACE | EXCHANGE, 8, 1 << 31)


def answer_of(call: Callable[..., object], *paths: str) -> object:
    """What it returned, or the name of its errno."""
    try:
        return call(*paths)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
