"""The control socket's place, and who is at its other end.

A Unix socket address holds 107 bytes, and state directories are easily deeper. So both sides open the directory and
go through /proc/self/fd, whose path is short whatever the directory's is.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING

from disfs.control.protocol import SOCKET_NAME
from disfs.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CREDENTIALS = struct.Struct("3i")


@contextlib.contextmanager
def short_address(directory: Path) -> Iterator[str]:
    """A short path to the control socket in `directory`; valid inside the block, in this process."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


def peer_pid_and_uid(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end of a Unix socket, as the kernel knows them."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(raw)
    return pid, uid


def may_talk(uid: int) -> bool:
    """Whether a user may talk to a process of ours: ourselves and root."""
    return uid in (os.geteuid(), 0)


def make_private(directory: Path) -> None:
    """Let nobody else into the directory of a socket. STATE_UNUSABLE when it is somebody else's."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not may_talk(found.st_uid):
            raise UserError(
                f"{directory} belongs to user {found.st_uid}; let it be yours, or set DISFS_HOME to another directory",
                ExitCode.STATE_UNUSABLE,
            )
        if stat.S_IMODE(found.st_mode) & 0o077 and found.st_uid == os.geteuid():
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def listen(directory: Path) -> socket.socket:
    """Listen on the control socket of `directory`, mode 0600 in 0700; the caller holds the volume's lock.

    A socket that a killed daemon left behind is replaced: the lock says that nobody listens on it. STATE_UNUSABLE when
    the directory is somebody else's.
    """
    make_private(directory)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_address(directory) as address:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address)  # noqa: PTH108  # an address, not a place in the file system's own words
            before = os.umask(0o177)  # the socket is 0600 from the start, with no instant in between
            try:
                listener.bind(address)
            finally:
                os.umask(before)
        listener.listen(8)
    except BaseException:
        listener.close()
        raise
    return listener
