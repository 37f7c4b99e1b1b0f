"""The matrix as suites."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.suites.base import Suite
from bench.suites.posix import lives, paths, permissions, renames, times
from bench.suites.posix.compare import compared

if TYPE_CHECKING:
    from bench.suites.base import Place, SuiteResult

KNOWN = {
    f"set-ids: {name} by me, {mode}, another's group: the tree": (
        "whether setgid goes from a file that its group cannot run is decided by the kernel, which asks the file"
        " system only about programs"
    )
    for name in permissions.CHANGES
    for mode in ("2745", "6666")
}
CASES = (*paths.CASES, *renames.CASES, *times.CASES, *lives.CASES, *permissions.CASES)


def run(place: Place) -> SuiteResult:
    """Everything."""
    return compared(place, CASES)


SUITES = (Suite("posix", "system calls in all their cases, compared with the local disk", run, known=KNOWN),)
