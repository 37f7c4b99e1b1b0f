"""`disfs install-service`: a unit of the user's systemd that mounts a volume at each login."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from disfs.cli.completion import directories, volumes
from disfs.cli.connect import API_URL_VARIABLE
from disfs.cli.mount import choose_volume
from disfs.cli.secrets import find_token
from disfs.config import Paths, load_global
from disfs.errors import ExitCode, UserError
from disfs.mount_options import parse_options
from disfs.mountpoint import resolve
from disfs.private_files import explained, sync_directory, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from disfs.config import GlobalConfig, VolumeConfig

UPLOAD_SECONDS = 60
"""How long the end of a session waits for uploads; the next mount sends the rest."""
_POINTLESS = (
    ExitCode.USAGE,
    ExitCode.NO_TOKEN,
    ExitCode.TOKEN_REJECTED,
    ExitCode.WRONG_PASSPHRASE,
    ExitCode.NO_PASSPHRASE,
    ExitCode.MOUNTPOINT_MISSING,
    ExitCode.MOUNTPOINT_NOT_EMPTY,
    ExitCode.NO_SUCH_VOLUME,
    ExitCode.CONFIG_INVALID,
    ExitCode.VOLUME_DAMAGED,
)
"""Trying again does not help until somebody has changed something."""
_UNIT = """\
# Written by 'disfs install-service'; 'disfs install-service --uninstall' takes it away.
[Unit]
Description=disfs: volume {name} at {place}
Documentation=man:disfs(1)
# It does not wait for the network: without one it mounts from what is on this machine, and catches up later.

[Service]
Type=notify
NotifyAccess=main
ExecStart={start}
# Waits for uploads for a while; what is left then is sent after the next start.
ExecStop=-{stop}
TimeoutStopSec={stop_seconds}
# The emulator, where there is one, ends after the mount.
KillMode=mixed
SuccessExitStatus={unsent}
Restart=on-failure
RestartSec=10
RestartPreventExitStatus={pointless}
WatchdogSec=60
{environment}
[Install]
WantedBy=default.target
"""


@click.command("install-service", short_help="Let systemd mount a volume at each login.")
@click.argument("mountpoint", type=click.Path(), default="~/discord", shell_complete=directories)
@click.option("--volume", "name", shell_complete=volumes, help="Which volume. [default: the only one]")
@click.option("-o", "options", multiple=True, metavar="OPTION[,OPTION...]", help="Mount options.")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the bot token on its first line.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="A file with the passphrase.")
@click.option("--print", "prints", is_flag=True, help="Print the unit; write nothing.")
@click.option("--uninstall", is_flag=True, help="Delete the unit instead.")
def install_service(
    mountpoint: str,
    name: str | None,
    options: tuple[str, ...],
    token_file: Path | None,
    passphrase_file: Path | None,
    prints: bool,
    uninstall: bool,
) -> None:
    """Write a unit of your systemd, disfs-VOLUME.service: at each login it mounts the volume at MOUNTPOINT (~/discord).

    Nobody is there to be asked then: token and passphrase have to lie in files, or in the configuration. At the end of
    the session it waits a minute for uploads; the next mount sends the rest. 'systemctl --user status' shows how it is.

    \b
    Examples:
        disfs install-service ~/discord --volume photos --passphrase-file ~/.config/disfs/passphrase
        disfs install-service --print
    """
    paths = Paths.from_environment(os.environ)
    config = load_global(paths)
    volume = choose_volume(paths, config, name, emulator=False)
    file = _directory(os.environ) / f"disfs-{volume.name}.service"
    if uninstall:
        _remove(file)
        return
    parse_options(options)
    _check_secrets(config, volume, token_file, passphrase_file)
    place = resolve(mountpoint)
    words = ["mount", "--foreground", "--volume", volume.name]
    words += [word for text in options for word in ("-o", text)]
    for option, secret in (("--token-file", token_file), ("--passphrase-file", passphrase_file)):
        words += [option, str(secret.expanduser().absolute())] if secret else []
    text = unit_text(volume.name, _program(), words, place, _environment(os.environ))
    if prints:
        click.echo(text, nl=False)
        return
    if not place.is_dir():
        raise UserError(
            f"the mountpoint {place} is no directory; make it: 'mkdir -p {place}'", ExitCode.MOUNTPOINT_MISSING
        )
    write_text(file, text)
    click.echo(f"wrote {file}; 'systemctl --user daemon-reload && systemctl --user enable --now {file.name}' starts it")


def unit_text(
    name: str, program: Sequence[str], words: Sequence[str], place: Path, environment: Mapping[str, str]
) -> str:
    """The unit of a volume. Pure. `words` are the arguments of `disfs` but for the mountpoint."""
    settings = [f"Environment={_quoted(f'{key}={value}')}\n" for key, value in environment.items()]
    return _UNIT.format(
        name=name,
        place=str(place).replace("%", "%%"),
        start=_command([*program, *words, "--", str(place)]),
        stop=_command([*program, "umount", "--timeout", str(UPLOAD_SECONDS), "--", str(place)]),
        stop_seconds=UPLOAD_SECONDS + 30,
        unsent=int(ExitCode.UNSENT_DATA),
        pointless=" ".join(str(int(code)) for code in _POINTLESS),
        environment="".join(settings),
    )


def _command(words: Sequence[str]) -> str:
    return " ".join(_quoted(word).replace("$", "$$") for word in words)


def _quoted(word: str) -> str:
    """A word as systemd reads it back."""
    if "\n" in word or "\0" in word:
        raise UserError(f"{word!r} cannot stand in a unit; choose another name", ExitCode.USAGE)
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if word and not set(word) & set(" \t\"'\\;") else f'"{escaped}"'


def _program() -> list[str]:
    """How this program is started, whatever the working directory."""
    started = Path(sys.argv[0]).absolute()
    return [str(started)] if started.name == "disfs" and started.is_file() else [sys.executable, "-m", "disfs"]


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a service would not know otherwise; no secrets."""
    names = ("DISFS_HOME", API_URL_VARIABLE, "XDG_CONFIG_HOME", "XDG_STATE_HOME")
    return {name: environment[name] for name in names if environment.get(name)}


def _directory(environment: Mapping[str, str]) -> Path:
    """Where the units of the user's systemd lie."""
    config = environment.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path("~/.config").expanduser()) / "systemd" / "user"


def _check_secrets(
    config: GlobalConfig, volume: VolumeConfig, token_file: Path | None, passphrase_file: Path | None
) -> None:
    """Refuse what would be asked for at each start. NO_TOKEN, NO_PASSPHRASE."""
    if not volume.emulator and find_token(config, token_file or volume.token_file, environment={}) is None:
        raise UserError(
            "a service cannot be asked for the bot token; name a file with --token-file, or put it into config.toml",
            ExitCode.NO_TOKEN,
        )
    if passphrase_file is None and volume.passphrase_file is None and volume.key_file is None:
        raise UserError(
            "a service cannot be asked for the passphrase; name a file with --passphrase-file, or 'disfs key import'",
            ExitCode.NO_PASSPHRASE,
        )


def _remove(file: Path) -> None:
    if not file.exists():
        raise UserError(f"there is no {file}; 'disfs install-service' writes it", ExitCode.USAGE)
    with explained(file):
        file.unlink()
        # What 'systemctl --user enable' has made, and would leave behind.
        (file.parent / "default.target.wants" / file.name).unlink(missing_ok=True)
        sync_directory(file.parent)
    click.echo(f"deleted {file}; 'systemctl --user stop {file.name}' unmounts it, if it is mounted")
