"""The one place where a connection to Discord is put together, wrapper upon wrapper."""

from __future__ import annotations

import functools
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from disfs.chunkstore.transport.bridge import Bridge
from disfs.chunkstore.transport.discord import DiscordAdmin, DiscordTransport
from disfs.chunkstore.transport.limits import LimitedTransport, Limits
from disfs.chunkstore.transport.retry import Retries, RetryingTransport
from disfs.chunkstore.transport.service import open_service
from disfs.chunkstore.transport.urls import UrlCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from disfs.chunkstore.transport.base import GuildAdmin, Transport

DISCORD_API_URL = "https://discord.com/api/v10"
_API_PATH = "/api/v10"


@dataclass(frozen=True, slots=True)
class Connection:
    """What a volume needs of Discord."""

    transport: Transport
    admin: GuildAdmin


@asynccontextmanager
async def open_connection(
    token: str,
    api_url: str | None = None,
    *,
    limits: Limits = Limits(),  # noqa: B008 - a frozen value, safe to share
    retries: Retries = Retries(),  # noqa: B008 - a frozen value, safe to share
) -> AsyncIterator[Connection]:
    """Open a bot's connection to Discord, or to another server that speaks its API at `api_url`.

    Opening makes no request and cannot fail for the network: while Discord is not there, calls raise
    `TransientStorageError`, and a wrong token is `TokenRejectedError` from the first call on. `transport` waits and
    tries again as `limits` and `retries` say; `admin` tries once, for its callers are people who want to know.
    """
    service = functools.partial(open_service, token.strip(), with_api_path(api_url or DISCORD_API_URL), UrlCache())
    async with Bridge(service) as bridge:
        transport = RetryingTransport(LimitedTransport(DiscordTransport(bridge), limits), retries)
        yield Connection(transport, DiscordAdmin(bridge))


def with_api_path(url: str) -> str:
    """The URL as given, with /api/v10 added when it has no path of its own."""
    url = url.rstrip("/")
    return url if urlsplit(url).path else url + _API_PATH
