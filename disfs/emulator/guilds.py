"""Account, guild and channel routes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from disfs.emulator.call import json_response, parse_snowflake
from disfs.emulator.errors import ApiError, invalid_form, not_found, unknown_channel, unknown_guild
from disfs.emulator.model import CATEGORY, TEXT_CHANNEL, Channel
from disfs.emulator.permissions import Permission, require

if TYPE_CHECKING:
    from aiohttp import web

    from disfs.emulator.call import Call
    from disfs.emulator.world import World

CHANNELS_PER_GUILD = 500
CHANNELS_PER_CATEGORY = 50
NAME_CHARACTERS = 100
TOPIC_CHARACTERS = 1024


class AccountRoutes:
    """Who the token belongs to, and what is known without a guild."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def me(self, call: Call) -> web.Response:
        """GET /users/@me."""
        return json_response(self._world.renderer.me())

    async def application(self, call: Call) -> web.Response:
        """GET /oauth2/applications/@me."""
        return json_response(self._world.renderer.application())

    async def guilds(self, call: Call) -> web.Response:
        """GET /users/@me/guilds, honouring before and after as the paging of discord.py expects."""
        query = call.request.query
        ours = self._world.identity.guild
        after = parse_snowflake(query["after"], "after") if "after" in query else 0
        before = parse_snowflake(query["before"], "before") if "before" in query else ours + 1
        summary = self._world.renderer.guild_summary(with_counts=_flag(call, "with_counts"))
        is_listed = self._world.settings.in_guild and after < ours < before
        return json_response([summary] if is_listed else [])

    async def gateway(self, call: Call) -> web.Response:
        """GET /gateway; nothing listens there, for disfs uses REST alone."""
        return json_response({"url": "wss://gateway.invalid"})

    async def gateway_bot(self, call: Call) -> web.Response:
        """GET /gateway/bot."""
        start = {"max_concurrency": 1, "remaining": 1000, "reset_after": 0, "total": 1000}
        return json_response({"url": "wss://gateway.invalid", "session_start_limit": start, "shards": 1})

    async def unknown(self, call: Call) -> web.Response:
        """Any other path."""
        raise not_found()


class GuildRoutes:
    """The handlers below /guilds/{guild_id}."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def get(self, call: Call) -> web.Response:
        """GET the guild."""
        self._check_guild(call)
        return json_response(self._world.renderer.guild(with_counts=_flag(call, "with_counts")))

    async def roles(self, call: Call) -> web.Response:
        """GET its roles."""
        self._check_guild(call)
        return json_response(self._world.renderer.roles())

    async def member(self, call: Call) -> web.Response:
        """GET one member: the bot or the owner."""
        self._check_guild(call)
        user = call.snowflake("user_id")
        if user not in {self._world.identity.user, self._world.identity.owner}:
            raise ApiError(404, 10007, "Unknown Member")
        return json_response(self._world.renderer.member(user))

    async def channels(self, call: Call) -> web.Response:
        """GET its channels and categories."""
        self._check_guild(call)
        found = await self._world.channels.list_all()
        return json_response([self._world.renderer.channel(channel) for channel in found])

    async def create_channel(self, call: Call) -> web.Response:
        """POST a text channel or a category."""
        self._check_guild(call)
        payload = await call.json()
        require(self._world.settings, None, Permission.MANAGE_CHANNELS)
        kind = payload.get("type", TEXT_CHANNEL)
        if kind not in {TEXT_CHANNEL, CATEGORY}:
            raise invalid_form("type", "BASE_TYPE_CHOICES", "The emulator has text channels (0) and categories (4).")
        present = await self._world.channels.list_all()
        if len(present) >= CHANNELS_PER_GUILD:
            raise ApiError(400, 30013, "Maximum number of guild channels reached (500)")
        position = sum(channel.type == kind for channel in present)
        blank = Channel(self._world.snowflakes.next(), kind, "", None, None, position)
        if "name" not in payload:
            raise invalid_form("name", "BASE_TYPE_REQUIRED", "This field is required")
        channel = await apply_changes(self._world, blank, payload)
        await self._world.channels.put(channel)
        return json_response(self._world.renderer.channel(channel), 201)

    def _check_guild(self, call: Call) -> None:
        if call.snowflake("guild_id") != self._world.identity.guild or not self._world.settings.in_guild:
            raise unknown_guild()


class ChannelRoutes:
    """The handlers of /channels/{channel_id} itself."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def get(self, call: Call) -> web.Response:
        """GET a channel."""
        return json_response(self._world.renderer.channel(await self._channel(call)))

    async def edit(self, call: Call) -> web.Response:
        """PATCH name, topic, category, position."""
        before = await self._channel(call)
        require(self._world.settings, before.id, Permission.MANAGE_CHANNELS)
        channel = await apply_changes(self._world, before, await call.json())
        await self._world.channels.put(channel)
        return json_response(self._world.renderer.channel(channel))

    async def delete(self, call: Call) -> web.Response:
        """DELETE a channel with its messages."""
        channel = await self._channel(call)
        require(self._world.settings, channel.id, Permission.MANAGE_CHANNELS)
        await self._world.channels.delete(channel.id, self._world.clock.now_ms())
        return json_response(self._world.renderer.channel(channel))

    async def _channel(self, call: Call) -> Channel:
        channel = await self._world.channels.get(call.snowflake("channel_id"))
        if channel is None:
            raise unknown_channel()
        return channel


async def apply_changes(world: World, channel: Channel, payload: dict[str, Any]) -> Channel:
    """A channel with the changes that a request asks for. Raises `ApiError`."""
    changes: dict[str, Any] = {}
    if "name" in payload:
        changes["name"] = _name(payload["name"], channel.type)
    if "topic" in payload and channel.type == TEXT_CHANNEL:
        changes["topic"] = _topic(payload["topic"])
    if "parent_id" in payload:
        changes["parent"] = await _parent(world, channel, payload["parent_id"])
    if isinstance(payload.get("position"), int):
        changes["position"] = payload["position"]
    if isinstance(payload.get("nsfw"), bool):
        changes["nsfw"] = payload["nsfw"]
    if isinstance(payload.get("rate_limit_per_user"), int):
        changes["slowmode"] = payload["rate_limit_per_user"]
    return dataclasses.replace(channel, **changes)


def _name(name: Any, kind: int) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_CHARACTERS:
        raise invalid_form("name", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
    return name.lower().replace(" ", "-") if kind == TEXT_CHANNEL else name


def _topic(topic: Any) -> str | None:
    if topic is not None and (not isinstance(topic, str) or len(topic) > TOPIC_CHARACTERS):
        raise invalid_form("topic", "BASE_TYPE_MAX_LENGTH", "Must be 1024 or fewer in length.")
    return topic or None


async def _parent(world: World, channel: Channel, parent: Any) -> int | None:
    if parent is None:
        return None
    wanted = parse_snowflake(parent, "parent_id")
    category = await world.channels.get(wanted)
    if category is None or category.type != CATEGORY or channel.type == CATEGORY:
        raise invalid_form("parent_id", "CHANNEL_PARENT_INVALID_TYPE", "Not a category")
    siblings = [other for other in await world.channels.list_all() if other.parent == wanted and other.id != channel.id]
    if len(siblings) >= CHANNELS_PER_CATEGORY:
        raise invalid_form(
            "parent_id", "CHANNEL_PARENT_MAX_CHANNELS", "Maximum number of channels in category reached (50)"
        )
    return wanted


def _flag(call: Call, name: str) -> bool:
    return call.request.query.get(name, "").lower() in {"true", "1"}
