"""Random bytes made ahead, so that no row measures their making; every piece can be compared again."""

from __future__ import annotations

import os

from bench.shape import MIB

POOL_BYTES = 64 * MIB
PIECE_BYTES = MIB
_STEP = 104_729
"""A prime, so that pieces begin at ever other places of the pool: no two chunks of a file are the same."""


class Contents:
    """An endless supply of files, each known by a seed, that are incompressible and can be told again."""

    def __init__(self, pool_bytes: int = POOL_BYTES) -> None:
        self._pool = os.urandom(pool_bytes)

    def piece(self, seed: int, index: int, length: int = PIECE_BYTES) -> bytes:
        """The piece number `index` of file `seed`."""
        start = (seed * 7919 + index) * _STEP % (len(self._pool) - length)
        return self._pool[start : start + length]

    def expected(self, seed: int, offset: int, length: int) -> bytes:
        """What a file written in whole pieces has at `offset`."""
        found = bytearray()
        while len(found) < length:
            index, within = divmod(offset + len(found), PIECE_BYTES)
            found += self.piece(seed, index)[within : within + length - len(found)]
        return bytes(found)
