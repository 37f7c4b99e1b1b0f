"""`mount.disfs`: what mount(8) and systemd run for a line of fstab.

    mount.disfs VOLUME DIRECTORY [-sfnvrw] [-N NAMESPACE] [-t TYPE] [-o OPTION[,OPTION...]]

It turns that into `disfs mount`, and its exit codes into those of mount(8). Options that are for it alone name what the
environment of a boot does not have: `setuid=` whose volume it is, `home=` what DISFS_HOME would say, `token_file=` and
`passphrase_file=` where the secrets are.
"""

from __future__ import annotations

import getopt
import os
import pwd
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from disfs.cli.exits import INTERRUPTED, complain
from disfs.errors import ExitCode, UserError
from disfs.mountpoint import SOURCE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

MOUNT_OK, MOUNT_USAGE, MOUNT_SYSTEM, MOUNT_INTERNAL, MOUNT_USER, MOUNT_FAILURE = 0, 1, 2, 4, 8, 32
"""The exit codes of mount(8)."""
_CODES = {
    ExitCode.OK: MOUNT_OK,
    ExitCode.USAGE: MOUNT_USAGE,
    ExitCode.STATE_UNUSABLE: MOUNT_SYSTEM,
    ExitCode.STATE_FULL: MOUNT_SYSTEM,
    ExitCode.FUSE_UNAVAILABLE: MOUNT_SYSTEM,
    ExitCode.INTERNAL: MOUNT_INTERNAL,
    INTERRUPTED: MOUNT_USER,
}
_FLAGS = {"emulator": "--emulator", "takeover": "--takeover", "debug": "--debug"}
_FILES = {"token_file": "--token-file", "passphrase_file": "--passphrase-file"}
_NO_VOLUME = frozenset({"", "none", "disfs"})
"""What people write into the first field of fstab when a file system has no device."""
_OCTAL = {r"\040": " ", r"\011": "\t", r"\134": "\\"}
"""How fstab and mount(8) write what would end a field."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a line of fstab asks for."""

    arguments: tuple[str, ...]
    """Of `disfs`."""
    is_fake: bool = False
    """`mount -f`: everything but the mount itself."""
    user: str | None = None
    """Whose volume it is, and as whom the daemon runs; None: whoever runs this."""
    environment: tuple[tuple[str, str], ...] = field(default=())


def understood(arguments: Sequence[str]) -> Request:
    """What mount(8) wants, from its command line. USAGE. Pure."""
    try:
        switches, places = getopt.gnu_getopt(list(arguments), "sfnvrwN:o:t:")
    except getopt.GetoptError as error:
        raise UserError(f"{error}; see 'man mount.disfs'", ExitCode.USAGE) from error
    if len(places) != 2:
        raise UserError("say a volume and a directory: mount.disfs VOLUME DIRECTORY -o OPTIONS", ExitCode.USAGE)
    source, directory = places
    words = [word for name, value in switches if name == "-o" for word in value.split(",") if word]
    words += [{"-r": "ro", "-w": "rw"}[name] for name, _ in switches if name in ("-r", "-w")]
    command, rest, user, environment = ["mount"], [], None, []
    volume = source.removeprefix(SOURCE_PREFIX)
    for word in words:
        name, has_value, value = word.partition("=")
        if word in _FLAGS:
            command.append(_FLAGS[word])
        elif name in _FILES and has_value:
            command += [_FILES[name], _plain(value)]
        elif name == "volume" and has_value:
            volume = value
        elif name == "setuid" and has_value:
            user = value
        elif name == "home" and has_value:
            environment.append(("DISFS_HOME", _plain(value)))
        else:
            rest.append(word)
    command += [] if volume in _NO_VOLUME else ["--volume", volume]
    command += ["-o", ",".join(rest)] if rest else []
    is_fake = any(name == "-f" for name, _ in switches)
    return Request((*command, "--", directory), is_fake, user, tuple(environment))


def _plain(value: str) -> str:
    for written, meant in _OCTAL.items():
        value = value.replace(written, meant)
    return value


def become(user: str) -> None:
    """Be another user from now on, with that one's groups and home. USAGE."""
    try:
        known = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError as error:
        raise UserError(f"setuid={user}: there is no such user; see 'getent passwd'", ExitCode.USAGE) from error
    if known.pw_uid != os.geteuid():
        try:
            os.initgroups(known.pw_name, known.pw_gid)
            os.setgid(known.pw_gid)
            os.setuid(known.pw_uid)
        except PermissionError as error:
            raise UserError(
                f"setuid={user}: only root can mount as somebody else; leave it out", ExitCode.USAGE
            ) from error
    os.environ.update(HOME=known.pw_dir, USER=known.pw_name, LOGNAME=known.pw_name)
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]  # they were somebody else's


def serve(arguments: Sequence[str]) -> int:
    """Do what mount(8) wants; its exit code."""
    from disfs.cli.commands import disfs
    from disfs.cli.exits import run

    try:
        request = understood(arguments)
        if request.is_fake:
            return MOUNT_OK
        if request.user is not None:
            become(request.user)
    except UserError as error:
        complain(str(error))
        return MOUNT_USAGE
    os.environ.update(request.environment)
    return _CODES.get(run(disfs, list(request.arguments)), MOUNT_FAILURE)


def main() -> None:
    """The entry point."""
    sys.exit(serve(sys.argv[1:]))
