"""`disfs config`: what a volume of this machine is mounted with, unless mount options say otherwise."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from disfs.cli.completion import volumes
from disfs.cli.exits import complain
from disfs.cli.mount import choose_volume
from disfs.config import Paths, load_global, save_volume
from disfs.control.client import ControlClient
from disfs.errors import ExitCode, UserError
from disfs.mount_options import SETTINGS, changed_setting, written_setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.config import VolumeConfig

volume_option = click.option(
    "--volume", "name", shell_complete=volumes, help="Of which volume. [default: the only one]"
)


def _keys(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Sequence[CompletionItem]:
    return [CompletionItem(key) for key in SETTINGS if key.startswith(incomplete)]


key_argument = click.argument("key", shell_complete=_keys)


@click.group(short_help="Show or change what a volume is mounted with.")
def config() -> None:
    """Show or change what a volume is mounted with on this machine, unless mount options say otherwise.

    Keys and values are those of 'disfs mount -o'. A volume that is mounted takes on at once what can be changed
    meanwhile (bwlimit, cache_size, dirty_limit, writeback_delay, readahead, trash_days), the rest at its next mount.

    \b
    Examples:
        disfs config list
        disfs config set cache_size 50G
        disfs config set bwlimit 512K:4M --volume photos
        disfs config unset bwlimit
    """


@config.command("list")
@volume_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def list_settings(name: str | None, as_json: bool) -> None:
    """Show all settings."""
    settings = _volume(name)[1].settings
    found = {key: written_setting(settings, key) for key in sorted(SETTINGS)}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for key, value in found.items():
        click.echo(f"{key} = {value}")


@config.command()
@key_argument
@volume_option
def get(key: str, name: str | None) -> None:
    """Print one setting."""
    settings = _volume(name)[1].settings
    changed_setting(settings, key, None)  # says which keys there are
    click.echo(written_setting(settings, key))


@config.command("set")
@key_argument
@click.argument("value")
@volume_option
def set_setting(key: str, value: str, name: str | None) -> None:
    """Change one setting, and the mount if there is one."""
    _change(key, value, name)


@config.command()
@key_argument
@volume_option
def unset(key: str, name: str | None) -> None:
    """Give one setting its default again."""
    _change(key, None, name)


def _volume(name: str | None) -> tuple[Paths, VolumeConfig]:
    paths = Paths.from_environment(os.environ)
    return paths, choose_volume(paths, load_global(paths), name, emulator=False)


def _change(key: str, value: str | None, name: str | None) -> None:
    """Write it down first: a mount that cannot be asked has it the next time."""
    paths, volume = _volume(name)
    settings = changed_setting(volume.settings, key, value)
    save_volume(paths, dataclasses.replace(volume, settings=settings))
    click.echo(f"{key} = {written_setting(settings, key)}")
    try:
        with ControlClient.connect(paths.volume_state(volume.name)) as client:
            is_applied = client.change_setting(key, value)
    except UserError as error:
        if error.exit_code != ExitCode.NOT_MOUNTED:
            raise
        return
    if not is_applied:
        complain(f"the volume is mounted; {key} changes at its next mount")
