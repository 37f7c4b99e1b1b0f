"""How much of a message under way the network has taken, as both sides of the bridge see it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from disfs.chunkstore.transport.parts import PIECE_BYTES, PartsPayload, PartsReader
from disfs.chunkstore.transport.taken import TELL_SECONDS, Taken, TakenBytes, Taking

if TYPE_CHECKING:
    import pytest
    from aiohttp.abc import AbstractStreamWriter

SIZE = 3 * PIECE_BYTES


class Writer:
    """A connection that takes everything, a clock that runs while it does so."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def write(self, piece: bytes) -> None:
        self._clock.now += TELL_SECONDS * 0.6


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("disfs.chunkstore.transport.taken.time.monotonic", lambda: self.now)


async def send(reader: PartsReader, writer: AbstractStreamWriter) -> None:
    await PartsPayload(reader).write(writer)


def test_send_tells_how_much_was_taken_and_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of all attachments add up, each tenth of a second at most is told of, and the end is."""
    told: list[object] = []
    taking = Taking("n", told.append)
    clock = Clock(monkeypatch)
    taking.readers = readers = [PartsReader([bytes(SIZE)], on_taken=taking.note) for _ in range(2)]
    for reader in readers:
        asyncio.run(send(reader, Writer(clock)))  # type: ignore[arg-type] # it needs no more than write
        reader.release()
    assert [PIECE_BYTES, 3 * PIECE_BYTES, 5 * PIECE_BYTES] == [
        taken.size_bytes for taken in told if isinstance(taken, Taken)
    ]
    taking.end()
    assert Taken("n", None) == told[-1]


def test_what_was_taken_is_known_until_the_send_is_over() -> None:
    """A send is known by its nonce, one that failed begins anew, and nothing is kept of one that is over."""
    taken = TakenBytes()
    assert 0 == taken.of("a")
    for told in (Taken("a", 10), Taken("b", 7), Taken("a", 3)):
        taken.note(told)
    assert (3, 7) == (taken.of("a"), taken.of("b"))
    taken.note(Taken("a", None))
    taken.note(Taken("c", None))
    assert (0, 7) == (taken.of("a"), taken.of("b"))
