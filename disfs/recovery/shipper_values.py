"""What a shipper is told, asks of others, and says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from disfs.recovery.arrivals import Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipperSettings:
    """When and how much."""

    delay_seconds: float = 5.0
    """How old the oldest change is when it is shipped."""
    hold_seconds: float = 2.0
    """How much longer it waits while contents are still on their way, about as long as a message of them takes: they
    then go with the same journal. Not longer: whoever loses this machine meanwhile loses the names too."""
    longest_pause_seconds: float = 4.0
    """The least time between two journals, unless `delay_seconds` is less."""
    message_bytes: int = 24 * 1024 * 1024
    backoff_seconds: float = 1.0
    backoff_limit_seconds: float = 60.0

    @property
    def pause_seconds(self) -> float:
        """The least time between two journals; never what makes a change wait longer than it was promised."""
        return min(self.longest_pause_seconds, self.delay_seconds)


@dataclass(frozen=True, slots=True)
class ShipperStatistics:
    """For `disfs status`."""

    sequence: int
    """Of the newest state that Discord has acknowledged; 0: none yet."""
    unshipped_seconds: float | None
    """How old the oldest change is that Discord does not have; None when it has all."""
    journals: int
    """Sent since the start, as are the next ones."""
    copies: int
    sent_bytes: int
    deleted_messages: int
    sending: str
    """What is being sent at this moment; empty for nothing."""
    failure: str | None
    """Why it does not get on; None while it does."""
    conflict: str | None
    """Why nothing will be shipped any more; None while all is well."""
    unreadable: int
    """Attachments of the index channel that came since the start and were passed over: see `IndexChannel`."""


class Surroundings(NamedTuple):
    """What the shipper asks of others."""

    make_durable: Callable[[], Awaitable[None]]
    """Everything that was changed so far would survive a power cut, contents before what names them."""
    has_unsent: Callable[[], bool]
    """Whether contents are still to be sent."""
    attachment_bytes: Callable[[], int]
    """How large an attachment may be, as far as is known now."""
    hold_lease: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    """Returns when this machine is the one that may send. ForkedError when another one is; errors as of `Transport`."""
    notice: Notice | None = None
    """See `Arrivals`."""
