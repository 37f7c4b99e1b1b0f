"""The group of all commands. A command's module is imported when the command is wanted: `disfs status` is quick."""

from __future__ import annotations

from collections.abc import MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING

import click

import disfs as package

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODULES = {
    "setup": "setup",
    "init": "init",
    "recover": "recover",
    "mount": "mount",
    "umount": "umount",
    "sync": "umount",
    "status": "status",
    "metrics": "status",
    "events": "events",
    "ls": "files",
    "history": "files",
    "volumes": "status",
    "usage": "usage",
    "pause": "limits",
    "resume": "limits",
    "bwlimit": "limits",
    "limits": "discord_limits",
    "pin": "warm",
    "unpin": "warm",
    "warmup": "warm",
    "undelete": "undelete",
    "snapshot": "snapshot",
    "fsck": "fsck",
    "doctor": "doctor",
    "passwd": "keys",
    "key": "keys",
    "delete-volume": "delete_volume",
    "emulator": "emulator",
    "config": "configure",
    "install-service": "service",
    "completion": "completion",
}
"""Which module of this package has which command. A command is called as its function, `-` for `_`."""


class Commands(MutableMapping[str, click.Command]):
    """The commands by name, each imported at its first use."""

    def __init__(self) -> None:
        self._imported: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._imported:
            module = import_module(f"disfs.cli.{_MODULES[name]}")
            self._imported[name] = getattr(module, name.replace("-", "_"))
        return self._imported[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._imported[name] = command

    def __delitem__(self, name: str) -> None:
        del self._imported[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT, commands=Commands())
@click.version_option(package.__version__, prog_name="disfs", message="%(prog)s %(version)s")
def disfs() -> None:
    """A Discord server as a disk.

    \b
    Try it without an account:
        mkdir -p ~/discord
        disfs mount --emulator ~/discord
        cp -a ~/photos ~/discord/
        disfs status
        disfs umount ~/discord

    \b
    With a server of your own, step by step:
        disfs setup

    Secrets come from DISFS_TOKEN and DISFS_PASSPHRASE, from files, or from a prompt; never from an option's value.
    DISFS_HOME moves configuration, state and cache below one directory, DISFS_API_URL names another API than Discord's.
    """
