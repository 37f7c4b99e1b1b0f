"""From a volume's configuration to the Discord that it lives in: address, token, connection."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from disfs import local_emulator
from disfs.cli.secrets import ask_token, find_token
from disfs.errors import ExitCode, UserError

if TYPE_CHECKING:
    from pathlib import Path

    from disfs.config import GlobalConfig, Paths
    from disfs.values import GuildId

API_URL_VARIABLE = "DISFS_API_URL"


@dataclass(frozen=True, slots=True)
class Access:
    """Which Discord, and as whom."""

    token: str = field(repr=False)
    api_url: str | None = None
    """None: the real one."""
    guild: GuildId | None = None
    """The emulator's only guild; None elsewhere."""
    token_asked: bool = False
    """It was typed in, and is nowhere yet."""


def discord_access(config: GlobalConfig, *, token_file: Path | None, api_url: str | None) -> Access:
    """A Discord that somebody else runs. NO_TOKEN."""
    url = check_url(os.environ.get(API_URL_VARIABLE) or api_url or config.api_url)
    token = find_token(config, token_file)
    if token is None:
        return Access(ask_token(), url, token_asked=True)
    return Access(token, url)


def emulator_access(paths: Paths) -> Access:
    """The emulator of this machine, started if need be. EMULATOR_PORT_TAKEN, EMULATOR_NOT_RUNNING."""
    info = local_emulator.ensure_running(paths.emulator_state)
    return Access(info.token, info.api_url, info.guild)


def check_url(url: str | None) -> str | None:
    """Return the base address of an API if it can be one. CONFIG_INVALID."""
    if url is not None and not url.startswith(("http://", "https://")):
        raise UserError(
            f"the API address {url!r} is no http(s) address; correct {API_URL_VARIABLE} or api_url in config.toml",
            ExitCode.CONFIG_INVALID,
        )
    return url.rstrip("/") if url else None
