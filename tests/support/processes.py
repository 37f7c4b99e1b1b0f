"""Other processes: whether they are gone, and waiting for what they bring about."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_SECONDS = 30.0


def until(condition: Callable[[], Any]) -> None:
    """Wait for other processes: there is nothing to wait on but the thing itself."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_gone(pid: int) -> Callable[[], bool]:
    """Whether a process has ended, or has nothing left to do but to be waited for."""

    def gone() -> bool:
        try:
            return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return True

    return gone
