"""`disfs mount`."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from disfs.cli.completion import directories, volumes
from disfs.cli.connect import discord_access, emulator_access
from disfs.cli.exits import complain, explain
from disfs.cli.init import EMULATOR_NAME, absolute
from disfs.cli.secrets import interactive
from disfs.cli.setup import offer_directory
from disfs.cli.unlock import volume_key
from disfs.config import Paths, load_global, load_volume, volume_names
from disfs.errors import ExitCode, UserError
from disfs.mount_options import parse_options
from disfs.mountpoint import check_fuse, check_mountpoint, is_dead, mount_at, resolve, unmount
from disfs.volume_state import LOG_NAME, VolumeLock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from disfs.background import Ready
    from disfs.cli.connect import Access
    from disfs.config import GlobalConfig, VolumeConfig, VolumeSettings
    from disfs.mount_options import MountOptions
    from disfs.mount_plan import MountPlan


_TAKEOVER_HELP = (
    "Mount the volume although another machine has it mounted; what is written there from then on, or is not sent yet, "
    "never will be."
)


_HELP = """Mount a volume at MOUNTPOINT, an empty directory, and return when it can be used. Where nothing is set
up yet, and at a terminal, it begins with 'disfs setup'.

The token comes from DISFS_TOKEN, --token-file, the configuration, or a prompt; the passphrase from
DISFS_PASSPHRASE, --passphrase-file, --key-file, what is kept of the volume, or a prompt.

\b
Mount options:
    size=, cache_size=, trash_days=, bwlimit=   as --size and so on
    dirty_limit=SIZE        how much may be unsent before writers wait
    writeback_delay=SECONDS how long a chunk is quiet before it is sent
    message_size=SIZE       how much one Discord message carries
    sweep_grace=SECONDS     how long a message is kept after all in it was deleted
    stray_grace=SECONDS     how long a message is kept that a failed send left behind
    readahead=SIZE          how far a sequential reader is fetched ahead at most; 0: not at all
    kernel_listings=off     ask the daemon for every listing of a directory, slower
    kernel_cache=SECONDS    how long the kernel remembers names; 0: not at all, for measuring
    noacl                   no POSIX ACLs; `ls -l` is faster, as it has nothing to ask each file for
    ro                      nothing of the volume is changed
    allow_other, allow_root who but you may use the mount
    uid=, gid=, umask=      as whose everything is shown, and with which mode, whatever is stored; implies noacl
    noatime, nodiratime     reading moves no times; strictatime: all reads do; relatime: the default
    sync, dirsync           every change, or changes of names, are on this disk before they are answered
    fsync=remote            fsync, O_SYNC and O_DSYNC wait until Discord has the data; local: the default
    nonotify                the desktop is not told of damage, a full dirty limit, a lost lease, a refused token
    noexec, nosuid, nodev   as for mount(8), as are their opposites; the last one counts

\b
Examples:
    disfs mount --emulator ~/discord
    disfs mount ~/discord --volume photos -o cache_size=20G
"""


@click.command(short_help="Mount a volume.", help=_HELP)
@click.argument("mountpoint", type=click.Path(), shell_complete=directories)
@click.option("--volume", "name", shell_complete=volumes, help="Which volume. [default: the only one]")
@click.option("--emulator", is_flag=True, help="Use the emulator of this machine; makes the volume if there is none.")
@click.option("--takeover", is_flag=True, help=_TAKEOVER_HELP)
@click.option("--foreground", is_flag=True, help="Stay in the terminal and log to it; Ctrl-C unmounts.")
@click.option("--debug", is_flag=True, help="Log every operation; slow, for finding faults.")
@click.option("-o", "options", multiple=True, metavar="OPTION[,OPTION...]", help="Mount options, see above.")
@click.option("--size", metavar="SIZE", help="How large the volume is, such as 100G. [default: 1P]")
@click.option("--trash-days", metavar="DAYS", help="How long deleted files can be restored; 0: not. [default: 1]")
@click.option("--cache-size", metavar="SIZE", help="How much disk the cache may take, such as 2G.")
@click.option("--bwlimit", metavar="UP:DOWN", help="Bytes a second, such as 512K:4M, 2M:off, 10M, or a timetable.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the bot token on its first line.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="A file with the passphrase.")
@click.option("--key-file", type=click.Path(path_type=Path), help="A file that 'disfs key export' made.")
def mount(
    mountpoint: str,
    name: str | None,
    emulator: bool,
    takeover: bool,
    foreground: bool,
    debug: bool,
    options: tuple[str, ...],
    size: str | None,
    trash_days: str | None,
    cache_size: str | None,
    bwlimit: str | None,
    token_file: Path | None,
    passphrase_file: Path | None,
    key_file: Path | None,
) -> None:
    """See `_HELP`."""
    paths = Paths.from_environment(os.environ)
    if not (name or emulator) and interactive() and is_nothing_set_up(paths):
        _set_up_first(paths, mountpoint, token_file, passphrase_file)
    named = {"--size": size, "--trash-days": trash_days, "--cache-size": cache_size, "--bwlimit": bwlimit}
    parsed = _options(options, named)
    path = _checked_mountpoint(mountpoint, parsed)
    config = load_global(paths)
    volume = choose_volume(paths, config, name, emulator=emulator)
    settings, lock = _settings_and_lock(paths, volume, parsed)
    access = _access(paths, config, volume, token_file)
    key = volume_key(volume, passphrase_file, key_file)
    from disfs.mount_plan import MountPlan

    plan = MountPlan(
        volume=volume,
        mountpoint=path,
        kernel_options=parsed.kernel_flags,
        behaviour=parsed.behaviour,
        settings=settings,
        state_directory=paths.volume_state(volume.name),
        cache_directory=paths.volume_cache(volume.name),
        key=key,
        token=access.token,
        api_url=access.api_url,
        lock=lock,
        takes_over=takeover,
    )
    _serve(plan, foreground=foreground, debug=debug)


def is_nothing_set_up(paths: Paths) -> bool:
    """Whether this machine knows no volume."""
    return load_global(paths).default_volume is None and not volume_names(paths)


def _set_up_first(paths: Paths, mountpoint: str, token_file: Path | None, passphrase_file: Path | None) -> NoReturn:
    """Lead through the set-up, then begin again with all options of this command."""
    from disfs.cli.guide import Wishes
    from disfs.cli.setup import guided, mount_it

    outcome = guided(
        paths, mountpoint, Wishes(token_file=absolute(token_file), passphrase_file=absolute(passphrase_file))
    )
    mount_it(outcome, _given_options(click.get_current_context(), {"token_file", "passphrase_file"}))


def _given_options(context: click.Context, without: set[str]) -> list[str]:
    """The options of the command line, as they were given."""
    given: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        is_given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if isinstance(parameter, click.Option) and is_given and name not in without:
            value, option = context.params[name], parameter.opts[0]
            if parameter.is_flag:
                given.append(option)
            else:
                for each in value if parameter.multiple else (value,):
                    given += [option, str(each)]
    return given


def _options(options: tuple[str, ...], named: Mapping[str, str | None]) -> MountOptions:
    """What `-o` says, overruled by options that have a name of their own, such as --cache-size. USAGE."""
    parsed = parse_options(options)
    for name, value in named.items():
        if value is not None:
            parsed = parsed.overruled(name, value)
    return parsed


def _checked_mountpoint(mountpoint: str, options: MountOptions) -> Path:
    """Where to mount. What a killed daemon left there is cleaned away: mounting again is how one recovers."""
    path = resolve(mountpoint)
    left = mount_at(path)
    if left is not None and left.volume is not None and is_dead(path):
        unmount(path, lazy=True)
        complain(f"cleaned up {path}, whose daemon had died; everything that was synced is kept")
    if interactive():
        offer_directory(path)
    check_mountpoint(path)
    check_fuse(options.flags)
    return path


def choose_volume(paths: Paths, config: GlobalConfig, name: str | None, *, emulator: bool) -> VolumeConfig:
    """The volume that is meant. NO_SUCH_VOLUME when there is none, USAGE when it is not clear which."""
    if emulator:
        name = name or EMULATOR_NAME
        if not paths.volume_file(name).exists():
            _make_emulator_volume(name)
        volume = load_volume(paths, name)
        if not volume.emulator:
            raise UserError(
                f"volume {name!r} is not one of the emulator; leave --emulator out, or choose another --volume",
                ExitCode.USAGE,
            )
        return volume
    name = name or config.default_volume
    if name is not None:
        return load_volume(paths, name)
    names = volume_names(paths)
    if len(names) > 1:
        raise UserError(f"there are several volumes; choose one with --volume: {', '.join(names)}", ExitCode.USAGE)
    if not names:
        raise UserError(
            "there is no volume on this machine; make one with 'disfs setup', or try 'disfs mount --emulator'",
            ExitCode.NO_SUCH_VOLUME,
        )
    return load_volume(paths, names[0])


def _make_emulator_volume(name: str) -> None:
    """Run `disfs init` as a process of its own: it uses threads, and this process still has to fork."""
    made = subprocess.run([sys.executable, "-m", "disfs", "init", "--emulator", name], check=False)
    if made.returncode != 0:
        raise click.exceptions.Exit(made.returncode)  # it has said why


def _settings_and_lock(paths: Paths, volume: VolumeConfig, options: MountOptions) -> tuple[VolumeSettings, VolumeLock]:
    """What the volume is mounted with, and the right to it. USAGE, VOLUME_BUSY."""
    settings = options.apply(volume.settings)
    paths.make_volume_directories(volume.name)
    return settings, VolumeLock.acquire(paths.volume_state(volume.name), volume.name)


def _access(paths: Paths, config: GlobalConfig, volume: VolumeConfig, token_file: Path | None) -> Access:
    if volume.emulator:
        return emulator_access(paths)
    return discord_access(config, token_file=token_file or volume.token_file, api_url=volume.api_url)


def _serve(plan: MountPlan, *, foreground: bool, debug: bool) -> None:
    """Run the daemon, here or in the background, and exit with its code."""
    from disfs import background, daemon, logs
    from disfs.desktop import Desktop
    from disfs.service_manager import ServiceManager

    log_file = plan.state_directory / LOG_NAME

    if plan.settings.notifications:
        plan = dataclasses.replace(plan, desktop=Desktop.from_environment(os.environ))
    if foreground:  # else the one who was started has gone when the mount is there
        plan = dataclasses.replace(plan, service=ServiceManager.from_environment(os.environ))

    def serve(ready: Callable[[Ready], None]) -> int:
        plan.lock.sign()
        level = logging.DEBUG if debug else logging.INFO
        logs.set_up(log_file, to_stderr=foreground, secrets=(plan.token,), level=level)
        return daemon.run(plan, ready)

    def show(ready: Ready) -> None:
        for warning in ready.warnings:
            complain(warning)
        for note in ready.notes:
            click.echo(note)
        click.echo(f"volume {plan.volume.name!r} is mounted at {plan.mountpoint}")

    if foreground:
        code = serve(show)
        raise click.exceptions.Exit(code)
    show(background.start(serve, explain=explain))
