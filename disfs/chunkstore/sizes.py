"""How much to send at once: what is known of Discord's limits and of the link, and what each send teaches. Pure.

The attachment limit has moved four times and depends on the guild, so it is never a constant: the guild's tier gives
a first value, "too large" lowers it, and after some successes a little more is tried, ever more seldom if that is
refused. A refusal does not say whether an attachment or the whole message was too large; what was taken
before tells the two apart, and where it cannot, both are suspected in turn.

A message that fails is sent anew from its first byte, so on a slow or shaky link messages are kept to what the link
carries within `send_seconds`: a failure halves them, success lets them grow, quickly up to half of
what failed and slowly beyond (as TCP does with its window, for the same reason).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE = 32
"""After so many successes close to a lowered limit more is tried; each attempt that is refused doubles it."""
_PATIENCE_LIMIT = 4096
_SLOW_GROWTH = 1.25
_UNKNOWN_BYTES_PER_SECOND = 10e6
"""What is assumed of a link until the first message has arrived."""


class _Ceiling:
    """One limit of Discord's: lowered by refusals, tried upwards again after successes close to it."""

    def __init__(self, most_bytes: int, floor_bytes: int) -> None:
        self.value = self.most = max(floor_bytes, most_bytes)
        self._floor = floor_bytes
        self._proven: int | None = None
        """What was taken for long, while more is being tried."""
        self._patience = _PATIENCE
        self._successes = 0

    def lower(self, to_bytes: int) -> None:
        """Something above `to_bytes` was refused."""
        if self._proven is not None:
            to_bytes = max(to_bytes, self._proven)
            self._proven = None
            self._patience = min(_PATIENCE_LIMIT, 2 * self._patience)
        self.value = max(self._floor, min(self.value, to_bytes))
        self._successes = 0

    def taken(self, size_bytes: int) -> None:
        """So much was taken."""
        if self._proven is not None and size_bytes > self._proven:
            self._proven = None
            self._patience = _PATIENCE
        if self.value == self.most or self._proven is not None or size_bytes < self.value * 3 // 4:
            return
        self._successes += 1
        if self._successes >= self._patience:
            self._successes = 0
            self._proven = self.value
            self.value = min(self.most, self.value + max((self.most - self.value) // 2, self.most // 64, 1))


class _Pace:
    """What the link carries in time."""

    def __init__(self, most_bytes: int, floor_bytes: int, send_seconds: float) -> None:
        self.value = self._most = self._quick_until = most_bytes
        self._floor = floor_bytes
        self._seconds = send_seconds
        self._failing = False

    def sent(self, size_bytes: int, seconds: float) -> None:
        self._failing = False
        if 2 * size_bytes < self.value:
            return  # what a small message takes is mostly waiting, and says little about large ones
        in_time = int(size_bytes * self._seconds / max(seconds, 1e-3))
        if seconds > self._seconds:
            self.value = max(self._floor, self.value // 2, min(self.value, in_time))
            self._quick_until = self.value
        else:
            growth = 2.0 if self.value < self._quick_until else _SLOW_GROWTH
            self.value = max(self.value, min(self._most, int(self.value * growth), in_time))

    def failed(self, size_bytes: int) -> None:
        half = max(self._floor, size_bytes // 2)
        if not self._failing:
            # A Discord that is down for an hour shall not leave us with tiny messages for long.
            self._quick_until = half
        self._failing = True
        self.value = min(self.value, half)


class SizeLimits:
    """The limits of packs and messages, in bytes. Neither falls below `floor_bytes`: a pack of one chunk must fit."""

    def __init__(
        self, *, attachment_bytes: int, message_bytes: int, floor_bytes: int, send_seconds: float = 10.0
    ) -> None:
        self.floor_bytes = floor_bytes
        self._attachment = _Ceiling(attachment_bytes, floor_bytes)
        self._message = _Ceiling(message_bytes, floor_bytes)
        self._pace = _Pace(self._message.most, floor_bytes, send_seconds)
        self._accepted_bytes = 0
        """The largest attachment that was taken so far."""
        self._suspected_message = False
        """The last refusal was put down to the whole message."""

    @property
    def attachment_bytes(self) -> int:
        """How large a pack may be."""
        return self._attachment.value

    @property
    def message_bytes(self) -> int:
        """How much one message carries."""
        return max(self.floor_bytes, min(self._message.value, self._pace.value))

    def offered(self, attachment_bytes: int) -> None:
        """The guild's tier allows attachments of that size. Another value than before begins anew with it."""
        if max(self.floor_bytes, attachment_bytes) != self._attachment.most:
            self._attachment = _Ceiling(attachment_bytes, self.floor_bytes)
            self._accepted_bytes = min(self._accepted_bytes, self._attachment.value)

    def accepted(self, sizes: Sequence[int], seconds: float | None = None) -> None:
        """A message with attachments of these sizes was taken, after so long if that was measured."""
        largest, together = max(sizes), sum(sizes)
        self._accepted_bytes = max(self._accepted_bytes, largest)
        self._suspected_message = False
        self._attachment.taken(largest)
        self._message.taken(together)
        if seconds is not None:
            self._pace.sent(together, seconds)

    def failed(self, sizes: Sequence[int]) -> None:
        """A message with attachments of these sizes did not get through, for a reason that may pass."""
        self._pace.failed(sum(sizes))

    def refused(self, sizes: Sequence[int]) -> bool:
        """A message with attachments of these sizes was too large: send less from now on; False if less cannot be."""
        largest, together = max(sizes), sum(sizes)
        if len(sizes) > 1 and largest <= self._accepted_bytes and not self._suspected_message:
            # Attachments of this size were taken before: it is the whole message that is too large.
            self._suspected_message = True
            self._message.lower(together * 3 // 4)
            return True
        if largest <= self.floor_bytes and len(sizes) == 1:
            return False
        self._suspected_message = False
        self._attachment.lower(largest * 3 // 4)
        self._accepted_bytes = min(self._accepted_bytes, self.attachment_bytes - 1)
        if largest <= self.floor_bytes:
            self._message.lower(together * 3 // 4)
        return True


class UploadRate:
    """How fast uploads are: acknowledged bytes by the time in which something was on its way. Old times fade."""

    _HALF_LIFE_SECONDS = 20.0

    def __init__(self) -> None:
        self._bytes = 0.0
        self._seconds = 0.0
        self._in_flight = 0
        self._since = 0.0

    def began(self, now: float) -> None:
        """A message is on its way."""
        self._advance(now)
        self._in_flight += 1

    def ended(self, now: float, size_bytes: int) -> None:
        """A message arrived with that many bytes; with 0, it failed."""
        self._advance(now)
        self._in_flight -= 1
        self._bytes += size_bytes

    @property
    def bytes_per_second(self) -> float | None:
        """None as long as nothing has arrived."""
        return self._bytes / self._seconds if self._bytes and self._seconds else None

    def _advance(self, now: float) -> None:
        if self._in_flight:
            elapsed = now - self._since
            fading = 0.5 ** (elapsed / self._HALF_LIFE_SECONDS)
            self._bytes *= fading
            self._seconds = self._seconds * fading + elapsed
        self._since = now


def write_delay_seconds(
    growth_bytes: int, dirty_bytes: int, soft_bytes: int, limit_bytes: int, bytes_per_second: float | None
) -> float:
    """How long a write that adds `growth_bytes` of dirty data waits, so that writers meet the limit softly.

    Nothing below the soft mark; from there it rises to the time that uploading as much takes, which is the
    speed that writers have at the limit anyway, in leaps. At most a second.
    """
    if growth_bytes <= 0 or dirty_bytes <= soft_bytes:
        return 0.0
    nearness = min(1.0, (dirty_bytes - soft_bytes) / max(1, limit_bytes - soft_bytes))
    return min(1.0, nearness * growth_bytes / (bytes_per_second or _UNKNOWN_BYTES_PER_SECOND))
