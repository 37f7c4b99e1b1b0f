"""The documentation as tests see it: its pages, the blocks of commands in them, and every `disfs` command they name."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click

from disfs.mount_options import parse_options

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)
_INDENTED = re.compile(r"^ {4,}(?:\$ )?((?:\S*/)?disfs .*)$", re.MULTILINE)
_SPAN = re.compile(r"(ASCII )?`([^`]+)`")  # ASCII `disfs pack key v1` is text that goes into a hash
_PROGRAM = re.compile(r"(?:^|[/ (])disfs (?=[\w-])")
_NO_COMMANDS = ("disfs key file, version 1",)
"""Texts of the stored formats that only look like one."""
_SEPARATORS = re.compile(r"\)\"?$|\s(?:\||\|\||&&|&|>+|2>+|<|#)\s.*|;.*")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, and its text."""

    page: Path
    language: str
    text: str

    @property
    def begin(self) -> str:
        """Its first line, which names it in lists."""
        return self.text.partition("\n")[0].strip()


def name_of(page: Path) -> str:
    """The path below the checkout."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order; what is indented as a whole is shown without that."""
    found = []
    for indent, language, text in _FENCE.findall(page.read_text()):
        found.append(Block(page, language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)))
    return found


def typed(block: Block) -> list[tuple[str, str]]:
    """The commands of a block and what is shown below each: `console` has prompts, `sh` is commands alone."""
    if block.language == "sh":
        return [(line, "") for line in block.text.splitlines() if line and not line.startswith("#")]
    pieces = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert pieces[0] == "", f"{name_of(block.page)}: a console block begins with a command, not with {block.begin!r}"
    return [(command, shown) for command, _, shown in (piece.partition("\n") for piece in pieces[1:])]


def command_lines(page: Path) -> list[str]:
    """Every `disfs ...` that a page shows, in blocks, in tables and in sentences, from `disfs` on."""
    text = page.read_text()
    lines = [line for block in blocks(page) if block.language in ("sh", "console") for line, _ in typed(block)]
    lines += _INDENTED.findall(_FENCE.sub("", text))
    lines += [
        " ".join(span.split()).replace(r"\|", "|")
        for literal, span in _SPAN.findall(_FENCE.sub("", text))
        if not literal and span not in _NO_COMMANDS
    ]
    return [f"disfs {_SEPARATORS.sub('', line[m.end() :])}" for line in lines for m in _PROGRAM.finditer(line)]


def complaints(command: click.Command, line: str) -> list[str]:
    """What is wrong with a command line or a synopsis: a command, an option or a mount option that does not exist."""
    words = shlex.split(re.sub(r"[\[\]]|\.\.\.", "", line))[1:]
    context = click.Context(command)
    while words:
        word, *words = words
        if word.startswith("-") and len(word) > 1:
            option = find_option(command, context, word.partition("=")[0])
            if option is None:
                return [f"{command.name} has no option {word}"]
            if words and "=" not in word and not option.is_flag and not option.count:
                value, *words = words
                wrong = _mount_options(value) if "-o" in option.opts else []
                if wrong:
                    return wrong
        elif isinstance(command, click.Group):
            if word.isupper():  # `disfs COMMAND --help`
                return []
            inner = command.get_command(context, word.rstrip(",.:"))
            if inner is None:
                return [f"{command.name} has no command {word}"]
            command = inner
    return []


def find_option(command: click.Command, context: click.Context, word: str) -> click.Option | None:
    """The option of a command that is written so."""
    options = [parameter for parameter in command.get_params(context) if isinstance(parameter, click.Option)]
    return next((option for option in options if word in (*option.opts, *option.secondary_opts)), None)


def _mount_options(value: str) -> list[str]:
    words = [word for word in value.split(",") if not re.search(r"[A-Z]{3}", word)]  # SIZE stands for any size
    try:
        parse_options(tuple(words))
    except Exception as error:
        return [f"-o {value}: {error}"]
    return []


def all_commands(command: click.Command, prefix: str = "disfs") -> list[str]:
    """The full name of every command that is not hidden."""
    if not isinstance(command, click.Group):
        return [prefix]
    context = click.Context(command)
    found = []
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        if inner is not None and not inner.hidden:
            found += all_commands(inner, f"{prefix} {name}")
    return found
