"""Who makes a system call, and what a file keeps of its privileges when somebody changes its contents."""

from __future__ import annotations

import stat
from typing import Protocol


class Caller(Protocol):
    """Who makes a system call."""

    @property
    def is_privileged(self) -> bool:
        """Whether nothing is hidden from the caller, and nothing that it touches loses privileges."""
        ...

    def is_member(self, gid: int) -> bool:
        """Whether the caller is in the group, or privileged as if."""
        ...


def mode_after_change(mode: int, gid: int, caller: Caller) -> int:
    """The st_mode of a file whose contents the caller has changed.

    setuid goes, and setgid does if it means anything: without the right to execute for the group it marks mandatory
    locking, and members may leave that. Nothing of a privileged caller.
    """
    if not mode & (stat.S_ISUID | stat.S_ISGID) or caller.is_privileged:
        return mode
    if mode & stat.S_ISGID and (mode & stat.S_IXGRP or not caller.is_member(gid)):
        mode &= ~stat.S_ISGID
    return mode & ~stat.S_ISUID
