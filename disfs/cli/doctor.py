"""`disfs doctor`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from disfs.cli import checks
from disfs.cli.checks import Level, fail
from disfs.cli.completion import volumes_and_mountpoints
from disfs.cli.fsck import volume_of
from disfs.config import GlobalConfig, Paths, load_global, load_volume, volume_names
from disfs.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disfs.cli.checks import Check
    from disfs.config import VolumeConfig

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command(short_help="Check whether this machine, the bot and the server are as they should be.")
@click.argument("target", metavar="[VOLUME-OR-MOUNTPOINT]", required=False, shell_complete=volumes_and_mountpoints)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def doctor(target: str | None, as_json: bool) -> None:
    """Check what disfs needs: FUSE, versions, files and their permissions, disk, clock, left-over mounts, Discord.

    Each line says ok, warn or fail, and what to do. Nothing is changed but a file of 1 MiB that is tried out in the
    state directory. The exit code is 1 if something fails.

    \b
    Examples:
        disfs doctor
        disfs doctor photos --json
    """
    paths = Paths.from_environment(os.environ)
    found = []
    for check in _all_checks(paths, target):
        found.append(check)
        if not as_json:
            level = click.style(f"{check.level.value:<4}", fg=_COLOURS[check.level])
            click.echo(f"{level}  {check.topic:<8}  {check.text}")
    failed = any(check.level is Level.FAIL for check in found)
    if as_json:
        listed = [{"topic": each.topic, "level": each.level.value, "text": each.text} for each in found]
        click.echo(json.dumps({"ok": not failed, "checks": listed}, indent=2))
    raise click.exceptions.Exit(1 if failed else 0)


def _all_checks(paths: Paths, target: str | None) -> Iterator[Check]:
    """In the order in which one thing needs the other."""
    from disfs.cli.discord_checks import discord_checks

    if target is not None:
        volume_of(paths, target)  # what is not there is a wrong command line, not a finding
    yield from checks.fuse_checks()
    yield from checks.version_checks()
    try:
        config = load_global(paths)
    except UserError as error:
        config = GlobalConfig()
        yield fail("config", str(error))
    volumes: list[VolumeConfig] = []
    for name in [volume_of(paths, target).name] if target is not None else volume_names(paths):
        try:
            volumes.append(load_volume(paths, name))
        except UserError as error:
            yield fail("config", str(error))
    yield from checks.file_checks(paths, volumes)
    yield from checks.disk_checks(paths)
    yield from checks.mount_checks()
    if not volumes:
        yield checks.ok("volumes", "there is none on this machine; 'disfs setup' makes one")
    yield from discord_checks(paths, config, volumes)
