"""Everything that disfs raises on purpose, under one root, and the exit codes that the command line keeps.

Three families: a `FilesystemError` carries an errno for the kernel, a `StorageError` says whether trying
again can help, a `UserError` is one line for a person and an exit code for a program. Whatever else
reaches a door is a bug: it is logged with its traceback and becomes EIO or exit code 1.
"""

from __future__ import annotations

import enum
import errno as errno_module
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ExitCode(enum.IntEnum):
    """What `disfs` exits with. An interface: listed in the README, never renumbered."""

    OK = 0
    INTERNAL = 1
    """A bug, or something that no other code names; the log has the traceback."""
    USAGE = 2
    """The command line itself is wrong."""
    NO_TOKEN = 10
    TOKEN_REJECTED = 11
    MISSING_PERMISSION = 12
    UNKNOWN_GUILD = 13
    WRONG_PASSPHRASE = 14
    NO_PASSPHRASE = 15
    MOUNTPOINT_MISSING = 16
    MOUNTPOINT_NOT_EMPTY = 17
    ALREADY_MOUNTED = 18
    FUSE_UNAVAILABLE = 19
    VOLUME_BUSY = 20
    """Another process has the volume mounted."""
    STATE_UNUSABLE = 21
    """The state, config or cache directory cannot be written."""
    STATE_FULL = 22
    EMULATOR_PORT_TAKEN = 23
    DISCORD_UNREACHABLE = 24
    NO_SUCH_VOLUME = 25
    VOLUME_EXISTS = 26
    NOT_MOUNTED = 27
    MOUNT_BUSY = 28
    """Files on the mount are open, or it is somebody's working directory."""
    UNSENT_DATA = 29
    """Stopped before everything was in Discord; the rest is kept and goes on at the next mount."""
    CONFIG_INVALID = 30
    EMULATOR_NOT_RUNNING = 31
    VOLUME_DAMAGED = 32
    """The superblock or the local metadata cannot be read."""
    REPAIRED = 33
    """`disfs fsck` found something and repaired it."""
    ERRORS_LEFT = 34
    """`disfs fsck` found errors, and they are still there."""
    VOLUME_HELD = 36
    """Another machine has the volume mounted."""


class DisfsError(Exception):
    """Root of all errors that disfs raises on purpose. Whatever a class wants to be made with, it can be copied."""

    def __reduce__(self) -> tuple[Callable[..., DisfsError], tuple[object, ...]]:
        return _remade, (type(self), self.args, self.__dict__)


def _remade(kind: type[DisfsError], args: tuple[object, ...], state: dict[str, object]) -> DisfsError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class UserError(DisfsError):
    """One line that says what is wrong and what to do, for a person; `exit_code` for a program."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class FilesystemError(DisfsError):
    """A file operation that fails in the way POSIX names with `errno`."""

    def __init__(self, errno: int, detail: str = "") -> None:
        super().__init__(errno, detail)
        self.errno = errno
        self._detail = detail

    def __str__(self) -> str:
        # Made only when somebody looks: most of these are answers to the kernel, such as ENOENT for a lookup.
        return f"{errno_module.errorcode.get(self.errno, self.errno)}: {self._detail or os.strerror(self.errno)}"


class MetadataDamagedError(FilesystemError):
    """The volume's metadata cannot be made out where it was looked: EIO, for the operation that asked."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(errno_module.EIO, detail)


class StorageError(DisfsError):
    """Discord, or a stand-in for it, did not do what was asked."""


class TransientStorageError(StorageError):
    """Trying again later can help: the network, a 5xx, a rate limit.

    `retry_after_seconds` is what the other side asked for, None where it said nothing. `maybe_done` is
    true when the request may have taken effect although no answer came.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, maybe_done: bool = False) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.maybe_done = maybe_done


class PermanentStorageError(StorageError):
    """Trying the same again cannot help until somebody changes something."""


class TokenRejectedError(PermanentStorageError):
    """401: the bot token is wrong or was revoked."""


class PermissionMissingError(PermanentStorageError):
    """403: the bot may not do this. `permission` is Discord's own name of what it needs, such as Attach Files."""

    def __init__(self, message: str, permission: str) -> None:
        super().__init__(message)
        self.permission = permission


class NotFoundError(PermanentStorageError):
    """404: the guild, channel, message or attachment is not there (any more)."""


class TooLargeError(PermanentStorageError):
    """413: an attachment or the request is larger than Discord takes now. Send less at once."""


class CorruptDataError(PermanentStorageError):
    """Bytes came that fail authentication, or that are not of the length that was asked for."""


class DirtyDataLostError(StorageError):
    """The only copy of a dirty chunk is not in the cache any more."""
