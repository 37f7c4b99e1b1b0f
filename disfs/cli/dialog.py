"""How a person at a terminal is told and asked things; all of it on stderr, so that it gets into no pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from disfs.cli.exits import explain
from disfs.logs import redact

if TYPE_CHECKING:
    from collections.abc import Sequence


def title(text: str) -> None:
    """Begin a step."""
    click.echo(err=True)
    click.secho(text, bold=True, err=True)


def say(text: str) -> None:
    """Some lines of explanation, indented."""
    for line in text.splitlines():
        click.echo(f"  {line}".rstrip(), err=True)


def passed(text: str) -> None:
    """Something was checked, and is as it should be."""
    click.echo(f"  {click.style('ok', fg='green')}  {text}", err=True)


def failed(error: Exception) -> None:
    """Something was checked, and is not; what to do is part of what is said. Secrets are taken out."""
    click.echo(f"  {click.style('!', fg='red')}   {redact(' '.join(str(explain(error)).split()))}", err=True)


def choose(question: str, options: Sequence[str], default: int = 1) -> int:
    """Show numbered options and return the number of the one that was chosen, from 1."""
    for number, option in enumerate(options, 1):
        click.echo(f"  {number}  {option}", err=True)
    chosen: int = click.prompt(f"  {question}", type=click.IntRange(1, len(options)), default=default, err=True)
    return chosen


def agree(question: str, *, default: bool = True) -> bool:
    """A question that is answered by yes or no."""
    return click.confirm(f"  {question}", default=default, err=True)


def ask(question: str, default: str | None = None) -> str:
    """A line of text."""
    answer: str = click.prompt(f"  {question}", default=default, err=True)
    return answer.strip()


def ask_hidden(question: str) -> str:
    """A line of text that is not shown while it is typed."""
    answer: str = click.prompt(f"  {question} (not shown)", hide_input=True, err=True)
    return answer


def wait_for_enter(what_for: str) -> None:
    """Return once Enter was pressed."""
    click.prompt(f"  Press Enter {what_for}", default="", show_default=False, prompt_suffix=" ", err=True)
