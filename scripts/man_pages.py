"""Writes the manual pages of all commands from what the commands say of themselves: python -m scripts.man_pages

The pages lie in docs/man and are installed with the program; a test says when one is out of date. mount.disfs(8) is
written by hand. No date and no version in them: they change when the commands do.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from disfs.cli.commands import disfs

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = Path(__file__).resolve().parent.parent / "docs" / "man" / "man1"
_FILES = """\
.SH FILES
.TP
.I ~/.config/disfs
Configuration and secrets: config.toml, and a file for each volume.
.TP
.I ~/.local/state/disfs
Metadata, cache, control sockets and logs. Until everything is in Discord the cache holds the only copy of what is not.
.SH ENVIRONMENT
.TP
.B DISFS_HOME
A directory for all of the above: its config, state and cache.
.TP
.BR DISFS_TOKEN ", " DISFS_PASSPHRASE
The secrets; files and a prompt are the other ways.
.TP
.B DISFS_API_URL
Another server that speaks Discord's API.
"""


def pages() -> dict[str, str]:
    """The text of every page by its file name."""
    context = click.Context(disfs, info_name="disfs", help_option_names=["-h", "--help"])
    made = {"disfs.1": _page(context, disfs)}
    for name, command in disfs.commands.items():
        below = click.Context(command, info_name=name, parent=context)
        made[f"disfs-{name}.1"] = _page(below, command)
    return made


def _page(context: click.Context, command: click.Command) -> str:
    path = context.command_path
    title = path.replace(" ", "-")
    lines = [
        '.\\" Made by scripts/man_pages.py of what the command says of itself; do not edit.',
        f'.TH {title.upper()} 1 "" "disfs" "disfs"',
        ".SH NAME",
        rf"{_text(title)} \- {_text(_lowered(command.get_short_help_str(200)))}",
        ".SH SYNOPSIS",
        rf"\fB{_text(path)}\fR {_text(' '.join(command.collect_usage_pieces(context)))}",
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
        *_options(context, command),
    ]
    if isinstance(command, click.Group):
        lines += _commands(context, command)
    if context.parent is None:
        lines.append(_FILES.rstrip("\n"))
    lines += [".SH SEE ALSO", *_see_also(context)]
    return "\n".join(lines) + "\n"


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _commands(context: click.Context, group: click.Group) -> Iterator[str]:
    """The commands of a group: with pages of their own below `disfs`, with their options elsewhere."""
    yield ".SH COMMANDS"
    for name, command in group.commands.items():
        below = click.Context(command, info_name=name, parent=context)
        if context.parent is None:
            yield from (".TP", rf"\fBdisfs\-{_text(name)}\fR(1)", _text(command.get_short_help_str(200)))
            continue
        yield f'.SS "{_text(" ".join([below.command_path, *command.collect_usage_pieces(below)]))}"'
        yield from _paragraphs(command.help or "")
        yield from _records(below, command)


def _options(context: click.Context, command: click.Command) -> Iterator[str]:
    records = list(_records(context, command))
    if records:
        yield from (".SH OPTIONS", *records)


def _records(context: click.Context, command: click.Command) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield from (".TP", rf"\fB{_text(record[0])}\fR", _text(record[1]))


def _paragraphs(text: str) -> Iterator[str]:
    """click's help as roff: what follows a backspace stands as it is."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(text))):
        if paragraph.startswith("\b\n"):
            yield from (".PP", ".nf", *map(_text, paragraph.removeprefix("\b\n").splitlines()), ".fi")
        else:
            yield from ([".PP"] if number else [])
            yield _text(" ".join(paragraph.split()))


def _see_also(context: click.Context) -> Iterator[str]:
    others = ["mount.disfs(8)", "fusermount3(1)"]
    named = others if context.parent is None else ["disfs(1)", *others]
    yield ", ".join(rf"\fB{_text(name.partition('(')[0])}\fR({name.partition('(')[2]}" for name in named)


def _text(line: str) -> str:
    """A line that roff prints as it is."""
    escaped = (
        line.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("~", r"\(ti").replace("^", r"\(ha")
    )
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main() -> None:
    """Write them, and take away what no command has any more."""
    made = pages()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for old in DIRECTORY.glob("*.1"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (DIRECTORY / name).write_text(text)


if __name__ == "__main__":
    main()
