"""Forgets that are put off: none is lost, none comes too late, and nobody is kept from anything by many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from disfs import late_forgets
from disfs.late_forgets import AT_ONCE, DELAY_SECONDS, LateForgets

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


class Handler:
    """Takes down what it was told to forget, and when."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, int]]] = []
        self.seconds: list[float] = []

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """As the handler of forget requests."""
        self.calls.append(list(inode_list))
        self.seconds.append(trio.current_time())


async def test_forgets_are_worked_off_together(autojump_clock: trio.testing.MockClock) -> None:
    """What comes within the delay is worked off in one call, in order, as soon as the delay is over."""
    handler = Handler()
    late = LateForgets(handler.forget)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(late.run)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await late.put_off([(2, 1)])
        await trio.sleep(DELAY_SECONDS / 2)
        await late.put_off([(3, 1), (2, 4)])
        assert [] == handler.calls
        await trio.sleep(DELAY_SECONDS)
        assert [[(2, 1), (3, 1), (2, 4)]] == handler.calls
        assert [began + DELAY_SECONDS] == handler.seconds
        await late.put_off([(5, 1)])
        await trio.sleep(2 * DELAY_SECONDS)
        assert [[(5, 1)]] == handler.calls[1:]
        nursery.cancel_scope.cancel()


async def test_many_forgets_are_worked_off_in_steps(autojump_clock: trio.testing.MockClock) -> None:
    """Between steps other tasks have their turn, and every inode is forgotten once."""
    handler = Handler()
    many = [(number, 1) for number in range(2, 2 + 2 * AT_ONCE + 1)]
    called_at_turn: list[int] = []

    async def take_turn() -> None:
        called_at_turn.append(len(handler.calls))

    async with trio.open_nursery() as nursery:

        async def forget(inode_list: Sequence[tuple[int, int]]) -> None:
            await handler.forget(inode_list)
            nursery.start_soon(take_turn)

        late = LateForgets(forget)
        await late.put_off(many)
        nursery.start_soon(late.run)
        await trio.sleep(2 * DELAY_SECONDS)
        nursery.cancel_scope.cancel()
    assert [AT_ONCE, AT_ONCE, 1] == [len(call) for call in handler.calls]
    assert many == [forgotten for call in handler.calls for forgotten in call]
    assert called_at_turn[0] < 3 == len(called_at_turn)


async def test_more_than_may_wait_are_worked_off_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits has a bound: beyond it a forget is dealt with before it is answered."""
    monkeypatch.setattr(late_forgets, "MOST", 2)
    handler = Handler()
    late = LateForgets(handler.forget)
    await late.put_off([(2, 1), (3, 1)])
    assert [] == handler.calls
    await late.put_off([(4, 1)])
    assert [[(4, 1)]] == handler.calls
