"""What may be found on a volume after a fault: a tree that there was since the last sync, and contents since theirs.

The metadata are one log, so names and sizes are those of one moment, and never of before a sync of anything. A write
of several chunks is no transaction: each chunk of a file may be of any version since the file was synced.
"""

from __future__ import annotations

import errno
import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

CHUNK = 4096


class File(NamedTuple):
    """A file of the model, whatever its name is."""

    number: int
    content: bytes


class Found(NamedTuple):
    """A file that was read: each chunk, or the errno of reading it."""

    size_bytes: int
    chunks: tuple[bytes | int, ...]


Tree = dict[bytes, File | None]
"""By path; None is a directory."""
FoundTree = dict[bytes, Found | None]


def chunk_of(content: bytes, index: int, size_bytes: int) -> bytes:
    """A chunk of a version, as it shows in a file of that size."""
    end = min((index + 1) * CHUNK, size_bytes)
    return content[index * CHUNK : end].ljust(end - index * CHUNK, b"\0")


@dataclass
class Admissible:
    """What may be found: the trees and the versions of each file since they were last made safe."""

    trees: list[Tree] = field(default_factory=lambda: [{}])
    versions: dict[int, list[bytes]] = field(default_factory=dict)

    def copy(self) -> Admissible:
        """As it is now."""
        return Admissible(list(self.trees), {number: list(found) for number, found in self.versions.items()})

    def add(self, tree: Tree) -> None:
        """This may be found too."""
        self.trees.append(tree)
        for file in tree.values():
            if file is not None:
                known = self.versions.setdefault(file.number, [])
                if file.content not in known:
                    known.append(file.content)

    def settle(self, tree: Tree, paths: list[bytes] | None) -> None:
        """Names and sizes of now are safe, and the contents at these paths; None: all."""
        self.trees = [tree]
        for path in tree if paths is None else paths:
            file = tree[path]
            if file is not None:
                self.versions[file.number] = [file.content]

    def complaint(self, found: FoundTree, *, may_lose: bool = False) -> str | None:
        """Why that may not be found, None if it may.

        `may_lose`: a chunk of which something was not made safe may be of several versions, byte by byte, and an error
        where a version ended before it.
        """
        shapes = {path: None if file is None else file.size_bytes for path, file in found.items()}
        fitting = [tree for tree in self.trees if shapes == _shape(tree)]
        if not fitting:
            return f"found {shapes}, which none of these is: {[_shape(tree) for tree in self.trees]}"
        complaints = [self._wrong_content(tree, found, may_lose=may_lose) for tree in fitting]
        return None if None in complaints else complaints[-1]

    def _wrong_content(self, tree: Tree, found: FoundTree, *, may_lose: bool) -> str | None:
        for path, file in tree.items():
            seen = found[path]
            if file is None or seen is None:
                continue
            versions = self.versions[file.number]
            for index, chunk in enumerate(seen.chunks):
                known = [chunk_of(version, index, seen.size_bytes) for version in versions]
                if chunk in known or (may_lose and len(set(known)) > 1 and _may_be_left(chunk, index, known, versions)):
                    continue
                return f"chunk {index} of {path!r} is {_shown(chunk)}, and may be {[_shown(each) for each in known]}"
        return None


def _shape(tree: Tree) -> dict[bytes, int | None]:
    return {path: None if file is None else len(file.content) for path, file in tree.items()}


def _shown(chunk: bytes | int) -> str:
    """Runs of bytes, for the message."""
    if isinstance(chunk, int):
        return errno.errorcode[chunk]
    return " ".join(f"{chr(byte)!r}*{len(list(run))}" for byte, run in itertools.islice(itertools.groupby(chunk), 8))


def _may_be_left(chunk: bytes | int, index: int, known: list[bytes], versions: list[bytes]) -> bool:
    """Whether a power cut may leave that of a chunk that is not the same in all versions."""
    if isinstance(chunk, int):
        return any(len(version) <= index * CHUNK for version in versions)
    return all(byte in {each[position] for each in known} for position, byte in enumerate(chunk))


@dataclass
class Model:
    """The volume as its user knows it."""

    tree: Tree = field(default_factory=dict)
    here: Admissible = field(default_factory=Admissible)
    """After a fault of this machine."""
    remote: Admissible = field(default_factory=Admissible)
    """After a recovery elsewhere."""
    snapshots: dict[str, Tree] = field(default_factory=dict)
    """Those that are in Discord for certain."""
    numbers: int = 0

    def copy(self) -> Model:
        """As it is now."""
        return Model(self.tree, self.here.copy(), self.remote.copy(), dict(self.snapshots), self.numbers)

    def may_become(self, tree: Tree) -> None:
        """From now on this may be found."""
        self.here.add(tree)
        self.remote.add(tree)

    def new_file(self) -> File:
        """An empty one."""
        self.numbers += 1
        return File(self.numbers, b"")
