"""The directory that a volume appears in: what is mounted there, whether it can be, and how to take it away.

Everything here blocks: on the command line that is fine, the daemon calls it in a worker thread.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from disfs.errors import ExitCode, UserError

FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONFIG = Path("/etc/fuse.conf")
FILESYSTEM_TYPE = "fuse.disfs"
SOURCE_PREFIX = "disfs:"
ANSWER_SECONDS = 3.0
"""How long a mount may take to say whether anybody is behind it; a healthy daemon takes a millisecond."""
_DEAD_WORDS = ("transport endpoint is not connected", "software caused connection abort")
"""ENOTCONN and ECONNABORTED, as they read under LC_ALL=C."""

_USER = re.compile(r"(?:^|,)user_id=(\d+)")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    mountpoint: Path
    filesystem_type: str
    source: str
    device: int = 0
    """As st_dev: what every file on it has in common."""
    uid: int | None = None
    """Who mounted it, where the kernel says so, as it does for FUSE."""

    @property
    def volume(self) -> str | None:
        """The volume that is mounted here; None when this is no mount of ours."""
        if self.filesystem_type == FILESYSTEM_TYPE and self.source.startswith(SOURCE_PREFIX):
            return self.source.removeprefix(SOURCE_PREFIX)
        return None


def parse_mounts(text: str) -> list[Mount]:
    """What the text of /proc/self/mountinfo says, in the order in which it was mounted."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, source, *rest) = before.split(" "), after.split(" ")
        major, _, minor = fields[2].partition(":")
        device = os.makedev(int(major), int(minor))
        user = _USER.search(rest[0]) if rest else None
        uid = int(user[1]) if user else None
        mounts.append(Mount(Path(_unescape(fields[4])), kind, _unescape(source), device, uid))
    return mounts


def _unescape(text: str) -> str:
    raw = _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
    return os.fsdecode(raw.encode("utf-8", "surrogateescape")) if raw != text else text


def mounts() -> list[Mount]:
    """Everything that is mounted as this process sees it."""
    # surrogateescape: a mountpoint may hold any bytes, and other people's must not stop us.
    return parse_mounts(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))


def mount_at(path: Path) -> Mount | None:
    """What is mounted at `path`, the topmost if several are; None when nothing is. Never touches the mount itself."""
    return next((mount for mount in reversed(mounts()) if mount.mountpoint == path), None)


def resolve(path: str | Path) -> Path:
    """The absolute path of a mountpoint, symbolic links resolved, without asking a mounted file system anything.

    Where the path is a mount already only its parent is looked at: a dead mount answers with errors, a stuck one
    not at all.
    """
    given = Path(path).expanduser()
    near = Path(os.path.realpath(given.parent)) / given.name if given.name not in ("", "..") else given
    return near if mount_at(near) else Path(os.path.realpath(given))


def is_dead(path: Path) -> bool:
    """Whether the daemon behind the FUSE mount at `path` is gone. One that is there and does not answer is not."""
    try:
        # Not stat(2): the kernel answers that from its own memory for as long as the daemon had allowed. And not in
        # this process: a system call on a mount whose daemon hangs ends only when its process is killed.
        done = subprocess.run(
            ["stat", "--file-system", "--", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode != 0 and any(words in done.stderr.lower() for words in _DEAD_WORDS)


def check_mountpoint(path: Path) -> None:
    """Raise unless a volume can be mounted at `path`: ALREADY_MOUNTED, MOUNTPOINT_MISSING, MOUNTPOINT_NOT_EMPTY."""
    mounted = mount_at(path)
    if mounted is not None:
        if is_dead(path):
            raise UserError(
                f"{path} is what a dead {mounted.filesystem_type} mount left; clean it with 'fusermount3 -uz {path}'",
                ExitCode.ALREADY_MOUNTED,
            )
        what = f"volume {mounted.volume!r}" if mounted.volume else mounted.filesystem_type
        raise UserError(
            f"{path} is mounted already ({what}); choose another directory or unmount it first",
            ExitCode.ALREADY_MOUNTED,
        )
    if not path.exists():
        raise UserError(
            f"the mountpoint {path} does not exist; make it with 'mkdir -p {path}'", ExitCode.MOUNTPOINT_MISSING
        )
    if not path.is_dir():
        raise UserError(f"the mountpoint {path} is not a directory; choose a directory", ExitCode.MOUNTPOINT_MISSING)
    try:
        empty = not any(path.iterdir())
    except OSError as error:
        raise UserError(
            f"the mountpoint {path} cannot be read: {error.strerror}; choose a directory of yours",
            ExitCode.MOUNTPOINT_MISSING,
        ) from error
    if not empty:
        raise UserError(
            f"the mountpoint {path} is not empty; mounting would hide its files: choose an empty directory",
            ExitCode.MOUNTPOINT_NOT_EMPTY,
        )


def check_fuse(options: frozenset[str]) -> None:
    """Raise FUSE_UNAVAILABLE unless this machine lets this user mount with `options`."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise UserError(_why_no_fuse(error), ExitCode.FUSE_UNAVAILABLE) from error
    if os.geteuid() == 0:
        return
    if shutil.which("fusermount3") is None:
        raise UserError(
            "fusermount3 is missing; install the package fuse3 ('apt install fuse3')", ExitCode.FUSE_UNAVAILABLE
        )
    if options & {"allow_other", "allow_root"} and not others_allowed():
        raise UserError(
            f"allow_other is not permitted; add a line 'user_allow_other' to {FUSE_CONFIG}", ExitCode.FUSE_UNAVAILABLE
        )


def _why_no_fuse(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"{FUSE_DEVICE} is missing; load it with 'modprobe fuse', or give the container '--device {FUSE_DEVICE}'"
    return f"{FUSE_DEVICE} cannot be opened ({error.strerror}); your user, or the container, must be allowed to use it"


def others_allowed() -> bool:
    """Whether fuse.conf lets users mount with allow_other."""
    try:
        lines = FUSE_CONFIG.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def unmount(path: Path, *, lazy: bool = False) -> None:
    """Take away what is mounted at `path`. MOUNT_BUSY when it is in use, NOT_MOUNTED when nothing is there.

    `lazy` detaches it at once, also in use or dead; what is open stays open until it is closed.
    """
    command = ["fusermount3", "-u", *(["-z"] if lazy else [])]
    if shutil.which("fusermount3") is None:
        command = ["umount", *(["-l"] if lazy else [])]
    done = subprocess.run(
        [*command, "--", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        check=False,
    )
    if done.returncode == 0:
        return
    if mount_at(path) is None:
        raise UserError(f"nothing is mounted at {path}; 'disfs volumes' shows what is", ExitCode.NOT_MOUNTED)
    if "busy" in done.stderr.lower():
        raise UserError(
            f"{path} is in use; close its files and leave its directories ('fuser -vm {path}' shows who), then repeat",
            ExitCode.MOUNT_BUSY,
        )
    reason = " ".join(done.stderr.split()) or f"{command[0]} exited with {done.returncode}"
    raise UserError(f"cannot unmount {path}: {reason}; try 'fusermount3 -uz {path}'", ExitCode.INTERNAL)
