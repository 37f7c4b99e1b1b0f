"""One run of operations on a mount, on the local disk and on the model, all compared after each step."""

from __future__ import annotations

import copy
import errno
import itertools
import os
import stat
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.metadata_invariants import faults_of
from support.model_filesystem import ModelFilesystem
from support.model_nodes import Moment
from support.real_surface import RealSurface

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from support.kept_disk import KeptDisk
    from support.model_nodes import Node
    from support.real_surface import Seen

CLOCK_REALTIME_COARSE = 5
BLOCK_BYTES = 4096
COMMIT_SECONDS = 2.0
"""What is older than this survives a kill without any fsync: forty times the interval of the group commit."""
UMASK = 0o022
TOP = "above"
"""The operations work one level below it, so that `..` leads to something that is compared too."""
HOME = "above/root"


class CrashedWrongError(AssertionError):
    """After a crash there is a tree that never was."""


@dataclass(frozen=True)
class Past:
    """The tree as it was until `until_seconds`."""

    tree: ModelFilesystem
    until_seconds: float


class Trial:
    """A directory on the mount, one on the local disk, and their model."""

    def __init__(self, disk: KeptDisk, local: Path, name: str) -> None:
        self._disk = disk
        self.mount = RealSurface(disk.root / name)
        self.local = RealSurface(local / name)
        self.slots = itertools.count()
        self._inodes: dict[int, int] = {}
        self._atimes: dict[int, list[Moment]] = {}
        self._steps: deque[str] = deque(maxlen=60)
        self._rebuilt_ns = 0
        disk.mount()
        self.model = ModelFilesystem(
            _a_new_moment(), umask=UMASK, uid=os.getuid(), gid=os.getgid(), chunk_bytes=disk.chunk_bytes
        )
        for surface in (self.mount, self.local):
            surface.top.mkdir(mode=0o755)
        self._end()
        for path in (TOP, HOME):
            self.step("mkdir", path, 0o755)
        self._history: list[Past] = []
        self.mount.sync()

    # Steps

    def step(self, call: str, *arguments: Any) -> object:
        """Do one operation everywhere; it must give the same, and leave the same. What it gave."""
        self._steps.append(f"{call}{arguments}"[:120])
        before = copy.deepcopy(self.model) if call not in ("read", "readlink", "listdir", "fstat") else None
        self._begin()
        answers = [answer_of(surface, call, arguments) for surface in (self.model, self.mount, self.local)]
        self._end()
        what = f"{call}{arguments}"
        assert answers[0] == answers[1], f"{what}: expected {answers[0]!r}, the mount gave {answers[1]!r}"
        assert answers[0] == answers[2], f"{what}: the model expects {answers[0]!r}, local is {answers[2]!r}"
        if before is not None and hasattr(self, "_history"):
            self._history.append(Past(before, time.monotonic()))
        self.compare(what)
        return answers[0]

    def last_steps(self) -> str:
        """What was done last, one operation a line."""
        return "\n".join(self._steps)

    def _begin(self) -> None:
        self.model.now = _a_new_moment()

    def _end(self) -> None:
        self.model.now.high_ns = time.time_ns()

    def compare(self, what: str) -> None:
        """Mount and local disk show what the model says: first the times, as looking further moves some."""
        paths = list(tree(self.model))
        self._note_atimes()
        for path, node in paths:
            self._compare_times(f"after {what}: {path}", node, path)
        self._begin()
        for path, node in paths:
            for surface in (self.mount, self.local):
                reason = difference(node, surface.seen(path))
                place = "mount" if surface is self.mount else "local disk"
                assert reason is None, f"after {what}: {path or '.'} on the {place}: {reason}"
            self._compare_inode(path, node)
            if node.is_directory or node.is_symlink:
                node.read(self.model.now, seen=node.is_symlink)
        self._end()
        self._note_atimes()

    def _note_atimes(self) -> None:
        """Every atime that a file had: a crash may bring any of the last ones back, as nothing else moves with it."""
        for _, node in tree(self.model):
            self._atimes.setdefault(node.number, []).extend([node.atime, *node.late_atimes])
            del self._atimes[node.number][:-20]

    def _compare_times(self, what: str, node: Node, path: str) -> None:
        found = self.mount.status(path)
        assert node.observed_atime(found.st_atime_ns), f"{what}: atime {found.st_atime_ns}, {node.atime}"
        assert node.mtime.holds(found.st_mtime_ns), f"{what}: mtime {found.st_mtime_ns}, {node.mtime}"
        assert node.ctime.holds(found.st_ctime_ns), f"{what}: ctime {found.st_ctime_ns}, {node.ctime}"
        other = self.local.status(path)
        for name, moment, time_ns in (
            ("mtime", node.mtime, other.st_mtime_ns),
            ("ctime", node.ctime, other.st_ctime_ns),
            ("atime", node.atime, other.st_atime_ns),
        ):
            # What was made anew after a crash has not the age of what it stands for.
            if moment.low_ns >= self._rebuilt_ns:
                assert moment.holds(time_ns), f"{what}: local {name} {time_ns}, {moment}"

    def _compare_inode(self, path: str, node: Node) -> None:
        status = self.mount.status(path)
        known = self._inodes.setdefault(node.number, status.st_ino)
        assert known == status.st_ino, f"{path} was inode {known} and is {status.st_ino}"
        reason = block_difference(node, status.st_blocks * 512, self._disk.chunk_bytes)
        assert reason is None, f"{path}: {reason}"

    # Lives of the mount

    def settled(self) -> None:
        """All so far is kept, whatever happens."""
        self._history = []

    def fsync(self, slot: int) -> None:
        """fsync of anything keeps all changes of names, and the contents of this file: so sync them all."""
        self.step("fsync", slot)

    def remount(self) -> None:
        """A stop in order: nothing changes, and what is stored holds together."""
        self._steps.append("remount")
        self._close_all()
        self._disk.unmount()
        assert [] == faults_of(self._disk.metadata_path)
        self._disk.mount()
        self.settled()
        self.compare("a remount")

    def crash(self, *, synced: bool) -> None:
        """kill -9: with everything synced nothing changes, else the tree is as it was at some time since."""
        self._steps.append(f"crash, synced {synced}")
        if synced:
            self._begin()
            self.mount.sync()
            for _, node in tree(self.model):
                if node.is_directory:
                    node.read(self.model.now, seen=False)
            self._end()
            self._note_atimes()
            self.settled()
        now = time.monotonic()
        self._disk.kill()
        self._close_all()
        self._disk.mount()
        looking = _a_new_moment()
        atimes = self.mount.atimes()
        states = [past.tree for past in self._history if now - past.until_seconds < COMMIT_SECONDS]
        self._take_over([*states, self.model], looking, atimes)
        self._rebuild_local()
        self.settled()
        self.compare("a crash")

    def _take_over(self, states: Sequence[ModelFilesystem], looking: Moment, atimes: dict[str, int]) -> None:
        reasons = []
        for index in range(len(states) - 1, -1, -1):
            reason = crash_difference(states[index:], self.mount)
            if reason is None:
                states[index].now = looking
                self._continue_from(states[index], atimes)
                return
            reasons.append(reason)
        raise CrashedWrongError("\n".join(["no state of the past:", *reasons]))

    def _continue_from(self, state: ModelFilesystem, atimes: dict[str, int]) -> None:
        state.files.clear()
        self.model = state
        for path, node in tree(state):
            assert any(known.holds(atimes[path]) for known in self._atimes[node.number]), f"atime of {path}"
            node.set_atime(Moment.exactly(atimes[path]))
            if node.is_file:
                node.content[:] = self.mount.seen(path).content
            if node.is_directory or node.is_symlink:
                node.read(state.now)  # to look at it was to read it
        self._end()
        # What is lost never was: its number may be given again.
        numbers = {node.number for _, node in tree(state)}
        self._inodes = {number: inode for number, inode in self._inodes.items() if number in numbers}

    def _rebuild_local(self) -> None:
        for name in os.listdir(self.local.top):  # noqa: PTH208 - a surface is about paths as text
            remove_tree(f"{self.local.top}/{name}")
        paths: dict[int, str] = {}
        for path, node in tree(self.model):
            if path != ".":
                build(self.local.path(path), node, paths)
        for path, node in reversed(list(tree(self.model))):
            os.utime(self.local.path(path), ns=(node.atime.low_ns, node.mtime.low_ns), follow_symlinks=False)
        self._rebuilt_ns = _a_new_moment().low_ns

    def _close_all(self) -> None:
        self.model.files.clear()
        for surface in (self.mount, self.local):
            surface.close_all()

    def end(self) -> None:
        """Leave nothing behind."""
        self._close_all()
        self._disk.mount()
        for surface in (self.mount, self.local):
            remove_tree(str(surface.top))


def _a_new_moment() -> Moment:
    """Begins after everything that happened so far, by the coarsest clock that stamps a file."""
    before = time.time_ns()
    while (now := time.clock_gettime_ns(CLOCK_REALTIME_COARSE)) <= before:
        time.sleep(0.0005)  # the clock of the kernel's stamps stands still for up to 10 ms
    return Moment(now, 1 << 62)


def answer_of(surface: object, call: str, arguments: tuple[Any, ...]) -> object:
    """What a call returns, or the name of its errno."""
    try:
        return getattr(surface, call)(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def tree(model: ModelFilesystem) -> Iterator[tuple[str, Node]]:
    """Every path and what it stands for, directories before what is in them; the top is `.`."""
    waiting = [("", model.top)]
    while waiting:
        path, node = waiting.pop()
        yield path or ".", node
        waiting += [(f"{path}/{name}".lstrip("/"), node.entries[name]) for name in sorted(node.entries, reverse=True)]


def difference(node: Node, seen: Seen) -> str | None:
    """The first thing that is not as the model says; None when all is. Times, blocks and inode numbers apart."""
    status = seen.status
    size = 0 if node.is_directory else node.size
    expected = (oct(node.mode), node.nlink, node.uid, node.gid, size)
    found = (oct(status.st_mode), status.st_nlink, status.st_uid, status.st_gid, status.st_size)
    if expected != (*found[:4], 0 if node.is_directory else found[4]):
        return f"mode, nlink, owner, group, size: expected {expected}, found {found}"
    if tuple(sorted(node.entries)) != seen.entries:
        return f"entries: expected {sorted(node.entries)}, found {seen.entries}"
    if (node.target, node.xattrs) != (seen.target, seen.xattrs):
        return f"target, xattrs: expected {node.target, node.xattrs}, found {seen.target, seen.xattrs}"
    if node.is_file and bytes(node.content) != seen.content:
        return f"content: {differing_runs([bytes(node.content)], seen.content)}"
    return None


def differing_runs(versions: Sequence[bytes], found: bytes) -> list[tuple[int, int]]:
    """(first, past the last) of each run of bytes that are none of the versions' at their place."""
    runs: list[tuple[int, int]] = []
    for place, byte in enumerate(found):
        if any(place < len(version) and version[place] == byte for version in versions):
            continue
        if runs and runs[-1][1] == place:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs


def block_difference(node: Node, used_bytes: int, chunk_bytes: int) -> str | None:
    """Whether what a file is said to take fits its holes."""
    if not node.is_file:
        return None
    fewest, most = node.fewest_bytes(), node.most_bytes(chunk_bytes, BLOCK_BYTES)
    if fewest <= used_bytes <= most:
        return None
    return f"{used_bytes} bytes are used; written chunks {sorted(node.written)}, size {node.size}: {fewest} to {most}"


def crash_difference(states: Sequence[ModelFilesystem], mount: RealSurface) -> str | None:
    """Why the mount is not in the first of these states; None when it may be. Contents may be newer."""
    later = [{node.number: node for _, node in tree(state)} for state in states]
    for path, node in tree(states[0]):
        try:
            seen = mount.seen(path)
        except OSError as error:
            return f"{path}: {error}"
        status = seen.status
        as_seen = copy.copy(node)
        if node.is_file and node.size == len(seen.content):
            versions = [bytes(nodes[node.number].content) for nodes in later if node.number in nodes]
            runs = differing_runs(versions, seen.content)
            if runs:
                return f"{path}: bytes that were never there: {runs}"
            as_seen.content = bytearray(seen.content)
        reason = difference(as_seen, seen)
        if reason is not None:
            return f"{path}: {reason}"
        if not (node.mtime.holds(status.st_mtime_ns) and node.ctime.holds(status.st_ctime_ns)):
            return f"{path}: mtime {status.st_mtime_ns}, ctime {status.st_ctime_ns}: {node.mtime}, {node.ctime}"
    return None


def build(path: str, node: Node, known: dict[int, str]) -> None:
    """Make on a real disk what the model has."""
    if node.number in known:
        os.link(known[node.number], path, follow_symlinks=False)
        return
    known[node.number] = path
    kind = stat.S_IFMT(node.mode)
    if kind == stat.S_IFDIR:
        os.mkdir(path)  # noqa: PTH102 - paths as text throughout
    elif kind == stat.S_IFLNK:
        os.symlink(node.target, path)  # noqa: PTH211 - paths as text throughout
    elif kind == stat.S_IFIFO:
        os.mkfifo(path)
    else:
        with open(path, "wb") as file:
            file.write(node.content)
    os.lchown(path, node.uid, node.gid)
    if kind != stat.S_IFLNK:
        os.chmod(path, stat.S_IMODE(node.mode))  # noqa: PTH101 - paths as text throughout
    for name, value in node.xattrs.items():
        os.setxattr(path, name, value)


def remove_tree(path: str) -> None:
    """rm -rf."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for name in os.listdir(path):  # noqa: PTH208 - paths as text throughout
            remove_tree(f"{path}/{name}")
        os.rmdir(path)  # noqa: PTH106 - paths as text throughout
    else:
        os.unlink(path)  # noqa: PTH108 - paths as text throughout
