"""Which daemon serves a mountpoint: the volumes' control sockets know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disfs.config import volume_names
from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError
from disfs.mountpoint import is_dead, mount_at, resolve

if TYPE_CHECKING:
    from pathlib import Path

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
    found = []
    for name in volume_names(paths):
        directory = paths.volume_state(name)
        try:
            with ControlClient.connect(directory) as client:
                found.append(RunningDaemon(name, directory, client.status()))
        except UserError as error:
            if error.exit_code != ExitCode.NOT_MOUNTED:
                raise
    return found


def daemon_of(paths: Paths, mountpoint: str) -> RunningDaemon:
    """The daemon that serves `mountpoint`. NOT_MOUNTED says what is there instead."""
    path = resolve(mountpoint)
    for daemon in running_daemons(paths):
        if daemon.mountpoint == str(path):
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
    return f"{path} was mounted with other settings; set DISFS_HOME as it was then, and be the same user"


def only_daemon(paths: Paths) -> RunningDaemon:
    """The one daemon there is. NOT_MOUNTED when there is none, USAGE when there are several."""
    daemons = running_daemons(paths)
    if not daemons:
        raise UserError("nothing is mounted; 'disfs mount MOUNTPOINT' mounts a volume", ExitCode.NOT_MOUNTED)
    if len(daemons) > 1:
        places = ", ".join(daemon.mountpoint for daemon in daemons)
        raise UserError(f"several volumes are mounted ({places}); name the mountpoint", ExitCode.USAGE)
    return daemons[0]
