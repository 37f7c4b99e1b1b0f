"""Every call on every kind of path: which errno comes first, and what is there afterwards."""

from __future__ import annotations

import os
import stat
from functools import partial
from typing import TYPE_CHECKING

from bench.suites.posix import calls
from bench.suites.posix.compare import in_new_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.suites.posix.compare import Answers

_NULL = os.makedev(1, 3)
_PATH_MAX = 4096


def _nothing() -> None:
    pass


def _file() -> None:
    calls.touch("f", b"content")


def _directory() -> None:
    os.mkdir("d", 0o755)


def _full_directory() -> None:
    os.mkdir("d")
    calls.touch("d/x")


def _links() -> None:
    """f, d, and symbolic links to them, to nothing and to itself."""
    calls.touch("f", b"content")
    _full_directory()
    for target in ("f", "d", "nothing"):
        os.symlink(target, f"to-{target}")
    os.symlink("to-itself", "to-itself")


def _chain(count: int) -> None:
    """`count` links, one after another, the last to a file; the kernel follows 40."""
    calls.touch("c0")
    for number in range(count):
        os.symlink(f"c{number}", f"c{number + 1}")


def _long_path(length: int) -> str:
    """A path of so many bytes that leads to f."""
    return "." + "/" * (length - 2) + "f"


KINDS: dict[str, tuple[Callable[[], None], str]] = {
    "file": (_file, "f"),
    "file/": (_file, "f/"),
    "file/.": (_file, "f/."),
    "file/x": (_file, "f/x"),
    "directory": (_directory, "d"),
    "directory/": (_directory, "d/"),
    "directory/.": (_directory, "d/."),
    "directory/..": (_directory, "d/.."),
    "full directory": (_full_directory, "d"),
    "absent": (_nothing, "a"),
    "absent/": (_nothing, "a/"),
    "absent/x": (_nothing, "a/x"),
    "fifo": (partial(os.mkfifo, "p"), "p"),
    "socket": (partial(calls.make_socket, "s"), "s"),
    "device": (partial(os.mknod, "n", stat.S_IFCHR | 0o600, _NULL), "n"),
    "link to file": (_links, "to-f"),
    "link to file/": (_links, "to-f/"),
    "link to file/x": (_links, "to-f/x"),
    "link to directory": (_links, "to-d"),
    "link to directory/": (_links, "to-d/"),
    "link to directory/x": (_links, "to-d/x"),
    "link to nothing": (_links, "to-nothing"),
    "link to nothing/": (_links, "to-nothing/"),
    "link to itself": (_links, "to-itself"),
    "link to itself/": (_links, "to-itself/"),
    "link to itself/x": (_links, "to-itself/x"),
    "forty links": (partial(_chain, 40), "c40"),
    "forty-one links": (partial(_chain, 41), "c41"),
    "255 bytes": (_nothing, "n" * 255),
    "256 bytes": (_nothing, "n" * 256),
    "256 bytes/x": (_nothing, "n" * 256 + "/x"),
    "1025 bytes": (_nothing, "n" * 1025),
    "file/256 bytes": (_file, "f/" + "n" * 256),
    "path of 4095": (_file, _long_path(_PATH_MAX - 1)),
    "path of 4096": (_file, _long_path(_PATH_MAX)),
    "empty": (_nothing, ""),
    ".": (_nothing, "."),
    "..": (_nothing, ".."),
}


def _open(flags: int) -> Callable[[str], None]:
    return lambda path: calls.opened(path, flags | os.O_NONBLOCK)


def _from_file(call: Callable[[str, str], None]) -> Callable[[str], None]:
    def from_file(path: str) -> None:
        calls.touch("old", b"old")
        call("old", path)

    return from_file


def _from_directory(path: str) -> None:
    os.mkdir("olddir")
    os.rename("olddir", path)


def _set_xattr(path: str) -> None:
    os.setxattr(path, "user.x", b"value")


CALLS: dict[str, Callable[[str], object]] = {
    "stat": lambda path: oct(os.stat(path).st_mode),
    "lstat": lambda path: oct(os.lstat(path).st_mode),
    "access": lambda path: os.access(path, os.R_OK),
    "chmod": lambda path: os.chmod(path, 0o640),
    "chown": lambda path: os.chown(path, 1, 2),
    "lchown": lambda path: os.lchown(path, 1, 2),
    "utime": lambda path: os.utime(path, ns=(1, 2)),
    "lutime": lambda path: os.utime(path, ns=(1, 2), follow_symlinks=False),
    "truncate": lambda path: os.truncate(path, 3),
    "truncate below 0": lambda path: os.truncate(path, -1),
    "unlink": os.unlink,
    "rmdir": os.rmdir,
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "mknod": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, _NULL),
    "mknod file": lambda path: os.mknod(path, stat.S_IFREG | 0o600),
    "symlink": lambda path: os.symlink("target", path),
    "symlink to the path": lambda path: os.symlink(path, "made"),
    "readlink": os.readlink,
    "link from": lambda path: os.link(path, "made"),
    "link what it points to": lambda path: os.link(path, "made", follow_symlinks=True),
    "link to": _from_file(os.link),
    "rename from": lambda path: os.rename(path, "made"),
    "rename to": _from_file(os.rename),
    "rename a directory to": _from_directory,
    "rename to itself": lambda path: os.rename(path, path),
    "rename to, unless there": _from_file(lambda old, path: calls.renameat2(old, path, calls.NOREPLACE)),
    "exchange": _from_file(lambda old, path: calls.renameat2(old, path, calls.EXCHANGE)),
    "list": calls.listed,
    "set xattr": _set_xattr,
    "absent xattr": lambda path: os.getxattr(path, "user.y"),
    "list xattrs": lambda path: [name for name in os.listxattr(path) if name.startswith("user.")],
    "open to read": _open(os.O_RDONLY),
    "open to write": _open(os.O_WRONLY),
    "open to truncate": _open(os.O_WRONLY | os.O_TRUNC),
    "open or create": _open(os.O_WRONLY | os.O_CREAT),
    "create": _open(os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "open a directory": _open(os.O_RDONLY | os.O_DIRECTORY),
    "open no link": _open(os.O_RDONLY | os.O_NOFOLLOW),
    "open as a place": _open(os.O_PATH),
}


def every_call_on_every_path(answers: Answers) -> None:
    """The answer, and what lies around afterwards."""
    for kind, (make, path) in KINDS.items():
        for name, call in CALLS.items():
            in_new_directory("work", partial(_one, answers, f"{name}, {kind}", make, partial(call, path)))


def _one(answers: Answers, label: str, make: Callable[[], None], call: Callable[[], object]) -> None:
    os.mkdir("in")
    os.chdir("in")
    make()
    answers.see(label, call)
    answers.see(f"{label}: the tree", calls.tree)
    os.chdir("..")


def odd_names(answers: Answers) -> None:
    """Bytes that are no text are names like others."""
    names = [
        b"\n",
        b"-rf",
        b"\xff\xfe",
        b" ",
        b"\\",
        "\N{LATIN SMALL LETTER E WITH ACUTE}".encode() * 127,
        b"e\xcc\x81",
    ]
    single = [bytes([value]) for value in range(1, 256) if value not in b"./"]
    for name in dict.fromkeys(names + single):
        answers.see(f"create {name!r}", calls.touch, os.fsdecode(name))
    answers.see("list them", calls.listed, ".")
    for found in os.listdir("."):
        answers.see(f"remove {os.fsencode(found)!r}", os.unlink, found)
    answers.see("nothing is left", calls.listed, ".")


def deep_trees(answers: Answers) -> None:
    """A tree that is deeper than the longest path works step by step."""
    depth = 20
    for _ in range(depth):
        os.mkdir("n" * 250)
        os.chdir("n" * 250)
    answers.see("getcwd", lambda: len(os.getcwd()) > _PATH_MAX)
    calls.touch("f", b"deep")
    answers.see("read", calls.read, "f")
    os.unlink("f")
    for level in range(depth):
        os.chdir("..")
        answers.see(f"remove {level}", os.rmdir, "n" * 250)


CASES = (
    ("paths", every_call_on_every_path),
    ("odd names", odd_names),
    ("deep trees", deep_trees),
)
