"""The matrix as suites."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.suites.base import Suite
from bench.suites.posix import limits, lives, paths, permissions, renames, times
from bench.suites.posix.compare import compared

if TYPE_CHECKING:
    from bench.suites.base import Place, SuiteResult

_SETGID = "the kernel decides whether setgid goes from a file that its group cannot run: it takes it from programs only"
_CONTENTS = ("write", "truncate", "truncate to the same", "open to truncate", "chgrp to my second group")
_OWNERS = ("chown to the same", "chown to nobody else", "chown as before")
KNOWN = {
    f"set-ids: {name} by me, {mode}, another's group: the tree": _SETGID
    for mode, names in (("2745", _CONTENTS + _OWNERS), ("6666", _CONTENTS))
    for name in names
}
CASES = (*paths.CASES, *renames.CASES, *times.CASES, *lives.CASES, *permissions.CASES)


QUICK = (
    "odd names", "deep trees", "renames into itself", "renames of one inode", "link counts", "set times",
    "times of new things", "times", "removed files", "replaced files", "removed directories", "odd reads",
    "running programs", "read-only", "set-ids",
)  # fmt: skip


def run(place: Place) -> SuiteResult:
    """Everything but the limits."""
    return compared(place, CASES)


def run_quick(place: Place) -> SuiteResult:
    """What takes seconds."""
    return compared(place, [case for case in CASES if case[0] in QUICK])


def run_limits(place: Place) -> SuiteResult:
    """Tens of thousands of calls for one answer."""
    return compared(place, limits.CASES)


SUITES = (
    Suite("posix", "system calls in all their cases, compared with the local disk", run, known=KNOWN),
    Suite("posix-quick", "some of them", run_quick, known=KNOWN),
    Suite("posix-limits", "limits that take a while to reach", run_limits),
)
