"""Trees of small files, on the local disk, to be copied or looked at."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from bench.shape import KIB

if TYPE_CHECKING:
    from pathlib import Path

    from bench.contents import Contents

MOST_BYTES = 8 * KIB
FAN_OUT = 12
"""How many subdirectories a directory has."""
_SEED = 11


def directory_names(count: int) -> list[str]:
    """`count` directories below one another as in a heap, parents first: the depth of a tree of sources."""
    names: list[str] = []
    for number in range(count):
        parent = f"{names[number // FAN_OUT - 1]}/" if number >= FAN_OUT else ""
        names.append(f"{parent}d{number}")
    return names


def file_sizes(count: int) -> list[int]:
    """Sizes of `count` small files, the same ones each time; half of them are below half of the most."""
    rng = random.Random(_SEED)
    return [rng.randrange(MOST_BYTES + 1) for _ in range(count)]


def make_tree(root: Path, contents: Contents, *, files: int, directories: int) -> int:
    """Make `files` files spread evenly over `directories` directories below `root`; how many bytes they have."""
    names = directory_names(directories)
    for name in names:
        (root / name).mkdir(parents=True)
    sizes = file_sizes(files)
    for number, size in enumerate(sizes):
        (root / names[number % directories] / f"f{number}").write_bytes(contents.piece(12, number, size))
    return sum(sizes)
