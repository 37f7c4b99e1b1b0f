"""What the holder of a lease says of itself, and what it is told by. See `holding`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from disfs.recovery.arrivals import ForkedError
from disfs.recovery.lease import unix_seconds

if TYPE_CHECKING:
    import trio

    from disfs.errors import DisfsError
    from disfs.recovery.lease import Posted
    from disfs.values import MessageId


class HeldElsewhereError(ForkedError):
    """Another machine has the volume mounted. `holder` is its lease."""

    def __init__(self, message: str, holder: Posted) -> None:
        super().__init__(message)
        self.holder = holder


@dataclass(frozen=True, slots=True)
class LeaseStatistics:
    """For `disfs status`."""

    held: bool
    """Whether this mount has the lease, as far as it knows."""
    since: float | None
    """Since when, in seconds since 1970, by Discord's clock; None without one."""
    renewals: int
    failure: str | None
    """Why it could not be had or renewed the last time; None when all is well."""
    takes_over: bool = False
    """Whether the volume is to be taken over as soon as Discord answers."""
    taken_from: str | None = None
    """The machine from which it was taken over, late; None when it was not, or when nobody had it."""


class ShipperLike(Protocol):
    """Who sends what only the holder may."""

    stopped: trio.Event
    """Set once nothing will be sent any more."""

    def give_way(self, error: DisfsError) -> None:
        """Send nothing more, and say why."""
        ...


def clock(message: MessageId, later_seconds: float = 0.0) -> str:
    """When Discord got a message, or some time after that, for people here."""
    moment = datetime.datetime.fromtimestamp(unix_seconds(message) + later_seconds).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def while_mounted(holder: Posted) -> str:
    """What a machine says that has been pushed aside."""
    return (
        f"{holder.lease.host} (device {holder.lease.device.hex()[:8]}) has had this volume mounted since "
        f"{clock(holder.takeover or holder.first)}: nothing of this machine's names is sent any more, and nothing is "
        "deleted; unmount one of the two, and put the state directory of the one that is to give way aside"
    )
