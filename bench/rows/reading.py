"""What the rows share that read cold files."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from bench.contents import PIECE_BYTES
from bench.shape import KIB

if TYPE_CHECKING:
    from pathlib import Path

    from bench.lab import Lab

READ_BYTES = 256 * KIB


class WrongBytesError(Exception):
    """A file did not hold what was written into it."""


def prepare(lab: Lab, sizes: dict[str, int], *options: str) -> None:
    """Write files, each with its place in `sizes` as its seed, over the open network; then make them cold."""
    lab.mount(*options)
    for seed, (name, size) in enumerate(sizes.items()):
        lab.write_file(name, size, seed)
    lab.sync()
    lab.shape_network()
    lab.cold(*options)


def read_file(lab: Lab, path: Path, seed: int) -> float:
    """Read a file from beginning to end as `cp` does, and compare it; the seconds from open to the last byte."""
    began = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        offset = 0
        while data := os.read(descriptor, READ_BYTES):
            start = offset % PIECE_BYTES
            if lab.contents.piece(seed, offset // PIECE_BYTES)[start : start + len(data)] != data:
                raise WrongBytesError(f"{path.name} has wrong bytes between {offset} and {offset + len(data)}")
            offset += len(data)
    finally:
        os.close(descriptor)
    return time.perf_counter() - began


def read_at(lab: Lab, descriptor: int, offset: int, length: int, seed: int) -> float:
    """Read at an offset, and compare; how long the read took, in seconds."""
    began = time.perf_counter()
    data = os.pread(descriptor, length, offset)
    taken = time.perf_counter() - began
    if lab.contents.expected(seed, offset, length) != data:
        raise WrongBytesError(f"wrong bytes between {offset} and {offset + length}")
    return taken
