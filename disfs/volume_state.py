"""One volume's place on this machine: its lock, its metadata, its log.

The lock belongs to an open file description, so it survives the forks of daemonizing and goes with
the daemon's process however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Self

from disfs.errors import ExitCode, UserError
from disfs.private_files import explained

if TYPE_CHECKING:
    from pathlib import Path

LOCK_NAME = "lock"
METADATA_NAME = "metadata.db"
LOG_NAME = "disfs.log"


class VolumeLock:
    """The right to be the only process that touches a volume's local state."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, directory: Path, name: str) -> Self:
        """Take the lock of volume `name`, whose state directory exists. VOLUME_BUSY with the holder's pid."""
        path = directory / LOCK_NAME
        with explained(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise UserError(
                f"volume {name!r} is in use by process {holder}; 'disfs volumes' shows where it is mounted",
                ExitCode.VOLUME_BUSY,
            ) from error
        lock = cls(descriptor)
        lock.sign()
        return lock

    def sign(self) -> None:
        """Write down that this process holds the lock; again after a fork."""
        with contextlib.suppress(OSError):  # a courtesy to whoever finds the volume busy: a full disk may refuse it
            os.pwrite(self._descriptor, f"{os.getpid():<10}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Let others have the volume."""
        os.close(self._descriptor)
