"""Discord's rate limits as values: the routes that have one, and what an answer says about it.

These values cross from the asyncio side, which sees the answers, to the pacer on the trio side. Pure.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from disfs.chunkstore.transport.answers import Answer
    from disfs.values import ChannelId, MessageId

_DISCORD_EPOCH_MS = 1_420_070_400_000
_YOUNG_SECONDS = 10.0
_OLD_SECONDS = 14 * 86_400.0


class ApiRoute(enum.Enum):
    """The requests about a channel's messages; each counts in a bucket per channel."""

    SEND = "send"
    LIST = "list"
    GET = "get"
    DELETE_YOUNG = "delete, younger than 10 s"
    DELETE = "delete"
    DELETE_OLD = "delete, older than 14 days"
    BULK_DELETE = "bulk delete"


class Scope(enum.Enum):
    """Whose limit a 429 was about, in Discord's words."""

    USER = "user"
    """The bucket of this bot and channel."""
    SHARED = "shared"
    """One that other bots use up too."""
    GLOBAL = "global"
    """Everything that this bot, or this address, may ask for."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one answer says about the limits. A field is None where the answer said nothing."""

    route: ApiRoute
    channel: ChannelId
    took_seconds: float
    """From the moment at which the request could first have been sent."""
    bucket: str | None = None
    """Discord's opaque name for what routes share; the channel is not in it."""
    limit: int | None = None
    remaining: int | None = None
    reset_after_seconds: float | None = None
    refused: Scope | None = None
    """Set when the answer was a 429."""
    retry_after_seconds: float = 0.0
    """How long that 429 asks to wait."""
    says_nothing: bool = False
    """The answer came from something in front of the API, so that missing headers do not mean a missing limit."""


_ROUTES = {
    ("POST", "/channels/{channel_id}/messages"): ApiRoute.SEND,
    ("GET", "/channels/{channel_id}/messages"): ApiRoute.LIST,
    ("GET", "/channels/{channel_id}/messages/{message_id}"): ApiRoute.GET,
    ("DELETE", "/channels/{channel_id}/messages/{message_id}"): ApiRoute.DELETE,
    ("POST", "/channels/{channel_id}/messages/bulk-delete"): ApiRoute.BULK_DELETE,
}
_DELETES = {"sub-10-seconds": ApiRoute.DELETE_YOUNG, "older-than-two-weeks": ApiRoute.DELETE_OLD}


def route_of(method: str, path: str, age: str | None) -> ApiRoute | None:
    """The route of a request; None for one that is not about messages. `age` is discord.py's word for a delete's."""
    route = _ROUTES.get((method, path))
    return _DELETES.get(age or "", route) if route is ApiRoute.DELETE else route


def delete_route(message: MessageId, now: float) -> ApiRoute:
    """Which bucket deleting one message counts in: its age decides. `now` is Unix time.

    A wrong clock costs no more than a wait or a 429: the answer's headers still name the bucket it was.
    """
    age_seconds = now - ((message >> 22) + _DISCORD_EPOCH_MS) / 1000
    if age_seconds <= _YOUNG_SECONDS:
        return ApiRoute.DELETE_YOUNG
    return ApiRoute.DELETE_OLD if age_seconds >= _OLD_SECONDS else ApiRoute.DELETE


def observation_of(route: ApiRoute, channel: ChannelId, answer: Answer, took_seconds: float) -> Observation:
    """What an answer's headers and, of a 429, its body say. Nonsense in them counts as nothing said."""
    headers = answer.headers
    limit, remaining = _number(headers, "X-RateLimit-Limit"), _number(headers, "X-RateLimit-Remaining")
    refused = _scope(answer) if answer.status == 429 else None
    return Observation(
        route,
        channel,
        took_seconds,
        bucket=headers.get("X-RateLimit-Bucket"),
        limit=int(limit) if limit is not None and limit >= 1 else None,
        remaining=int(remaining) if remaining is not None else None,
        reset_after_seconds=_number(headers, "X-RateLimit-Reset-After"),
        refused=refused,
        retry_after_seconds=(answer.retry_after_seconds or 0.0) if refused else 0.0,
        says_nothing=answer.status == 429 or answer.status >= 500 or (not answer.succeeded and not answer.details),
    )


def _scope(answer: Answer) -> Scope:
    if answer.headers.get("X-RateLimit-Global") or answer.details.get("global"):
        return Scope.GLOBAL
    if not answer.details:
        return Scope.GLOBAL  # a page: somebody in front of Discord refuses this address, whatever it asks for
    return Scope.SHARED if answer.headers.get("X-RateLimit-Scope") == Scope.SHARED.value else Scope.USER


def _number(headers: Mapping[str, str], name: str) -> float | None:
    try:
        number = float(headers[name])
    except (KeyError, ValueError):
        return None
    return number if 0 <= number < float("inf") else None
