"""Call `async` methods that answer without suspending from code that is not async."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def answer(call: Coroutine[Any, Any, T]) -> T:
    """The result of a call that does not suspend; fails when it does."""
    try:
        call.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    call.close()
    raise AssertionError("the call was suspended")
