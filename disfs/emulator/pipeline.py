"""The way of every request: count, delay, block, authorize, limit, fail on purpose, answer, add headers."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import aiosqlite
from aiohttp import web

from disfs.emulator.call import Call, ConnectionCutError, cut_connection, json_response, stall
from disfs.emulator.cdn import GONE
from disfs.emulator.errors import ApiError, server_error, unauthorized
from disfs.emulator.faults import ANSWERING_KINDS, CONNECTION_KINDS, STATUS_KINDS

if TYPE_CHECKING:
    from disfs.emulator.counters import Counters
    from disfs.emulator.faults import Fault, FaultPlan
    from disfs.emulator.ratelimit import RateLimiter, Verdict
    from disfs.emulator.settings import Settings
    from disfs.emulator.shaping import Shaper

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Call], Awaitable[web.StreamResponse]]

API = "api"
CDN = "cdn"
TEXT_STATUS = {
    502: "502 Bad Gateway",
    503: "503 Service Unavailable",
    504: "504 Gateway Timeout",
    520: "error code: 520",
    521: "error code: 521",
    522: "error code: 522",
    523: "error code: 523",
    524: "error code: 524",
}
"""Proxies answer these, in text; every other status of a fault is JSON."""


@dataclass(frozen=True, slots=True)
class Route:
    """A name for counters, limits and faults; `group` is `api` or `cdn`."""

    name: str
    group: str
    handler: Handler


class Pipeline:
    """Wraps the handlers of all routes."""

    def __init__(
        self,
        settings: Settings,
        limiter: RateLimiter,
        faults: FaultPlan,
        shaper: Shaper,
        counters: Counters,
        token: str,
    ) -> None:
        self._settings = settings
        self._limiter = limiter
        self._faults = faults
        self._shaper = shaper
        self._counters = counters
        self._authorization = f"Bot {token}".encode()
        self.stopping = asyncio.Event()

    def wrap(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """What aiohttp calls for a route."""

        async def handle(request: web.Request) -> web.StreamResponse:
            self._counters.requests[route.name] += 1
            call = Call(request, self._shaper, self._counters)
            try:
                response = await self._answer(route, call)
            except ConnectionCutError as cut:
                self._counters.answered(route.name, 0)
                log.debug("%s: %s", route.name, cut.kind)
                await cut_connection(request, cut, self.stopping)
                return web.Response(status=500)  # never sent: the connection is gone
            except ConnectionError:
                self._counters.answered(route.name, 0)
                log.debug("%s: the client went away", route.name)
                return web.Response(status=500)  # never sent, as above
            self._counters.answered(route.name, response.status)
            log.debug("%s: %d", route.name, response.status)
            return response

        return handle

    async def _answer(self, route: Route, call: Call) -> web.StreamResponse:
        try:
            response = await self._checked(route, call)
        except ApiError as error:
            await call.drain()
            response = json_response(error.body(), error.status)
        except ConnectionError:
            raise
        except (OSError, aiosqlite.Error):
            log.exception("%s failed", route.name)
            await call.drain()
            response = json_response(server_error().body(), 500)
        if not response.prepared:
            self._add_headers(route, call, response)
        return response

    async def _checked(self, route: Route, call: Call) -> web.StreamResponse:
        await self._shaper.latency()
        if route.group == API:
            refusal = self._refusal(route, call)
            if refusal is not None:
                await call.drain()
                return refusal
        call.fault = self._faults.pick(route.name, route.group, call.request.match_info.get("channel_id"))
        if call.fault is not None and call.fault.when == "before":
            if call.fault.kind in ANSWERING_KINDS:
                await call.drain()
            replacement = await self._replacement(route, call, call.fault)
            if replacement is not None:
                return replacement
        response = await route.handler(call)
        if call.fault is not None and call.fault.when == "after":
            return await self._replacement(route, call, call.fault) or response
        return response

    def _refusal(self, route: Route, call: Call) -> web.Response | None:
        """Why an API request gets no further, if so. Raises `ApiError`."""
        if (blocked := self._limiter.blocked_seconds()) > 0:
            return _cloudflare(blocked)
        request = call.request
        sent = request.headers.get("Authorization", "").encode()
        if self._settings.token_revoked or not hmac.compare_digest(sent, self._authorization):
            raise unauthorized()
        if not request.headers.get("User-Agent", "").startswith("DiscordBot ("):
            raise ApiError(403, 40333, "internal network error")
        place = request.match_info.get("channel_id") or request.match_info.get("guild_id") or ""
        verdict = self._limiter.check(route.name, place, _message_id(request))
        if verdict is None:
            return None
        if not verdict.allowed:
            return _rate_limited(verdict)
        if verdict.scope != "global":
            call.headers.update(verdict.headers())
        return None

    async def _replacement(self, route: Route, call: Call, fault: Fault) -> web.Response | None:
        """The answer that a fault puts in the place of the real one; None when it only changes the real one."""
        if fault.kind in CONNECTION_KINDS:
            raise ConnectionCutError(fault.kind, fault.seconds)
        if fault.kind == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind == "delay":
            await stall(call.request, fault.seconds, self.stopping)
            return None
        if fault.kind == "cloudflare":
            return _cloudflare(fault.retry_after)
        if fault.kind == "rate_limit":
            return _fault_rate_limit(fault)
        if fault.kind == "status":
            return _status(fault) if route.group == API else _cdn_status(fault)
        if fault.kind in STATUS_KINDS:
            status, code, message = STATUS_KINDS[fault.kind]
            return json_response(ApiError(status, code, fault.message or message).body(), status)
        return None

    def _add_headers(self, route: Route, call: Call, response: web.StreamResponse) -> None:
        response.headers["X-Emulator"] = "1"
        if route.group != API:
            return
        from_cloudflare = response.status == 429 and response.content_type != "application/json"
        if not from_cloudflare:
            response.headers["Via"] = "1.1 google"
            for name, value in call.headers.items():
                response.headers.setdefault(name, value)
        shared = response.headers.get("X-RateLimit-Scope") == "shared"
        if response.status in {401, 403, 429} and not shared and not from_cloudflare:
            self._limiter.note_invalid()


def _message_id(request: web.Request) -> int | None:
    text = request.match_info.get("message_id", "")
    return int(text) if text.isascii() and text.isdecimal() else None


def _cloudflare(seconds: float) -> web.Response:
    return web.Response(text="error code: 1015", status=429, headers={"Retry-After": str(max(1, round(seconds)))})


def _rate_limited(verdict: Verdict) -> web.Response:
    body = {
        "message": "You are being rate limited.",
        "retry_after": round(verdict.reset_after, 3),
        "global": verdict.scope == "global",
    }
    response = json_response(body, 429)
    response.headers.update(verdict.headers())
    return response


def _fault_rate_limit(fault: Fault) -> web.Response:
    shared = fault.scope == "shared"
    message = "The resource is being rate limited." if shared else "You are being rate limited."
    body = {"message": message, "retry_after": fault.retry_after, "global": fault.scope == "global"}
    response = json_response(body, 429)
    if not fault.headers:
        return response
    response.headers["Retry-After"] = str(max(1, round(fault.retry_after)))
    response.headers["X-RateLimit-Scope"] = fault.scope
    if fault.scope == "global":
        response.headers["X-RateLimit-Global"] = "true"
    else:
        response.headers["X-RateLimit-Remaining"] = str(fault.remaining)
        response.headers["X-RateLimit-Reset-After"] = f"{fault.retry_after:.3f}"
    return response


def _cdn_status(fault: Fault) -> web.Response:
    text = fault.message or (GONE if fault.status == 404 else f"error code: {fault.status}")
    headers = {"Retry-After": str(max(1, round(fault.retry_after)))} if fault.status == 429 and fault.headers else None
    return web.Response(text=text, status=fault.status, headers=headers)


def _status(fault: Fault) -> web.Response:
    if fault.status in TEXT_STATUS:
        return web.Response(text=fault.message or TEXT_STATUS[fault.status], status=fault.status)
    message = fault.message or f"{fault.status}: {web.Response(status=fault.status).reason}"
    return json_response({"message": message, "code": fault.code}, fault.status)
