"""What must hold of shipping and recovery and does not yet: each of these fails, and says so when it no longer does.

Whoever mends one moves it to the tests of its module as a `test_regression_*`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from support.real_stores import real_stores
from test_recovery_deletions import (  # type: ignore[import-not-found]  # mypy sees no module in this directory
    delete,
)
from test_recovery_shipping import (  # type: ignore[import-not-found]  # mypy sees no module in this directory
    CHUNK,
    damage,
    names_of,
    recovered,
    settle,
    shipments,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.xfail(strict=True, reason="known, and to be mended")


async def test_contents_that_were_swept_are_told_when_an_older_state_comes_back(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """The journal that freed them is damaged: the state before it names a message that is deleted."""
    async with real_stores(tmp_path, ships=True, sweep_grace_seconds=1, sweep_interval_seconds=1) as (world, _):
        await write(world, b"one", b"1" * CHUNK)
        await settle(world)
        await delete(world, b"one")
        await settle(world)
        await trio.sleep(60)
        assert [] == world.memory.messages(world.channels[0])
        for journal in (await shipments(world))[1:]:
            await damage(world, journal)
        report = await recovered(world, tmp_path / "rebuilt.db")
        assert {b"one"} == await names_of(tmp_path / "rebuilt.db")
        assert 1 == report.rebuilt.lost.count, "what was said: " + repr(report)
