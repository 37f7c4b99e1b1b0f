"""`disfs emulator`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from disfs import local_emulator
from disfs.config import Paths
from disfs.errors import ExitCode, UserError
from disfs.private_files import make_directory


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Where to listen on loopback. [default: any free port]")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it keeps its messages. [default: 'emulator' in the state directory]",
)
@click.option("--info", is_flag=True, help="Print the running emulator's addresses and token as JSON, and exit.")
def emulator(port: int | None, data: Path | None, info: bool) -> None:
    """Run a Discord on this machine, to try things out.

    `disfs mount --emulator` starts it by itself in the background; this runs it in the foreground.

    \b
    Examples:
        disfs emulator --port 8765
        disfs emulator --info
    """
    directory = (data or Paths.from_environment(os.environ).emulator_state).absolute()
    if info:
        found = local_emulator.running(directory)
        if found is None:
            raise UserError(
                f"no emulator runs on {directory}; 'disfs emulator' starts it", ExitCode.EMULATOR_NOT_RUNNING
            )
        click.echo(json.dumps(found.public(), indent=2))
        return
    make_directory(directory)
    arguments = [sys.executable, "-m", "disfs.emulator", "--data", str(directory)]
    if port is not None:
        arguments += ["--port", str(port)]
    os.execv(sys.executable, arguments)  # noqa: S606  # the same interpreter, our own module, no shell
