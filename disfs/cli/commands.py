"""The group of all commands."""

from __future__ import annotations

import click

import disfs as package
from disfs.cli.completion import completion
from disfs.cli.configure import config
from disfs.cli.delete_volume import delete_volume
from disfs.cli.discord_limits import limits
from disfs.cli.doctor import doctor
from disfs.cli.emulator import emulator
from disfs.cli.events import events
from disfs.cli.files import history, ls
from disfs.cli.fsck import fsck
from disfs.cli.init import init
from disfs.cli.keys import key, passwd
from disfs.cli.limits import bwlimit, pause, resume
from disfs.cli.mount import mount
from disfs.cli.recover import recover
from disfs.cli.service import install_service
from disfs.cli.setup import setup
from disfs.cli.snapshot import snapshot
from disfs.cli.status import metrics, status, volumes
from disfs.cli.umount import sync, umount
from disfs.cli.undelete import undelete
from disfs.cli.usage import usage
from disfs.cli.warm import pin, unpin, warmup

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
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


for command in (
    setup,
    init,
    recover,
    mount,
    umount,
    sync,
    status,
    metrics,
    events,
    ls,
    history,
    volumes,
    usage,
    pause,
    resume,
    bwlimit,
    limits,
    pin,
    unpin,
    warmup,
    undelete,
    snapshot,
    fsck,
    doctor,
    passwd,
    key,
    delete_volume,
    emulator,
    config,
    install_service,
    completion,
):
    disfs.add_command(command)
