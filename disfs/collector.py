"""When Python's cyclic garbage collector runs, in a process that answers the kernel from one thread.

A collection stops the whole daemon. Of young objects it takes a tenth of a millisecond, of all objects 25 ms per
million, and Python begins one of all whenever a quarter has been added: with inodes, names and chunks by the hundred
thousand that is often, and finds next to nothing, since those go by reference count. Cycles are made by exceptions and
tasks, and end young. So young objects are collected by count as ever, in portions that are not felt, and
all of them in a moment in which nobody asks for anything. Creating a file costs a third less by it.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_YOUNG = 10_000
"""New containers after which the youngest are looked through."""
_YOUNG_ROUNDS = 3
"""How many of these rounds before those that outlived one are looked through too: together less than a millisecond."""
_NEVER = 1_000_000_000
INTERVAL_SECONDS = 300.0
QUIET_SECONDS = 1.0
PATIENCE = 10
"""So many times a quiet moment is waited for; then it is done all the same."""


def keep_collections_short() -> None:
    """From now on, in this process: Python no longer decides to look through all objects."""
    gc.collect()
    gc.freeze()  # modules and classes: they stay
    gc.set_threshold(_YOUNG, _YOUNG_ROUNDS, _NEVER)


async def collect_when_quiet(request_count: Callable[[], int], collect: Callable[[], object] = gc.collect) -> None:
    """Look through all objects every few minutes, when the kernel has been quiet for a second; until cancelled."""
    while True:
        await trio.sleep(INTERVAL_SECONDS)
        for _ in range(PATIENCE):
            before = request_count()
            await trio.sleep(QUIET_SECONDS)
            if request_count() == before:
                break
        collect()
