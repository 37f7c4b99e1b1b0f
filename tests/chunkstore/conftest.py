"""What the tests of the chunk store share."""

from __future__ import annotations

import pytest
import trio
from support.chunk_worlds import in_this_thread


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocking work runs in place, so that the clock does not jump while a thread works."""
    monkeypatch.setattr(trio.to_thread, "run_sync", in_this_thread)
