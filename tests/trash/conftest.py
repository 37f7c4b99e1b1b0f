"""The trash under a jumping clock: what runs in worker threads runs in this one."""

from __future__ import annotations

import pytest
import trio
from support.chunk_worlds import in_this_thread


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", in_this_thread)
