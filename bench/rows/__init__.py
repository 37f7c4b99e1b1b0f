"""The rows of the benchmark, one module each; `ROWS` has them in the order of the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.rows import (
    cp_small,
    files_10k,
    listing,
    memory,
    names_uncached,
    random_read,
    read_1g,
    read_16,
    scale,
    scattered,
    seeks,
    sequential,
    stat_p99,
    status,
    write_1g,
)

if TYPE_CHECKING:
    from bench.rows.base import Row

ROWS: tuple[Row, ...] = (
    write_1g.ROW,
    files_10k.ROW,
    scattered.ROW,
    read_1g.ROW,
    random_read.ROW,
    seeks.ROW,
    read_16.ROW,
    stat_p99.ROW,
    status.ROW,
    memory.ROW,
    names_uncached.ROW,
    sequential.ROW,
    listing.ROW,
    cp_small.ROW,
    scale.ROW,
)
