"""How much Discord takes at once: what is known, and what a refusal teaches. Pure.

The attachment limit has moved four times and depends on the guild, so it is never a constant: it starts as a guess, and
"too large" lowers it. A refusal does not say whether an attachment or the whole message was too large; what was taken
before tells the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class SizeLimits:
    """The limits of packs and messages, in bytes. Neither falls below `floor_bytes`: a pack of one chunk must fit."""

    def __init__(self, *, attachment_bytes: int, message_bytes: int, floor_bytes: int) -> None:
        self.floor_bytes = floor_bytes
        self.attachment_bytes = max(floor_bytes, attachment_bytes)
        self.message_bytes = max(floor_bytes, message_bytes)
        self._accepted_bytes = 0
        """The largest attachment that was taken so far."""

    def accepted(self, sizes: Sequence[int]) -> None:
        """A message with attachments of these sizes was taken."""
        self._accepted_bytes = max(self._accepted_bytes, *sizes)

    def refused(self, sizes: Sequence[int]) -> bool:
        """A message with attachments of these sizes was too large: send less from now on; False if less cannot be."""
        largest, together = max(sizes), sum(sizes)
        if len(sizes) > 1 and largest <= self._accepted_bytes:
            # Attachments of this size were taken before: it is the whole message that is too large.
            self.message_bytes = max(self.floor_bytes, together * 3 // 4)
            return True
        if largest <= self.floor_bytes and len(sizes) == 1:
            return False
        self.attachment_bytes = max(self.floor_bytes, largest * 3 // 4)
        self._accepted_bytes = min(self._accepted_bytes, self.attachment_bytes - 1)
        if largest <= self.floor_bytes:
            self.message_bytes = max(self.floor_bytes, together * 3 // 4)
        return True
