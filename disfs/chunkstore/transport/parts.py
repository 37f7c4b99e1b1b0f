"""An attachment's parts as something that discord.py and aiohttp can send, without joining or copying them.

Two traps of the libraries are avoided here. `discord.File` hangs a bound method on the file object that it is
given, a reference cycle that keeps a BytesIO's buffer until the next cyclic garbage collection: our reader lets go
of the buffers by itself. And aiohttp reads file objects piecewise in an executor, and without a length when they
have no descriptor: our payload knows its length and hands out views.
"""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, ClassVar

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aiohttp.abc import AbstractStreamWriter

    from disfs.chunkstore.transport.base import Buffer
    from disfs.chunkstore.transport.throttle import Throttle

PIECE_BYTES = 64 * 1024
"""How much is given to the socket at once; more would stall the loop, less would cost calls."""


class PartsReader(io.RawIOBase):
    """The parts one after another, as a seekable file; after `release` it holds nothing and reading is an error."""

    def __init__(
        self,
        parts: Sequence[Buffer],
        throttle: Throttle | None = None,
        on_taken: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.throttle = throttle
        """What whoever sends this has to keep to."""
        self.on_taken = on_taken
        """Called whenever the network has taken another piece: everything up to `tell`."""
        self._parts = tuple(memoryview(part).cast("B").toreadonly() for part in parts)
        self._position = 0
        self._size_bytes = sum(len(part) for part in self._parts)
        self._released = False

    @property
    def size_bytes(self) -> int:
        """How long it is, also after `release`."""
        return self._size_bytes

    def release(self) -> None:
        """Let go of the buffers. An upload that is still running fails, as it must: its caller may reuse them now."""
        self._released = True
        self._parts = ()

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to `offset`, which is kept inside the file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = min(max(base + offset, 0), self._size_bytes)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes from here, all of the rest when it is negative or None."""
        end = self._size_bytes if size is None or size < 0 else min(self._position + size, self._size_bytes)
        pieces = []
        while self._position < end:
            piece = self._next(end - self._position)
            self._position += len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def pieces(self) -> Iterator[memoryview]:
        """Views of everything from here to the end, none longer than PIECE_BYTES nor than the limit would have it."""
        while self._position < self._size_bytes:
            piece = self._next(self.throttle.piece_bytes(PIECE_BYTES) if self.throttle else PIECE_BYTES)
            self._position += len(piece)
            yield piece

    def _next(self, size: int) -> memoryview:
        if self._released:
            raise OSError("the buffers of this upload have been given back")
        start = self._position
        for part in self._parts:
            if start < len(part):
                return part[start : start + size]
            start -= len(part)
        raise AssertionError("unreachable: the caller stays inside the file")


@aiohttp.payload_type(PartsReader)
class PartsPayload(aiohttp.Payload):
    """How aiohttp sends a PartsReader: with its length, in views, and giving up when the other side takes nothing.

    Registered for the type, which is how aiohttp wants to be told; discord.py offers no way to pass a payload in.
    """

    _value: PartsReader
    _autoclose = True  # nothing here needs closing

    STALL_SECONDS: ClassVar[float] = 60.0
    """How long the other side may take no byte. aiohttp's own timeouts do not watch an upload, except for its total
    time, which a slow link needs."""

    @property
    def size(self) -> int:
        """How many bytes will be sent."""
        return self._value.size_bytes

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Asked for by the base class; the contents are bytes, not text."""
        raise TypeError("an attachment is not text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send everything from the start."""
        self._value.seek(0)
        throttle = self._value.throttle
        for piece in self._value.pieces():
            if throttle is not None:
                await throttle.take(len(piece))
            async with asyncio.timeout(self.STALL_SECONDS):
                await writer.write(piece)
            self._value.on_taken()
