"""What pairs of times say: both sides of a comparison, measured in turn, round by round. Pure.

On a machine that others use too, a mean of one side against a mean of the other compares their luck. A ratio within a
round compares what happened within the same tenths of a second, and the median leaves out the rounds that were hit.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Comparison:
    """How quick the left side is, in units of the right side: 2 is twice as quick."""

    ratio: float
    """The median of the rounds."""
    low: float
    """A quarter of the rounds are below it."""
    high: float
    """A quarter of the rounds are above it."""
    left_seconds: float
    """The median of the left side's rounds."""
    right_seconds: float

    @classmethod
    def of(cls, pairs: Sequence[Sequence[float]]) -> Self:
        """From the seconds (left, right) of at least two rounds."""
        low, middle, high = statistics.quantiles([right / left for left, right in pairs], n=4, method="inclusive")
        return cls(middle, low, high, statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs))

    def rates(self, amount: float, unit: str) -> str:
        """Both sides' rates and the spread, in one line; `amount` is what one round did."""
        return (
            f"{amount / self.left_seconds:.4g} {unit}, the other side {amount / self.right_seconds:.4g}; "
            f"half of the rounds between {self.low:.2f}x and {self.high:.2f}x"
        )
