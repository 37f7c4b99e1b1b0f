"""Every way in which Discord fails, one after another.

What is left out are lies about lasting facts, which no client can tell from the truth: a 401 for a reader (a revoked
token), 404 for a channel, a message or a file that is there, 416 for a range that is there. Sends see a 401 and a 403:
those can wait until it is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

Fault: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """One kind of failure, for a while."""

    name: str
    faults: tuple[Fault, ...]


@dataclass(slots=True)
class TrialResult:
    """What became of a trial."""

    name: str
    seconds: float = 0.0
    seen: int = 0
    """Requests that it could have hit."""
    fired: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    """Answers by status while it was in force; 0 is none."""


def _trial(name: str, **fault: Any) -> Trial:
    return Trial(name, (fault,))


def _during(kind: str) -> Trial:
    """Cut in the middle of a body: after its first byte, a little later, and far into it."""
    return Trial(
        f"{kind} in the middle of a body",
        tuple(
            {"kind": kind, "route": route, "when": "during", "bytes": count, "seconds": 2.0}
            for route in ("create_message", "cdn_get")
            for count in (1, 3000, 100_000)
        ),
    )


def _at_places(kind: str, *places: int) -> Trial:
    return Trial(kind, tuple({"kind": kind, "route": "cdn_get", "bytes": place} for place in places))


TRIALS: tuple[Trial, ...] = (
    Trial("no fault", ()),
    *(_trial(f"{kind} before", kind=kind, seconds=3.0) for kind in ("reset", "close", "stall", "delay")),
    *(
        _trial(f"{kind} after", kind=kind, route="api", when="after", seconds=3.0)
        for kind in ("reset", "close", "stall", "delay")
    ),
    *(_during(kind) for kind in ("reset", "close", "stall")),
    *(_trial(f"{status} before", kind="status", status=status) for status in (500, 502, 503, 504, 520)),
    *(
        _trial(f"{status} after", kind="status", status=status, route="api", when="after")
        for status in (500, 502, 503, 504, 520)
    ),
    *(
        _trial(f"429 {scope}", kind="rate_limit", route="api", scope=scope, retry_after=1.5)
        for scope in ("user", "shared", "global")
    ),
    _trial("429 without headers", kind="rate_limit", route="api", retry_after=0.7, headers=False),
    _trial("429 by Cloudflare", kind="cloudflare", route="api", retry_after=2.0),
    _trial("429 of the CDN", kind="status", status=429, route="cdn_get", retry_after=1.0),
    _trial("403 of the CDN", kind="status", status=403, route="cdn_get"),
    _trial("404 of the CDN", kind="status", status=404, route="cdn_get"),
    _trial("413", kind="too_large", route="create_message"),
    _trial("401 to a send", kind="unauthorized", route="create_message"),
    _trial("403, no access, to a send", kind="missing_access", route="create_message"),
    _trial("403, no permission, to a send", kind="missing_permissions", route="create_message"),
    _trial("403, no permission, to a delete", kind="missing_permissions", route="*delete*"),
    _trial("stale listings", kind="stale", route="list_messages", seconds=30.0),
    _at_places("truncate", 0, 500, 100_000),
    _at_places("corrupt", 0, 1000, 100_000),
    _at_places("html", 0, 300_000),
    _trial("ignore_range", kind="ignore_range", route="cdn_get"),
    _trial("wrong_range", kind="wrong_range", route="cdn_get"),
    _trial("crash of the emulator", kind="crash", count=1),
)
"""The first one is none: what the load is without faults."""


class Rotation:
    """The trials in an order drawn from a seed, each once before any comes again."""

    def __init__(self, seed: int, probability: float) -> None:
        self._random = Random(f"{seed} faults")
        self._probability = probability
        self._coming: list[Trial] = []

    def next(self) -> tuple[str, list[Fault]]:
        """The next trial's name, and its faults as the emulator takes them."""
        if not self._coming:
            self._coming = list(TRIALS)
            self._random.shuffle(self._coming)
        trial = self._coming.pop()
        # Several faults of one trial share what is to fail.
        each = self._probability / max(1, len(trial.faults))
        filled: list[Fault] = [
            {"count": None, **fault, "probability": each, "seed": self._random.randrange(1 << 30)}
            for fault in trial.faults
        ]
        return trial.name, filled
