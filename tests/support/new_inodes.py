"""Short ways to say what is to be made."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from disfs.errors import FilesystemError
from disfs.values import NewInode

if TYPE_CHECKING:
    from collections.abc import Iterator
from contextlib import contextmanager


def a_file(permissions: int = 0o644, uid: int = 7, gid: int = 8) -> NewInode:
    """A regular file."""
    return NewInode(stat.S_IFREG | permissions, uid, gid)


def a_directory(permissions: int = 0o755, uid: int = 7, gid: int = 8) -> NewInode:
    """A directory."""
    return NewInode(stat.S_IFDIR | permissions, uid, gid)


def a_symlink(target: bytes) -> NewInode:
    """A symbolic link."""
    return NewInode(stat.S_IFLNK | 0o777, 7, 8, target=target)


@contextmanager
def fails(errno: int) -> Iterator[None]:
    """The block raises FilesystemError with this errno."""
    with pytest.raises(FilesystemError) as caught:
        yield
    assert errno == caught.value.errno
