"""How much of each message under way the network has taken: counted where it is sent, asked for on the other side.

Taken means handed to the kernel: its buffers may hold some of it still, and a send that fails begins anew.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disfs.chunkstore.transport.bridge import Publish
    from disfs.chunkstore.transport.parts import PartsReader

TELL_SECONDS = 0.1
"""How often at most it is told of one message."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What crosses the bridge."""

    nonce: str
    size_bytes: int | None
    """So much of the attachments; None: that send is over."""


class Taking:
    """One send, on the asyncio side."""

    def __init__(self, nonce: str, publish: Publish) -> None:
        self._nonce = nonce
        self._publish = publish
        self._tell_at = float("-inf")
        self.readers: Sequence[PartsReader] = ()
        """Its attachments."""

    def note(self) -> None:
        """More of it was taken."""
        now = time.monotonic()
        if now >= self._tell_at:
            self._tell_at = now + TELL_SECONDS
            self._publish(Taken(self._nonce, sum(reader.tell() for reader in self.readers)))

    def end(self) -> None:
        """It is over, whether it arrived or not."""
        self._publish(Taken(self._nonce, None))


class TakenBytes:
    """All sends, on the trio side."""

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}

    def note(self, taken: Taken) -> None:
        """What was published."""
        if taken.size_bytes is None:
            self._bytes.pop(taken.nonce, None)
        else:
            self._bytes[taken.nonce] = taken.size_bytes

    def of(self, nonce: str) -> int:
        """How much of that send; 0 for one that is over, or of which nothing was told."""
        return self._bytes.get(nonce, 0)
