"""Which daemon serves a mountpoint: the volumes' control sockets know."""

from __future__ import annotations

import errno
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from disfs.config import volume_names
from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError
from disfs.mountpoint import is_dead, mount_at, mounts, resolve
from disfs.values import InodeNumber

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.config import Paths


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """A daemon that answered, and what it said of itself."""

    volume: str
    state_directory: Path
    status: dict[str, Any]

    @property
    def mountpoint(self) -> str:
        """Where it mounts its volume."""
        return str(self.status.get("mountpoint"))


def running_daemons(paths: Paths) -> list[RunningDaemon]:
    """Every daemon of this user's volumes that answers."""
    return [daemon for name in volume_names(paths) if (daemon := _running(paths, name)) is not None]


def _running(paths: Paths, name: str) -> RunningDaemon | None:
    """The daemon of a volume, if there is one. INTERNAL when it does not answer."""
    directory = paths.volume_state(name)
    try:
        with ControlClient.connect(directory) as client:
            return RunningDaemon(name, directory, client.status())
    except UserError as error:
        if error.exit_code != ExitCode.NOT_MOUNTED:
            raise
    return None


def daemon_of(paths: Paths, mountpoint: str) -> RunningDaemon:
    """The daemon that serves `mountpoint`. NOT_MOUNTED says what is there instead, INTERNAL: it does not answer."""
    path = resolve(mountpoint)
    mount = mount_at(path)
    known = volume_names(paths)
    # First the one that the kernel names: another one that hangs is of no concern.
    first = [mount.volume] if mount is not None and mount.volume in known else []
    for name in dict.fromkeys([*first, *known]):
        daemon = _running(paths, name)
        if daemon is not None and daemon.mountpoint == str(path):
            return daemon
    raise UserError(_why_none(path), ExitCode.NOT_MOUNTED)


def _why_none(path: Path) -> str:
    mount = mount_at(path)
    if mount is None:
        return f"nothing is mounted at {path}; 'disfs volumes' shows what is mounted where"
    if mount.volume is None:
        return f"{path} is a {mount.filesystem_type} mount, not one of disfs; 'disfs volumes' shows ours"
    if is_dead(path):
        return f"the daemon of {path} is gone; 'disfs umount {path}' cleans up, then mount it again: nothing is lost"
    if mount.uid not in (None, os.geteuid()):
        return f"{path} was mounted by {user_name(mount.uid)}; be that user to ask for anything there"
    return f"{path} was mounted with other settings; set DISFS_HOME as it was then"


def user_name(uid: int | None) -> str:
    """A user as people know them."""
    try:
        return f"user {pwd.getpwuid(uid or 0).pw_name!r}"
    except KeyError:
        return f"user {uid}"


def of_another_version(daemon: RunningDaemon) -> UserError:
    """What is told of a daemon whose answer lacks something."""
    return UserError(
        f"the mount at {daemon.mountpoint} is served by another version of disfs; unmount it and mount it again "
        "('disfs status --json' shows what it says)",
        ExitCode.INTERNAL,
    )


def only_daemon(paths: Paths) -> RunningDaemon:
    """The one daemon there is. NOT_MOUNTED when there is none, USAGE when there are several."""
    daemons = running_daemons(paths)
    if not daemons:
        raise UserError("nothing is mounted; 'disfs mount MOUNTPOINT' mounts a volume", ExitCode.NOT_MOUNTED)
    if len(daemons) > 1:
        places = ", ".join(daemon.mountpoint for daemon in daemons)
        raise UserError(f"several volumes are mounted ({places}); name the mountpoint", ExitCode.USAGE)
    return daemons[0]


def daemons_of_files(paths: Paths, files: Sequence[str]) -> list[tuple[RunningDaemon, list[InodeNumber]]]:
    """The daemons that serve `files` (or directories), each with its share of them as inode numbers.

    Symbolic links are followed, as by any program that reads. USAGE for what does not exist, NOT_MOUNTED for what lies
    on no mount of ours.
    """
    inodes: dict[int, list[InodeNumber]] = {}
    named: dict[int, str] = {}
    for file in files:
        found = _stat(file)
        inodes.setdefault(found.st_dev, []).append(InodeNumber(found.st_ino))
        named.setdefault(found.st_dev, file)
    daemons = {device: _daemon_on(paths, device, file) for device, file in named.items()}
    return [(daemons[device], numbers) for device, numbers in inodes.items()]


def daemon_of_path(paths: Paths, file: str) -> tuple[RunningDaemon, InodeNumber, str]:
    """The daemon on whose mount a path is that need not exist: a directory that does, and the rest of the path.

    A path that exists and is no directory is its directory and its name. NOT_MOUNTED.
    """
    path = Path(os.path.abspath(file))  # noqa: PTH100 - links on the way to what does not exist are of no concern
    rest: list[str] = []
    while not path.is_dir() or (path.is_symlink() and not rest and not file.endswith("/")):
        rest.append(path.name)
        path = path.parent
    found = _stat(str(path))
    daemon = _daemon_on(paths, found.st_dev, file)
    return daemon, InodeNumber(found.st_ino), "/".join(reversed(rest))


def _stat(file: str) -> os.stat_result:
    try:
        return os.stat(file)  # noqa: PTH116 - a Path would turn the argument into another spelling for the message
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise _daemon_gone(file) from error
        raise UserError(f"{file}: {error.strerror}; name files or directories of a mount", ExitCode.USAGE) from error


def _daemon_gone(file: str) -> UserError:
    return UserError(f"the daemon behind {file} is gone; mount the volume again: nothing is lost", ExitCode.NOT_MOUNTED)


def _daemon_on(paths: Paths, device: int, file: str) -> RunningDaemon:
    """The daemon of the mount with that device. Not by comparing paths: a mount may be bound to a second place."""
    places = {str(mount.mountpoint) for mount in mounts() if mount.device == device and mount.volume is not None}
    if not places:
        raise UserError(
            f"{file} is not on a mount of disfs; 'disfs volumes' shows what is mounted where", ExitCode.NOT_MOUNTED
        )
    for daemon in running_daemons(paths):
        if daemon.mountpoint in places:
            return daemon
    # The kernel answers for a while what it knows of a daemon that was killed.
    if any(is_dead(Path(place)) for place in places):
        raise _daemon_gone(file)
    raise UserError(
        f"{file} is on a volume that was mounted with other settings; set DISFS_HOME as it was then, and be the same "
        "user",
        ExitCode.NOT_MOUNTED,
    )
