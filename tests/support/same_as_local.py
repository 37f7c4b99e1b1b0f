"""The same script on the mount and on the local disk, by the same user: both must see the same."""

from __future__ import annotations

import difflib
import errno
import os
import pickle
import subprocess
import traceback
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Seen: TypeAlias = "list[tuple[str, Any]]"


@dataclass(frozen=True)
class User:
    """Who runs a script."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ROOT = User(0, 0)
OWNER = User(1201, 1301)
MEMBER = User(1202, 1302, (1301,))
"""In the owner's group."""
STRANGER = User(1203, 1303)


class Record:
    """What a script sees, in order: a call is written down with its answer, or the name of its errno."""

    def __init__(self) -> None:
        self.seen: Seen = []

    def __call__(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        answer: Any
        try:
            answer = call(*arguments, **named)
        except OSError as error:
            answer = errno.errorcode[error.errno or 0]
        told = [_short(argument) for argument in arguments] + [f"{key}={value}" for key, value in named.items()]
        self.seen.append((f"{call.__name__}({', '.join(told)})", answer))
        return answer


def _short(argument: object) -> str:
    text = repr(argument)
    return text if len(text) < 80 else f"{text[:60]}... of {len(text)}"


def shown(path: str) -> tuple[str, int, int]:
    """Mode, owner and group."""
    found = os.lstat(path)
    return oct(found.st_mode), found.st_uid, found.st_gid


_TREE = "tree() { find $1 | LC_ALL=C sort | getfacl -; }\n"


def shell(command: str) -> tuple[int, list[str]]:
    """Run bash; its status, and all that it printed. `tree DIRECTORY` prints the ACLs of all below, in order."""
    done = subprocess.run(
        ["bash", "-c", _TREE + command], env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, check=False
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


def _lines(seen: Seen) -> list[str]:
    """For a person to compare: a line for each call, or for each that a program printed."""
    lines = []
    for call, answer in seen:
        printed = answer[1] if isinstance(answer, tuple) and isinstance(answer[-1], list) else []
        lines += [f"{call} -> {answer[0] if printed else answer}", *printed]
    return lines


def run_as(user: User, directory: Path, script: Callable[[Record], object]) -> Seen:
    """What `script` records in a process of that user, with `directory` as its working directory and umask 022."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # From 3.12 on: other threads' locks stay locked in the child, which uses none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _run_child(user, directory, script, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer: Seen | str = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    assert not isinstance(answer, str), answer
    return answer


def _run_child(user: User, directory: Path, script: Callable[[Record], object], writer: int) -> None:
    answer: Seen | str
    try:
        os.chdir(directory)
        os.umask(0o022)
        os.setgroups(user.groups)
        os.setgid(user.gid)
        os.setuid(user.uid)
        record = Record()
        script(record)
        answer = record.seen
    except BaseException:
        answer = traceback.format_exc()
    try:
        os.write(writer, pickle.dumps(answer))
    finally:
        os._exit(0)


class Both:
    """An empty directory on the mount and one on the local disk."""

    def __init__(self, mounted: Path, local: Path) -> None:
        self.mounted = mounted
        self.local = local

    def run(self, script: Callable[[Record], object], user: User = ROOT) -> dict[str, Any]:
        """Run `script` in both, as `user`, and compare; gives the answers by call, the last one of each."""
        local, mounted = (run_as(user, directory, script) for directory in (self.local, self.mounted))
        assert local == mounted, "\n".join(
            [f"as {user}: - on the local disk, + on the mount", *difflib.ndiff(_lines(local), _lines(mounted))]
        )
        assert mounted, "a script must look at something"
        return dict(mounted)
