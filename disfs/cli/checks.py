"""What `disfs doctor` looks at on this machine: FUSE, versions, files, disk, left-over mounts. A check is one line."""

from __future__ import annotations

import contextlib
import enum
import importlib.metadata
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from disfs.errors import UserError
from disfs.mountpoint import check_fuse, is_dead, mounts, others_allowed
from disfs.private_files import why_not_private
from disfs.quantities import human_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disfs.config import Paths, VolumeConfig

LEAST_KERNEL = (5, 4)
"""The oldest kernel that is still maintained somewhere; older ones were never tried."""
COMFORTABLE_BYTES = 2 << 30
PROBE_BYTES = 1 << 20
ANSWER_SECONDS = 5.0


class Level(enum.Enum):
    """How a check came out. `fail` is what keeps disfs from working."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, and what to do if that is not well."""

    topic: str
    level: Level
    text: str


def ok(topic: str, text: str) -> Check:
    """It is as it should be."""
    return Check(topic, Level.OK, text)


def warn(topic: str, text: str) -> Check:
    """It works, but not as well as it could, or not for long."""
    return Check(topic, Level.WARN, text)


def fail(topic: str, text: str) -> Check:
    """It does not work."""
    return Check(topic, Level.FAIL, text)


def fuse_checks() -> Iterator[Check]:
    """Whether this user can mount here."""
    try:
        check_fuse(frozenset())
    except UserError as error:
        yield fail("fuse", str(error))
    else:
        yield ok("fuse", "/dev/fuse can be opened")
    if others_allowed() or os.geteuid() == 0:
        yield ok("fuse", "-o allow_other is permitted")
    else:
        yield ok("fuse", "-o allow_other is not permitted; a line 'user_allow_other' in /etc/fuse.conf would do so")
    release = os.uname().release
    if kernel_of(release) >= LEAST_KERNEL:
        yield ok("kernel", f"Linux {release}")
    else:
        yield warn("kernel", f"Linux {release} is older than any that was tried; take one from 5.4 on")


def kernel_of(release: str) -> tuple[int, int]:
    """Major and minor number of `uname -r`; (0, 0) for what has none. Pure."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def version_checks() -> Iterator[Check]:
    """What a report of a fault should say, and what is missing."""
    from disfs.metadata.versions import sqlite_version

    yield ok(
        "versions", f"disfs {_version('disfs-fuse')}, Python {platform.python_version()}, SQLite {sqlite_version()}"
    )
    yield ok("versions", f"pyfuse3 {_version('pyfuse3')}, discord.py {_version('discord.py')}, trio {_version('trio')}")
    program = shutil.which("fusermount3")
    if program is None:
        yield fail("versions", "fusermount3 is missing; install the package fuse3 ('apt install fuse3')")
        return
    said = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace", check=False).stdout
    yield ok("versions", f"libfuse {said.split()[-1] if said.split() else 'of unknown version'}")
    if os.geteuid() != 0 and not Path(program).stat().st_mode & stat.S_ISUID:
        yield fail("fuse", f"{program} has no set-user-id bit; 'chmod u+s {program}' as root, or install fuse3 again")


def _version(distribution: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return "of unknown version"


def file_checks(paths: Paths, volumes: list[VolumeConfig]) -> Iterator[Check]:
    """Whether what must be private is, and what must be writable."""
    secrets = [paths.config_file, *(paths.config / "volumes").glob("*.passphrase")]
    for volume in volumes:
        secrets += [file for file in (volume.token_file, volume.passphrase_file) if file is not None]
    problems = [problem for file in dict.fromkeys(secrets) if (problem := why_not_private(file))]
    yield from (fail("secrets", problem) for problem in problems)
    if not problems:
        yield ok("secrets", "configuration and secrets are readable for you alone")
    for directory in (paths.config, paths.state, paths.cache):
        place = next(path for path in (directory, *directory.parents) if path.exists())
        if not os.access(place, os.W_OK | os.X_OK):
            yield fail("files", f"{place} cannot be written; let it be yours, or set DISFS_HOME to another directory")
        elif directory.exists() and directory.stat().st_mode & 0o077:
            yield warn("files", f"others can look into {directory}; 'chmod 700 {directory}' keeps them out")


def disk_checks(paths: Paths) -> Iterator[Check]:
    """Whether the cache has room, and a file system that takes sparse files and gives holes back."""
    from disfs.local_volume import check_room

    place = next(path for path in (paths.cache, *paths.cache.parents) if path.exists())
    room = os.statvfs(place)
    free_bytes = room.f_bavail * room.f_frsize
    try:
        check_room(place)
    except UserError as error:
        yield fail("disk", str(error))
    else:
        level = ok if free_bytes >= COMFORTABLE_BYTES else warn
        hint = "" if free_bytes >= COMFORTABLE_BYTES else "; the cache will be small: free some, or set DISFS_HOME"
        yield level("disk", f"{human_size(free_bytes)} are free where the cache is{hint}")
    try:
        held = _bytes_after_punching(place)
    except OSError as error:
        yield fail("disk", f"{place} cannot take a sparse file ({error.strerror}); set DISFS_HOME to another disk")
        return
    if held < PROBE_BYTES:
        yield ok("disk", "sparse files and holes work there")
    else:
        yield warn("disk", f"the file system of {place} keeps the space of holes: the cache grows beyond its limit")


def _bytes_after_punching(directory: Path) -> int:
    """How much a file of PROBE_BYTES still takes when most of it was punched out. OSError."""
    from disfs.chunkstore.files import punch_hole

    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(os.urandom(PROBE_BYTES))
        file.flush()
        punch_hole(file.fileno(), 0, PROBE_BYTES - 4096)
        return os.fstat(file.fileno()).st_blocks * 512


def mount_checks() -> Iterator[Check]:
    """Mounts of disfs whose daemon is gone."""
    ours = [mount for mount in mounts() if mount.volume is not None]
    well = 0
    for mount in ours:
        dead = _is_dead_soon(mount.mountpoint)
        if dead is None:
            yield fail(
                "mounts", f"{mount.mountpoint} does not answer; 'fusermount3 -uz {mount.mountpoint}' takes it away"
            )
        elif dead:
            yield warn(
                "mounts", f"the daemon of {mount.mountpoint} is gone; 'disfs umount {mount.mountpoint}' cleans up"
            )
        else:
            well += 1
    if well == len(ours):
        yield ok("mounts", f"{well} mounted, none left over")


def _is_dead_soon(path: Path) -> bool | None:
    """Whether the daemon behind a mount is gone; None when the mount says nothing for ANSWER_SECONDS."""
    answers: list[bool] = []
    # A thread that hangs in a mount is left behind: it ends with this program, or with the mount.
    asking = threading.Thread(target=lambda: answers.append(is_dead(path)), daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return answers[0] if answers else None
