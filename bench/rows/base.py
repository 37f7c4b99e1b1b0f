"""What a row is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.lab import Lab
    from bench.report import Outcome


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of work with its targets.

    `run` gets a new lab with nothing mounted and the network open, and how much of the work to do: 1 is the work as the
    targets name it. Limits belong to the scaled work; targets that are absolute numbers stay as they are.
    """

    name: str
    work: str
    run: Callable[[Lab, float], Outcome]
