"""Whatever dies, and whenever: what was fsynced is there, and nothing is there that was not written.

`DISFS_TORTURE_ROUNDS` (per test) and `DISFS_TORTURE_SEED` make it a longer or another run; a failure prints its seed.
"""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING

import pytest
from support.product import product
from support.torture import Torture

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

ROUNDS = int(os.environ.get("DISFS_TORTURE_ROUNDS", "0"))
SEED = int(os.environ.get("DISFS_TORTURE_SEED", "1"))
WEIGHTED = (
    *("kill",) * 5, *("kill_both",) * 3, *("kill_emulator",) * 4, *("kill_unmounting",) * 2, "kill_at_once",
    "terminate", "quiet", "remount", *("cold",) * 2,
)  # fmt: skip
SMALL_CACHE = ("-o", "cache_size=16M,dirty_limit=4M,writeback_delay=0.3")


@pytest.mark.timeout(max(300, 60 + 60 * ROUNDS))
@pytest.mark.parametrize(
    ("options", "faults", "bulk", "usual"),
    [
        # Few rounds in an ordinary run: each mount costs a second or two of Python's start. A cold one ends each test.
        ((), False, 1, ("kill", "kill_emulator")),
        (SMALL_CACHE, True, 8, ("kill_both",)),
    ],
    ids=["roomy-cache", "small-cache-and-faults"],
)
def test_whatever_dies_nothing_is_lost_and_nothing_made_up(
    tmp_path: Path, options: tuple[str, ...], faults: bool, bulk: int, usual: tuple[str, ...]
) -> None:
    """Writers work while daemon and emulator are killed: after each mount every tree is in a state that it was in since
    its last fsync, byte for byte; a cold mount brings all of it back from Discord; nothing is lost or damaged."""
    random = Random(SEED)
    plan = [random.choice(WEIGHTED) for _ in range(ROUNDS)] if ROUNDS else usual
    with product(tmp_path) as disk:
        torture = Torture(disk, SEED, mount_options=options, faults=faults, writers=3, bulk=bulk)
        torture.begin()
        for action in plan:
            torture.round(action)
        torture.round("end")
