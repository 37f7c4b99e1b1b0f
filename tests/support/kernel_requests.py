"""Requests of the kernel as the handlers of pyfuse3 see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pyfuse3
import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Context:
    """As pyfuse3.RequestContext, which only pyfuse3 can make."""

    pid, uid, gid, umask = 1, 1000, 1001, 0o022


CONTEXT = cast("pyfuse3.RequestContext", Context())


async def errno_of(call: Awaitable[object]) -> int:
    """What a request that has to fail is answered with."""
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await call
    return caught.value.errno
