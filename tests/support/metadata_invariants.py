"""What must hold between the rows of a volume's metadata while it is not mounted: the product's own questions."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from typing import TYPE_CHECKING

from disfs.metadata.invariants import INVARIANTS, LEFT_BY_A_CRASH, broken, broken_totals, low_counters

if TYPE_CHECKING:
    from pathlib import Path


def faults_of(path: Path) -> list[str]:
    """What does not hold in a volume's metadata, each with the first rows that show it."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as metadata:
        asked = [
            (each.sentence, list(itertools.islice(broken(metadata, each), 3)))
            for each in (*INVARIANTS, LEFT_BY_A_CRASH)
        ]
        asked.append(("a total is not what statfs says", list(broken_totals(metadata))))
        asked.append(("a counter hands out what is in use", list(low_counters(metadata))))
        return [f"{what}: {rows}" for what, rows in asked if rows]
