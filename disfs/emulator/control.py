"""The control API: settings, faults, counters, clock, shutdown, while the emulator runs.

Its path holds a secret of the data directory, for other users of the machine reach the loopback interface too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from disfs.emulator.faults import Fault, InvalidFaultError
from disfs.emulator.model import Message
from disfs.emulator.settings import InvalidSettingError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from disfs.emulator.counters import Counters
    from disfs.emulator.faults import FaultPlan
    from disfs.emulator.ratelimit import RateLimiter
    from disfs.emulator.world import World


class BadRequestError(ValueError):
    """The body is not what the path wants."""


class Control:
    """Handlers below the control path; replies and bodies are JSON."""

    def __init__(
        self, world: World, faults: FaultPlan, counters: Counters, limiter: RateLimiter, stop: asyncio.Event
    ) -> None:
        self._world = world
        self._faults = faults
        self._counters = counters
        self._limiter = limiter
        self._stop = stop

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """What the application serves."""
        table: list[tuple[str, str, Callable[[Any], Awaitable[Any]]]] = [
            ("GET", "/settings", self._get_settings),
            ("PATCH", "/settings", self._patch_settings),
            ("GET", "/faults", self._get_faults),
            ("POST", "/faults", self._post_fault),
            ("DELETE", "/faults", self._clear_faults),
            ("GET", "/counters", self._get_counters),
            ("DELETE", "/counters", self._reset_counters),
            ("GET", "/clock", self._get_clock),
            ("POST", "/clock", self._shift_clock),
            ("DELETE", "/limits", self._forget_limits),
            ("POST", "/messages", self._plant_message),
            ("POST", "/purge", self._purge),
            ("POST", "/shutdown", self._shutdown),
        ]
        routes = [web.route(method, prefix + path, _wrap(handler)) for method, path, handler in table]
        routes.append(web.delete(prefix + "/faults/{number:[0-9]+}", self._remove_fault))
        return routes

    async def _get_settings(self, body: Any) -> Any:
        return self._world.settings.as_json()

    async def _patch_settings(self, body: Any) -> Any:
        if not isinstance(body, dict):
            raise BadRequestError("settings are an object")
        self._world.settings.update(body)
        if "fsync" in body:
            await self._world.database.set_fsync(self._world.settings.fsync)
        return self._world.settings.as_json()

    async def _get_faults(self, body: Any) -> Any:
        return list(self._faults.as_json())

    async def _post_fault(self, body: Any) -> Any:
        return {"id": self._faults.add(Fault.from_json(body))}

    async def _clear_faults(self, body: Any) -> Any:
        self._faults.clear()
        return []

    async def _remove_fault(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        return web.json_response({"id": number}, status=200 if self._faults.remove(number) else 404)

    async def _get_counters(self, body: Any) -> Any:
        messages, attachments, stored_bytes = await self._world.messages.totals()
        stored = {"messages": messages, "attachments": attachments, "attachment_bytes": stored_bytes}
        return self._counters.as_json() | stored

    async def _reset_counters(self, body: Any) -> Any:
        self._counters.reset()
        return await self._get_counters(None)

    async def _get_clock(self, body: Any) -> Any:
        return {"now": self._world.clock.now(), "shift_seconds": self._world.clock.shift_seconds}

    async def _shift_clock(self, body: Any) -> Any:
        seconds = body.get("seconds") if isinstance(body, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise BadRequestError("seconds is a number")
        await self._world.shift_clock(seconds)
        return await self._get_clock(None)

    async def _forget_limits(self, body: Any) -> Any:
        self._limiter.forget()
        return {}

    async def _plant_message(self, body: Any) -> Any:
        """A message of another author, as if a person had written into the channel."""
        try:
            channel, content = int(body["channel_id"]), str(body["content"])
        except (TypeError, KeyError, ValueError) as error:
            raise BadRequestError("a planted message needs channel_id and content") from error
        message = self._world.snowflakes.next()
        author = self._world.identity.owner
        planted = Message(message, channel, author, content, 0, None, None, None, ())
        await self._world.messages.add(planted, nonce_since=None)
        return {"id": str(message)}

    async def _purge(self, body: Any) -> Any:
        await self._world.purge()
        return {}

    async def _shutdown(self, body: Any) -> Any:
        self._stop.set()
        return {}


def _wrap(handler: Callable[[Any], Awaitable[Any]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read() or b"null")
            return web.json_response(await handler(body))
        except (InvalidSettingError, InvalidFaultError, BadRequestError, json.JSONDecodeError) as error:
            return web.json_response({"error": str(error)}, status=400)

    return handle
