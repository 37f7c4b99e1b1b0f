"""Worlds for the contract suite: what is tested, on what."""

from __future__ import annotations

import urllib.request
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from transport.contract import World

from disfs.chunkstore.transport.bridge import Bridge
from disfs.chunkstore.transport.discord import DiscordAdmin, DiscordTransport
from disfs.chunkstore.transport.one_by_one import OneByOneTransport
from disfs.chunkstore.transport.refresh import RefreshingTransport
from disfs.chunkstore.transport.service import open_service
from disfs.chunkstore.transport.urls import UrlCache
from disfs.values import GuildId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from support.emulator import Emulator

    from disfs.chunkstore.transport.base import GuildAdmin, Transport
    from disfs.chunkstore.transport.bridge import Publish
    from disfs.values import ChannelId

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def remove_channel(emulator: Emulator, channel: ChannelId) -> None:
    """Delete a channel as its owner would: behind our back."""
    request = urllib.request.Request(
        f"{emulator.api_url}/channels/{channel}",
        method="DELETE",
        headers={"Authorization": f"Bot {emulator.token}", "User-Agent": "DiscordBot (tests, 1)"},
    )
    with _OPENER.open(request, timeout=10):
        pass


async def world_of(emulator: Emulator, transport: Transport, admin: GuildAdmin) -> World:
    """A world with a channel of its own."""
    guild = GuildId(emulator.guild_id)
    category = await admin.create_category(guild, "contract")
    made = await admin.create_channel(guild, "data", parent=category.channel, topic="")
    return World(
        transport,
        admin,
        guild,
        made.channel,
        lambda limit: void(emulator.settings(attachment_limit_bytes=limit)),
        lambda channel: remove_channel(emulator, channel),
    )


def void(_: object) -> None:
    """Nothing, from anything."""


def make_bridge(emulator: Emulator, *, token: str | None = None, api_url: str | None = None) -> Bridge:
    """A bridge to a service that talks to the emulator, with little margin for URLs that live for seconds."""

    def opened(publish: Publish) -> AbstractAsyncContextManager[object]:
        return open_service(token or emulator.token, api_url or emulator.api_url, UrlCache(margin_seconds=1), publish)

    return Bridge(opened)


def unlimited(bridge: Bridge) -> Transport:
    """The Discord transport with what makes it one, and with neither limits nor retries."""
    return OneByOneTransport(RefreshingTransport(DiscordTransport(bridge)))


@asynccontextmanager
async def bare_world(emulator: Emulator) -> AsyncIterator[World]:
    """A connection without limits and retries."""
    async with make_bridge(emulator) as bridge:
        yield await world_of(emulator, unlimited(bridge), DiscordAdmin(bridge))
