"""`disfs completion`, and what the shell is told of mountpoints and volumes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from disfs.config import Paths, volume_names
from disfs.errors import UserError
from disfs.mountpoint import mounts

if TYPE_CHECKING:
    from collections.abc import Sequence

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_DISFS_COMPLETE"
"""By which the shell says that it wants words instead of a command; click looks for that name."""


def mountpoints(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Sequence[CompletionItem]:
    """Where volumes are mounted; directories where no such place begins so."""
    places = [str(mount.mountpoint) for mount in mounts() if mount.volume is not None]
    found = [CompletionItem(place) for place in places if place.startswith(incomplete)]
    return found or directories(_context, _parameter, incomplete)


def directories(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Sequence[CompletionItem]:
    """Any directory: the shell knows them."""
    return [CompletionItem(incomplete, type="dir")]


def volumes(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Sequence[CompletionItem]:
    """The volumes of this machine; none where their configuration cannot be read."""
    try:
        names = volume_names(Paths.from_environment(os.environ))
    except UserError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def volumes_and_mountpoints(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> Sequence[CompletionItem]:
    """Either of them."""
    return [*volumes(context, parameter, incomplete), *mountpoints(context, parameter, incomplete)]


@click.command(short_help="Print what makes a shell complete disfs commands.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, options, mountpoints and volumes.

    \b
    Examples:
        eval "$(disfs completion bash)"           # in ~/.bashrc
        eval "$(disfs completion zsh)"            # in ~/.zshrc, after compinit
        disfs completion fish > ~/.config/fish/completions/disfs.fish
    """
    found: Any = get_completion_class(shell)
    click.echo(found(context.find_root().command, {}, "disfs", VARIABLE).source())
