"""Everything about a directory tree that a backup would want to get back, as one comparable value."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One inode as seen under one name."""

    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    size_bytes: int
    mtime_ns: int
    content: str
    """SHA-256 of a file, the target of a link, empty otherwise."""
    xattrs: tuple[tuple[str, bytes], ...]
    group: int
    """Names of one inode share it: the number of the first of them."""


def sha256(path: Path) -> str:
    """The hash of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def walk(top: Path) -> Iterator[Path]:
    """`top` and all below it, in a fixed order, without following links."""
    yield top
    for directory, names, files in os.walk(top):
        names.sort()
        for name in sorted(names + files):
            yield type(top)(directory) / name


def manifest(top: Path) -> dict[str, Entry]:
    """Path below `top` -> all that is to be equal. Reads every byte of every file."""
    entries: dict[str, Entry] = {}
    groups: dict[tuple[int, int], int] = {}
    for path in walk(top):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            content = sha256(path)
        elif stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        else:
            content = ""
        is_directory = stat.S_ISDIR(status.st_mode)
        names = os.listxattr(path, follow_symlinks=False)
        entries[os.fsencode(path.relative_to(top)).decode("latin-1")] = Entry(
            mode=status.st_mode,
            uid=status.st_uid,
            gid=status.st_gid,
            nlink=0 if is_directory else status.st_nlink,
            rdev=status.st_rdev,
            size_bytes=0 if is_directory else status.st_size,
            mtime_ns=status.st_mtime_ns,
            content=content,
            xattrs=tuple(sorted((n, os.getxattr(path, n, follow_symlinks=False)) for n in names)),
            group=groups.setdefault((status.st_dev, status.st_ino), len(groups)),
        )
    return entries


def below(entries: dict[str, Entry], top: str) -> dict[str, Entry]:
    """The part of a manifest that is the manifest of a directory in it, without reading that once more."""
    groups: dict[int, int] = {}
    return {
        path.removeprefix(top).lstrip("/") or ".": replace(entry, group=groups.setdefault(entry.group, len(groups)))
        for path, entry in entries.items()
        if path == top or path.startswith(f"{top}/")
    }


def differences(expected: dict[str, Entry], actual: dict[str, Entry], most: int = 10) -> list[str]:
    """Readable lines, at most `most`, for what differs; empty when nothing does."""
    names = [name for name in sorted(expected.keys() | actual.keys()) if expected.get(name) != actual.get(name)]
    return [f"{name}: expected {expected.get(name)}, found {actual.get(name)}" for name in names[:most]]
