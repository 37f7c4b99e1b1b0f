"""rename and renameat2: each kind of thing over each kind of thing; links; open flags on what is there and is not."""

from __future__ import annotations

import itertools
import os
from functools import partial
from typing import TYPE_CHECKING

from bench.suites.posix import calls
from bench.suites.posix.compare import in_new_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.suites.posix.compare import Answers


def _nothing(path: str) -> None:
    """There is nothing at this path."""


def _file(path: str) -> None:
    calls.touch(path, path.encode())


def _full(path: str) -> None:
    os.mkdir(path)
    calls.touch(f"{path}/x")


def _nested(path: str) -> None:
    os.makedirs(f"{path}/y")


def _linked(path: str) -> None:
    _file(path)
    os.link(path, f"{path}-too")


THINGS: dict[str, Callable[[str], None]] = {
    "nothing": _nothing,
    "file": _file,
    "linked file": _linked,
    "directory": os.mkdir,
    "full directory": _full,
    "nested directory": _nested,
    "symlink": partial(os.symlink, "target"),
    "fifo": os.mkfifo,
    "socket": calls.make_socket,
}
MODES = {"": 0, "unless there, ": calls.NOREPLACE, "exchange ": calls.EXCHANGE, "bad flags, ": 3}


def every_pair(answers: Answers) -> None:
    """Within one directory and from one to another; with every flag."""
    for (source, make), (target, make_target) in itertools.product(THINGS.items(), THINGS.items()):
        for (word, flags), new in itertools.product(MODES.items(), ("one/b", "two/b")):
            label = f"{word}{source} over {target}, {new}"
            in_new_directory("work", partial(_rename, answers, label, make, make_target, new, flags))


def _rename(
    answers: Answers,
    label: str,
    make: Callable[[str], None],
    make_target: Callable[[str], None],
    new: str,
    flags: int,
) -> None:
    os.mkdir("one")
    os.mkdir("two")
    make("one/a")
    make_target(new)
    answers.see(label, calls.renameat2, "one/a", new, flags)
    answers.see(f"{label}: the tree", calls.tree)


def into_itself(answers: Answers) -> None:
    """No directory goes below itself, nor over one of its parents."""
    os.makedirs("a/b/c")
    calls.touch("a/f")
    paths = ("a", "a/b", "a/b/c", "a/new", "a/b/new", "a/b/c/new", "a/f", ".", "..", "a/.", "a/b/..", "a/f/x")
    for (old, new), (word, flags) in itertools.product(itertools.product(paths, paths), MODES.items()):
        if new in {"a/new", "a/b/new", "a/b/c/new"} and old not in {"a", "a/b", "."}:
            continue  # they would succeed, and the next ones find another tree
        if flags == calls.EXCHANGE and {old, new} <= {"a/f", "a/b/c"}:
            continue
        if flags == 0 and (old, new) == ("a/b", "a/b/c/new"):
            continue
        answers.see(f"{word}{old} to {new}", calls.renameat2, old, new, flags)
    answers.see("the tree", calls.tree)


def one_inode(answers: Answers) -> None:
    """Two names of one inode: nothing happens."""
    calls.touch("a", b"both")
    os.link("a", "b")
    for word, flags in MODES.items():
        answers.see(f"{word}a to b", calls.renameat2, "a", "b", flags)
        answers.see(f"{word}a to a", calls.renameat2, "a", "a", flags)
        answers.see(f"the tree after {word}", calls.tree)


def link_counts(answers: Answers) -> None:
    """nlink of directories is 2 and one for each subdirectory, wherever they come from and go to."""
    os.mkdir("a")
    os.mkdir("b")

    def counts() -> tuple[int, int, int]:
        return os.stat("a").st_nlink, os.stat("b").st_nlink, os.stat(".").st_nlink

    steps: dict[str, Callable[[], object]] = {
        "mkdir": lambda: os.mkdir("a/x"),
        "mkdir below": lambda: os.mkdir("a/x/y"),
        "file": lambda: calls.touch("a/f"),
        "move": lambda: os.rename("a/x", "b/x"),
        "exchange with file": lambda: calls.renameat2("b/x", "a/f", calls.EXCHANGE),
        "up": lambda: os.rename("a/f/y", "y"),
        "replace": lambda: os.rename("a/f", "y"),
        "rmdir": lambda: os.rmdir("y"),
        "rmdir again": lambda: os.rmdir("y"),
    }
    for label, step in steps.items():
        answers.see(label, step)
        answers.see(f"{label}: nlink", counts)


def many_links(answers: Answers) -> None:
    """A thousand names of a file, some of them in other directories."""
    calls.touch("f", b"x")
    os.mkdir("d")
    for number in range(1000):
        os.link("f", f"d/{number}" if number % 2 else f"l{number}")
    answers.see("nlink", lambda: os.stat("f").st_nlink)
    for number in range(1000):
        os.unlink(f"d/{number}" if number % 2 else f"l{number}")
    answers.see("the tree", calls.tree)


FLAGS = {
    "create": os.O_CREAT,
    "exclusive": os.O_EXCL,
    "truncate": os.O_TRUNC,
    "no link": os.O_NOFOLLOW,
    "directory": os.O_DIRECTORY,
    "append": os.O_APPEND,
}
ACCESS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}


def every_open(answers: Answers) -> None:
    """All combinations of flags on a file, a directory, links and nothing."""
    combinations = list(itertools.product((False, True), repeat=len(FLAGS)))
    for path, (word, access) in itertools.product(("f", "d", "to-f", "to-d", "to-nothing", "a"), ACCESS.items()):
        for chosen in combinations:
            flags = [name for name, on in zip(FLAGS, chosen, strict=True) if on]
            number = access | os.O_NONBLOCK
            for name in flags:
                number |= FLAGS[name]
            label = f"{path} {word} {' '.join(flags)}"
            in_new_directory("work", partial(_open, answers, label, path, number))


def _open(answers: Answers, label: str, path: str, flags: int) -> None:
    calls.touch("f", b"content")
    os.mkdir("d")
    for target in ("f", "d", "nothing"):
        os.symlink(target, f"to-{target}")
    answers.see(label, calls.opened, path, flags)
    answers.see(f"{label}: the tree", calls.tree)


CASES = (
    ("renames", every_pair),
    ("renames into itself", into_itself),
    ("renames of one inode", one_inode),
    ("link counts", link_counts),
    ("many links", many_links),
    ("opens", every_open),
)
