"""discord.py's REST client, taught to answer early, to leave retries to us and to watch for silence.

Why discord.py's `HTTPClient` and not `Client`: the latter adds the gateway and its caches, and logs in with two
requests; its REST half is this class. What we keep of it is its building of requests. What is changed:

- **No rate limit buckets of its own.** They keep a request from returning until its bucket is full again, up to 5 s
  after Discord acknowledged it; they assume fixed windows, and know neither urgency nor the global limit. What each
  answer says is reported instead, and our pacer (`pacer.py`) decides before a request comes here.
- **No hidden retries.** discord.py sleeps 1, 3, 5, 7 and 9 s between answers of 500, 502, 504 and 524, and after a
  429 as long as that says, and sends whole uploads again; our retry wrapper knows how long its caller wants to wait,
  and waits in the pacer's queue. Only requests about guilds, which no pacer sees, are repeated here after a 429.
- **Early answers.** aiohttp's documented tracing hands us each complete answer as it arrives; discord.py's
  bookkeeping goes on in a task of its own.
- **Timeouts by silence, not by total time**: aiohttp's default of 300 s in total ends 24 MiB uploads on slow links.
- **The address.** `Route.BASE` is a global of the library; here each client has its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import discord.http

from disfs.chunkstore.transport.answers import FOREIGN_ERRORS, Answer, RefusedError, Request, error_of_failure
from disfs.chunkstore.transport.routes import observation_of, route_of
from disfs.values import ChannelId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import SimpleNamespace

    from disfs.chunkstore.transport.routes import ApiRoute, Observation

log = logging.getLogger(__name__)

CONNECT_SECONDS = 15.0
SILENCE_SECONDS = 60.0
"""How long Discord may keep silent after it has the whole request, or between two pieces of its answer."""
LONGEST_WAIT_SECONDS = 60.0
"""A rate limit of requests about guilds that lasts longer is raised to the caller instead of being waited for."""

_RETRIED_BY_THE_LIBRARY = {429, 500, 502, 504, 524}
_CONNECTIONS = 64
_IGNORED_WHEN_LATE = (RefusedError, discord.DiscordException, *FOREIGN_ERRORS)


class _NoRatelimit:
    """Takes the place of discord.py's bucket, and lets everything pass."""

    remaining = 1

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass

    def update(self, response: aiohttp.ClientResponse, *, use_clock: bool = False) -> None:
        """An answer with rate limit headers came; we have looked at them already."""


class _Exchange:
    """One call of `request`: what tracing finds out about it before discord.py returns."""

    def __init__(self, request: Request, route: ApiRoute | None, channel: ChannelId) -> None:
        self.request = request
        self.route = route
        """What the pacer knows it by; None when it does not."""
        self.channel = channel
        self.began = time.monotonic()
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.response: aiohttp.ClientResponse | None = None

    def settle(self, body: bytes) -> None:
        """An answer is complete: it is final unless discord.py will wait and ask again."""
        assert self.response is not None
        answer = Answer(self.response.status, self.response.headers, body)
        is_repeated = answer.status == 429 and self.route is None
        if is_repeated and self.response.headers.get("Via") and "retry_after" in answer.details:
            return
        if not self.answer.done():
            self.answer.set_result(answer)
        if answer.status in _RETRIED_BY_THE_LIBRARY and not is_repeated:
            # The one way to keep the library from asking again: it passes on what it does not know.
            raise RefusedError(self.request, answer)


_NO_RATELIMIT = _NoRatelimit()


class RestClient(discord.http.HTTPClient):
    """See the module's docstring. Made inside a running loop; `close` ends it."""

    def __init__(
        self, api_url: str, on_rate_limited: Callable[[], None], on_answer: Callable[[Observation], None]
    ) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            aiohttp.TCPConnector(limit=_CONNECTIONS),
            http_trace=self._tracing(),
            max_ratelimit_timeout=LONGEST_WAIT_SECONDS,
        )
        self._api_url = api_url.rstrip("/")
        self._on_rate_limited = on_rate_limited
        self._on_answer = on_answer
        self._running: set[asyncio.Task[Any]] = set()
        self.clock_ahead_seconds: float | None = None
        """How far our clock is ahead of what the last answer said; None before one said any time."""
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)

    def __repr__(self) -> str:
        return "<RestClient>"  # never the token

    async def close(self) -> None:
        """Drop whatever still runs, and the connections."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await super().close()
        await self.connector.close()

    def get_ratelimit(self, key: str) -> Any:
        """Asked for by the library before each request: none of its own limits holds."""
        return _NO_RATELIMIT

    async def request(
        self,
        route: discord.http.Route,
        *,
        files: Sequence[discord.File] | None = None,
        form: Iterable[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Ask, and return the decoded answer as soon as it is here.

        Raises `RefusedError` for an answer that is not a 2xx, and a `StorageError` when there was none. When it is
        cancelled the request is dropped, and what it holds is let go of without waiting for the library.
        """
        route.url = self._api_url + route.url.removeprefix(route.BASE)
        known_as = route_of(route.method, route.path, route.metadata)
        channel = ChannelId(int(route.channel_id or 0))
        exchange = _Exchange(Request(route.method, route.path), known_as, channel)
        task = asyncio.create_task(
            super().request(route, files=files, form=form, timeout=self._timeout, trace_request_ctx=exchange, **kwargs)
        )
        self._running.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait({task, exchange.answer}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        return self._outcome(exchange, task)

    def _outcome(self, exchange: _Exchange, task: asyncio.Task[Any]) -> Any:
        if exchange.answer.done():
            answer = exchange.answer.result()
            if answer.succeeded:
                return answer.json()
            raise RefusedError(exchange.request, answer)
        try:
            return task.result()
        except discord.HTTPException as error:  # a 429 by somebody who is not Discord
            raise error_of_failure(exchange.request, error) from error
        except FOREIGN_ERRORS as error:
            raise error_of_failure(exchange.request, error) from error

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        # Whoever waits has it already, or has its answer; only a bug is news.
        if error is not None and not isinstance(error, _IGNORED_WHEN_LATE):
            log.error("the Discord library failed", exc_info=error)

    def _tracing(self) -> aiohttp.TraceConfig:
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._on_headers)
        trace.on_response_chunk_received.append(self._on_body)
        return trace

    async def _on_headers(
        self, _: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        context.trace_request_ctx.response = params.response
        self._note_clock(params.response.headers.get("Date", ""))
        if params.response.status == 429:
            self._on_rate_limited()

    def _note_clock(self, date: str) -> None:
        try:
            # Whole seconds, cut off: on average it was half a second later.
            self.clock_ahead_seconds = time.time() - parsedate_to_datetime(date).timestamp() - 0.5
        except ValueError:
            log.debug("an answer says no time that can be read")

    async def _on_body(
        self, _: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceResponseChunkReceivedParams
    ) -> None:
        # Called once for each answer, with the whole body: discord.py reads it in one piece.
        exchange: _Exchange = context.trace_request_ctx
        if exchange.route is not None and exchange.response is not None:
            answer = Answer(exchange.response.status, exchange.response.headers, params.chunk)
            took_seconds = time.monotonic() - exchange.began
            self._on_answer(observation_of(exchange.route, exchange.channel, answer, took_seconds))
        exchange.settle(params.chunk)
