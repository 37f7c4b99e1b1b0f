"""The one place where a connection to Discord is put together, wrapper upon wrapper."""

from __future__ import annotations

import functools
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from disfs.chunkstore.transport.bridge import Bridge
from disfs.chunkstore.transport.discord import DiscordAdmin, DiscordTransport
from disfs.chunkstore.transport.limits import LimitedTransport, Limits
from disfs.chunkstore.transport.one_by_one import OneByOneTransport
from disfs.chunkstore.transport.refresh import RefreshingTransport
from disfs.chunkstore.transport.retry import Retries, RetryingTransport, RetryPolicy
from disfs.chunkstore.transport.routes import Observation
from disfs.chunkstore.transport.service import open_service
from disfs.chunkstore.transport.taken import Taken, TakenBytes
from disfs.chunkstore.transport.urls import UrlCache, UrlEnding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from disfs.chunkstore.transport.base import GuildAdmin, Transport

DISCORD_API_URL = "https://discord.com/api/v10"
_API_PATH = "/api/v10"


@dataclass(frozen=True, slots=True)
class Connection:
    """What a volume needs of Discord."""

    transport: Transport
    admin: GuildAdmin
    limit_bandwidth: Callable[[float | None, float | None], None]
    """`limit_bandwidth(up_bytes_per_second, down_bytes_per_second)`, None for no limit: holds from now on for all
    uploads and all downloads together, those that run included. To be called from trio at any time; never waits."""
    sending_once: Transport
    """As `transport`, but a send that fails is not repeated: for whoever has to look first whether it still may be."""
    taken_bytes: Callable[[str], int] = lambda nonce: 0
    """How much of the attachments of the send with that nonce the network has taken so far; 0 for one that is over."""


@asynccontextmanager
async def open_connection(
    token: str,
    api_url: str | None = None,
    *,
    limits: Limits = Limits(),  # noqa: B008 - a frozen value, safe to share
    retries: Retries = Retries(),  # noqa: B008 - a frozen value, safe to share
    urls: UrlCache | None = None,
) -> AsyncIterator[Connection]:
    """Open a bot's connection to Discord, or to another server that speaks its API at `api_url`.

    Opening makes no request and cannot fail for the network: while Discord is not there, calls raise
    `TransientStorageError`, and a wrong token is `TokenRejectedError` from the first call on. `transport` waits and
    tries again as `limits` and `retries` say; `admin` tries once, for its callers are people who want to know.
    """
    remembered = UrlCache() if urls is None else urls  # an empty one is false
    service = functools.partial(open_service, token.strip(), with_api_path(api_url or DISCORD_API_URL), remembered)
    async with Bridge(service) as bridge:
        limited = LimitedTransport(DiscordTransport(bridge), limits)
        bridge.listen(Observation, limited.observe)
        refreshing = RefreshingTransport(limited)
        bridge.listen(UrlEnding, refreshing.note_ending)
        taken = TakenBytes()
        bridge.listen(Taken, taken.note)
        transport = OneByOneTransport(RetryingTransport(refreshing, retries))
        once = replace(retries, sends=RetryPolicy(attempts=1))
        async with running_beside(refreshing.run):
            yield Connection(
                transport,
                DiscordAdmin(bridge),
                functools.partial(bridge.tell, "limit_bandwidth"),
                OneByOneTransport(RetryingTransport(refreshing, once)),
                taken.of,
            )


@asynccontextmanager
async def running_beside(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Let `work` run beside the block and cancel it at the end.

    What the block raises goes on as it is: a group around it, as a nursery makes, would hide our errors from the
    callers' `except`.
    """
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        try:
            yield
        except BaseException as error:  # raised again below, whatever it is
            raised = error
        nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised


def with_api_path(url: str) -> str:
    """The URL as given, with /api/v10 added when it has no path of its own."""
    url = url.rstrip("/")
    return url if urlsplit(url).path else url + _API_PATH
