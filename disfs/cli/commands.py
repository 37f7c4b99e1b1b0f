"""The group of all commands. A command's module is imported when the command is used: each then starts quickly."""

from __future__ import annotations

import importlib

import click

import disfs as package

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_MODULES = {
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
    "pause": "limits",
    "resume": "limits",
    "bwlimit": "limits",
    "pin": "warm",
    "unpin": "warm",
    "warmup": "warm",
    "undelete": "undelete",
    "snapshot": "snapshot",
    "fsck": "fsck",
    "emulator": "emulator",
}
"""Where each command is, in the order in which `--help` lists them."""


class Commands(click.Group):
    """Finds commands by their names in `disfs.cli`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None when there is none."""
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        command = getattr(importlib.import_module(f"disfs.cli.{module}"), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings=CONTEXT)
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
    With a server of your own (the README has the five steps):
        disfs init photos
        disfs mount ~/discord

    Secrets come from DISFS_TOKEN and DISFS_PASSPHRASE, from files, or from a prompt; never from an option's value.
    DISFS_HOME moves configuration, state and cache below one directory, DISFS_API_URL names another API than Discord's.
    """
