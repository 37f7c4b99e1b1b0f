"""Small files that only their owner may read, replaced as a whole or not at all.

What a file system's configuration needs from the disk, and the one place where a full or read-only
directory becomes a line that a person can act on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from disfs.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def unusable(error: OSError, place: Path) -> UserError:
    """Say in one line why `place` cannot be used, and what to do about it."""
    if error.errno in _FULL:
        return UserError(
            f"the disk that holds {place} is full; free some space there, or set DISFS_HOME to another disk",
            ExitCode.STATE_FULL,
        )
    reason = error.strerror or type(error).__name__
    return UserError(
        f"cannot use {place}: {reason}; let it be read and written, or set DISFS_HOME to another directory",
        ExitCode.STATE_UNUSABLE,
    )


@contextlib.contextmanager
def explained(place: Path) -> Iterator[None]:
    """Turn an OSError of the block into a `UserError` about `place`."""
    try:
        yield
    except OSError as error:
        raise unusable(error, Path(error.filename) if isinstance(error.filename, str) else place) from error


def make_directory(path: Path) -> Path:
    """Make `path` with mode 0700 where it is missing, its parents likewise. STATE_UNUSABLE, STATE_FULL."""
    with explained(path):
        missing = [path, *path.parents]
        missing = missing[: next((n for n, parent in enumerate(missing) if parent.is_dir()), len(missing))]
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
    return path


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` with mode 0600; after a crash it holds the old content or the new one, whole.

    STATE_UNUSABLE, STATE_FULL; then `path` is unchanged.
    """
    make_directory(path.parent)
    with explained(path):
        # mkstemp makes it 0600 from the start: a secret is never readable by others, not even for an instant.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def why_not_private(path: Path) -> str | None:
    """Why a file of ours is no place for a secret, and what to do; None when it is one, or is not ours to judge.

    Others' files, pipes, and what lies on a read-only file system (as a container's secrets do) nobody here can change.
    """
    try:
        found = path.stat()
        is_fixed = os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or is_fixed or not found.st_mode & 0o077:
        return None
    mode = stat.S_IMODE(found.st_mode)
    return f"{path} holds a secret, and others may read it (mode {mode:04o}); 'chmod 600 {path}'"


def read_secret(path: Path, what: str, exit_code: ExitCode) -> str:
    """The first line of a file that holds nothing but a secret. Errors as of `read_secret_text`."""
    lines = read_secret_text(path, what, exit_code).splitlines()
    if not lines or not lines[0].strip():
        raise UserError(f"the {what} file {path} is empty; put the {what} on its first line", exit_code)
    return lines[0].strip("\r\n")


def read_secret_text(path: Path, what: str, exit_code: ExitCode) -> str:
    """All of a file that holds a secret; `what` names it for the one-line error.

    A file of ours that others may read is refused.
    """
    problem = why_not_private(path)
    if problem is not None:
        raise UserError(problem, exit_code)
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"cannot read the {what} from {path}: {reason}; name a readable file", exit_code) from error
