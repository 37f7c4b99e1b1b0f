"""Scripted failures: which request is hit, and what happens to it. Decisions only; `pipeline` and `cdn` act."""

from __future__ import annotations

import dataclasses
import fnmatch
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

STATUS_KINDS: dict[str, tuple[int, int, str]] = {
    "unauthorized": (401, 0, "401: Unauthorized"),
    "missing_access": (403, 50001, "Missing Access"),
    "missing_permissions": (403, 50013, "Missing Permissions"),
    "unknown_channel": (404, 10003, "Unknown Channel"),
    "unknown_message": (404, 10008, "Unknown Message"),
    "too_large": (413, 40005, "Request entity too large"),
    "server_error": (500, 0, "500: Internal Server Error"),
}
"""Named JSON error replies: status, code, message."""
CONNECTION_KINDS = frozenset({"reset", "close", "stall"})
CDN_KINDS = frozenset({"truncate", "corrupt", "ignore_range", "wrong_range", "html"})
ANSWERING_KINDS = frozenset(STATUS_KINDS) | CONNECTION_KINDS | {"status", "rate_limit", "cloudflare", "crash"}
"""Those that put something in the place of the real answer."""
KINDS = ANSWERING_KINDS | CDN_KINDS | {"stale", "delay"}
STAGES = frozenset({"before", "during", "after"})


class InvalidFaultError(ValueError):
    """A fault that makes no sense; the text says why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule. docs/emulator.md explains kinds and fields for those who write them."""

    kind: str
    route: str = "*"
    when: str = "before"
    nth: int = 1
    count: int | None = 1
    probability: float = 1.0
    seed: int = 0
    channel_id: str | None = None
    status: int = 503
    code: int = 0
    message: str | None = None
    retry_after: float = 1.0
    scope: str = "user"
    remaining: int = 0
    headers: bool = True
    seconds: float = 3600.0
    bytes: int = 0

    @classmethod
    def from_json(cls, fields: Any) -> Fault:
        """Check what the control API was given. Raises `InvalidFaultError`."""
        if not isinstance(fields, dict):
            raise InvalidFaultError("a fault is an object")
        known = {known.name for known in dataclasses.fields(cls)}
        if unknown := set(fields) - known:
            raise InvalidFaultError(f"unknown field: {', '.join(sorted(unknown))}")
        if fields.get("kind") not in KINDS:
            raise InvalidFaultError(f"kind is one of {', '.join(sorted(KINDS))}")
        if fields.get("channel_id") is not None:
            fields = fields | {"channel_id": str(fields["channel_id"])}
        for name, value in fields.items():
            _check_field(name, value)
        return cls(**fields)

    def matches(self, route: str, group: str, channel: str | None) -> bool:
        """Whether a request is of the kind that this rule is about."""
        if self.channel_id is not None and self.channel_id != channel:
            return False
        return self.route == group or fnmatch.fnmatchcase(route, self.route)


_TYPES: dict[str, tuple[type[Any], ...]] = {
    "kind": (str,),
    "route": (str,),
    "when": (str,),
    "nth": (int,),
    "count": (int, type(None)),
    "probability": (int, float),
    "seed": (int,),
    "channel_id": (str, type(None)),
    "status": (int,),
    "code": (int,),
    "message": (str, type(None)),
    "retry_after": (int, float),
    "scope": (str,),
    "remaining": (int,),
    "headers": (bool,),
    "seconds": (int, float),
    "bytes": (int,),
}


def _check_field(name: str, value: Any) -> None:
    if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and name != "headers"):
        raise InvalidFaultError(f"{name} has the wrong type")
    if name == "when" and value not in STAGES:
        raise InvalidFaultError("when is before, during or after")
    if name == "scope" and value not in {"user", "shared", "global"}:
        raise InvalidFaultError("scope is user, shared or global")
    if name == "status" and not 400 <= value <= 599:
        raise InvalidFaultError("status is between 400 and 599")
    if type(value) in {int, float} and value < 0:
        raise InvalidFaultError(f"{name} must not be negative")


@dataclass(slots=True)
class _Rule:
    fault: Fault
    chance: random.Random
    seen: int = 0
    fired: int = 0

    def fires(self) -> bool:
        self.seen += 1
        if self.seen < self.fault.nth or (self.fault.count is not None and self.fired >= self.fault.count):
            return False
        if self.chance.random() >= self.fault.probability:
            return False
        self.fired += 1
        return True


class FaultPlan:
    """The rules in force, oldest first; a request is hit by at most one."""

    def __init__(self) -> None:
        self._rules: dict[int, _Rule] = {}
        self._next = 1

    def add(self, fault: Fault) -> int:
        """Put a rule in force; returns its id."""
        number, self._next = self._next, self._next + 1
        self._rules[number] = _Rule(fault, random.Random(fault.seed))  # noqa: S311 - repeatable on purpose
        return number

    def pick(self, route: str, group: str, channel: str | None) -> Fault | None:
        """The fault for a request that got so far, if any; counts the request for all rules up to that one."""
        for rule in self._rules.values():
            if rule.fault.matches(route, group, channel) and rule.fires():
                return rule.fault
        return None

    def remove(self, number: int) -> bool:
        """Take one rule out of force; whether it was there."""
        return self._rules.pop(number, None) is not None

    def clear(self) -> None:
        """Take all rules out of force."""
        self._rules.clear()

    def as_json(self) -> Iterator[dict[str, Any]]:
        """The rules with how often each saw a request and fired."""
        for number, rule in self._rules.items():
            yield {"id": number, "seen": rule.seen, "fired": rule.fired} | dataclasses.asdict(rule.fault)
