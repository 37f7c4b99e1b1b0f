"""What other users may and may not: mode bits, the sticky bit, owners, setuid and setgid."""

from __future__ import annotations

import itertools
import os
import stat
from functools import partial
from typing import TYPE_CHECKING

from bench.suites.posix import calls
from bench.suites.posix.compare import in_new_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.suites.posix.compare import Answers

ME, MINE = 54321, 54322
"""A user and its group."""
OTHER, THEIRS = 54331, 54332
SECOND = 54323
"""A further group that the user is in."""


def _as_me(call: Callable[[], object]) -> object:
    with calls.as_user(ME, MINE, (SECOND,)):
        return call()


def _own(path: str, uid: int, gid: int, mode: int) -> None:
    os.lchown(path, uid, gid)
    if not stat.S_ISLNK(os.lstat(path).st_mode):
        os.chmod(path, mode)


def _file(path: str) -> None:
    calls.touch(path, b"content")


THINGS: dict[str, Callable[[str], None]] = {
    "file": _file,
    "directory": os.mkdir,
    "symlink": partial(os.symlink, "x"),
    "fifo": os.mkfifo,
}
OWNERS = {"mine": ME, "another's": OTHER, "root's": 0}


def sticky(answers: Answers) -> None:
    """In a sticky directory only the owners of a thing and of the directory take it away."""
    for (thing, make), (whose, owner) in itertools.product(THINGS.items(), OWNERS.items()):
        for (whose_dir, dir_owner), mode in itertools.product(OWNERS.items(), (0o777, 0o1777, 0o1755)):
            for name, call in _REMOVALS.items():
                label = f"{name} {whose} {thing} in {whose_dir} {mode:o}"
                work = partial(_remove, answers, label, make, (owner, dir_owner, mode), call)
                in_new_directory("work", work)


def _remove_any(path: str) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        os.rmdir(path)
    else:
        os.unlink(path)


def _over(path: str) -> None:
    """Rename something of one's own over it."""
    own = "own/d" if stat.S_ISDIR(os.lstat(path).st_mode) else "own/f"
    os.rename(own, path)


_REMOVALS: dict[str, Callable[[str], None]] = {
    "remove": _remove_any,
    "rename": lambda path: os.rename(path, "dir/new"),
    "move away": lambda path: os.rename(path, "own/new"),
    "replace": _over,
    "exchange": lambda path: calls.renameat2("own/f", path, calls.EXCHANGE),
}


def _remove(
    answers: Answers, label: str, make: Callable[[str], None], owners: tuple[int, int, int], call: Callable[[str], None]
) -> None:
    owner, dir_owner, mode = owners
    os.chmod(".", 0o755)
    for path in ("dir", "own"):
        os.mkdir(path)
    make("dir/t")
    _own("dir/t", owner, 0, 0o755)
    os.mkdir("own/d")
    _file("own/f")
    for path in ("own/d", "own/f", "own"):
        _own(path, ME, MINE, 0o755)
    _own("dir", dir_owner, 0, mode)
    answers.see(label, _as_me, partial(call, "dir/t"))
    answers.see(f"{label}: the tree", calls.tree)


CLASSES = {
    "owner": (ME, OTHER, 6),
    "group": (OTHER, MINE, 3),
    "second group": (OTHER, SECOND, 3),
    "others": (OTHER, THEIRS, 0),
}
"""uid and gid of what is tried, and by how much its three bits are shifted."""

IN_DIRECTORY: dict[str, Callable[[], object]] = {
    "stat": lambda: oct(os.stat("dir/f").st_mode),
    "stat absent": lambda: os.stat("dir/absent"),
    "open": lambda: calls.read("dir/f"),
    "create": lambda: calls.opened("dir/new", os.O_WRONLY | os.O_CREAT),
    "mkdir": lambda: os.mkdir("dir/new"),
    "mkdir of what is there": lambda: os.mkdir("dir/f"),
    "mkfifo": lambda: os.mkfifo("dir/new"),
    "mknod device": lambda: os.mknod("dir/new", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "symlink": lambda: os.symlink("x", "dir/new"),
    "link to": lambda: os.link("own/f", "dir/new"),
    "link from": lambda: os.link("dir/mine", "own/new"),
    "unlink": lambda: os.unlink("dir/f"),
    "unlink absent": lambda: os.unlink("dir/absent"),
    "rmdir": lambda: os.rmdir("dir/sub"),
    "rename within": lambda: os.rename("dir/f", "dir/new"),
    "rename from": lambda: os.rename("dir/f", "own/new"),
    "rename to": lambda: os.rename("own/f", "dir/new"),
    "move my directory from": lambda: os.rename("dir/mysub", "own/new"),
    "move another's directory from": lambda: os.rename("dir/sub", "own/new"),
    "list": lambda: calls.listed("dir"),
    "set xattr": lambda: os.setxattr("dir", "user.x", b"y"),
    "chmod": lambda: os.chmod("dir", 0o755),
    "utime": lambda: os.utime("dir"),
    "access": lambda: [os.access("dir", bit, effective_ids=True) for bit in (os.R_OK, os.W_OK, os.X_OK)],
    "statvfs": lambda: os.statvfs("dir/f").f_namemax,
}


def directories(answers: Answers) -> None:
    """Each of the eight modes of a directory, as its owner, its group and others."""
    for (word, (uid, gid, shift)), bits in itertools.product(CLASSES.items(), range(8)):
        for name, call in IN_DIRECTORY.items():
            work = partial(_in_directory, answers, f"{name}, {word} {bits}", (uid, gid, bits << shift), call)
            in_new_directory("work", work)


def _in_directory(answers: Answers, label: str, kind: tuple[int, int, int], call: Callable[[], object]) -> None:
    os.chmod(".", 0o755)
    for path in ("dir", "own", "dir/sub", "dir/mysub"):
        os.mkdir(path)
    for path in ("dir/f", "dir/mine", "own/f"):
        _file(path)
    for path in ("own/f", "own", "dir/mysub", "dir/mine"):
        _own(path, ME, MINE, 0o755)
    _own("dir", *kind)
    answers.see(label, _as_me, call)
    answers.see(f"{label}: the tree", calls.tree)


ON_FILE: dict[str, Callable[[], object]] = {
    "read": lambda: calls.read("f"),
    "write": lambda: calls.write("f"),
    "open for both": lambda: calls.opened("f", os.O_RDWR),
    "open to truncate": lambda: calls.opened("f", os.O_RDONLY | os.O_TRUNC),
    "open or create": lambda: calls.opened("f", os.O_WRONLY | os.O_CREAT),
    "truncate": lambda: os.truncate("f", 3),
    "chmod": lambda: os.chmod("f", 0o4711),
    "chmod with setgid": lambda: os.chmod("f", 0o2711),
    "chown to myself": lambda: os.chown("f", ME, -1),
    "chown to another": lambda: os.chown("f", OTHER, -1),
    "chown to nobody else": lambda: os.chown("f", -1, -1),
    "chgrp to my group": lambda: os.chown("f", -1, MINE),
    "chgrp to my second group": lambda: os.chown("f", -1, SECOND),
    "chgrp to another's": lambda: os.chown("f", -1, THEIRS),
    "set times": lambda: os.utime("f", ns=(5, 6)),
    "set times to now": lambda: os.utime("f"),
    "set one to now": lambda: calls.utimensat("f", (0, calls.OMIT), (0, calls.NOW)),
    "set no time": lambda: calls.utimensat("f", (0, calls.OMIT), (0, calls.OMIT)),
    "set xattr": lambda: os.setxattr("f", "user.x", b"y"),
    "get xattr": lambda: os.getxattr("f", "user.there"),
    "set trusted xattr": lambda: os.setxattr("f", "trusted.x", b"y"),
    "get trusted xattr": lambda: os.getxattr("f", "trusted.there"),
    "link": lambda: os.link("f", "own/new"),
    "access": lambda: [os.access("f", bit, effective_ids=True) for bit in (os.R_OK, os.W_OK, os.X_OK)],
    "open no atime": lambda: calls.opened("f", os.O_RDONLY | os.O_NOATIME),
}


def files(answers: Answers) -> None:
    """Each of the eight modes of a file, as its owner, its group and others."""
    for (word, (uid, gid, shift)), bits in itertools.product(CLASSES.items(), range(8)):
        for name, call in ON_FILE.items():
            work = partial(_on_file, answers, f"{name}, {word} {bits}", (uid, gid, bits << shift), call)
            in_new_directory("work", work)


def _on_file(answers: Answers, label: str, kind: tuple[int, int, int], call: Callable[[], object]) -> None:
    os.chmod(".", 0o755)
    _file("f")
    os.setxattr("f", "user.there", b"value")
    os.setxattr("f", "trusted.there", b"value")
    os.mkdir("own")
    _own("own", ME, MINE, 0o755)
    _own("f", *kind)
    answers.see(label, _as_me, call)
    answers.see(f"{label}: the tree", calls.tree)
    answers.see(f"{label}: set times", lambda: [time for time in calls.times("f") if time < 10])


PRIVILEGED_MODES = (0o4755, 0o2755, 0o6777, 0o2745, 0o6666, 0o1777, 0o7777)
CHANGES: dict[str, Callable[[], object]] = {
    "write": lambda: calls.write("f"),
    "write nothing": lambda: calls.write("f", b""),
    "truncate": lambda: os.truncate("f", 1),
    "truncate to the same": lambda: os.truncate("f", 7),
    "open to truncate": lambda: calls.opened("f", os.O_WRONLY | os.O_TRUNC),
    "chown to the same": lambda: os.chown("f", ME, -1),
    "chgrp to my second group": lambda: os.chown("f", -1, SECOND),
    "chown to nobody else": lambda: os.chown("f", -1, -1),
    "chown as before": lambda: os.chown("f", os.stat("f").st_uid, os.stat("f").st_gid),
    "chmod 6755": lambda: os.chmod("f", 0o6755),
    "chmod 7777": lambda: os.chmod("f", 0o7777),
    "set times": lambda: os.utime("f"),
    "set xattr": lambda: os.setxattr("f", "user.x", b"y"),
    "rename": lambda: os.rename("f", "g"),
}


def set_ids(answers: Answers) -> None:
    """setuid and setgid go when somebody without privileges changes the file, and stay otherwise."""
    groups = {"my group": MINE, "my second group": SECOND, "another's group": THEIRS}
    actors = {"me": _as_me, "root": lambda call: call()}
    for mode, (word, gid), (actor, by) in itertools.product(PRIVILEGED_MODES, groups.items(), actors.items()):
        for name, call in CHANGES.items():
            label = f"{name} by {actor}, {mode:o}, {word}"
            in_new_directory("work", partial(_change, answers, label, gid, mode, partial(by, call)))


def _change(answers: Answers, label: str, gid: int, mode: int, call: Callable[[], object]) -> None:
    _own(".", ME, MINE, 0o755)
    _file("f")
    _own("f", ME, gid, mode)
    answers.see(label, call)
    answers.see(f"{label}: the tree", calls.tree)


MAKERS: dict[str, Callable[[int], None]] = {
    "open": lambda mode: calls.opened("dir/new", os.O_WRONLY | os.O_CREAT, mode),
    "mkdir": lambda mode: os.mkdir("dir/new", mode),
    "mknod": lambda mode: os.mknod("dir/new", stat.S_IFREG | mode),
    "mkfifo": lambda mode: os.mkfifo("dir/new", mode),
    "symlink": lambda _mode: os.symlink("x", "dir/new"),
}


def new_modes(answers: Answers) -> None:
    """Mode, umask, and what a setgid directory hands on."""
    modes = (0o777, 0o666, 0o7777, 0o2755, 0o4711, 0)
    for mode, mask, dir_mode in itertools.product(modes, (0, 0o022, 0o077, 0o777), (0o777, 0o2777, 0o3777)):
        for (name, make), gid in itertools.product(MAKERS.items(), (MINE, THEIRS)):
            label = f"{name} {mode:o}, umask {mask:o}, in {dir_mode:o} of {gid}"
            in_new_directory("work", partial(_make, answers, label, (dir_mode, gid), mask, partial(make, mode)))


def _make(answers: Answers, label: str, kind: tuple[int, int], mask: int, make: Callable[[], None]) -> None:
    dir_mode, gid = kind
    os.chmod(".", 0o755)
    os.mkdir("dir")
    _own("dir", OTHER, gid, dir_mode)
    with calls.umask(mask):
        answers.see(label, _as_me, make)
    answers.see(f"{label}: the tree", calls.tree)


CASES = (
    ("sticky", sticky),
    ("permissions of directories", directories),
    ("permissions of files", files),
    ("set-ids", set_ids),
    ("new modes", new_modes),
)
