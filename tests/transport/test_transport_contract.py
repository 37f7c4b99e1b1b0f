"""The contract suite on every transport: the fake, the real one, and both below their wrappers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from transport.contract import AdminContract, TransportContract, World
from transport.worlds import bare_world, world_of

from disfs.chunkstore.transport.buckets import Pace
from disfs.chunkstore.transport.faults import FaultyTransport
from disfs.chunkstore.transport.limits import LimitedTransport, Limits
from disfs.chunkstore.transport.memory import MemoryTransport
from disfs.chunkstore.transport.retry import Retries, RetryingTransport
from disfs.chunkstore.transport.stack import open_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.emulator import Emulator

    from disfs.chunkstore.transport.base import Transport

FAST = Limits(Pace(1000, 1), Pace(1000, 1))


def memory_world(memory: MemoryTransport, transport: Transport) -> World:
    """A world around a fake."""

    def set_limit(limit: int) -> None:
        memory.attachment_limit_bytes = limit

    return World(transport, memory, memory.GUILD.guild, memory.add_channel(), set_limit, memory.remove_channel)


class TestMemory(TransportContract, AdminContract):
    """The fake itself."""

    @pytest.fixture
    def world(self) -> World:
        memory = MemoryTransport()
        return memory_world(memory, memory)


class TestMemoryBelowItsWrappers(TransportContract):
    """The wrappers change nothing when nothing fails."""

    @pytest.fixture
    def world(self) -> World:
        memory = MemoryTransport()
        return memory_world(memory, RetryingTransport(LimitedTransport(FaultyTransport(memory), FAST), Retries()))


class TestDiscord(TransportContract, AdminContract):
    """discord.py on the emulator."""

    @pytest.fixture
    async def world(self, emulator: Emulator) -> AsyncIterator[World]:
        async with bare_world(emulator) as world:
            yield world


class TestConnection(TransportContract):
    """What `open_connection` puts together."""

    @pytest.fixture
    async def world(self, emulator: Emulator) -> AsyncIterator[World]:
        async with open_connection(emulator.token, emulator.api_url, limits=FAST) as connection:
            yield await world_of(emulator, connection.transport, connection.admin)
