"""Puts the emulator together: routes, server, background purge, orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from disfs.emulator.call import READ_BUFFER_BYTES
from disfs.emulator.cdn import CdnRoutes
from disfs.emulator.control import Control
from disfs.emulator.counters import Counters
from disfs.emulator.faults import FaultPlan
from disfs.emulator.guilds import AccountRoutes, ChannelRoutes, GuildRoutes
from disfs.emulator.messages import MessageRoutes
from disfs.emulator.pipeline import API, CDN, Pipeline, Route
from disfs.emulator.ratelimit import RateLimiter
from disfs.emulator.shaping import Shaper
from disfs.emulator.world import open_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from disfs.emulator.pipeline import Handler
    from disfs.emulator.settings import Settings
    from disfs.emulator.world import World

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
API_PREFIX = "/api/v10"
PURGE_SECONDS = 5.0
STOP_SECONDS = 1.0
"""How long requests in progress may take to end once the emulator is to stop."""


@dataclass(frozen=True, slots=True)
class Running:
    """A listening emulator."""

    world: World
    api_url: str
    control_url: str
    stop: asyncio.Event


@contextlib.asynccontextmanager
async def run_emulator(directory: Path, token: str, port: int, settings: Settings) -> AsyncIterator[Running]:
    """Listen on the loopback interface while the block runs.

    Raises `OSError` when the port is taken or the directory unusable, and `aiosqlite.Error`.
    """
    world = await open_world(directory, settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(world.database.close)
        stop = asyncio.Event()
        pipeline, application, control_path = _compose(world, token, stop)
        runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=STOP_SECONDS, read_bufsize=READ_BUFFER_BYTES
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(pipeline.stopping.set)
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        base = f"http://{HOST}:{runner.addresses[0][1]}"
        world.signer.base = base
        purging = asyncio.create_task(_purge_for_ever(world))
        stack.push_async_callback(_cancelled, purging)
        yield Running(world, base + API_PREFIX, base + control_path, stop)


def _compose(world: World, token: str, stop: asyncio.Event) -> tuple[Pipeline, web.Application, str]:
    limiter = RateLimiter(world.settings, world.clock)
    faults = FaultPlan()
    counters = Counters()
    pipeline = Pipeline(world.settings, limiter, faults, Shaper(world.settings), counters, token)
    application = web.Application()
    control_path = f"/control/{secrets.token_urlsafe(16)}"
    application.add_routes(Control(world, faults, counters, limiter, stop).routes(control_path))
    for method, path, name, handler in _api_table(world):
        application.router.add_route(method, API_PREFIX + path, pipeline.wrap(Route(name, API, handler)))
    attachment = "/attachments/{channel_id}/{attachment_id}/{filename}"
    application.router.add_get(attachment, pipeline.wrap(Route("cdn_get", CDN, CdnRoutes(world).get)))
    unknown = Route("unknown", API, AccountRoutes(world).unknown)
    application.router.add_route("*", "/api/{path:.*}", pipeline.wrap(unknown))
    return pipeline, application, control_path


def _api_table(world: World) -> list[tuple[str, str, str, Handler]]:
    """Method, path, name for limits and faults, handler."""
    account, guilds, channels = AccountRoutes(world), GuildRoutes(world), ChannelRoutes(world)
    messages = MessageRoutes(world)
    guild, channel = "/guilds/{guild_id}", "/channels/{channel_id}"
    message = channel + "/messages/{message_id}"
    return [
        ("GET", "/users/@me", "get_me", account.me),
        ("GET", "/users/@me/guilds", "list_guilds", account.guilds),
        ("GET", "/oauth2/applications/@me", "get_application", account.application),
        ("GET", "/gateway", "get_gateway", account.gateway),
        ("GET", "/gateway/bot", "get_gateway_bot", account.gateway_bot),
        ("GET", guild, "get_guild", guilds.get),
        ("GET", guild + "/roles", "list_roles", guilds.roles),
        ("GET", guild + "/members/{user_id}", "get_member", guilds.member),
        ("GET", guild + "/channels", "list_channels", guilds.channels),
        ("POST", guild + "/channels", "create_channel", guilds.create_channel),
        ("GET", channel, "get_channel", channels.get),
        ("PATCH", channel, "edit_channel", channels.edit),
        ("DELETE", channel, "delete_channel", channels.delete),
        ("GET", channel + "/messages", "list_messages", messages.list_messages),
        ("POST", channel + "/messages", "create_message", messages.create),
        ("POST", channel + "/messages/bulk-delete", "bulk_delete", messages.bulk_delete),
        ("GET", message, "get_message", messages.get),
        ("PATCH", message, "edit_message", messages.edit),
        ("DELETE", message, "delete_message", messages.delete),
    ]


async def _purge_for_ever(world: World) -> None:
    while True:
        await asyncio.sleep(PURGE_SECONDS)
        try:
            await world.purge()
        except OSError:
            log.exception("Cannot free the space of deleted attachments; trying again later")


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
