"""Where the bot token and the passphrase come from. Never from an option's value: process lists show those."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from disfs.errors import ExitCode, UserError
from disfs.private_files import read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from disfs.config import GlobalConfig

TOKEN_VARIABLE = "DISFS_TOKEN"  # noqa: S105  # the variable's name, not a token
PASSPHRASE_VARIABLE = "DISFS_PASSPHRASE"  # noqa: S105  # the variable's name, not a passphrase


def interactive() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def find_token(
    config: GlobalConfig, token_file: Path | None, environment: Mapping[str, str] = os.environ
) -> str | None:
    """The bot token from DISFS_TOKEN, `token_file` or config.toml, in this order; None when none of them has one."""
    raw = environment.get(TOKEN_VARIABLE)
    if not raw and token_file is not None:
        raw = read_secret(token_file, "bot token", ExitCode.NO_TOKEN)
    if not raw:
        raw = config.token
    if not raw and config.token_file is not None:
        raw = read_secret(config.token_file, "bot token", ExitCode.NO_TOKEN)
    return clean_token(raw) if raw else None


def ask_token() -> str:
    """Ask for the bot token with echo off. NO_TOKEN when nobody is there."""
    if not interactive():
        raise UserError(
            f"there is no bot token; set {TOKEN_VARIABLE}, or name a file with --token-file", ExitCode.NO_TOKEN
        )
    return clean_token(click.prompt("Bot token", hide_input=True, err=True))


def clean_token(raw: str) -> str:
    """The token itself, without what people copy along with it. NO_TOKEN when it cannot be one."""
    token = raw.strip().removeprefix("Bot ").strip()
    if not token or not token.isascii() or any(char.isspace() or not char.isprintable() for char in token):
        raise UserError(
            "the bot token is empty or holds characters that no token has; copy it again from the Developer Portal",
            ExitCode.NO_TOKEN,
        )
    return token


def find_passphrase(passphrase_file: Path | None) -> str | None:
    """The passphrase from DISFS_PASSPHRASE or a file, in this order; None when neither has one."""
    passphrase = os.environ.get(PASSPHRASE_VARIABLE)
    if not passphrase and passphrase_file is not None:
        passphrase = read_secret(passphrase_file, "passphrase", ExitCode.NO_PASSPHRASE)
    return passphrase or None


def ask_passphrase(volume: str, *, confirm: bool, what: str = "Passphrase", instead: str | None = None) -> str:
    """Ask for the passphrase with echo off, twice for a new one. NO_PASSPHRASE when nobody is there.

    `instead` says where else it may come from.
    """
    if not interactive():
        instead = instead or f"set {PASSPHRASE_VARIABLE}, or name a file with --passphrase-file"
        raise UserError(f"no {what.lower()} for volume {volume!r}; {instead}", ExitCode.NO_PASSPHRASE)
    passphrase: str = click.prompt(f"{what} of volume {volume}", hide_input=True, confirmation_prompt=confirm, err=True)
    return passphrase
