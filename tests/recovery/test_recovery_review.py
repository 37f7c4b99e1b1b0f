"""What must hold of shipping and recovery and does not yet: each of these fails, and says so when it no longer does.

Whoever mends one moves it to the tests of its module as a `test_regression_*`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from support.real_stores import real_stores
from support.shipments import OTHER_DEVICE, header, seen
from test_recovery_chain import (  # type: ignore[import-not-found]  # mypy sees no module in this directory
    COPY,
    JOURNAL,
    A,
    B,
    C,
    chain,
    heads,
)
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

from disfs.recovery.rebuild import _superseded

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.xfail(strict=True, reason="known, and to be mended")


def test_left_behind_branch_stays_left_behind_after_another_recovery() -> None:
    """A volume is recovered from a fork, and later once more: nobody is asked again about the fork."""
    x1 = header("x", "a", 2, device=OTHER_DEVICE)
    x2 = header("y", "x", 9, device=OTHER_DEVICE)
    chosen = header("z", "b", 3, device=b"a third device 3", superseded=("y",))
    parts = [seen(A, COPY), seen(B, JOURNAL), seen(x1, JOURNAL), seen(x2, COPY), seen(chosen, COPY)]
    found = chain(*parts)
    assert ["z"] == heads(found)
    head = found.heads()[0]
    told = tuple(each.rstrip(b".").decode() for each in _superseded(found, head))
    again = header("w", "z", 4, device=b"fourth device 04", superseded=told)
    later = header("v", "w", 5, device=b"fourth device 04", superseded=told)
    # The retention of the fourth device deletes what it followed, once it has two copies of its own.
    assert ["v"] == heads(chain(seen(x1, JOURNAL), seen(x2, COPY), seen(again, COPY), seen(later, COPY)))


def test_attempt_that_was_made_again_is_no_fork_after_a_recovery() -> None:
    """What the old machine sent twice stays no branch when another machine has gone on."""
    again = header("b2", "a", 2)
    parts = [seen(A, COPY), seen(B, JOURNAL), seen(again, JOURNAL), seen(C, JOURNAL)]
    found = chain(*parts)
    assert ["c"] == heads(found)
    told = tuple(each.rstrip(b".").decode() for each in _superseded(found, found.heads()[0]))
    other = header("x", "c", 4, device=OTHER_DEVICE, superseded=told)
    assert ["x"] == heads(chain(*parts, seen(other, COPY)))


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
